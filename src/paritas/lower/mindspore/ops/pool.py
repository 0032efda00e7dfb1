# SPDX-License-Identifier: Apache-2.0
"""Pooling over windows, with torch's borders and rounding, in one to three dimensions."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from paritas.lower.mindspore.ops.conv import per_axis
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Sizes, Value
from paritas.lower.registry import Arg


def _batched(emit: Emitter, input: Value, rank: int) -> Value:
    if input.rank == rank + 2:
        return input
    shape = (*[1] * (rank + 2 - input.rank), *input.shape)
    return emit.typed(emit.call("ops.reshape", input, emit.dims(shape)), like=input, shape=shape)


def _bordered(
    emit: Emitter, x: Value, outs: Sequence[Any], kernel: Sizes, step: Sequence[int], edge: Sequence[int], value: float
) -> Value:
    """`x` with borders such that its windows are torch's: ceil_mode's may reach beyond the border behind."""
    for place, after in enumerate(outs):
        axis = place + 2
        size = x.shape[axis]
        reach = (after - 1) * step[place] + kernel[place]
        behind = reach - size - edge[place]
        if edge[place] == 0 and isinstance(behind, int) and behind <= 0:
            continue
        behind = max(behind, 0) if isinstance(behind, int) else Value(f"max({emit.size(behind)}, 0)")
        more = behind if isinstance(behind, int) else 0
        shape = (*x.shape[:axis], size + edge[place] + more, *x.shape[axis + 1 :])
        x = emit.typed(emit.prelude("bordered", x, axis, edge[place], behind, value), like=x, shape=shape)
    return x


def _pooled(
    emit: Emitter, x: Value, batch: Sizes, outs: Sequence[Any], kernel: Sizes, step: Sequence[int], pool: str
) -> Value:
    """ops.MaxPool or ops.AvgPool over windows of any rank: two axes, then the third."""
    if len(kernel) == 1:
        wide = emit.call("ops.expand_dims", x, 2)
        return emit.call("ops.squeeze", emit.prim(pool, (1, *kernel), (1, *step))(wide), 2)
    if len(kernel) == 2:
        return emit.prim(pool, kernel, step)(x)
    x = emit.let(x, "x")
    channels, deep, high, wide = (Value(f"{x}.shape[{axis}]") for axis in (1, 2, 3, 4))
    merged = emit.call("ops.reshape", x, (*emit.dims(batch[:1]), -1, high, wide))
    planes = emit.prim(pool, kernel[1:], step[1:])(merged)
    flat = emit.call("ops.reshape", planes, (*emit.dims(batch[:1]), channels, deep, -1))
    out = emit.prim(pool, (kernel[0], 1), (step[0], 1))(flat)
    return emit.call("ops.reshape", out, emit.dims((*batch, *outs)))


def _geometry(
    rank: int, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes | int = 1
) -> tuple[Any, ...]:
    kernel = per_axis(kernel_size, rank)
    step = kernel if stride is None or list(_listed(stride)) == [] else per_axis(stride, rank)
    return kernel, step, per_axis(padding, rank), per_axis(dilation, rank)


def _listed(value: Any) -> Sequence[int]:
    return value if isinstance(value, (list, tuple)) else [value]


@lowers("aten.max_pool1d.default", rank=1)
@lowers("aten.max_pool2d.default", rank=2)
@lowers("aten.max_pool3d.default", rank=3)
def _max_pool(
    emit: Emitter,
    self: Value,
    rank: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    **_: object,
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    kernel, step, edge, spread = _geometry(rank, kernel_size, stride, padding, dilation)
    outs = emit.out.shape[-rank:]
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, spread, strict=True))
    x = _batched(emit, self, rank)
    x = _bordered(emit, x, outs, extent, step, edge, -float("inf"))
    if any(d > 1 for d in spread):
        out = x
        for place in range(rank):
            sizes = emit.size(outs[place]), kernel[place], step[place], spread[place]
            out = emit.prelude("spread_maxima", out, place + 2, *sizes)
    else:
        out = _pooled(emit, x, x.shape[:2], outs, kernel, step, "ops.MaxPool")
    return out if self.rank == rank + 2 else emit.call("ops.reshape", out, emit.dims(emit.out.shape))


@lowers("aten.avg_pool1d.default", rank=1, counts=Arg("count_include_pad"))
@lowers("aten.avg_pool2d.default", rank=2, counts=Arg("count_include_pad"), divisor=Arg("divisor_override"))
@lowers("aten.avg_pool3d.default", rank=3, counts=Arg("count_include_pad"), divisor=Arg("divisor_override"))
def _avg_pool(
    emit: Emitter,
    self: Value,
    rank: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    counts: bool,
    divisor: int | None = None,
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    kernel, step, edge, _ = _geometry(rank, kernel_size, stride, padding)
    outs = emit.out.shape[-rank:]
    image = _batched(emit, self, rank)
    x = _bordered(emit, image, outs, kernel, step, edge, 0)
    out = _pooled(emit, x, x.shape[:2], outs, kernel, step, "ops.AvgPool")
    if divisor is not None:
        area = 1
        for size in kernel:
            area *= size
        out = emit.infix("*", out, area / divisor)
    elif ceil_mode or (any(edge) and not counts):
        for place in range(rank):
            before, after = emit.size(image.shape[place + 2]), emit.size(outs[place])
            if kernel[place] > 1:
                sizes = before, after, kernel[place], step[place], edge[place], bool(counts)
                means = emit.prelude("window_means", *sizes)
                out = emit.infix("*", out, emit.call("ops.reshape", means, (-1, *[1] * (rank - 1 - place))))
        out = emit.cast(emit.typed(out, dtype="?"), self.dtype) if self.dtype != "float32" else out
    return out if self.rank == rank + 2 else emit.call("ops.reshape", out, emit.dims(emit.out.shape))


# --- to a given size ---


@lowers("aten.adaptive_avg_pool1d.default", rank=1)
@lowers("aten.adaptive_avg_pool2d.default", rank=2)
@lowers("aten.adaptive_avg_pool3d.default", rank=3)
def _adaptive_mean(emit: Emitter, self: Value, rank: int, **_: object) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    outs, sizes = emit.out.shape[-rank:], self.shape[-rank:]
    axes = tuple(range(self.rank - rank, self.rank))
    if all(size == 1 for size in outs):
        return emit.prim("ops.ReduceMean", keep_dims=True)(self, axes)
    half = self.dtype == "float16"  # torch adds in float32
    x = emit.cast(self, "float32") if half else self
    for axis, before, after in reversed(list(zip(axes, sizes, outs, strict=True))):
        if before == after:
            continue
        if isinstance(before, int) and isinstance(after, int):
            whole = torch.eye(before, dtype=getattr(torch, x.dtype))
            windows = torch.nn.functional.adaptive_avg_pool1d(whole[None], after)[0]
            matrix = emit.constant(windows.T.contiguous(), "windows")
        else:
            matrix = emit.prelude("adaptive_matrix", emit.size(before), emit.size(after))
            matrix = emit.cast(emit.typed(matrix, dtype="float64"), x.dtype)
        shape = (*x.shape[:axis], after, *x.shape[axis + 1 :])
        x = emit.typed(emit.prelude("resized", x, axis, matrix), like=x, shape=shape)
    return emit.cast(x, "float16") if half else x


# --- with the places of the maxima ---


def _maxima(emit: Emitter, self: Value, windows: Sequence[Any]) -> Value:
    """Values and places, with windows: for each axis the positions of each window, -1 outside."""
    sizes = self.shape[-len(windows) :]
    shape = emit.dims(emit.out[0].shape)
    if all(isinstance(window, torch.Tensor) for window in windows):
        places = emit.constant(_joined(windows, sizes), "places")
    else:
        places = emit.call("ops.zeros", (1, 1), emit.dtype("int64"))
        for window, size in zip(windows, sizes, strict=True):
            window = emit.constant(window, "window") if isinstance(window, torch.Tensor) else window
            places = emit.prelude("joined_windows", places, window, emit.size(size))
        places = emit.prelude("outside_last", places, *emit.dims(sizes))
    rows = emit.call("ops.reshape", self, (*emit.dims(self.shape[: -len(windows)]), -1))
    found = emit.let(emit.prelude("window_maxima", rows, places), "found")
    values = emit.call("ops.reshape", Value(f"{found}[0]"), shape)
    return Value(f"({values}, {emit.call('ops.reshape', Value(f'{found}[1]'), shape)})")


def _joined(windows: Sequence[torch.Tensor], sizes: Sizes) -> torch.Tensor:
    flat = torch.zeros(1, 1, dtype=torch.long)
    outside = torch.zeros(1, 1, dtype=torch.bool)
    for size, window in zip(sizes, windows, strict=True):
        count = flat.shape[0] * window.shape[0]
        flat = (flat[:, None, :, None] * size + window[None, :, None, :]).reshape(count, -1)
        outside = (outside[:, None, :, None] | (window < 0)[None, :, None, :]).reshape(count, -1)
    return flat.masked_fill(outside, math.prod(sizes))


def _adaptive_windows(emit: Emitter, before: Size, after: int) -> torch.Tensor | Value:
    if not (isinstance(before, int) and isinstance(after, int)):
        return emit.prelude("adaptive_windows", emit.size(before), emit.size(after))
    starts = [i * before // after for i in range(after)]
    ends = [-(-(i + 1) * before // after) for i in range(after)]
    widest = max(end - start for start, end in zip(starts, ends, strict=True))
    windows = torch.tensor(starts)[:, None] + torch.arange(widest)
    return windows.masked_fill(windows >= torch.tensor(ends)[:, None], -1)


@lowers("aten.adaptive_max_pool1d.default", rank=1)
@lowers("aten.adaptive_max_pool2d.default", rank=2)
@lowers("aten.adaptive_max_pool3d.default", rank=3)
def _adaptive_maxima(emit: Emitter, self: Value, rank: int, **_: object) -> Value:
    sizes = zip(self.shape[-rank:], emit.out[0].shape[-rank:], strict=True)
    return _maxima(emit, self, [_adaptive_windows(emit, *pair) for pair in sizes])


@lowers("aten.max_pool2d_with_indices.default", rank=2)
@lowers("aten.max_pool3d_with_indices.default", rank=3)
def _strided_maxima(
    emit: Emitter,
    self: Value,
    rank: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    **_: object,
) -> Value:
    windows = []
    for kernel, step, edge, spread, before, after in zip(
        *_geometry(rank, kernel_size, stride, padding, dilation),
        self.shape[-rank:],
        emit.out[0].shape[-rank:],
        strict=True,
    ):
        if not (isinstance(before, int) and isinstance(after, int)):
            sizes = emit.size(before), emit.size(after)
            windows.append(emit.prelude("strided_windows", *sizes, kernel, step, edge, spread))
            continue
        window = torch.arange(after)[:, None] * step + torch.arange(kernel) * spread - edge
        windows.append(window.masked_fill((window < 0) | (window >= before), -1))
    return _maxima(emit, self, windows)
