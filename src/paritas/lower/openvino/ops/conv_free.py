# SPDX-License-Identifier: Apache-2.0
"""Convolutions as products of matrices: the CPU plugin (2026.4) has no kernel for weights of free sizes.

Nor has it one for whole numbers, which it computes in float32.
"""

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Sizes, Tensor, out, rank_of
from paritas.lower.openvino.ops.matmul import multiplied
from paritas.lower.openvino.ops.move import END


def is_free(emit: Emitter, weight: Tensor) -> bool:
    return not all(isinstance(size, int) for size in emit.sizes(weight))


def convolved_as_product(
    emit: Emitter, x: Tensor, weight: Tensor, stride: Sizes, begins: Sizes, ends: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """The convolution of `x`, [N, C, ..]; begins, ends: how many zeros are around it, ints or i64 scalars."""
    count = rank_of(weight) - 2
    outputs, depth, *kernel = emit.sizes(weight)
    x = _with_zeros(emit, x, begins, ends)
    columns, windows = x, []  # [N, C, k1, o1, k2, o2, ..] in the end
    for axis in range(count):
        size = emit.size(x, axis + 2)
        reach = emit.times(emit.minus(kernel[axis], 1), dilation[axis])
        starts = emit.arange(0, emit.minus(size, reach), stride[axis])
        offsets = emit.arange(0, emit.plus(reach, 1), dilation[axis])
        places = ops.add(ops.unsqueeze(offsets, emit.array([1])), ops.unsqueeze(starts, emit.array([0])))
        columns = out(ops.gather(columns, places, emit.array([2 * axis + 2])))
        windows.append(emit.size(starts, 0))
    order = [0, 1, *(2 * axis + 2 for axis in range(count)), *(2 * axis + 3 for axis in range(count))]
    batch, long = emit.size(x, 0), depth
    for size in kernel:
        long = emit.times(size, long)
    columns = ops.reshape(emit.transpose(columns, order), emit.dims([batch, groups, long, -1]), False)
    each = outputs // groups if isinstance(outputs, int) else -1
    rows = ops.reshape(weight, emit.dims([1, groups, each, long]), False)
    return out(ops.reshape(multiplied(emit, rows, columns), emit.dims([batch, outputs, *windows]), False))


def transposed_as_product(
    emit: Emitter,
    x: Tensor,
    weight: Tensor,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    """The transposed one: a convolution of the picture with zeros in between, by the kernel turned round."""
    count = rank_of(weight) - 2
    inputs, outputs, *kernel = emit.sizes(weight)
    space = list(range(2, count + 2))
    for axis in space:
        weight = emit.slice(weight, -1, -END, axis, -1)
    parts = emit.reshape(weight, [groups, _share(emit, inputs, groups), outputs, *kernel])
    parts = emit.transpose(parts, [0, 2, 1, *(axis + 1 for axis in space)])
    turned = out(
        ops.reshape(parts, emit.dims([emit.times(outputs, groups), _share(emit, inputs, groups), *kernel]), False)
    )
    for axis, step in zip(space, stride, strict=True):
        x = _spread(emit, x, axis, step)
    reach = [emit.times(emit.minus(size, 1), d) for size, d in zip(kernel, dilation, strict=True)]
    ends = [emit.plus(size, more) for size, more in zip(reach, output_padding, strict=True)]
    found = convolved_as_product(emit, x, turned, [1] * count, reach, ends, dilation, groups)
    for axis, pad in zip(space, padding, strict=True):
        if pad:
            found = emit.slice(found, pad, -pad, axis)
    return found


def _share(emit: Emitter, size: int, groups: int) -> int:
    """How many of so many channels are in each group."""
    if isinstance(size, int):
        return size // groups
    return size if groups == 1 else out(ops.divide(size, emit.number(groups)))


def _spread(emit: Emitter, x: Tensor, axis: int, step: int) -> Tensor:
    """`x` with step - 1 zeros between neighbours along an axis."""
    if step == 1:
        return x
    sizes = emit.sizes(x)
    long = emit.unsqueeze(x, axis + 1)
    behind = [step - 1 if a == axis + 1 else 0 for a in range(2, rank_of(long))]
    long = _with_zeros(emit, long, [0] * len(behind), behind)
    merged = emit.reshape(long, [*sizes[:axis], emit.times(sizes[axis], step), *sizes[axis + 1 :]])
    return emit.slice(merged, 0, -(step - 1), axis)


def _with_zeros(emit: Emitter, x: Tensor, begins: Sizes, ends: Sizes) -> Tensor:
    """`x` with zeros around it along its axes of space."""
    if all(isinstance(size, int) and size == 0 for size in (*begins, *ends)):
        return x
    zero = np.array(0, out(x).get_element_type().to_dtype())
    return out(ops.pad(x, emit.dims([0, 0, *begins]), emit.dims([0, 0, *ends]), "constant", zero))
