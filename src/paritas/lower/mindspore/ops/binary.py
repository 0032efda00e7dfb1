# SPDX-License-Identifier: Apache-2.0
"""Functions of two tensors that are no plain arithmetic: signs, logarithms of sums, closeness."""

from collections.abc import Callable
from typing import Any

from paritas.lower.mindspore.ops.arithmetic import FLOATS, promote
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.unary import negative
from paritas.lower.mindspore.ops.where_clamp import maximum, minimum, number
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


def _tensors(emit: Emitter, *operands: Any) -> list[Value]:
    """The operands as tensors of the result's dtype; a Python number becomes one."""
    return [emit.let(emit.cast(x, emit.out.dtype) if isinstance(x, Value) else number(emit, x), "x") for x in operands]


def _where(emit: Emitter, condition: Value, yes: Any, no: Value) -> Value:
    return emit.call("ops.where", condition, yes, no)


@lowers("aten.copysign.Tensor", "aten.copysign.Scalar")
def copysign(emit: Emitter, self: Value, other: Any) -> Value:
    x, sign = _tensors(emit, self, other)
    size = emit.let(emit.call("ops.abs", x), "size")
    return _where(emit, negative(emit, sign), emit.prefix("-", size), size)


@lowers("aten.hypot.default")
def hypot(emit: Emitter, self: Value, other: Value) -> Value:
    if emit.out.dtype == "float64":
        return emit.prelude("hypot", *(emit.cast(v, "float64") for v in (self, other)))
    # In float64 no square overflows; and an infinity wins over NaN.
    x, y = (emit.let(emit.cast(v, "float64"), "x") for v in (self, other))
    total = emit.infix("+", Value(f"{x} * {x}", atomic=False), Value(f"{y} * {y}", atomic=False))
    either = emit.call("ops.logical_or", *(emit.infix("==", emit.call("ops.abs", v), float("inf")) for v in (x, y)))
    root = emit.call("ops.sqrt", total)
    found = emit.typed(_where(emit, either, float("inf"), root), dtype="float64")
    return emit.cast(found, emit.out.dtype)


@lowers("aten.logaddexp.default", exponential="ops.exp", logarithm="ops.log")
@lowers("aten.logaddexp2.default", exponential="ops.exp2", logarithm="ops.log2")
def _log_of_sum(emit: Emitter, self: Value, other: Value, exponential: str, logarithm: str) -> Value:
    wide = (emit.cast(v, "float64") for v in (self, other))
    x, y = (emit.let(v, "x") for v in wide)
    high = emit.let(emit.call("ops.maximum", x, y), "high")
    low = emit.let(emit.call("ops.minimum", x, y), "low")
    # Equal infinities would give inf - inf; NaN comes back with the sum.
    same = emit.infix("==", x, y)
    apart = _where(emit, same, 0.0, emit.infix("-", low, high))
    apart = emit.typed(apart, dtype="float64")
    grown = emit.infix("+", emit.call(exponential, apart), 1.0)
    total = emit.infix("+", high, emit.call(logarithm, grown))
    missing = emit.call("ops.logical_or", emit.infix("!=", x, x), emit.infix("!=", y, y))
    found = _where(emit, missing, float("nan"), total)
    return emit.cast(emit.typed(found, dtype="float64"), emit.out.dtype)


@lowers("aten.heaviside.default")
def heaviside(emit: Emitter, self: Value, values: Value) -> Value:
    x = emit.let(self, "x")
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_or", x, values)
    above = emit.cast(emit.typed(emit.infix(">", x, 0), dtype="bool"), emit.out.dtype)
    return _where(emit, emit.infix("==", x, 0), values, above)


@lowers("aten.xlogy.Tensor", "aten.special_xlogy.default")
def xlogy(emit: Emitter, self: Value, other: Value) -> Value:
    x, y = _tensors(emit, self, other)
    wide = emit.typed(emit.call("ops.log", emit.cast(y, "float64")), dtype="float64")
    product = emit.infix("*", x, emit.cast(wide, emit.out.dtype))
    product = _where(emit, emit.infix("==", x, 0), 0.0, product)
    return _where(emit, emit.infix("!=", y, y), y, product)


@lowers("aten.fmax.default", write=maximum)
@lowers("aten.fmin.default", write=minimum)
def ignoring_nan(emit: Emitter, self: Value, other: Value, write: Callable[..., Any]) -> Value:
    """The one that is a number where the other is NaN."""
    if emit.out.dtype not in FLOATS:
        return write(emit, self, other)
    x, y = (emit.let(v, "x") for v in promote(emit, self, other))
    found = _where(emit, emit.infix("!=", y, y), x, write(emit, x, y))
    return _where(emit, emit.infix("!=", x, x), y, found)


@lowers("aten.isclose.default")
def isclose(emit: Emitter, self: Value, other: Value, rtol: float, atol: float, equal_nan: bool) -> Value:
    if self.dtype not in FLOATS and rtol == 0 and atol == 0:
        return emit.infix("==", self, other)
    x, y = (emit.let(emit.cast(v, "float64"), "x") for v in (self, other))
    allowed = emit.infix("+", emit.infix("*", emit.call("ops.abs", y), rtol), atol)
    apart = emit.let(emit.call("ops.abs", emit.infix("-", x, y)), "apart")
    near = emit.infix("<=", apart, allowed)
    # Equal infinities are close; an infinite distance is not, though its bound be infinite too.
    near = emit.call("ops.logical_and", near, emit.infix("<", apart, float("inf")))
    close = emit.call("ops.logical_or", near, emit.infix("==", x, y))
    if equal_nan:
        both = emit.call("ops.logical_and", emit.infix("!=", x, x), emit.infix("!=", y, y))
        close = emit.call("ops.logical_or", close, both)
    return close


@lowers("aten.float_power.Tensor_Tensor")
def float_power(emit: Emitter, self: Value, exponent: Value) -> Value:
    return emit.call("ops.pow", *promote(emit, self, exponent))


@lowers("aten.float_power.Tensor_Scalar")
def float_power_scalar(emit: Emitter, self: Value, exponent: Scalar) -> Value:
    return emit.call("ops.pow", *promote(emit, self), float(exponent))


@lowers("aten.threshold.default")
def threshold(emit: Emitter, self: Value, threshold: Scalar, value: Scalar) -> Value:
    x = emit.let(self, "x")
    below = emit.infix("<=", x, number(emit, threshold))
    return _where(emit, below, number(emit, value), x)


@lowers("aten.lerp.Tensor")
def lerp_tensor(emit: Emitter, self: Value, end: Value, weight: Value) -> Value:
    x, y, w = _tensors(emit, self, end, weight)
    apart = emit.let(emit.infix("-", y, x), "apart")
    low = emit.infix("+", x, emit.infix("*", w, apart))
    high = emit.infix("-", y, emit.infix("*", apart, emit.infix("-", 1.0, w)))
    # torch starts from the nearer end, which is exact there.
    near = emit.infix("<", emit.call("ops.abs", w), 0.5)
    return _where(emit, near, low, high)
