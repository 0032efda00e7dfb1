# SPDX-License-Identifier: Apache-2.0
"""Statistics of order: medians, modes, quantiles and the k-th value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Size, Tensor, out, rank_of
from paritas.lower.openvino.integers import equal
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.ops.sort import ordered
from paritas.lower.registry import Arg


def taken(emit: Emitter, pair: Sequence[Tensor], place: int, axis: int, keepdim: bool) -> list[Tensor]:
    """(value, place) at one place of each sorted row; place: an int or an i64 scalar."""
    index = emit.dims([place])
    found = [ops.gather(part, index, np.int64(axis)) for part in pair]
    return [out(part) if keepdim else emit.squeeze(part, axis) for part in found]


@lowers("aten.kthvalue.default")
def kthvalue(emit: Emitter, self: Tensor, k: Size, dim: int, keepdim: bool) -> list[Tensor]:
    rank = rank_of(self)
    if rank == 0:
        return [out(self), emit.const(0, torch.int64)]
    axis = dim % rank
    return taken(emit, ordered(emit, self, k, axis, False), emit.minus(k, 1), axis, keepdim)


def middle(emit: Emitter, x: Tensor, axis: int, keepdim: bool, skips_nan: bool) -> list[Tensor]:
    """(median, place): the lower one of two; a NaN if there is one, unless it is skipped."""
    if not emit.dtype_of(x).is_floating_point:
        pair = ordered(emit, x, emit.size(x, axis), axis, False)
        return taken(emit, pair, _half(emit, emit.minus(emit.size(x, axis), 1)), axis, keepdim)
    # NaNs are the largest in torch's order, whatever OpenVINO makes of them.
    nan = ops.is_nan(x)
    finite = ops.select(nan, np.float32(np.inf), x)
    values, places = ordered(emit, finite, emit.size(x, axis), axis, False)
    marks = ops.gather_elements(ops.convert(nan, "i32"), places, axis)
    # Among the infinite ones, which are last, NaNs come after infinities.
    order = ops.topk(marks, emit.number(emit.size(x, axis)), axis, "min", "value", "i64", stable=True).output(1)
    places = out(ops.gather_elements(places, order, axis))
    values = out(ops.gather_elements(x, places, axis))
    count = ops.reduce_sum(ops.convert(nan, "i32"), emit.array([axis]), True)
    count = ops.convert(count, "i64")
    size = emit.number(emit.size(x, axis))
    kept = ops.subtract(size, count)
    last = ops.subtract(ops.maximum(kept, np.int64(1)), np.int64(1))
    at = ops.convert(ops.floor(ops.divide(ops.convert(last, "f32"), np.float32(2))), "i64")
    if not skips_nan:
        at = ops.select(ops.greater(count, np.int64(0)), kept, at)
    found = [ops.gather_elements(part, at, axis) for part in (values, places)]
    return [out(part) if keepdim else emit.squeeze(part, axis) for part in found]


def _half(emit: Emitter, size: int) -> int:
    return emit.arithmetic(
        lambda x: ops.convert(ops.floor(ops.divide(ops.convert(x, "f32"), np.float32(2))), "i64"),
        lambda x: x // 2,
        size,
    )


@lowers("aten.median.dim", skips_nan=False)
@lowers("aten.nanmedian.dim", skips_nan=True)
def median_of_axis(emit: Emitter, self: Tensor, dim: int, keepdim: bool, skips_nan: bool) -> list[Tensor]:
    if rank_of(self) == 0:
        return [out(self), emit.const(0, torch.int64)]
    return middle(emit, self, dim % rank_of(self), keepdim, skips_nan)


@lowers("aten.median.default", skips_nan=False)
@lowers("aten.nanmedian.default", skips_nan=True)
def median(emit: Emitter, self: Tensor, skips_nan: bool) -> Tensor:
    if rank_of(self) == 0:
        return out(self)
    flat = out(ops.reshape(self, emit.array([-1]), False))
    return middle(emit, flat, 0, False, skips_nan)[0]


@lowers("aten.mode.default")
def mode(emit: Emitter, self: Tensor, dim: int, keepdim: bool) -> list[Tensor]:
    rank = rank_of(self)
    if rank == 0:
        return [out(self), emit.const(0, torch.int64)]
    axis = dim % rank
    values, places = ordered(emit, self, emit.size(self, axis), axis, False)
    wide = emit.cast(values, torch.int32) if emit.dtype_of(self) == torch.bool else values
    last = list(range(rank))
    last.append(last.pop(axis))
    rows = emit.transpose(wide, last)
    same = equal(emit.unsqueeze(rows, -1), emit.unsqueeze(rows, -2))
    counts = ops.reduce_sum(ops.convert(same, "f32"), emit.array([-1]), False)
    # The first of the most frequent ones is the smallest of them.
    best = ops.topk(counts, np.int64(1), -1, "max", "value", "i64", stable=True).output(1)
    back = list(range(rank - 1))
    back.insert(axis, rank - 1)
    best = emit.transpose(best, back)
    found = [ops.gather_elements(part, best, axis) for part in (values, places)]
    return [out(part) if keepdim else emit.squeeze(part, axis) for part in found]


def blended(first: Tensor, second: Tensor, weight: Tensor | np.float32) -> Tensor:
    """first + weight * (second - first), from the nearer end, as torch's lerp has it."""
    apart = ops.subtract(second, first)
    near = ops.add(first, ops.multiply(weight, apart))
    far = ops.subtract(second, ops.multiply(apart, ops.subtract(np.float32(1), weight)))
    return ops.select(ops.less(weight, np.float32(0.5)), near, far)


@lowers("aten.quantile.default", "aten.quantile.scalar", x=Arg("self"), skips_nan=False)
@lowers("aten.nanquantile.default", "aten.nanquantile.scalar", x=Arg("self"), skips_nan=True)
def quantiles(
    emit: Emitter, x: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str, skips_nan: bool
) -> Tensor:
    x, shape = emit.cast(x, torch.float32), []
    if dim is None:
        shape = [1] * rank_of(x)
        x, dim = out(ops.reshape(x, emit.array([-1]), False)), 0
        flat = True
    else:
        flat = False
    if rank_of(x) == 0:
        x = emit.unsqueeze(x, 0)
        flat, shape = True, []
    axis = dim % rank_of(x)
    q = emit.cast(q, torch.float32)
    several = rank_of(q) == 1
    order = [a for a in range(rank_of(x)) if a != axis]
    rows = emit.transpose(x, [*order, axis])
    nan = ops.is_nan(rows)
    size = emit.size(rows, -1) if isinstance(emit.size(rows, -1), int) else emit.size(x, axis)
    ends = ops.select(nan, np.float32(np.inf), rows)
    values = ops.topk(ends, emit.number(size), rank_of(x) - 1, "min", "value", "i64", stable=True).output(0)
    count = ops.reduce_sum(ops.convert(nan, "f32"), emit.array([-1]), True)
    whole = emit.number(size, torch.float32)
    last = ops.subtract(ops.subtract(whole, count) if skips_nan else whole, np.float32(1))
    # [.., 1] times [q]
    place = ops.multiply(ops.maximum(last, np.float32(0)), q if several else emit.unsqueeze(q, 0))
    sizes = [emit.size(rows, a) for a in range(rank_of(x) - 1)]
    wide = [*sizes, emit.size(q, 0) if several else 1]
    place = emit.broadcast(place, wide)
    low, high = ops.floor(place), ops.ceiling(place)
    if interpolation == "lower":
        place = high = low
    elif interpolation == "higher":
        place = low = high
    elif interpolation == "nearest":
        place = low = high = ops.round(place, "half_to_even")
    first, second = (ops.gather_elements(values, ops.convert(p, "i64"), rank_of(x) - 1) for p in (low, high))
    weight = np.float32(0.5) if interpolation == "midpoint" else ops.subtract(place, low)
    found = blended(first, second, weight) if interpolation in ("linear", "midpoint") else first
    lost = ops.equal(count, whole) if skips_nan else ops.greater(count, np.float32(0))
    found = ops.select(lost, np.float32(np.nan), found)
    # The quantiles come first, then the sizes in their order.
    rank = rank_of(x)
    found = emit.transpose(found, [rank - 1, *range(rank - 1)])
    if keepdim:
        whole = [-1, *shape]
        found = out(ops.reshape(found, emit.array(whole), False)) if flat else emit.unsqueeze(found, axis + 1)
    elif flat and rank_of(found) > 1:
        found = out(ops.reshape(found, emit.array([-1]), False))
    return found if several else emit.squeeze(found, 0)


@lowers("aten.msort.default")
def msort(emit: Emitter, self: Tensor) -> Tensor:
    return ordered(emit, self, emit.size(self, 0) if rank_of(self) else 1, 0, False)[0]
