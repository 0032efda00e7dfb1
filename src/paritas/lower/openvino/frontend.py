# SPDX-License-Identifier: Apache-2.0
"""From a prepared graph to an `openvino.Model`: the only file that touches OpenVINO's PyTorch frontend and
the OpenVINO exporter of transformers, which knows many of the frontend's gaps.

Both are private to their packages; whatever their next version moves is mended here.
"""

from __future__ import annotations

import contextlib
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from transformers.exporters import exporter_openvino, utils

from paritas.errors import LoweringError
from paritas.lower.openvino import prepare
from paritas.lower.openvino.prepare import Prepared
from paritas.lower.openvino.rewrite import rewrite
from paritas.program import TensorSpec

#: Operators that the frontend of OpenVINO 2026.4 is known not to have; others are found by trying. It has eye.m,
#: and makes integers of it whatever the dtype; and softplus, whose kernel is 7e-5 off.
_unknown = {
    f"aten.{name}"
    for name in ("conv1d.default", "conv2d.default", "conv3d.default", "eye.m", "softplus.default")
}


def convert(prepared: Prepared, inputs: Sequence[TensorSpec]) -> openvino.Model:
    """The model: one parameter per placeholder that is used, named after it; one output per tap.

    The weights are shared with `prepared.module`, which must outlive the model, and which is changed on the
    way. Raises `LoweringError` with the frontend's reason.
    """
    module = prepared.module
    utils.apply_fx_program_fixes("openvino", types.SimpleNamespace(graph_module=module))
    utils.apply_fx_node_fixes("openvino", module)
    prepare.decompose(module, _unknown)
    while True:
        rewrite(module)  # again: decompositions are made of the same operators
        try:
            model = _translate(module, inputs)
            break
        except Exception as error:
            missing = _missing(error)
            if not missing or not prepare.decompose(module, missing):
                raise LoweringError(f"OpenVINO cannot convert this model: {_reason(error)}") from error
            _unknown.update(missing)
    exporter_openvino._use_numpy_broadcasts(model)
    return model


def _translate(module: torch.fx.GraphModule, inputs: Sequence[TensorSpec]) -> openvino.Model:
    # Not `openvino.convert_model`: it also optimises, which the engine does again when it compiles the
    # model, and reports each conversion over the network.
    decoder = TorchFXPythonDecoder(
        module,
        input_shapes=[[int(size) if str(size).isdigit() else -1 for size in spec.dims] for spec in inputs],
        input_types=["torch.float32" if "float" in spec.dtype else f"torch.{spec.dtype}" for spec in inputs],
    )
    decoder._input_signature = [node.name for node in module.graph.find_nodes(op="placeholder")]
    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in _extensions():
        frontend.add_extension(extension)
    return frontend.convert(frontend.load(decoder))


@contextlib.contextmanager
def rewritten_operators() -> Iterator[None]:
    """While it is open, torch's operators that the frontend cannot convert are made of those that it can.

    Attention stays as it is: the exporter's gives a row that attends to nothing the mean, torch gives it 0.
    """
    patches = [
        (owner, attribute, factory)
        for path, attribute, factory in utils._PATCHES["openvino"]
        if attribute != "scaled_dot_product_attention"
        and (owner := utils.import_dotted_path(path, missing_ok=True)) is not None
    ]
    with utils.patch_attributes(patches):
        yield


def _missing(error: Exception) -> set[str]:
    """The operators for which the frontend says that it has no rule."""
    said = re.findall("No conversion rule.*", str(error))
    return set(re.findall(r"aten\.\w+\.\w+", " ".join(said)))


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith("--") or "No conversion rule" in line]
    return " ".join(told or lines[-1:])[:600] or type(error).__name__


# --- translations: each takes the frontend's context and returns the operator's outputs ----------------


def _number(context: Any, index: int) -> Any:
    value = context.get_values_from_const_input(index)
    return value[0] if isinstance(value, list) else value


def _tap(context: Any) -> list[openvino.Output]:
    return [ops.identity(context.get_input(0)).output(0)]


def _attention(context: Any) -> list[openvino.Output]:
    query, key, value = (context.get_input(i) for i in range(3))
    scale, causal = float(_number(context, 3)), bool(_number(context, 4))
    mask = context.get_input(5) if context.get_input_size() > 5 else None
    if mask is None:  # where there is a scale there must be a mask: this one is added to every score
        mask = ops.constant(np.zeros((1, 1), np.float32))
    factor = ops.constant(np.float32(scale))
    return [ops.scaled_dot_product_attention(query, key, value, mask, factor, causal).output(0)]


def _finite_mask(context: Any) -> list[openvino.Output]:
    mask = context.get_input(0)
    smallest = ops.constant(np.float32(prepare.SMALLEST))
    if mask.get_element_type() == openvino.Type.boolean:
        return [ops.select(mask, ops.constant(np.float32(0)), smallest).output(0)]
    return [ops.maximum(mask, smallest).output(0)]


def _attended_rows(context: Any) -> list[openvino.Output]:
    mask = context.get_input(0)
    if mask.get_element_type() != openvino.Type.boolean:
        # Compared before it is reduced: the CPU's maximum of nothing but -inf is the smallest float instead.
        mask = ops.greater(mask, ops.constant(np.float32(-np.inf)))
    ones = ops.select(mask, ops.constant(np.float32(1)), ops.constant(np.float32(0)))
    return [ops.reduce_max(ones, ops.constant(np.array([-1], np.int64)), True).output(0)]


def _logical(op: Callable[..., Any], bitwise: Callable[..., Any]) -> Callable[[Any], list[openvino.Output]]:
    def translate(context: Any) -> list[openvino.Output]:
        left, right = context.get_input(0), context.get_input(1)
        is_bool = left.get_element_type() == openvino.Type.boolean
        return [(op if is_bool else bitwise)(left, right).output(0)]

    return translate


def _layer_norm(context: Any) -> list[openvino.Output]:
    data = context.get_input(0)
    shape = context.get_values_from_const_input(1)
    axes = np.arange(-(len(shape) if hasattr(shape, "__len__") else 1), 0, dtype=np.int64)
    eps = float(_number(context, 4)) if context.get_input_size() > 4 else 1e-5
    result = ops.mvn(data, ops.constant(axes), True, eps, "inside_sqrt")
    for index, op in ((2, ops.multiply), (3, ops.add)):
        if context.get_input_size() > index and not _is_none(context.get_input(index)):
            result = op(result, context.get_input(index))
    return [result.output(0)]


def _is_none(value: openvino.Output) -> bool:
    return value.get_node().get_type_name() == "PtFrameworkNode"


def _extensions() -> list[ConversionExtension]:
    ours: dict[Any, Callable[[Any], list[openvino.Output]]] = {
        prepare.tap: _tap,
        prepare.attention: _attention,
        prepare.finite_mask: _finite_mask,
        prepare.attended_rows: _attended_rows,
        "aten.layer_norm.default": _layer_norm,
        "aten.__and__.Tensor": _logical(ops.logical_and, ops.bitwise_and),
        "aten.__or__.Tensor": _logical(ops.logical_or, ops.bitwise_or),
        "aten.__xor__.Tensor": _logical(ops.logical_xor, ops.bitwise_xor),
    }
    theirs = exporter_openvino._OV_CONVERSION_EXTENSIONS
    return [*theirs, *(ConversionExtension(str(target), translate) for target, translate in ours.items())]
