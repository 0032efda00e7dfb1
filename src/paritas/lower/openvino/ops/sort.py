# SPDX-License-Identifier: Apache-2.0
"""Orders: sort, topk and their kin."""

from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Scalar, Size, Tensor, is_tensor, out, rank_of
from paritas.lower.openvino.integers import less, less_equal
from paritas.lower.openvino.ops.move import END
from paritas.lower.openvino.ops.reduce import orderable
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


def ordered(emit: Emitter, x: Tensor, count: Size, dim: int, descending: bool) -> list[Tensor]:
    """(values, places) of the first `count` in order; of equal ones the earlier comes first."""
    if rank_of(x) == 0:
        return [out(x), emit.const(0, torch.int64)]
    kind = emit.dtype_of(x)
    wide = emit.cast(x, torch.int32) if kind == torch.bool else emit.wide(x, kind)
    mode, dim = "max" if descending else "min", dim % rank_of(x)
    if kind.is_floating_point:  # a NaN is larger than all numbers
        found = ops.topk(orderable(wide, np.inf), emit.number(count), dim, mode, "value", "i64", stable=True)
        return [out(ops.gather_elements(wide, found.output(1), dim)), found.output(1)]
    found = ops.topk(wide, emit.number(count), dim, mode, "value", "i64", stable=True)
    return [emit.cast(found.output(0), kind), found.output(1)]


@lowers("aten.topk.default")
def topk(emit: Emitter, self: Tensor, k: Size, dim: int, largest: bool, **_: object) -> list[Tensor]:
    return ordered(emit, self, k, dim, largest)


@lowers("aten.sort.default", "aten.sort.stable")
def sort(emit: Emitter, self: Tensor, dim: int, descending: bool, **_: object) -> list[Tensor]:
    return ordered(emit, self, emit.size(self, dim) if rank_of(self) else 1, dim, descending)


@lowers("aten.argsort.default", "aten.argsort.stable")
def argsort(emit: Emitter, self: Tensor, dim: int, descending: bool, **_: object) -> Tensor:
    return ordered(emit, self, emit.size(self, dim) if rank_of(self) else 1, dim, descending)[1]


@lowers("aten.histc.default")
def histc(emit: Emitter, self: Tensor, bins: int, min: Scalar, max: Scalar) -> Tensor:
    if min == max and bins == 1:
        total = 1
        for size in emit.sizes(self):
            total = emit.times(size, total)
        return emit.cast(emit.dims([total]), emit.dtype)
    x = ops.reshape(emit.cast(self, torch.float32), emit.array([-1, 1]), False)
    if min == max:  # from the smallest to the largest, or around the only one
        low, high = (reduce(x, emit.array([0, 1]), False) for reduce in (ops.reduce_min, ops.reduce_max))
        one = ops.convert(ops.equal(low, high), "f32")
        low, high = ops.subtract(low, one), ops.add(high, one)
        width = ops.divide(ops.subtract(high, low), np.float32(bins))
        numbers = np.arange(bins + 1, dtype=np.float32)
        # From both ends, as torch has them.
        rising = ops.add(low, ops.multiply(width, numbers))
        falling = ops.subtract(high, ops.multiply(width, numbers[::-1].copy()))
        edges = out(ops.select(numbers < (bins + 1) // 2, rising, falling))
    else:
        edges = emit.const(torch.linspace(min, max, bins + 1), torch.float32)
    first, last = emit.slice(edges, 0, -1, 0), emit.slice(edges, 1, END, 0)
    # The last bin has its upper end too.
    ends = ops.select(np.arange(bins) == bins - 1, ops.less_equal(x, last), ops.less(x, last))
    hit = ops.logical_and(ops.less_equal(first, x), ends)
    return emit.cast(ops.reduce_sum(ops.convert(hit, "f32"), emit.array([0]), False), emit.dtype)


@lowers("aten.bucketize.Tensor", ends=Arg("boundaries"), x=Arg("self"))
def placed(emit: Emitter, ends: Tensor, x: Tensor, right: bool, **_: object) -> Tensor:
    """How many of the sorted `ends`, [.., n], lie before each of `x`: a NaN is after all, as torch sorts it."""
    dtype = emit.promoted(ends, x)
    floats = dtype.is_floating_point
    ends, x = emit.wide(ends, dtype), emit.wide(x, dtype)
    rank = rank_of(x)
    if rank_of(ends) > 1:
        ends = emit.unsqueeze(ends, rank_of(ends) - 1)
    x = emit.unsqueeze(x, rank)
    below = (less_equal if right else less)(ends, x)
    if floats:
        below = ops.logical_or(below, ops.is_nan(x))
    count = ops.reduce_sum(ops.convert(below, "f32"), emit.array([rank]), False)
    return emit.cast(count, emit.dtype)


@lowers("aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(
    emit: Emitter, sorted_sequence: Tensor, self: Any, right: bool, side: str | None, sorter: Tensor | None, **_: object
) -> Tensor:
    ends = sorted_sequence
    if sorter is not None:
        ends = ops.gather_elements(ends, sorter, rank_of(ends) - 1).output(0)
    if not is_tensor(self):
        self = emit.const(self, emit.dtype_of(sorted_sequence) if isinstance(self, int) else torch.float32)
    return placed(emit, ends, self, right or side == "right")
