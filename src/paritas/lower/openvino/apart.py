# SPDX-License-Identifier: Apache-2.0
"""What the CPU plugin must not fuse.

OpenVINO 2026.4 fuses what follows a Reduce into it. Constants that are added to, or multiplied with, what is left of a
tensor of rank 3 along its first or last axis are then those of other elements: `x.mean(-1) + bias`. Such a reduction is
written as that of a matrix, between reshapes, which nothing is fused across.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openvino
import openvino.opset16 as ops

_REDUCTIONS = {
    "ReduceSum": ops.reduce_sum, "ReduceMean": ops.reduce_mean, "ReduceMax": ops.reduce_max,
    "ReduceMin": ops.reduce_min, "ReduceProd": ops.reduce_prod, "ReduceL1": ops.reduce_l1, "ReduceL2": ops.reduce_l2,
}  # fmt: skip

_RANK = 3


def kept_apart(model: openvino.Model) -> None:
    """Rewrites the reductions of `model` that the plugin would fuse wrongly. Names stay on their tensors."""
    for op in list(model.get_ordered_ops()):
        if op.get_type_name() in _REDUCTIONS and (axis := _axis_of(op)) in (0, _RANK - 1):
            keeps = op.get_attributes()["keep_dims"]
            if any(_is_wide(other) for other in _met(op.output(0), axis if keeps else None)):
                _replace(op, axis, keeps)


def _axis_of(op: openvino.Node) -> int | None:
    """The only axis of a reduction of rank 3, from the front."""
    axes = op.input_value(1).get_node()
    rank = op.input_value(0).get_partial_shape().rank
    if (
        rank.is_dynamic
        or rank.get_length() != _RANK
        or axes.get_type_name() != "Constant"
        or axes.data.size != 1
    ):
        return None
    return int(axes.data.reshape(-1)[0]) % _RANK


def _met(output: openvino.Output, kept: int | None) -> Iterator[openvino.Output]:
    """The constants that what is computed of `output`, element by element and in the same shape, meets.

    kept: the reduced axis, where it is there still: with a size of 1 in that shape.
    """
    seen = set()
    queue = [output]
    while queue:
        current = queue.pop()
        for target in current.get_target_inputs():
            user = target.get_node()
            if user.get_name() in seen or user.get_type_name() == "Result" or user.get_output_size() != 1:
                continue
            seen.add(user.get_name())
            shape = user.output(0).get_partial_shape()
            if shape.rank.is_dynamic or shape.rank.get_length() != _RANK - (kept is None):
                continue
            if kept is None or (shape[kept].is_static and shape[kept].get_length() == 1):
                yield from (value for value in user.input_values() if _is_constant(value.get_node()))
                queue.append(user.output(0))


def _is_constant(node: openvino.Node) -> bool:
    """Whether nothing but constants is in it, as far as a few steps tell."""
    for _ in range(4):
        if node.get_type_name() == "Constant":
            return True
        if node.get_input_size() == 0:
            return False
        node = node.input_value(0).get_node()
    return False


def _is_wide(value: openvino.Output) -> bool:
    """Whether it has more than one element."""
    shape = value.get_partial_shape()
    return shape.is_dynamic or int(np.prod([d.get_length() for d in shape])) > 1


def _replace(op: openvino.Node, axis: int, keeps: bool) -> None:
    x = op.input_value(0)
    sizes = ops.shape_of(x, output_type="i64")
    first, second, third = (ops.gather(sizes, np.array([i], np.int64), np.int64(0)) for i in range(_RANK))
    one = np.array([1], np.int64)
    if axis == 0:
        matrix, left = ops.concat([first, ops.multiply(second, third)], 0), [second, third]
    else:
        matrix, left = ops.concat([ops.multiply(first, second), third], 0), [first, second]
    shape = [one, *left] if keeps and axis == 0 else [*left, one] if keeps else left
    reduced = _REDUCTIONS[op.get_type_name()](
        ops.reshape(x, matrix, False), np.array([min(axis, 1)], np.int64), False
    )
    found = ops.reshape(reduced, ops.concat(shape, 0), False)
    output, new = op.output(0), found.output(0)
    new.get_tensor().set_names(output.get_names())
    found.set_friendly_name(op.get_friendly_name())
    op.set_friendly_name(f"{op.get_friendly_name()}/before")
    for target in output.get_target_inputs():
        target.replace_source_output(new)
