# SPDX-License-Identifier: Apache-2.0
"""Pictures read at places that another tensor gives, and as columns of their windows."""

from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, out, rank_of
from paritas.lower.openvino.ops.conv import each
from paritas.lower.openvino.ops.move import padded
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg

_MODES = ("bilinear", "nearest", "bicubic")
_BORDERS = ("zeros", "border", "reflection")


@lowers("aten.grid_sampler.default", "aten.grid_sampler_2d.default")
def grid_sampler(
    emit: Emitter, input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    if rank_of(input) == 5:
        return sampled_volume(emit, input, grid, interpolation_mode, padding_mode, align_corners)
    about = {
        "align_corners": bool(align_corners),
        "mode": _MODES[interpolation_mode],
        "padding_mode": _BORDERS[padding_mode],
    }
    return ops.grid_sample(input, finite_places(grid) if padding_mode else grid, about)


def finite_places(grid: Tensor) -> Tensor:
    """Places far outside instead of infinite ones, and the first pixel for what is not a number, as torch has it."""
    found = ops.select(ops.is_nan(grid), np.float32(-1), grid)
    return ops.minimum(ops.maximum(found, np.float32(-FAR)), np.float32(FAR))


#: Far outside of any picture, and as a pixel's number still within 32 bits.
FAR = 1e5


@lowers(
    "aten.grid_sampler_3d.default",
    x=Arg("input"),
    mode=Arg("interpolation_mode"),
    border=Arg("padding_mode"),
    align=Arg("align_corners"),
)
def sampled_volume(emit: Emitter, x: Tensor, grid: Tensor, mode: int, border: int, align: bool) -> Tensor:
    """The eight neighbours of each place, or the nearest; x [N, C, D, H, W], grid [N, .., 3]."""
    f = np.float32
    if mode == 2:
        raise emit.refuse("volumes are not read cubically, in torch neither")
    grid = finite_places(grid) if border else grid
    batch, channels, *space = emit.sizes(x)
    n, *wanted, _ = emit.sizes(grid)
    flat = emit.reshape(x, [batch, channels, -1])
    corners: list[list[Any]] = []  # for each axis, (place, weight) of both neighbours, or of the nearest
    for axis in range(3):
        size = emit.number(space[axis], torch.float32)
        last = ops.subtract(size, f(1))
        at = ops.add(ops.gather(grid, np.int64(2 - axis), np.int64(-1)), f(1))
        if align:
            at = ops.multiply(at, ops.divide(last, f(2)))
        else:
            at = ops.divide(ops.subtract(ops.multiply(at, size), f(1)), f(2))
        if border == 2:
            at = _reflected(at, last if align else size, f(0) if align else f(-0.5))
        if border:
            at = ops.minimum(ops.maximum(at, f(0)), last)
        if mode == 1:
            neighbours = [(ops.round(at, "half_to_even"), f(1))]
        else:
            low = ops.floor(at)
            part = ops.subtract(at, low)
            neighbours = [(low, ops.subtract(f(1), part)), (ops.add(low, f(1)), part)]
        found = []
        for place, weight in neighbours:
            inside = ops.logical_and(ops.greater_equal(place, f(0)), ops.less_equal(place, last))
            held = ops.minimum(ops.maximum(place, f(0)), last)
            found.append((ops.convert(held, "i64"), ops.select(inside, weight, f(0))))
        corners.append(found)
    total = None
    for a, wa in corners[0]:
        for b, wb in corners[1]:
            for c, wc in corners[2]:
                row = ops.add(ops.multiply(a, emit.number(space[1])), b)
                place = ops.add(ops.multiply(row, emit.number(space[2])), c)
                place = emit.reshape(place, [n, 1, -1])
                place = emit.broadcast(place, [n, channels, emit.size(place, 2)])
                weight = emit.reshape(ops.multiply(ops.multiply(wa, wb), wc), [n, 1, -1])
                term = ops.multiply(ops.gather_elements(flat, place, 2), weight)
                total = term if total is None else ops.add(total, term)
    return emit.reshape(total, [n, channels, *wanted])


def _reflected(at: Tensor, span: Tensor, low: np.float32) -> Tensor:
    """Back and forth between the borders: the middles of the outermost pixels, or their edges."""
    one = np.float32(1)
    whole = ops.select(ops.equal(span, np.float32(0)), one, span)
    away = ops.abs(ops.subtract(at, low))
    turns = ops.floor(ops.divide(away, whole))
    rest = ops.subtract(away, ops.multiply(turns, whole))
    half = ops.multiply(turns, np.float32(0.5))
    even = ops.equal(ops.floor(half), half)
    found = ops.add(ops.select(even, rest, ops.subtract(whole, rest)), low)
    return ops.select(ops.equal(span, np.float32(0)), np.float32(0), found)


def _places(emit: Emitter, size: Size, kernel: int, stride: int, dilation: int) -> tuple[Size, Size]:
    """For each offset in the window and each window, where it reads: i64[kernel, windows]; and how many windows."""
    count = emit.minus(size, dilation * (kernel - 1) + 1)
    if isinstance(count, int):
        windows = count // stride + 1
        found = np.arange(kernel)[:, None] * dilation + np.arange(windows) * stride
        return out(ops.constant(found.astype(np.int64))), windows
    starts = emit.arange(0, emit.plus(count, 1), stride)
    offsets = emit.array([i * dilation for i in range(kernel)])
    return out(ops.add(emit.unsqueeze(offsets, 1), emit.unsqueeze(starts, 0))), emit.size(starts, 0)


@lowers("aten.im2col.default")
def im2col(emit: Emitter, self: Tensor, kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> Tensor:
    kernel, dilation, padding, stride = (each(v, 2) for v in (kernel_size, dilation, padding, stride))
    single = rank_of(self) == 3
    x = emit.unsqueeze(self, 0) if single else self
    x = padded(emit, x, [padding[1], padding[1], padding[0], padding[0]], "constant", 0)
    batch, channels, height, width = emit.sizes(x)
    rows, down = _places(emit, height, kernel[0], stride[0], dilation[0])
    columns, across = _places(emit, width, kernel[1], stride[1], dilation[1])
    taken = ops.gather(x, rows, np.int64(2))  # [batch, channels, kernel, down, width]
    taken = ops.gather(taken, columns, np.int64(4))  # [batch, channels, kernel, down, kernel, across]
    moved = emit.transpose(taken, [0, 1, 2, 4, 3, 5])
    found = emit.reshape(moved, [batch, emit.times(channels, kernel[0] * kernel[1]), emit.times(down, across)])
    return emit.squeeze(found, 0) if single else found


@lowers("aten.col2im.default")
def col2im(
    emit: Emitter, self: Tensor, output_size: Sizes, kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes
) -> Tensor:
    kernel, dilation, padding, stride = (each(v, 2) for v in (kernel_size, dilation, padding, stride))
    single = rank_of(self) == 2
    x = emit.unsqueeze(self, 0) if single else self
    found = ops.col2im(x, emit.dims(output_size), emit.array(kernel), stride, dilation, padding, padding)
    return emit.squeeze(found, 0) if single else found
