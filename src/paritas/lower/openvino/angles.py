# SPDX-License-Identifier: Apache-2.0
"""Angles that a model of half precision computes in float32: they are computed so here too.

With a hint of bfloat16 the CPU plugin rounds whatever stands before a matrix product. Of the time of a diffusion's
step, 981.3, times a frequency, whole radians are then missing, and its sine is any number. Operators can be told to
keep float32, as the plugin's own passes tell some. Those that only move numbers do not all listen: they are written as
others that do. Where one is left that does not, nothing is told, since casts to and fro would be all that comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import openvino
import openvino.opset16 as ops

#: What OpenVINO calls the mark of an operator that keeps its precision. It counts in a model that was read from a file.
_MARK = "precise_0"

_ANGLES = ("Sin", "Cos")

_LISTENS = frozenset(
    (
        *_ANGLES, "Add", "Subtract", "Multiply", "Divide", "Power", "Exp", "Negative", "Convert", "Concat", "Reshape",
        "Gather", "Slice",
    )
)  # fmt: skip

_GIVEN = ("Parameter", "Constant")


def keep_angles(model: openvino.Model, halves: Collection[str]) -> None:
    """Mark what the sines and cosines of a model are computed of. halves: the operators, by name, whose results the
    original has in half precision: nothing is marked beyond them. Names stay on their tensors."""
    for op in list(model.get_ordered_ops()):
        if op.get_type_name() in _ANGLES and op.get_friendly_name() not in halves:
            found = _before(op, halves)
            if not all(one.get_type_name() in _LISTENS or _otherwise(one) for one in found):
                continue
            for one in found:
                if (made := _otherwise(one)) is not None:
                    new = made()
                    _put(new, one)
                    one = new
                one.get_rt_info()[_MARK] = ""


def _before(op: openvino.Node, halves: Collection[str]) -> list[openvino.Node]:
    """An operator, and those of floating point that its input is computed of."""
    found: dict[str, openvino.Node] = {}
    left = [op]
    while left:
        one = left.pop()
        is_given = one.get_type_name() in _GIVEN or one.get_output_element_type(0) != openvino.Type.f32
        if one.get_name() not in found and not is_given and one.get_friendly_name() not in halves:
            found[one.get_name()] = one
            left += [value.get_node() for value in one.input_values()]
    return list(found.values())


def _otherwise(op: openvino.Node) -> Callable[[], openvino.Node] | None:
    """What makes the same of an operator's input and listens; None for what has no such form."""
    shape, value = op.get_output_partial_shape(0), op.input_value(0) if op.get_input_size() else None
    if value is None or shape.rank.is_dynamic:
        return None
    if op.get_type_name() in ("Unsqueeze", "Squeeze"):
        sizes = [size.get_length() if size.is_static else -1 for size in shape]
        return (lambda: _reshaped(value, sizes)) if sizes.count(-1) <= 1 and 0 not in sizes else None
    own, target = value.get_partial_shape(), op.input_value(1) if op.get_input_size() > 1 else None
    if op.get_type_name() == "Broadcast" and target is not None and own.is_static:
        lengths = target.get_partial_shape()
        is_whole = lengths.is_static and lengths[0].get_length() == shape.rank.get_length()
        if is_whole and all(size.get_length() == 1 for size in own):
            first = np.array(0, np.int32)
            return lambda: ops.gather(_marked(_reshaped(value, [1])), ops.broadcast(first, target), first)
    return None


def _reshaped(value: openvino.Output, sizes: list[int]) -> openvino.Node:
    return ops.reshape(value, np.array(sizes, np.int64), False)


def _marked(op: openvino.Node) -> openvino.Node:
    op.get_rt_info()[_MARK] = ""
    return op


def _put(new: openvino.Node, old: openvino.Node) -> None:
    """Another operator in the place of one, under its name."""
    name, names = old.get_friendly_name(), old.output(0).get_tensor().get_names()
    for target in old.output(0).get_target_inputs():
        target.replace_source_output(new.output(0))
    old.output(0).get_tensor().set_names(set())
    old.set_friendly_name(f"{name}/before")
    new.output(0).get_tensor().set_names(names)
    new.set_friendly_name(name)
