# SPDX-License-Identifier: Apache-2.0
"""Weights of fewer bits: a generation reads every weight for every token, so their bytes are its time.

A model's matrices are taken one after the other out of what holds them, the checkpoint's files if they are large, and
go, rounded, into a file: see `spool`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import torch

from paritas import details
from paritas.capture import stored
from paritas.lower.openvino.quantise import Quantised, Scheme, packed, quantised
from paritas.lower.openvino.spool import Spool
from paritas.options import parsed_weights
from paritas.program import Note

#: What may be asked for.
SCHEMES = {"int8": Scheme(8), "int4": Scheme(4, 128)}
#: Stored in half precision, and computed in the precision of the port.
HALVES = {"bf16": openvino.Type.bf16, "fp16": openvino.Type.f16}
_TORCH = {openvino.Type.bf16: torch.bfloat16, openvino.Type.f16: torch.float16, openvino.Type.f32: torch.float32}

#: Of what is rounded to 4 bits otherwise: tables, the last matrix, and rows that groups do not divide.
_BACKUP = Scheme(8)

#: What rotates by positions is no weight, however much it looks like one.
_ANGLES = ("Sin", "Cos")
_ON_THE_WAY = ("Transpose", "Concat", "Reshape", "Unsqueeze", "Multiply", "Convert")


@dataclasses.dataclass
class _Weight:
    """A constant, and the first operator that multiplies with it or looks rows up in it."""

    constant: openvino.Node
    user: openvino.Node
    reduced: tuple[int, ...]  # the axes over which is summed; of a table, all but the first

    @property
    def is_product(self) -> bool:
        return bool(self.user.get_type_name() == "MatMul")


def compress(model: openvino.Model, weights: str, spool: Spool) -> tuple[Note, list[str]]:
    """Put the weights of `model`'s products and tables in fewer bits.

    Nothing is calibrated and nothing trained: each weight is rounded, as NNCF's `compress_weights` does it without
    data. What that costs is for `verify` to say. Returns what to tell of it, and what to `mark` in the model's file.
    """
    found, last_is_shared = _weights(model)
    if weights in HALVES:
        return _halved(found, weights, spool)
    asked = parsed_weights(weights)
    usual = SCHEMES[asked.format]
    group = usual.group if asked.group_size is None else max(asked.group_size, 0)
    scheme = Scheme(usual.bits, group, asked.symmetric)
    products = [weight for weight in found if weight.is_product]
    fine = set[str]()
    if scheme.bits == 4 and not last_is_shared:
        products = products[:-1]
    if scheme.bits == 4:
        fine = {w.constant.get_name() for w in products if scheme.fits(_size(w))}
    fitting = 0
    for number, weight in enumerate(found):
        details.tell(f"weight {number + 1} of {len(found)}")
        is_fine = scheme.bits == 8 or weight.constant.get_name() in fine
        fitting += is_fine
        value = _value(weight.constant)
        rounded = quantised(value, weight.reduced, scheme if is_fine else _BACKUP)
        _replace(weight.constant, rounded, scheme if is_fine else _BACKUP, tuple(value.shape), spool)
        stored.drop(value)
    model.validate_nodes_and_infer_types()
    rest = "" if fitting == len(found) else f", 8 bits in {len(found) - fitting} others, as tables and the last matrix"
    return Note("lower", f"weights are {weights}: {scheme}{rest}. The port is not the original any more"), []


def half_constants(model: openvino.Model) -> set[str]:
    """Names of constants that are in half precision because the checkpoint is."""
    return {n.get_friendly_name() for n in model.get_ops() if _is_half(n)}


def widened(model: openvino.Model, names: Collection[str], spool: Spool) -> None:
    """Constants of these names, as far as they are still there, become float32: what a port's file holds."""
    for node in model.get_ordered_ops() if names else ():
        if _is_half(node) and node.get_friendly_name() in names:
            value = _value(node)
            wide = _constant(spool.add(value.float().numpy()), openvino.Type.f32, value.shape, spool)
            _instead_of(node, wide.output(0))
            stored.drop(value)


def _weights(model: openvino.Model) -> tuple[list[_Weight], bool]:
    """Every weight once, in the order of their first use; and whether the last one had been used before."""
    found: dict[str, _Weight] = {}
    repeated = False
    for node in model.get_ordered_ops():
        for port, constant in _constants_of(node):
            if repeated := constant.get_name() in found:
                continue
            axes = _reduced(node, port, len(constant.get_output_shape(0)))
            if axes is not None:
                found[constant.get_name()] = _Weight(constant, node, axes)
    return list(found.values()), repeated


def _constants_of(node: openvino.Node) -> Iterator[tuple[int, openvino.Node]]:
    """The places at which an operator has a float constant with rows, where it may have a weight."""
    kind = node.get_type_name()
    ports = {"MatMul": (0, 1), "Gather": (0,)}.get(kind, (1,) if "Convolution" in kind else ())
    for port in ports:
        source = node.input_value(port).get_node()
        if source.get_type_name() == "Convert":
            source = source.input_value(0).get_node()
        if (
            _is_constant(source)
            and source.get_element_type() in _TORCH
            and len(source.get_output_shape(0)) > 1
            and not (kind == "MatMul" and _makes_angles(node))
        ):
            yield port, source


def _reduced(node: openvino.Node, port: int, rank: int) -> tuple[int, ...] | None:
    """The axes of a weight that its operator sums over."""
    kind = node.get_type_name()
    if kind == "Gather":
        return tuple(range(1, rank))
    if kind == "MatMul":
        transposed = node.get_attributes()["transpose_b" if port else "transpose_a"]
        return (rank - 1 if transposed == bool(port) else rank - 2,)
    if kind == "GroupConvolution" or kind == "GroupConvolutionBackpropData":
        kept = {0, 2 if kind.endswith("Data") else 1}
    else:
        kept = {1 if kind.endswith("Data") else 0}
    return tuple(axis for axis in range(rank) if axis not in kept)


def _makes_angles(node: openvino.Node) -> bool:
    queue, seen = [node], 0
    while queue and seen < 16:
        seen += 1
        for target in queue.pop().output(0).get_target_inputs():
            user = target.get_node()
            if user.get_type_name() in _ANGLES:
                return True
            if user.get_type_name() in _ON_THE_WAY:
                queue.append(user)
    return False


def _is_constant(node: openvino.Node) -> bool:
    return bool(node.get_type_name() == "Constant")


def _is_half(node: openvino.Node) -> bool:
    return _is_constant(node) and node.get_element_type() in HALVES.values()


def _size(weight: _Weight) -> int:
    """How many numbers share a scale where there are no groups."""
    shape = weight.constant.get_output_shape(0)
    return math.prod(shape[axis] for axis in weight.reduced)


def _value(constant: Any) -> torch.Tensor:
    """A constant's numbers as a tensor that shares its memory."""
    kind, shape = _TORCH[constant.get_element_type()], constant.get_output_shape(0)
    view = constant.data
    # torch warns of arrays that must not be written to, which these are not.
    raw = (ctypes.c_uint8 * view.nbytes).from_address(view.ctypes.data)
    return torch.frombuffer(raw, dtype=kind).reshape(list(shape))


def _constant(array: np.ndarray, kind: openvino.Type, shape: Sequence[int], spool: Spool) -> openvino.Node:
    """A constant over `array`'s memory, which lives as long as the spool."""
    spool.held.append(array)
    tensor = openvino.Tensor(array, openvino.Shape(list(shape)), kind)
    made: openvino.Node = ops.constant(tensor, shared_memory=True)
    return made


def _replace(constant: openvino.Node, found: Quantised, scheme: Scheme, shape: tuple[int, ...], spool: Spool) -> None:
    """The form that OpenVINO's plugins keep as it is: whole numbers, less a zero point, times a scale, as float32."""

    def whole(numbers: torch.Tensor) -> openvino.Node:
        sign = "i" if numbers.dtype is torch.int8 else "u"
        kind = getattr(openvino.Type, f"{sign}{scheme.bits}")
        held = packed(numbers) if scheme.bits == 4 else numbers
        return ops.convert(_constant(spool.add(held.numpy()), kind, numbers.shape, spool), "f16")

    value = whole(found.numbers)
    if found.zero is not None:
        value = ops.subtract(value, whole(found.zero))
    scale = ops.constant(found.scale.numpy().astype(np.float16))
    value = ops.multiply(value, scale)
    if scheme.group:
        value = ops.reshape(value, ops.constant(np.array(shape, np.int64)), special_zero=False)
    _instead_of(constant, ops.convert(value, "f32").output(0))


def _instead_of(constant: openvino.Node, value: openvino.Output) -> None:
    """`value`, float32, where a constant or its cast to float32 was read, with the names that it had."""
    value.get_node().set_friendly_name(constant.get_friendly_name())
    for target in constant.output(0).get_target_inputs():
        user = target.get_node()
        if user.get_type_name() == "Convert" and user.get_element_type() == openvino.Type.f32:
            for place in user.output(0).get_target_inputs():
                place.replace_source_output(value)
        else:
            target.replace_source_output(value)


def _halved(found: Sequence[_Weight], weights: str, spool: Spool) -> tuple[Note, list[str]]:
    kind, names = HALVES[weights], []
    exact = 0
    for number, weight in enumerate(found):
        details.tell(f"weight {number + 1} of {len(found)}")
        value = _value(weight.constant)
        half = value.to(_TORCH[kind])
        exact += half.dtype == value.dtype or torch.equal(half.to(value.dtype), value)
        held = stored.halves(half.contiguous())
        made = _constant(held if half is value else spool.add(held), kind, value.shape, spool)
        wide = ops.convert(made, "f32")
        _instead_of(weight.constant, wide.output(0))
        names.append(wide.get_friendly_name())
        stored.drop(value)
    rounded = len(found) - exact
    cost = f"{rounded} of {len(found)} are rounded to it" if rounded else "which holds them exactly"
    return Note("lower", f"weights are stored as {weights}, {cost}; what is computed of them is as without"), names


def mark(xml: Path, names: Collection[str]) -> None:
    """Say in a model's file that these casts make weights of what is stored: plugins then keep it as it is stored."""
    if not names:
        return
    wanted = set(names)

    def marked(found: re.Match[str]) -> str:
        said = '<rt_info><attribute name="decompression" version="0" /></rt_info>'
        return found[0] + said if found[1] in wanted else found[0]

    text = xml.read_text(encoding="utf-8")
    pattern = r'<layer id="\d+" name="([^"]*)" type="Convert"[^>]*>\s*<data [^>]*/>'
    xml.write_text(re.sub(pattern, marked, text), encoding="utf-8")
