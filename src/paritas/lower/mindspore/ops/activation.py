# SPDX-License-Identifier: Apache-2.0
"""Activation functions."""

import math
from collections.abc import Callable
from typing import Any

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.where_clamp import larger, number, smaller
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


def in_float32(emit: Emitter, self: Value, write: Callable[..., Any]) -> Value:
    """float16 by way of float32, as torch: polynomials underflow in float16, and overflow."""
    if self.dtype != "float16":
        return write(emit.cast(self, emit.out.dtype))
    return emit.cast(emit.typed(write(emit.cast(self, "float32")), dtype="float32"), "float16")


@lowers("aten.gelu.default")
def gelu(emit: Emitter, self: Value, *, approximate: str = "none") -> Value:
    if emit.target == "ascend":
        return emit.call("ops.gelu", self, approximate=approximate)
    if self.dtype == "float64":
        return _gelu_64(emit, self, approximate)
    return in_float32(emit, self, lambda x: emit.prelude("gelu" if approximate == "none" else "gelu_tanh", x))


def _gelu_64(emit: Emitter, self: Value, approximate: str) -> Value:
    """Where the digits of the fit for float32 are not enough."""
    if approximate == "none":
        return emit.prelude("gelu_64", self)
    x = emit.let(self, "x")
    bent = emit.infix("*", emit.infix("*", emit.infix("*", x, x), x), 0.044715)
    inner = emit.infix("*", emit.infix("+", x, bent), math.sqrt(8 / math.pi))
    return emit.infix("*", x, emit.call("ops.sigmoid", inner))


@lowers("aten.tanh.default")
def tanh(emit: Emitter, self: Value) -> Value:
    if emit.target == "ascend":
        return emit.call("ops.tanh", emit.cast(self, emit.out.dtype))
    return in_float32(emit, self, lambda x: emit.prelude("tanh", x))


@lowers("aten.sigmoid.default", "aten.special_expit.default")
def sigmoid(emit: Emitter, self: Value) -> Value:
    return in_float32(emit, self, lambda x: emit.call("ops.sigmoid", x))


@lowers("aten.silu.default")
def silu(emit: Emitter, self: Value) -> Value:
    if emit.target == "ascend":
        return emit.call("ops.silu", self)
    x = emit.let(self, "x")  # ops.silu is 1.6 times slower on CPU
    return emit.infix("*", x, emit.call("ops.sigmoid", x))


@lowers("aten.leaky_relu.default")
def leaky_relu(emit: Emitter, self: Value, negative_slope: Scalar) -> Value:
    x = emit.let(self, "x")
    zero = 0.0 if self.dtype == "float32" else number(emit, 0)
    # Both bounds come first: Maximum and Minimum let NaN through from their second operand only.
    below = emit.infix("*", smaller(emit, zero, x), negative_slope)
    return emit.infix("+", larger(emit, zero, x), below)


@lowers("aten.prelu.default")
def prelu(emit: Emitter, self: Value, weight: Value) -> Value:
    x = emit.let(self, "x")
    zero = 0.0 if self.dtype == "float32" else number(emit, 0)
    if self.rank == 0:
        weight = emit.call("ops.reshape", weight, ())
    elif self.rank > 1 and weight.rank == 1:
        weight = emit.call("ops.reshape", weight, (-1, *[1] * (self.rank - 2)))
    return emit.infix("+", larger(emit, zero, x), emit.infix("*", smaller(emit, zero, x), weight))


@lowers("aten.elu.default")
def elu(emit: Emitter, self: Value, alpha: Scalar = 1, scale: Scalar = 1, input_scale: Scalar = 1) -> Value:
    def write(x: Value) -> Value:
        x = emit.let(x, "x")
        below = smaller(emit, 0.0, x if input_scale == 1 else emit.infix("*", x, input_scale))
        bent = _bent(emit, emit.typed(below, dtype=x.dtype), x.dtype)
        bent = bent if alpha == 1 else emit.infix("*", bent, alpha)
        whole = emit.infix("+", larger(emit, 0.0, x), bent)
        return whole if scale == 1 else emit.infix("*", whole, scale)

    return in_float32(emit, self, write)


def _bent(emit: Emitter, below: Value, kind: str) -> Value:
    """exp(below) - 1 in `kind`, float32 or float64."""
    if emit.target == "ascend":
        return emit.call("ops.expm1", below)
    name = "expm1" if kind == "float64" else "expm1_near"
    return emit.cast(emit.typed(emit.prelude(name, emit.cast(below, "float64")), dtype="float64"), kind)


def stable_softplus(emit: Emitter, x: Value) -> Value:
    """max(x, 0) + log1p(exp(-|x|)): never overflows, and keeps NaN, which ops.Softplus turns into inf."""
    kind = x.dtype  # float32 or float64
    x = emit.let(x, "x")
    below = emit.typed(emit.prefix("-", emit.call("ops.abs", x)), dtype=kind)
    if emit.target == "ascend":
        small = emit.call("ops.log1p", emit.call("ops.exp", below))
    else:  # the CPU's exp in fp32 is 2e-5 of itself off where it is tiny
        grown = emit.call("ops.exp", emit.cast(below, "float64"))
        small = emit.prelude("log1p" if kind == "float64" else "log1p_near", grown)
        small = emit.cast(emit.typed(small, dtype="float64"), kind)
    return emit.typed(emit.infix("+", larger(emit, number(emit, 0, kind), x), small), dtype=kind)


@lowers("aten.log_sigmoid.default")
def log_sigmoid(emit: Emitter, self: Value) -> Value:
    return in_float32(emit, self, lambda x: emit.prefix("-", stable_softplus(emit, emit.prefix("-", x))))


@lowers("aten.softplus.default")
def softplus(emit: Emitter, self: Value, beta: Scalar = 1, threshold: Scalar = 20) -> Value:
    def write(x: Value) -> Value:
        if threshold < 15:  # where it is not yet linear
            x = emit.let(x, "x")
            scaled = emit.let(emit.infix("*", x, beta), "scaled")
            curved = emit.infix("/", stable_softplus(emit, scaled), beta)
            return emit.call("ops.where", emit.infix(">", scaled, threshold), x, curved)
        if beta == 1:
            return stable_softplus(emit, x)
        return emit.infix("/", stable_softplus(emit, emit.infix("*", x, beta)), beta)

    return in_float32(emit, self, write)


@lowers("aten.mish.default")
def mish(emit: Emitter, self: Value) -> Value:
    def write(x: Value) -> Value:
        x = emit.let(x, "x")
        return emit.infix("*", x, emit.prelude("tanh", stable_softplus(emit, x)))

    return in_float32(emit, self, write)


@lowers("aten.hardsigmoid.default")
def hardsigmoid(emit: Emitter, self: Value) -> Value:
    def write(x: Value) -> Value:
        shifted = larger(emit, 0.0, emit.infix("+", x, 3.0))
        return emit.infix("/", smaller(emit, 6.0, shifted), 6.0)

    return in_float32(emit, self, write)


@lowers("aten.hardswish.default")
def hardswish(emit: Emitter, self: Value) -> Value:
    def write(x: Value) -> Value:
        x = emit.let(x, "x")
        shifted = smaller(emit, 6.0, larger(emit, 0.0, emit.infix("+", x, 3.0)))
        return emit.infix("/", emit.infix("*", x, shifted), 6.0)

    return in_float32(emit, self, write)


@lowers("aten.glu.default")
def glu(emit: Emitter, self: Value, dim: int) -> Value:
    dim = dim % self.rank
    half = emit.size(emit.out.shape[dim])
    x = emit.let(self, "x")
    colons = ", ".join([":"] * dim)
    first, second = (Value(f"{x}[{colons + ', ' if dim else ''}{part}]") for part in (f":{half}", f"{half}:"))
    return emit.infix("*", first, emit.call("ops.sigmoid", second))


@lowers("aten.softmax.int", "aten._softmax.default", "aten.special_softmax.default")
def softmax(emit: Emitter, self: Value, dim: int, **_: object) -> Value:
    x = emit.cast(self, emit.out.dtype)
    if x.rank == 0:
        x = emit.let(x, "x")
        return Value(f"{x} - {x} + 1.0", atomic=False)
    if x.dtype not in ("float32", "float16") or emit.target == "ascend":
        return emit.prim("ops.Softmax", dim)(x)
    if dim % x.rank == x.rank - 1:
        return emit.prelude("softmax", x)
    order = list(range(x.rank))
    order[dim], order[-1] = order[-1], order[dim]
    turned = emit.prelude("softmax", emit.call("ops.transpose", x, tuple(order)))
    return emit.call("ops.transpose", turned, tuple(order))


@lowers("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax_of(emit: Emitter, self: Value, dim: int, **_: object) -> Value:
    x = emit.cast(self, emit.out.dtype)
    if x.rank == 0:
        return emit.infix("-", x, x)
    x = emit.let(x, "x")
    dim = dim % x.rank
    highest = emit.prim("ops.ReduceMax", keep_dims=True)(x, dim)
    x = emit.let(emit.infix("-", x, highest), "x")
    total = emit.prim("ops.ReduceSum", keep_dims=True)(emit.call("ops.exp", x), dim)
    return emit.infix("-", x, emit.call("ops.log", total))
