# SPDX-License-Identifier: Apache-2.0
"""What the CPU plugin must not fuse.

OpenVINO 2026.4 fuses what follows a Reduce into it. Constants that are added to, or multiplied with, what is left of a
tensor of rank 3 along its first or last axis are then those of other elements: `x.mean(-1) + bias`. Such a reduction is
written as that of a matrix, between reshapes, which nothing is fused across.

And what a product of rank 4 or more with a constant matrix meets it takes for numbers of the last axis, though they are
of the second one: such constants are spread over the last axis too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
            if any(_is_wide(value) for value, _ in _met(op.output(0), _shape_left(axis, keeps))):
                _replace(op, axis, keeps)
        if op.get_type_name() == "MatMul" and _is_constant(op.input_value(1).get_node()):
            _spread(op)


def _axis_of(op: openvino.Node) -> int | None:
    """The only axis of a reduction of rank 3, from the front."""
    axes = op.input_value(1).get_node()
    rank = op.input_value(0).get_partial_shape().rank
    if rank.is_dynamic or rank.get_length() != _RANK or axes.get_type_name() != "Constant" or axes.data.size != 1:
        return None
    return int(axes.data.reshape(-1)[0]) % _RANK


def _shape_left(axis: int, keeps: bool) -> Callable[[openvino.PartialShape], bool]:
    """Whether a shape can be that of what such a reduction leaves: with a size of 1 where the axis is kept."""

    def is_left(shape: openvino.PartialShape) -> bool:
        if shape.rank.is_dynamic or shape.rank.get_length() != _RANK - (not keeps):
            return False
        return not keeps or (shape[axis].is_static and shape[axis].get_length() == 1)

    return is_left


def _met(
    output: openvino.Output, is_same: Callable[[openvino.PartialShape], bool]
) -> Iterator[tuple[openvino.Output, openvino.Input]]:
    """The constants that what is computed of `output`, element by element and in the same shape, meets, and where."""
    seen = set()
    queue = [output]
    while queue:
        current = queue.pop()
        for target in current.get_target_inputs():
            user = target.get_node()
            if user.get_name() in seen or user.get_type_name() == "Result" or user.get_output_size() != 1:
                continue
            seen.add(user.get_name())
            if is_same(user.output(0).get_partial_shape()):
                for place in user.inputs():
                    value = place.get_source_output()
                    if _is_constant(value.get_node()):
                        yield value, place
                queue.append(user.output(0))


def _spread(op: openvino.Node) -> None:
    """Constants of one number for each place on the second axis, behind a product: of its last axis' size as well."""
    shape = op.output(0).get_partial_shape()
    if shape.rank.is_dynamic or shape.rank.get_length() < 4 or shape[-1].is_dynamic:
        return
    rank, last = shape.rank.get_length(), shape[-1].get_length()
    for value, place in list(_met(op.output(0), lambda other: other == shape)):
        own = value.get_partial_shape()
        if own.is_dynamic or own.rank.get_length() > rank:
            continue
        sizes = [1] * (rank - own.rank.get_length()) + [d.get_length() for d in own]
        data = _moved(value.get_node())
        if sizes[1] == 1 or any(size != 1 for i, size in enumerate(sizes) if i != 1) or data is None:
            continue
        wide = np.broadcast_to(data.reshape(sizes), [*sizes[:-1], last])
        place.replace_source_output(ops.constant(np.ascontiguousarray(wide)).output(0))


#: Operators that leave the numbers of a constant as they are, where all lie along one axis.
_MOVES = ("Unsqueeze", "Squeeze", "Reshape", "Transpose")


def _moved(node: openvino.Node) -> np.ndarray | None:
    """The numbers of a constant behind such operators."""
    while node.get_type_name() in _MOVES:
        node = node.input_value(0).get_node()
    return np.array(node.data) if node.get_type_name() == "Constant" else None


def _is_constant(node: openvino.Node, steps: int = 4) -> bool:
    """Whether nothing but constants is in it, as far as a few steps tell; looked up rows are not."""
    if node.get_type_name() == "Constant":
        return True
    if node.get_input_size() == 0 or steps == 0:
        return False
    return all(_is_constant(value.get_node(), steps - 1) for value in node.input_values())


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
    reduced = _REDUCTIONS[op.get_type_name()](ops.reshape(x, matrix, False), np.array([min(axis, 1)], np.int64), False)
    found = ops.reshape(reduced, ops.concat(shape, 0), False)
    output, new = op.output(0), found.output(0)
    new.get_tensor().set_names(output.get_names())
    found.set_friendly_name(op.get_friendly_name())
    op.set_friendly_name(f"{op.get_friendly_name()}/before")
    for target in output.get_target_inputs():
        target.replace_source_output(new)
