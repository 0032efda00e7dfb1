# SPDX-License-Identifier: Apache-2.0
"""Functions that look at signs, zeros and NaN."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Tensor
from paritas.lower.openvino.integers import chosen, equal
from paritas.lower.openvino.ops.arithmetic import computed
from paritas.lower.openvino.ops.reduce import axes_of, summed
from paritas.lower.openvino.ops.registry import lowers

ZERO, ONE = np.float32(0), np.float32(1)


def is_negative(x: Tensor) -> Tensor:
    """The sign of a float, of zeros too; a NaN has none."""
    return ops.logical_or(ops.less(x, ZERO), ops.logical_and(ops.equal(x, ZERO), ops.less(ops.divide(ONE, x), ZERO)))


@lowers("aten.signbit.default")
def signbit(emit: Emitter, self: Tensor) -> Tensor:
    dtype = emit.dtype_of(self)
    if dtype.is_floating_point:
        return is_negative(self)
    wide = emit.cast(self, torch.int32) if dtype == torch.bool else emit.wide(self, dtype)
    return ops.less(wide, emit.const(0, torch.int32 if dtype == torch.bool else dtype_of_wide(dtype)))


def dtype_of_wide(dtype: torch.dtype) -> torch.dtype:
    return torch.int64 if dtype == torch.int64 else torch.int32


@lowers("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    size, sign = ops.abs(emit.cast(self, emit.dtype)), is_negative(emit.cast(other, emit.dtype))
    return ops.select(sign, ops.negative(size), size)


@lowers("aten.heaviside.default")
def heaviside(emit: Emitter, self: Tensor, values: Tensor) -> Tensor:
    dtype = emit.dtype
    kind = torch.int32 if dtype == torch.bool else dtype
    x, at_zero = emit.cast(self, kind), emit.cast(values, kind)
    x, at_zero = emit.wide(x, kind), emit.wide(at_zero, kind)
    zero, one = emit.wide(0, kind), emit.wide(1, kind)
    found = ops.select(ops.less(zero, x), one, zero)
    return emit.result(chosen(ops.equal(x, zero), at_zero, found))


@lowers("aten.fmax.default", function=ops.maximum, logical=ops.logical_or)
@lowers("aten.fmin.default", function=ops.minimum, logical=ops.logical_and)
def extreme_of_numbers(
    emit: Emitter, function: Callable[..., Any], logical: Callable[..., Any], self: Tensor, other: Tensor
) -> Tensor:
    """What is a number, where the other one is NaN."""
    dtype = emit.dtype
    if not dtype.is_floating_point:
        return computed(emit, logical if dtype == torch.bool else function, self, other)
    a, b = emit.cast(self, dtype), emit.cast(other, dtype)
    return ops.select(ops.is_nan(a), b, ops.select(ops.is_nan(b), a, function(a, b)))


@lowers("aten.hypot.default")
def hypot(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    a, b = (ops.abs(emit.cast(x, emit.dtype)) for x in (self, other))
    most, least = ops.maximum(a, b), ops.minimum(a, b)
    # The squares of the numbers themselves would overflow.
    part = ops.divide(least, ops.select(ops.equal(most, ZERO), ONE, most))
    found = ops.multiply(most, ops.sqrt(ops.add(ONE, ops.multiply(part, part))))
    endless = np.float32(np.inf)
    infinite = ops.logical_or(ops.equal(a, endless), ops.equal(b, endless))
    nan = ops.logical_or(ops.is_nan(a), ops.is_nan(b))
    return ops.select(infinite, endless, ops.select(nan, ops.add(a, b), found))


@lowers("aten.isclose.default")
def isclose(emit: Emitter, self: Tensor, other: Tensor, rtol: float, atol: float, equal_nan: bool) -> Tensor:
    dtype = emit.promoted(self, other)
    kind = torch.int32 if dtype == torch.bool else dtype
    a, b = emit.wide(self, kind), emit.wide(other, kind)
    same = equal(a, b)
    if equal_nan and dtype.is_floating_point:
        same = ops.logical_or(same, ops.logical_and(ops.is_nan(a), ops.is_nan(b)))
    if rtol == 0 and atol == 0:
        return same
    a, b = emit.cast(a, torch.float32), emit.cast(b, torch.float32)
    apart = ops.abs(ops.subtract(a, b))
    allowed = ops.add(np.float32(atol), ops.abs(ops.multiply(b, np.float32(rtol))))
    # An infinite distance is never close; OpenVINO finds NaN >= 1, so that only < and <= are asked.
    near = ops.logical_and(ops.less(apart, np.float32(np.inf)), ops.less_equal(apart, allowed))
    return ops.logical_or(same, near)


@lowers("aten.nansum.default")
def nansum(emit: Emitter, self: Tensor, dim: Sequence[int] | None, keepdim: bool) -> Tensor:
    return emit.result(summed(emit, _zero_for_nan(emit, self), axes_of(self, dim), keepdim))


def _zero_for_nan(emit: Emitter, x: Tensor) -> Tensor:
    wide = emit.wide(x, emit.dtype)
    return ops.select(ops.is_nan(wide), ZERO, wide).output(0) if emit.dtype.is_floating_point else wide


@lowers("aten.nanmean.default")
def nanmean(emit: Emitter, self: Tensor, dim: Sequence[int] | None, keepdim: bool) -> Tensor:
    axes = axes_of(self, dim)
    x = emit.cast(self, emit.dtype)
    total = summed(emit, _zero_for_nan(emit, self), axes, keepdim)
    there = ops.select(ops.is_nan(x), ZERO, ONE).output(0)
    return ops.divide(total, summed(emit, there, axes, keepdim))
