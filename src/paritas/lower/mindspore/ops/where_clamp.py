# SPDX-License-Identifier: Apache-2.0
"""One of two values for each element: where, masks, the larger, the smaller, bounds.

MindSpore's Maximum and Minimum return the second operand where the comparison is false, so NaN passes
from there and not from the first: bounds come first.
"""

from typing import Any

from paritas.lower.mindspore.ops.arithmetic import FLOATS, WHOLE, exactly, promote
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import Arg


def number(emit: Emitter, value: Any, dtype: str | None = None) -> Value:
    """A Python number, or a size, as a tensor of the result's dtype."""
    dtype = dtype or emit.out.dtype
    return exactly(emit, value, dtype)


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
@lowers(
    "aten.masked_fill.Scalar", "aten.masked_fill.Tensor", condition=Arg("mask"), self=Arg("value"), other=Arg("self")
)
def where(emit: Emitter, condition: Value, self: Any, other: Any) -> Value:
    parts = [x if isinstance(x, Value) else number(emit, x) for x in (self, other)]
    if condition.dtype != "bool":
        condition = emit.cast(condition, "bool")
    return emit.call("ops.where", condition, *promote(emit, *parts))


def larger(emit: Emitter, bound: Any, x: Value) -> Value:
    """max(bound, x); NaN only where x has it."""
    return emit.call("ops.maximum", bound, x)


def smaller(emit: Emitter, bound: Any, x: Value) -> Value:
    return emit.call("ops.minimum", bound, x)


@lowers("aten.maximum.default", "aten.max.other")
@lowers("aten.clamp_min.Tensor", other=Arg("min"))
def maximum(emit: Emitter, self: Value, other: Value) -> Value:
    self, other = promote(emit, self, other)
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_or", self, other)
    return emit.prelude("maximum_nan", self, other) if emit.out.dtype in FLOATS else larger(emit, self, other)


@lowers("aten.minimum.default", "aten.min.other")
@lowers("aten.clamp_max.Tensor", other=Arg("max"))
def minimum(emit: Emitter, self: Value, other: Value) -> Value:
    self, other = promote(emit, self, other)
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_and", self, other)
    return emit.prelude("minimum_nan", self, other) if emit.out.dtype in FLOATS else smaller(emit, self, other)


@lowers("aten.clamp.default", "aten.clip.default", low=Arg("min"), high=Arg("max"))
@lowers("aten.clamp_min.default", low=Arg("min"), high=None)
@lowers("aten.clamp_max.default", low=None, high=Arg("max"))
@lowers("aten.hardtanh.default", low=Arg("min_val"), high=Arg("max_val"))
@lowers("aten.relu6.default", low=0, high=6)
def bounded(emit: Emitter, self: Value, low: Any, high: Any) -> Value:
    (x,) = promote(emit, self)
    if low is not None:
        x = larger(emit, _bound(emit, low), x)
    if high is not None:
        x = smaller(emit, _bound(emit, high), x)
    return x


def _bound(emit: Emitter, value: Any) -> Any:
    """A bound in the result's dtype; one beyond an integer's range is that end of it, but wraps below 0 of bytes."""
    if emit.out.dtype == "float32" or not isinstance(value, (int, float)):
        return value if emit.out.dtype == "float32" else number(emit, value)
    if emit.out.dtype in WHOLE:
        low, count = WHOLE[emit.out.dtype]
        if low == 0 and -count < value < 0:
            value += count
        value = min(max(int(value), low), low + count - 1)
    return number(emit, value)


@lowers("aten.relu.default")
def relu(emit: Emitter, self: Value) -> Value:
    if emit.out.dtype not in FLOATS:
        return bounded(emit, self, 0, None)
    return emit.prelude("relu", self, emit.training)


@lowers("aten.clamp.Tensor", "aten.clip.Tensor")
def clamp_tensor(emit: Emitter, self: Value, min: Value | None, max: Value | None) -> Value:
    x = self
    if min is not None:
        x = maximum(emit, x, min)
    return x if max is None else minimum(emit, x, max)
