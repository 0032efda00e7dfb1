# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of tensors and numbers, element by element."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import HALF, NARROW, Emitter, Scalar, Size, Tensor, is_tensor, out, rank_of
from paritas.lower.openvino.integers import chosen, floor_division, less, truncated_division
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.quotients import exact_rest, floor_quotient, floored
from paritas.lower.openvino.rounding import rounded_to_half
from paritas.lower.registry import Arg


def computed(emit: Emitter, function: Callable[..., Any], *operands: Any) -> Tensor | None:
    """`function` of the operands in the dtype of the node; narrow integers wrap around."""
    dtype = emit.dtype
    return emit.result(function(*(emit.wide(x, dtype) for x in operands)))


def operand(emit: Emitter, x: Any, dtype: torch.dtype) -> Tensor | None:
    """`emit.wide`, but of a number what torch makes of it first: it wraps around to narrow integers."""
    if isinstance(x, (int, float)) and dtype in NARROW:
        x = int(torch.tensor(int(x)).to(dtype))
    return emit.wide(x, dtype)


def scaled(emit: Emitter, x: Any, alpha: float) -> Any:
    """alpha * x, where alpha is a number."""
    if isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and alpha == 1:
        return x
    dtype = emit.dtype
    return ops.multiply(emit.wide(x, dtype), emit.wide(alpha, dtype))


def as_added(emit: Emitter, x: Any) -> Any:
    """A number that is added: torch rounds it to half precision first, where it multiplies by all of it."""
    if emit.rounds and emit.dtype in HALF and isinstance(x, (int, float)):
        return float(torch.tensor(x, dtype=emit.dtype))
    return x


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(emit: Emitter, self: Tensor, other: Any, alpha: Scalar) -> Tensor:
    if emit.dtype == torch.bool:
        return computed(emit, ops.logical_or, self, other if alpha else False)
    return computed(emit, ops.add, self, scaled(emit, as_added(emit, other), alpha))


@lowers("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor")
def sub(emit: Emitter, self: Tensor, other: Any, alpha: Scalar) -> Tensor:
    return computed(emit, ops.subtract, self, scaled(emit, as_added(emit, other), alpha))


@lowers("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(emit: Emitter, self: Tensor, other: Any, alpha: Scalar) -> Tensor:
    return computed(emit, ops.subtract, as_added(emit, other), scaled(emit, self, alpha))


@lowers("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "aten.multiply.Scalar")
def mul(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    return computed(emit, ops.logical_and if emit.dtype == torch.bool else ops.multiply, self, other)


@lowers("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor", "aten.divide.Tensor", "aten.divide.Scalar")
def div(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    return computed(emit, ops.divide, self, other)


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar", a=Arg("self"), b=Arg("other"))
def floor_of(emit: Emitter, a: Tensor, b: Any) -> Tensor:
    dtype = emit.dtype
    a, b = operand(emit, a, dtype), operand(emit, b, dtype)
    return emit.result(floor_quotient(a, b) if dtype.is_floating_point else floor_division(a, b)[0])


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.divide.Tensor_mode", "aten.divide.Scalar_mode")
def div_mode(emit: Emitter, self: Tensor, other: Any, rounding_mode: str | None) -> Tensor:
    dtype = emit.dtype
    if rounding_mode is None:
        return computed(emit, ops.divide, self, other)
    if rounding_mode == "floor":
        return floor_of(emit, self, other)
    a, b = operand(emit, self, dtype), operand(emit, other, dtype)
    if not dtype.is_floating_point:
        return emit.result(truncated_division(a, b)[0])
    sign = ops.multiply(ops.sign(a), ops.sign(b))
    return ops.multiply(sign, floored(ops.abs(a), ops.abs(b)))


@lowers("aten.remainder.Tensor", "aten.remainder.Scalar", "aten.remainder.Scalar_Tensor")
def remainder(emit: Emitter, self: Any, other: Any) -> Tensor:
    dtype = emit.dtype
    a, b = operand(emit, self, dtype), operand(emit, other, dtype)
    if dtype.is_floating_point:
        rest = exact_rest(a, b)
        return ops.select(ops.less(ops.multiply(ops.sign(rest), ops.sign(b)), np.float32(0)), ops.add(rest, b), rest)
    return emit.result(floor_division(a, b)[1])


@lowers("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    dtype = emit.dtype
    a, b = operand(emit, self, dtype), operand(emit, other, dtype)
    if dtype.is_floating_point:
        return exact_rest(a, b)
    return emit.result(truncated_division(a, b)[1])


@lowers("aten.pow.Tensor_Scalar")
def pow_scalar(emit: Emitter, self: Tensor, exponent: Scalar) -> Tensor:
    dtype = emit.dtype
    x = emit.wide(self, dtype)
    if isinstance(exponent, (int, float)):
        if exponent == 0:
            return emit.full(emit.sizes(x), 1, dtype)  # of a NaN too
        if exponent == 1:
            return emit.result(x)
        if exponent in (2, 3) and dtype.is_floating_point:
            return ops.power(x, emit.const(exponent, dtype))  # as OpenVINO's own fusions know it
        if float(exponent).is_integer() and 0 < exponent <= 64 and (not dtype.is_floating_point or exponent <= 8):
            return emit.result(repeated(x, int(exponent)))
        if exponent == 0.5:
            return ops.sqrt(x)
        if exponent == -1 and dtype.is_floating_point:
            return ops.divide(np.float32(1), x)
    if not dtype.is_floating_point:
        raise emit.refuse(f"whole numbers to the power of {exponent}")
    return ops.power(x, emit.cast(exponent, dtype))


def zero_of(x: Tensor) -> np.ndarray:
    return np.array(0, out(x).get_element_type().to_dtype())


def one_of(x: Tensor) -> np.ndarray:
    return np.array(1, out(x).get_element_type().to_dtype())


def repeated(x: Tensor, times: int) -> Tensor:
    """x to the power of `times` by squaring: exact for whole numbers, which wrap around."""
    found = None
    while times:
        if times & 1:
            found = x if found is None else ops.multiply(found, x)
        times >>= 1
        if times:
            x = ops.multiply(x, x)
    return found


@lowers("aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def pow_tensor(emit: Emitter, self: Any, exponent: Tensor) -> Tensor:
    dtype = emit.dtype
    if dtype.is_floating_point:
        return ops.power(emit.cast(self, dtype), emit.cast(exponent, dtype))
    base, times = operand(emit, self, dtype), operand(emit, exponent, dtype)
    one = one_of(base)
    found = ops.multiply(ops.add(zero_of(base), one), one)
    bit = base
    for place in range(NARROW[dtype][0] if dtype in NARROW else 31):
        taken = ops.not_equal(ops.bitwise_and(times, np.array(2**place, one.dtype)), zero_of(times))
        found = ops.multiply(found, chosen(taken, bit, one))
        bit = ops.multiply(bit, bit)
    # What is not 1 or -1 has no whole inverse: torch says 0. Zero stays zero however often it is multiplied.
    zero = zero_of(base)
    lost = ops.logical_and(ops.less(times, zero), ops.not_equal(ops.abs(base), one))
    gone = ops.logical_and(ops.less(zero, times), ops.equal(base, zero))
    return emit.result(chosen(ops.logical_or(lost, gone), zero, found))


def exp_of(x: Tensor) -> Tensor:
    """OpenVINO 2026.4's exponential of NaN is infinite."""
    return ops.select(ops.is_nan(x), x, ops.exp(x))


def expm1_of(x: Tensor) -> Tensor:
    """exp(x) - 1."""
    # 2 tanh(x/2) / (1 - tanh(x/2)), which loses nothing near 0.
    t = ops.tanh(ops.multiply(x, np.float32(0.5)))
    near = ops.divide(ops.multiply(np.float32(2), t), ops.subtract(np.float32(1), t))
    far = ops.subtract(exp_of(x), np.float32(1))
    return ops.select(ops.less(ops.abs(x), np.float32(0.5)), near, far)


def log1p_of(x: Tensor) -> Tensor:
    """log(1 + x) near 0 too: 2 artanh(x / (2 + x)), a series there, OpenVINO's logarithm elsewhere."""
    z = ops.divide(x, ops.add(x, np.float32(2)))
    square = ops.multiply(z, z)
    series = np.float32(1 / 13)
    for odd in (11, 9, 7, 5, 3, 1):
        series = ops.add(ops.multiply(square, series), np.float32(1 / odd))
    near = ops.multiply(ops.multiply(z, np.float32(2)), series)
    far = ops.log(ops.add(x, np.float32(1)))
    inside = ops.logical_and(ops.greater(x, np.float32(-0.5)), ops.less_equal(x, np.float32(1)))
    return ops.select(inside, near, far)


@lowers("aten.acos.default", function=ops.acos)
@lowers("aten.acosh.default", function=ops.acosh)
@lowers("aten.asin.default", function=ops.asin)
@lowers("aten.asinh.default", function=ops.asinh)
@lowers("aten.atan.default", function=ops.atan)
@lowers("aten.atanh.default", function=ops.atanh)
@lowers("aten.cos.default", function=ops.cos)
@lowers("aten.cosh.default", function=ops.cosh)
@lowers("aten.exp.default", function=exp_of)
@lowers("aten.exp2.default", function=lambda x: ops.power(np.float32(2), x))
@lowers("aten.expm1.default", function=expm1_of)
@lowers("aten.log.default", function=ops.log)
@lowers("aten.log1p.default", function=log1p_of)
@lowers("aten.log2.default", function=lambda x: ops.multiply(ops.log(x), np.float32(1 / math.log(2))))
@lowers("aten.log10.default", function=lambda x: ops.multiply(ops.log(x), np.float32(1 / math.log(10))))
@lowers("aten.reciprocal.default", function=lambda x: ops.divide(np.float32(1), x))
@lowers("aten.rsqrt.default", function=lambda x: ops.divide(np.float32(1), ops.sqrt(x)))
@lowers("aten.sigmoid.default", function=ops.sigmoid)
@lowers("aten.sin.default", function=ops.sin)
@lowers("aten.sinh.default", function=ops.sinh)
@lowers("aten.sqrt.default", function=ops.sqrt)
@lowers("aten.tan.default", function=ops.tan)
@lowers("aten.tanh.default", function=ops.tanh)
def of_float(emit: Emitter, function: Callable[..., Any], self: Tensor) -> Tensor:
    """Of one float: integers are cast first, as torch does."""
    return function(emit.cast(self, emit.dtype))


@lowers("aten.ceil.default", function=ops.ceiling)
@lowers("aten.floor.default", function=ops.floor)
@lowers("aten.round.default", function=lambda x: ops.round(x, "half_to_even"))
@lowers("aten.trunc.default", function=lambda x: ops.multiply(ops.sign(x), ops.floor(ops.abs(x))))
def rounded(emit: Emitter, function: Callable[..., Any], self: Tensor) -> Tensor:
    """Whole numbers are rounded to themselves."""
    return function(self) if emit.dtype.is_floating_point else out(self)


@lowers("aten.abs.default")
def abs_(emit: Emitter, self: Tensor) -> Tensor:
    return self if emit.dtype == torch.uint8 else computed(emit, ops.abs, self)


@lowers("aten.neg.default")
def neg(emit: Emitter, self: Tensor) -> Tensor:
    if emit.dtype.is_floating_point:  # as OpenVINO's fusion knows rotary positions
        return ops.multiply(self, np.float32(-1))
    return computed(emit, ops.negative, self)


@lowers("aten.sign.default")
def sign(emit: Emitter, self: Tensor) -> Tensor:
    if emit.dtype.is_floating_point:
        return ops.select(ops.is_nan(self), np.float32(0), ops.sign(self))
    return self if emit.dtype == torch.bool else computed(emit, ops.sign, self)


@lowers("aten.positive.default")
def positive(emit: Emitter, self: Tensor) -> Tensor:
    return self


@lowers("aten.square.default")
def square(emit: Emitter, self: Tensor) -> Tensor:
    if emit.dtype.is_floating_point:
        return ops.power(emit.cast(self, emit.dtype), np.float32(2))
    return computed(emit, lambda x: ops.multiply(x, x), self)


@lowers("aten.atan2.default", "aten.arctan2.default", y=Arg("self"), x=Arg("other"))
def angle_of(emit: Emitter, y: Tensor, x: Tensor) -> Tensor:
    """atan2(y, x): of |y| / |x|, in the quadrant that the signs say."""
    f = np.float32
    y, x = emit.cast(y, emit.dtype), emit.cast(x, emit.dtype)
    high, wide = ops.abs(y), ops.abs(x)
    both = ops.logical_or(ops.equal(ops.maximum(high, wide), f(0)), ops.equal(ops.minimum(high, wide), f(np.inf)))
    ratio = ops.select(both, ops.select(ops.equal(high, f(0)), f(0), f(1)), ops.divide(high, wide))
    angle = ops.atan(ratio)
    angle = ops.select(ops.less(x, f(0)), ops.subtract(f(math.pi), angle), angle)
    return ops.select(ops.less(y, f(0)), ops.multiply(angle, f(-1)), angle)


@lowers("aten.erfinv.default", "aten.special_erfinv.default")
def erfinv(emit: Emitter, self: Tensor) -> Tensor:
    """By Giles' polynomials of log(1 - x^2), one for the middle and one for the tails."""
    f = np.float32
    x = emit.cast(self, emit.dtype)
    one = f(1)
    w = ops.multiply(ops.log(ops.multiply(ops.subtract(one, x), ops.add(one, x))), f(-1))
    tail = ops.greater_equal(w, f(5))
    near = _polynomial(ops.subtract(w, f(2.5)), _ERFINV_MIDDLE)
    far = _polynomial(ops.subtract(ops.sqrt(ops.maximum(w, f(0))), f(3)), _ERFINV_TAIL)
    found = ops.multiply(ops.select(tail, far, near), x)
    size = ops.abs(x)
    found = ops.select(ops.equal(size, one), ops.multiply(x, f(np.inf)), found)
    return ops.select(ops.less_equal(size, one), found, f(np.nan))


_ERFINV_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    found = np.float32(coefficients[0])
    for c in coefficients[1:]:
        found = ops.add(ops.multiply(found, x), np.float32(c))
    return found


def with_nan(found: Tensor, *operands: Any) -> Tensor:
    """`found`, and NaN where an operand is: OpenVINO 2026.4 takes the other one, as its clamp does."""
    for x in operands:
        found = ops.select(ops.is_nan(x), x, found)
    return found


@lowers("aten.maximum.default", "aten.max.other", function=ops.maximum, logical=ops.logical_or)
@lowers("aten.minimum.default", "aten.min.other", function=ops.minimum, logical=ops.logical_and)
@lowers(
    "aten.clamp_min.default", "aten.clamp_min.Tensor", other=Arg("min"), function=ops.maximum, logical=ops.logical_or
)
@lowers(
    "aten.clamp_max.default", "aten.clamp_max.Tensor", other=Arg("max"), function=ops.minimum, logical=ops.logical_and
)
def extreme_of(
    emit: Emitter, function: Callable[..., Any], logical: Callable[..., Any], self: Tensor, other: Any
) -> Tensor:
    dtype = emit.dtype
    if dtype == torch.bool:
        return computed(emit, logical, self, other)
    if not dtype.is_floating_point and (not is_tensor(other) or rank_of(other) == 0):
        bounds = (None, other) if function is ops.minimum else (other, None)
        return emit.result(clamped(emit, emit.wide(self, dtype), *bounds))
    if not dtype.is_floating_point:
        return computed(emit, function, self, other)
    tensors = [emit.cast(x, dtype) for x in (self, other)]
    return with_nan(
        function(*tensors), *(x for x, given in zip(tensors, (self, other), strict=True) if is_tensor(given))
    )


def clamped(emit: Emitter, x: Tensor, least: int | None, most: Size | None) -> Tensor:
    """Whole numbers between bounds. By choices, since the plugin fuses a minimum of a maximum to its inexact clamp."""
    dtype = emit.dtype
    if least is not None:
        least = bound_of(emit, least, dtype, True)
        x = chosen(less(x, least), least, x)
    if most is not None:
        most = bound_of(emit, most, dtype, False)
        x = chosen(less(most, x), most, x)
    return x


def bound_of(emit: Emitter, bound: Size, dtype: torch.dtype, is_least: bool) -> Tensor:
    """A bound in the type in which `dtype` is computed. A number wraps around to `dtype` first, as torch has it."""
    if isinstance(bound, (int, float)) and dtype not in NARROW:
        # What lies beyond on its own side bounds nothing that is held here.
        bound = max(int(bound), -(2**31)) if is_least else min(int(bound), 2**31 - 1)
    return operand(emit, bound, dtype)


@lowers("aten.clamp.default", "aten.clamp.Tensor", "aten.clip.default", "aten.clip.Tensor")
@lowers("aten.hardtanh.default", min=Arg("min_val"), max=Arg("max_val"))
@lowers("aten.relu6.default", min=0, max=6)
def clamp(emit: Emitter, self: Tensor, min: Any, max: Any) -> Tensor:
    dtype = emit.dtype
    x = emit.wide(self, dtype)
    if not dtype.is_floating_point:
        return emit.result(clamped(emit, x, min, max))
    if isinstance(min, (int, float)) and isinstance(max, (int, float)) and min <= max:
        return with_nan(ops.clamp(x, float(min), float(max)), x)
    found = x
    if min is not None:
        found = ops.maximum(found, emit.wide(min, dtype))
    if max is not None:
        found = ops.minimum(found, emit.wide(max, dtype))
    return with_nan(found, x, *(emit.cast(bound, dtype) for bound in (min, max) if is_tensor(bound)))


@lowers("aten.addcmul.default")
def addcmul(emit: Emitter, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Scalar) -> Tensor:
    dtype = emit.dtype
    product = ops.multiply(emit.wide(tensor1, dtype), emit.wide(tensor2, dtype))
    return computed(emit, ops.add, self, scaled(emit, product, value))


@lowers("aten.addcdiv.default")
def addcdiv(emit: Emitter, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Scalar) -> Tensor:
    dtype = emit.dtype
    quotient = ops.divide(emit.cast(tensor1, dtype), emit.cast(tensor2, dtype))
    return computed(emit, ops.add, self, scaled(emit, quotient, value))


@lowers("aten.lerp.Scalar", "aten.lerp.Tensor")
def lerp(emit: Emitter, self: Tensor, end: Tensor, weight: Any) -> Tensor:
    return ops.add(self, ops.multiply(emit.cast(weight, emit.dtype), ops.subtract(end, self)))


# --- casts ---------------------------------------------------------------------------------------------


@lowers("prims.convert_element_type.default", x=Arg("a"))
def converted(emit: Emitter, x: Tensor, dtype: Any) -> Tensor:
    """A cast. In a float32 program one to half precision rounds, though the result is held as float32."""
    found = emit.cast(x, dtype)
    own = emit.dtype_of(x)
    if emit.rounds and dtype in (torch.bfloat16, torch.float16) and own != dtype and own != torch.bool:
        found = rounded_to_half(found, dtype)
    return out(found)


@lowers("aten._to_copy.default", "aten.to.dtype", "aten.to.dtype_layout", "aten.to.other", "aten.type_as.default")
def cast(emit: Emitter, self: Tensor, **_: object) -> Tensor:
    """The result's dtype says all."""
    return converted(emit, self, emit.dtype)


@lowers(
    "aten.alias.default",
    "aten.clone.default",
    "aten.detach.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
)
def alias(emit: Emitter, self: Tensor) -> Tensor:
    return self


@lowers("aten.copy.default")
def copy(emit: Emitter, self: Tensor, src: Tensor) -> Tensor:
    found = converted(emit, src, emit.dtype)
    return emit.broadcast(found, emit.sizes(self)) if is_tensor(self) else found
