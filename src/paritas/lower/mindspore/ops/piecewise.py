# SPDX-License-Identifier: Apache-2.0
"""Small functions of one tensor: signs, fractions, angles, and activations by pieces."""

import math

from paritas.lower.mindspore.ops.activation import elu, in_float32
from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.unary import negative, sign
from paritas.lower.mindspore.ops.where_clamp import number
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.sgn.default")
def sgn(emit: Emitter, self: Value) -> Value:
    if self.dtype.startswith("complex"):
        raise emit.refuse("the sign of a complex number")
    return sign(emit, self)


@lowers("aten.positive.default")
def positive(emit: Emitter, self: Value) -> Value:
    return self


@lowers("aten.signbit.default")
def signbit(emit: Emitter, self: Value) -> Value:
    if self.dtype in ("bool", "uint8"):
        return emit.call("ops.zeros_like", emit.cast(self, "bool"))
    if self.dtype not in FLOATS:
        return emit.infix("<", self, 0)
    return negative(emit, emit.let(self, "x"))


@lowers("aten.isneginf.default", value=-math.inf)
@lowers("aten.isposinf.default", value=math.inf)
def _infinite(emit: Emitter, self: Value, value: float) -> Value:
    if self.dtype not in FLOATS:
        return emit.call("ops.zeros_like", emit.cast(self, "bool"))
    return emit.infix("==", self, value)


@lowers("aten.frac.default")
def frac(emit: Emitter, self: Value) -> Value:
    x = emit.let(self, "x")
    return emit.infix("-", x, emit.call("ops.trunc", x))


@lowers("aten.deg2rad.default", factor=math.pi / 180)
@lowers("aten.rad2deg.default", factor=180 / math.pi)
def converted(emit: Emitter, self: Value, factor: float) -> Value:
    """An angle in the other unit."""
    return in_float32(emit, self, lambda x: emit.infix("*", x, factor))


@lowers("aten.sinc.default", "aten.special_sinc.default")
def sinc(emit: Emitter, self: Value) -> Value:
    def write(x: Value) -> Value:
        x = emit.let(emit.infix("*", x, math.pi), "x")
        zero = emit.let(emit.infix("==", x, 0), "zero")
        below = emit.call("ops.where", zero, emit.call("ops.ones_like", x), x)
        return emit.call(
            "ops.where", zero, emit.call("ops.ones_like", x), emit.infix("/", emit.call("ops.sin", x), below)
        )

    return in_float32(emit, self, write)


@lowers("aten.special_ndtr.default")
def special_ndtr(emit: Emitter, self: Value) -> Value:
    # torch's own formula: it loses the same digits far below 0.
    x = emit.infix("*", emit.cast(self, emit.out.dtype), math.sqrt(0.5))
    return emit.infix("*", emit.infix("+", emit.call("ops.erf", x), 1.0), 0.5)


@lowers("aten.special_entr.default")
def special_entr(emit: Emitter, self: Value) -> Value:
    x = emit.let(emit.cast(self, "float64"), "x")
    inside = emit.prefix("-", emit.infix("*", x, emit.call("ops.log", x)))
    inside = emit.call("ops.where", emit.infix("==", x, 0), 0.0, inside)
    found = emit.call("ops.where", emit.infix("<", x, 0), -math.inf, inside)
    return emit.cast(emit.typed(found, dtype="float64"), emit.out.dtype)


@lowers("aten.hardshrink.default")
def hardshrink(emit: Emitter, self: Value, lambd: Scalar) -> Value:
    x = emit.let(self, "x")
    bound = number(emit, abs(lambd))
    inside = emit.infix("<=", emit.call("ops.abs", x), bound)
    return emit.call("ops.where", inside, number(emit, 0), x)


@lowers("aten.softshrink.default")
def softshrink(emit: Emitter, self: Value, lambd: Scalar) -> Value:
    def write(x: Value) -> Value:
        x = emit.let(x, "x")
        inside = emit.infix("<=", emit.call("ops.abs", x), lambd)
        shifted = emit.infix("-", x, emit.infix("*", emit.call("ops.sign", x), lambd))
        return emit.call("ops.where", inside, emit.infix("*", x, 0.0), shifted)

    return in_float32(emit, self, write)


@lowers("aten.celu.default")
def celu(emit: Emitter, self: Value, alpha: Scalar) -> Value:
    return elu(emit, self, alpha, 1, 1.0 / alpha)


lowers("aten.selu.default", alpha=1.6732632423543772, scale=1.0507009873554805)(elu)
