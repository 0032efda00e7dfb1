# SPDX-License-Identifier: Apache-2.0
"""Images as the columns of their windows, and back."""

from typing import Any

import torch

from paritas.lower.mindspore.ops.pad_roll_repeat import filled_up
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Sizes, Value


@lowers("aten.im2col.default")
def im2col(emit: Emitter, self: Value, kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> Value:
    image = _batched(emit, self, 4)
    geometry = tuple(_pair(value) for value in (kernel_size, dilation, padding, stride))
    columns = emit.prelude("windows_2d", image, *geometry)
    return columns if self.rank == 4 else emit.call("ops.squeeze", columns, 0)


@lowers("aten.col2im.default")
def col2im(
    emit: Emitter, self: Value, kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes, **_: object
) -> Value:
    high, wide = _pair(kernel_size)
    *batch, channels, height, width = emit.out.shape
    sizes_known = isinstance(height, int) and isinstance(width, int)
    # What no window covers, below and to the right: 0 where the windows tile the image.
    below, right = (size - size // step * step for size, step in ((height, high), (width, wide)))
    if (
        _pair(kernel_size) == _pair(stride)
        and _pair(dilation) == (1, 1)
        and _pair(padding) == (0, 0)
        and (below == right == 0 or not sizes_known)
    ):
        rows, columns = height // high, width // wide
        batches = emit.dims([*batch, channels])
        cut = emit.call("ops.reshape", self, (*batches, high, wide, *emit.dims([rows, columns])))
        n = len(batches)
        turned = emit.call("ops.transpose", cut, (*range(n), n + 2, n, n + 3, n + 1))
        tiled = (*batch, channels, height - below, width - right)
        image = emit.call("ops.reshape", turned, emit.dims(tiled))
        return filled_up(emit, emit.typed(image, shape=tiled), (0, right, 0, below), 0.0)
    if not sizes_known:
        raise emit.refuse("col2im of overlapping windows into an image of dynamic size")
    places = _contributions(height, width, high, wide, dilation, padding, stride)
    columns = emit.call("ops.reshape", self, (*emit.dims([*batch, channels]), -1))
    columns = emit.typed(columns, shape=(*batch, channels, None))
    return emit.call(
        "ops.reshape", emit.prelude("gathered_sum", columns, emit.constant(places, "places")), emit.dims(emit.out.shape)
    )


def _contributions(
    height: int, width: int, high: int, wide: int, dilation: Sizes, padding: Sizes, stride: Sizes
) -> torch.Tensor:
    """For each pixel the elements of the columns that fall on it; their number, where there are no more."""
    pixels = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    columns = torch.nn.functional.unfold(pixels, (high, wide), _pair(dilation), _pair(padding), _pair(stride))
    pixel = columns.reshape(-1).long() - 1  # -1: a border
    element = torch.arange(pixel.numel())[pixel >= 0]
    pixel = pixel[pixel >= 0]
    order = torch.argsort(pixel, stable=True)
    pixel, element = pixel[order], element[order]
    counts = torch.bincount(pixel, minlength=height * width)
    starts = torch.cumsum(counts, 0) - counts
    slot = torch.arange(pixel.numel()) - starts[pixel]
    places = torch.full((height * width, max(int(counts.max()), 1)), columns.numel())
    places[pixel, slot] = element
    return places


def _pair(value: Any) -> tuple[int, ...]:
    value = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return tuple(value * 2 if len(value) == 1 else value)


def _batched(emit: Emitter, self: Value, rank: int) -> Value:
    if self.rank == rank:
        return self
    return emit.typed(emit.call("ops.expand_dims", self, 0), like=self, shape=(1, *self.shape))
