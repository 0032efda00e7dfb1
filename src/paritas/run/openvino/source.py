# SPDX-License-Identifier: Apache-2.0
"""An OpenVINO model written out as Python: one call per operator, for a script that runs without Paritas."""

from __future__ import annotations

import dataclasses
import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

from paritas.errors import LoweringError

#: Constants of at most this many elements are written into the source.
_INLINE = 8

#: Element types that NumPy has too.
_PLAIN = {"f64", "f32", "f16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "boolean"}


@dataclasses.dataclass(frozen=True)
class Source:
    """lines: statements that make `inputs` and the list `results`; they use `make`, `ops` and `constant`.

    inputs: (variable, its tensor's names in the model, NumPy dtype). outputs: the names of each result's tensor.
    """

    lines: tuple[str, ...]
    inputs: tuple[tuple[str, frozenset[str], str], ...]
    outputs: tuple[frozenset[str], ...]
    constants: dict[str, np.ndarray]  # what `constant(name)` stands for


def source_of(model: openvino.Model, identifier: Callable[[str], str]) -> Source:
    """`model` as source. identifier: a name -> a new variable.

    Raises `LoweringError` for what no call expresses: graphs inside, operators outside the opsets, types that NumPy
    does not have.
    """
    lines: list[str] = []
    variables: dict[str, str] = {}
    constants: dict[str, np.ndarray] = {}
    inputs: list[tuple[str, frozenset[str], str]] = []
    results: list[str] = []
    outputs: list[frozenset[str]] = []

    def read(value: openvino.Output) -> str:
        variable = variables[value.get_node().get_name()]
        return variable if value.get_node().get_output_size() == 1 else f"{variable}.output({value.get_index()})"

    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        if kind == "Result":
            continue
        label = op.get_friendly_name() + ("_input" if kind == "Parameter" else "")
        variable = variables[op.get_name()] = identifier(label)
        if kind == "Parameter":
            element = _type(op.output(0))
            shape = re.sub(r"[^0-9?.,\[\]]", "", str(op.get_partial_shape()))
            lines.append(
                f"{variable} = ops.parameter(openvino.PartialShape({shape!r}), openvino.Type.{element}, {variable!r})"
            )
            dtype = op.output(0).get_element_type().to_dtype()
            inputs.append((variable, frozenset(op.output(0).get_names()), np.dtype(dtype).name))
        elif kind == "Constant":
            lines.append(f"{variable} = {_constant(op, variable, constants)}")
        else:
            arguments = ", ".join(map(read, op.input_values()))
            given = "".join(f", {_keyword(n)}={_attribute(v, kind)}" for n, v in op.get_attributes().items())
            lines.append(f"{variable} = make({_kind(op)!r}, [{arguments}]{given})")
    for result in model.get_results():
        value = result.input_value(0)
        results.append(read(value))
        outputs.append(frozenset(value.get_names()))
    lines.append(f"results = [{', '.join(results)}]")
    return Source(tuple(lines), tuple(inputs), tuple(outputs), constants)


def _constant(op: Any, variable: str, constants: dict[str, np.ndarray]) -> str:
    element = _type(op.output(0))
    value = np.array(op.get_data())
    if value.size <= _INLINE and np.isfinite(value.astype(np.float64)).all():
        return f"ops.constant(np.array({value.tolist()!r}, np.{value.dtype.name.replace('bool', 'bool_')}))"
    if element == "boolean":
        value = value.astype(bool)
    constants[variable] = value
    return f"constant({variable!r})"


def _type(value: openvino.Output) -> str:
    element = str(value.get_element_type().to_string())
    if element not in _PLAIN:
        raise LoweringError(f"a tensor of type {element} has no spelling in NumPy")
    return element


def _kind(op: openvino.Node) -> str:
    opset = str(op.get_type_info().version_id)
    if not re.fullmatch(r"opset\d+", opset) or op.get_type_name() in ("Loop", "TensorIterator", "If"):
        raise LoweringError(f"{op.get_type_name()} of {opset or 'no opset'} is no call of an opset's")
    return f"{opset}.{op.get_type_name()}"


def _keyword(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name) or name in ("kind", "inputs"):
        raise LoweringError(f"an attribute is called {name!r}")
    return name


def _attribute(value: Any, kind: str) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_attribute(item, kind) for item in value)}]"
    if isinstance(value, float) and not np.isfinite(value):
        return f"float({str(value)!r})"
    if not isinstance(value, (bool, int, float, str)):
        raise LoweringError(f"an attribute of {kind} is a {type(value).__name__}")
    return repr(value)
