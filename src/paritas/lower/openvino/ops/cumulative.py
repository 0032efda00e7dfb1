# SPDX-License-Identifier: Apache-2.0
"""Running extremes, products and logarithms: prefixes of 1, 2, 4, .. elements are joined."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Tensor, concatenated, out, rank_of
from paritas.lower.openvino.integers import less_equal
from paritas.lower.openvino.ops.move import END
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg

#: An axis of free size may be so long: joining prefixes beyond its end costs next to nothing.
LONGEST = 2**20


def scanned(emit: Emitter, parts: Sequence[Tensor], axis: int, join: Callable[..., Any]) -> Sequence[Tensor]:
    """The prefixes of `parts`, tensors side by side, along an axis. join(before, after) of lists of such tensors."""
    size = emit.size(parts[0], axis)
    step, most = 1, size if isinstance(size, int) else LONGEST
    while step < most:
        first = [emit.slice(part, 0, step, axis) for part in parts]
        # A step beyond the end leaves nothing here.
        before = [emit.slice(part, 0, -step, axis) for part in parts]
        after = [emit.slice(part, step, END, axis) for part in parts]
        joined = join(before, after)
        parts = [concatenated([a, b], axis) for a, b in zip(first, joined, strict=True)]
        step *= 2
    return parts


# OpenVINO 2026.4 finds 1 >= NaN: no `greater_equal` here.
@lowers("aten.cummax.default", better=lambda after, before: less_equal(before, after))
@lowers("aten.cummin.default", better=lambda after, before: less_equal(after, before))
def running_extreme(emit: Emitter, self: Tensor, dim: int, better: Callable[..., Any]) -> list[Tensor]:
    dtype, rank = emit.dtype_of(self), rank_of(self)
    if rank == 0:
        return [out(self), emit.const(0, torch.int64)]
    axis = dim % rank
    x = emit.cast(self, torch.int32) if dtype == torch.bool else emit.wide(self, dtype)
    sizes = [1 if a != axis else s for a, s in enumerate(emit.sizes(x))]
    places = emit.reshape(emit.arange(0, emit.size(x, axis)), sizes)
    places = emit.broadcast(places, emit.sizes(x))

    def join(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
        # Of equal ones the later counts, and a NaN stays.
        wins = better(after[0], before[0])
        if dtype.is_floating_point:
            wins = ops.logical_or(wins, ops.is_nan(after[0]))
        return [ops.select(wins, b, a) for a, b in zip(before, after, strict=True)]

    values, found = scanned(emit, [x, places], axis, join)
    return [emit.cast(values, dtype), found]


@lowers("aten.cumprod.default")
def cumprod(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    x, rank = emit.wide(self, emit.dtype), rank_of(self)
    if rank == 0:
        return emit.result(x)
    return emit.result(scanned(emit, [x], dim % rank, lambda a, b: [ops.multiply(a[0], b[0])])[0])


@lowers("aten.logaddexp.default", a=Arg("self"), b=Arg("other"))
def logarithm_of_sum(emit: Emitter, a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), where one of them may be infinite."""
    from paritas.lower.openvino.ops.arithmetic import log1p_of

    a, b = emit.cast(a, emit.dtype), emit.cast(b, emit.dtype)
    most, least = ops.maximum(a, b), ops.minimum(a, b)
    apart = ops.subtract(least, most)
    found = ops.add(most, log1p_of(ops.exp(apart)))
    # inf - inf: both are the same infinity.
    found = ops.select(ops.equal(a, b), ops.add(a, np.float32(np.log(2))), found)
    found = ops.select(ops.equal(most, np.float32(np.inf)), most, found)
    nan = ops.logical_or(ops.is_nan(a), ops.is_nan(b))
    return ops.select(nan, ops.add(a, b), found)


@lowers("aten.logcumsumexp.default")
def logcumsumexp(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    x, rank = emit.cast(self, emit.dtype), rank_of(self)
    if rank == 0:
        return x
    return scanned(emit, [x], dim % rank, lambda a, b: [logarithm_of_sum(emit, a[0], b[0])])[0]
