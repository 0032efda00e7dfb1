# SPDX-License-Identifier: Apache-2.0
"""Pooling over windows."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, out, rank_of
from paritas.lower.openvino.integers import division_of_sizes, floor_division
from paritas.lower.openvino.ops.conv import each
from paritas.lower.openvino.ops.move import padded
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


def _batched(emit: Emitter, x: Tensor, count: int) -> tuple[Tensor | bool, Tensor | bool]:
    single = rank_of(x) == count + 1
    return (emit.unsqueeze(x, 0) if single else x), single


@lowers("aten.max_pool1d.default", count=1)
@lowers("aten.max_pool2d.default", count=2)
@lowers("aten.max_pool3d.default", count=3)
def maxima(
    emit: Emitter,
    self: Tensor,
    count: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Tensor:
    values, _ = max_pooled(emit, self, count, kernel_size, stride, padding, dilation, ceil_mode)
    return values


@lowers("aten.max_pool1d_with_indices.default", count=1, x=Arg("self"), kernel=Arg("kernel_size"))
@lowers("aten.max_pool2d_with_indices.default", count=2, x=Arg("self"), kernel=Arg("kernel_size"))
@lowers("aten.max_pool3d_with_indices.default", count=3, x=Arg("self"), kernel=Arg("kernel_size"))
def max_pooled(
    emit: Emitter, x: Tensor, count: int, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> list[Tensor]:
    """(the largest of each window, its place in the flat picture)."""
    x, single = _batched(emit, x, count)
    kernel = each(kernel, count)
    stride = each(stride, count) if stride else kernel
    padding, dilation = each(padding, count), each(dilation, count)
    windows = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sizes = emit.sizes(x)[2:]
    # The plugin refuses pictures that are smaller than a window, which torch in ceil mode does not. What it pads whole
    # numbers with is no smaller than they are, so that these are left to it.
    if (
        ceil_mode
        and emit.dtype_of(x).is_floating_point
        and not all(
            isinstance(size, int) and size + 2 * pad >= window
            for size, pad, window in zip(sizes, padding, windows, strict=True)
        )
    ):
        values, places = _overhanging(emit, x, kernel, stride, padding, dilation, windows)
    else:
        rounding = "ceil_torch" if ceil_mode else "floor"
        found = ops.max_pool(x, stride, dilation, padding, padding, kernel, rounding, None, "i64", 2)
        values, places = found.output(0), found.output(1)
    if single:
        values, places = emit.squeeze(values, 0), emit.squeeze(places, 0)
    return [values, places]


def _overhanging(
    emit: Emitter, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, windows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The same in ceil mode, of a picture with room behind it for the last windows."""
    count, sizes = len(kernel), emit.sizes(x)[2:]
    rooms = [window + step for window, step in zip(windows, stride, strict=True)]
    pairs = [pad for axis in reversed(range(count)) for pad in (padding[axis], rooms[axis])]
    wide = padded(emit, x, pairs, "constant", -np.inf)
    none = [0] * count
    found = ops.max_pool(wide, stride, dilation, none, none, kernel, "floor", None, "i64", 2)
    values, flat = found.output(0), found.output(1)
    for axis in range(count):
        last = last_window(emit, sizes[axis], windows[axis], stride[axis], padding[axis])
        values, flat = (emit.slice(v, 0, emit.plus(last, 1), axis + 2) for v in (values, flat))
    # A place in the wide picture, taken apart and put together as one in the picture itself.
    places, below = None, 1
    for axis in reversed(range(count)):
        flat, along = division_of_sizes(flat, emit.number(emit.size(wide, axis + 2)))
        along = ops.multiply(ops.subtract(along, np.int64(padding[axis])), emit.number(below))
        places = along if places is None else ops.add(places, along)
        below = emit.times(sizes[axis], below)
    return out(values), out(places)


def averaged(
    x: Tensor,
    step: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
    kernel: Sizes,
    exclude_pad: bool,
    rounding: str,
) -> Tensor:
    """The mean of each window. Without dilations, OpenVINO 2026.4 crashes the process when it compiles the model."""
    ones = [1] * len(kernel)
    return ops.avg_pool(x, step, begins, ends, kernel, exclude_pad, rounding, dilations=ones)


def divided_sums(
    emit: Emitter,
    x: Tensor,
    kernel: Sizes,
    step: Sequence[int],
    pads: Sequence[int],
    ceil_mode: bool,
    divisor: int | None,
) -> Tensor:
    """The sums of windows, zeros around, by one number or, without it, by how much lies within edge and padding."""
    rank, ends = len(kernel), list(pads)
    counts, wanted = [], {}
    for axis, (k, s, p) in enumerate(zip(kernel, step, pads, strict=True)):
        if not ceil_mode:
            continue
        size = emit.size(x, axis + 2)
        last = last_window(emit, size, k, s, p)
        starts = emit.times(emit.arange(0, emit.plus(last, 1)), s)
        inside = ops.subtract(ops.minimum(ops.add(starts, np.int64(k)), emit.number(emit.plus(size, 2 * p))), starts)
        inside = ops.convert(inside, "f32")
        counts.append(emit.unsqueeze(inside, *range(1, rank - axis)) if axis + 1 < rank else inside)
        ends[axis] = p + k + s  # enough; the windows that are too many are cut off
        wanted[axis + 2] = emit.plus(last, 1)
    pairs = [pad for before, after in reversed(list(zip(pads, ends, strict=True))) for pad in (before, after)]
    wide = padded(emit, x, pairs, "constant", 0) if any(pairs) else x
    none = [0] * rank
    found = averaged(wide, step, none, none, kernel, False, "floor")
    for axis, windows in wanted.items():
        found = emit.slice(found, 0, windows, axis)
    found = ops.multiply(found, np.float32(np.prod(kernel)))
    for count in counts if divisor is None else [np.float32(divisor)]:
        found = ops.divide(found, count)
    return found


#: Bits of a whole number that are averaged at a time, so that float32 holds the sums of windows of 2^12 elements.
_BITS = 11


def mean_of_whole(x: Tensor, mean: Any, count: Any) -> Any:
    """The means of whole numbers, cut off: the parts of each are averaged by themselves, and divided by hand.

    mean: of floats. count: by how much the sums of the windows are divided, f32.
    """
    kind = out(x).get_element_type()
    number = functools.partial(np.array, dtype=kind.to_dtype())
    whole = functools.partial(ops.convert, destination_type=kind.to_string())
    divisor = whole(ops.round(count, "half_to_even"))
    found, rest = number(0), number(0)
    for place in (2, 1, 0):
        part = ops.bitwise_right_shift(x, number(_BITS * place)) if place else x
        if place < 2:
            part = ops.bitwise_and(part, number(2**_BITS - 1))
        total = whole(ops.round(ops.multiply(mean(ops.convert(part, "f32")), count), "half_to_even"))
        quotient, rest = floor_division(ops.add(ops.multiply(rest, number(2**_BITS)), total), divisor)
        found = ops.add(ops.multiply(found, number(2**_BITS)), quotient)
    cut = ops.logical_and(ops.less(found, number(0)), ops.not_equal(rest, number(0)))
    return ops.add(found, whole(cut))


def last_window(emit: Emitter, size: Size, kernel: int, step: int, padding: int) -> Size:
    """The number of the last window in ceil mode: it begins within the picture or the padding before it."""
    room = emit.plus(size, 2 * padding - kernel + step - 1)
    if isinstance(room, int):
        last = room // step
        return last - (last * step >= size + padding)
    last = division_of_sizes(room, np.int64(step))[0]
    late = ops.greater_equal(emit.times(last, step), emit.plus(size, padding))
    return out(ops.subtract(last, ops.convert(late, "i64")))


@lowers("aten.avg_pool1d.default", count=1)
@lowers("aten.avg_pool2d.default", count=2)
@lowers("aten.avg_pool3d.default", count=3)
def mean_pooled(
    emit: Emitter,
    self: Tensor,
    count: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    x, single = _batched(emit, self, count)
    kernel = each(kernel_size, count)
    step = each(stride, count) if stride else kernel
    pads = each(padding, count)

    def mean(x: Tensor) -> Tensor:
        if divisor_override is not None or (ceil_mode and count_include_pad and any(pads)):
            return divided_sums(emit, x, kernel, step, pads, ceil_mode, divisor_override)
        rounding = "ceil_torch" if ceil_mode else "floor"
        # What lies beyond the edge never counts, in torch.
        inside = not count_include_pad or ceil_mode
        return averaged(x, step, pads, pads, kernel, inside, rounding)

    if emit.dtype.is_floating_point:
        found = mean(x)
    else:
        whole, emit = emit, emit.of_floats()
        ones = emit.full(emit.sizes(x), 1.0, torch.float32)
        divisor = ops.divide(divided_sums(emit, ones, kernel, step, pads, ceil_mode, 1), mean(ones))
        found = whole.result(mean_of_whole(whole.wide(x, whole.dtype), mean, divisor))
    return emit.squeeze(found, 0) if single else found


@lowers("aten.adaptive_avg_pool1d.default", count=1)
@lowers("aten.adaptive_avg_pool2d.default", count=2)
@lowers("aten.adaptive_avg_pool3d.default", count=3)
def adaptive_means(emit: Emitter, self: Tensor, count: int, output_size: Sizes) -> Tensor:
    rank = rank_of(self)
    wanted, own = each(output_size, count), emit.sizes(self)[rank - count :]
    if all(size == 1 for size in wanted):
        return ops.reduce_mean(self, emit.array(range(rank - count, rank)), True)
    x, single = _batched(emit, self, count)
    if all(isinstance(a, int) and isinstance(b, int) and a % b == 0 for a, b in zip(own, wanted, strict=True)):
        kernel = [a // b for a, b in zip(own, wanted, strict=True)]
        found = averaged(x, kernel, [0] * count, [0] * count, kernel, False, "floor")
    else:
        found = ops.adaptive_avg_pool(x, emit.dims(wanted))
    return emit.squeeze(found, 0) if single else found
