# SPDX-License-Identifier: Apache-2.0
"""Functions of one tensor, element by element. Integers become floats first, as in torch."""

import torch

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("aten.neg.default", "aten.negative.default")
def neg(emit: Emitter, self: Value) -> Value:
    return emit.prefix("-", self)


@lowers("aten.abs.default", "aten.absolute.default")
def abs_(emit: Emitter, self: Value) -> Value:
    if self.dtype in ("complex64", "complex128"):  # ops.abs gives a complex number
        return emit.call("ops.real", emit.call("ops.abs", self))
    return self if self.dtype == "uint8" else emit.call("ops.abs", self)


@lowers("aten.sign.default")
def sign(emit: Emitter, self: Value) -> Value:
    if self.dtype == "bool":
        return self
    if self.dtype in ("uint8", "int8", "int16"):  # no kernel
        return emit.cast(emit.typed(emit.call("ops.sign", emit.cast(self, "int32")), dtype="int32"), self.dtype)
    return emit.call("ops.sign", self)


@lowers("aten.reciprocal.default")
def reciprocal(emit: Emitter, self: Value) -> Value:
    return emit.infix("/", 1.0, emit.cast(self, emit.out.dtype))


def negative(emit: Emitter, x: Value) -> Value:
    """Whether each float has its sign bit: the reciprocal of -0.0 says so, -inf."""
    below = emit.infix("<", emit.typed(emit.call("ops.where", Value(f"{x} == 0"), Value(f"1.0 / {x}"), x)), 0)
    return emit.typed(below, dtype="bool")


@lowers("aten.sqrt.default", function="ops.sqrt")
@lowers("aten.rsqrt.default", function="ops.rsqrt")
@lowers("aten.sin.default", function="ops.sin")
@lowers("aten.cos.default", function="ops.cos")
@lowers("aten.tan.default", function="ops.tan")
@lowers("aten.atan.default", "aten.arctan.default", function="ops.atan")
@lowers("aten.erf.default", "aten.special_erf.default", function="ops.erf")
def _floating(emit: Emitter, function: str, self: Value) -> Value:
    return emit.call(function, emit.cast(self, emit.out.dtype))


@lowers("aten.exp.default", function="ops.exp")
@lowers("aten.log.default", function="ops.log")
def in_float64(emit: Emitter, function: str, self: Value) -> Value:
    """In float64 where the fp32 kernel of MindSpore's CPU backend is 3e-6 off (torch: 6e-8), or wrong near 0."""
    if emit.target == "ascend" or emit.out.dtype not in ("float32", "float16"):
        return _floating(emit, function, self)
    wide = emit.typed(emit.call(function, emit.cast(self, "float64")), dtype="float64")
    return emit.cast(wide, emit.out.dtype)


@lowers("aten.expm1.default", "aten.special_expm1.default", name="expm1")
@lowers("aten.log1p.default", "aten.special_log1p.default", name="log1p")
def near_zero(emit: Emitter, name: str, self: Value) -> Value:
    """log1p or expm1, of which MindSpore's CPU backend keeps nothing near 0. In and out: the result's dtype."""
    if emit.target == "ascend":
        return _floating(emit, f"ops.{name}", self)
    exact = name if emit.out.dtype == "float64" else f"{name}_near"
    wide = emit.typed(emit.prelude(exact, emit.cast(self, "float64")), dtype="float64")
    return emit.cast(wide, emit.out.dtype)


@lowers("aten.log2.default", per_e=1.4426950408889634)
@lowers("aten.log10.default", per_e=0.4342944819032518)
def logarithm(emit: Emitter, self: Value, per_e: float) -> Value:
    """The natural one in float64, times what the logarithm of e is to this base."""
    natural = emit.typed(emit.call("ops.log", emit.cast(self, "float64")), dtype="float64")
    return emit.cast(emit.typed(emit.infix("*", natural, per_e), dtype="float64"), emit.out.dtype)


@lowers("aten.atan2.default", "aten.arctan2.default")
def atan2(emit: Emitter, self: Value, other: Value) -> Value:
    return emit.call("ops.atan2", emit.cast(self, emit.out.dtype), emit.cast(other, emit.out.dtype))


@lowers("aten.floor.default", function="ops.floor")
@lowers("aten.ceil.default", function="ops.ceil")
@lowers("aten.round.default", function="ops.round")
@lowers("aten.trunc.default", "aten.fix.default", function="ops.trunc")
def _rounded(emit: Emitter, function: str, self: Value) -> Value:
    """torch rounds integers to themselves."""
    return emit.call(function, self) if self.dtype.startswith(("float", "bfloat")) else self


@lowers("aten.round.decimals")
def round_decimals(emit: Emitter, self: Value, *, decimals: int) -> Value:
    if not self.dtype.startswith("float") or decimals == 0:
        return _rounded(emit, "ops.round", self)
    x = emit.cast(self, "float32") if self.dtype == "float16" else self
    by = float(10 ** abs(decimals))
    up, down = ("*", "/") if decimals > 0 else ("/", "*")
    moved = emit.call("ops.round", emit.infix(up, x, by))
    return emit.cast(emit.typed(emit.infix(down, moved, by), dtype=x.dtype), self.dtype)


@lowers("aten.isnan.default")
def isnan(emit: Emitter, self: Value) -> Value:
    x = emit.let(self, "x")
    return emit.infix("!=", x, x)


@lowers("aten.isinf.default")
def isinf(emit: Emitter, self: Value) -> Value:
    if not self.dtype.startswith(("float", "bfloat")):
        return emit.call("ops.zeros_like", emit.cast(self, "bool"))
    return emit.infix("==", emit.call("ops.abs", self), float("inf"))


@lowers("aten.isfinite.default")
def isfinite(emit: Emitter, self: Value) -> Value:
    if not self.dtype.startswith(("float", "bfloat")):
        return emit.call("ops.ones_like", emit.cast(self, "bool"))
    return emit.infix("<", emit.call("ops.abs", self), float("inf"))


@lowers("aten.nan_to_num.default")
def nan_to_num(emit: Emitter, self: Value, nan: float | None, posinf: float | None, neginf: float | None) -> Value:
    if not self.dtype.startswith("float"):
        return self
    top = torch.finfo(getattr(torch, self.dtype)).max
    high, low = top if posinf is None else posinf, -top if neginf is None else neginf
    x = self
    for where, value in (("{} != {}", nan or 0.0), ('{} == float("inf")', high), ('{} == -float("inf")', low)):
        x = emit.let(x, "x")  # ops.masked_fill would round a float64 to float32
        found = Value(where.format(x, x))
        x = emit.typed(emit.call("ops.where", found, _as(emit, value), x), like=self)
    return x


def _as(emit: Emitter, value: float) -> Value:
    """A number as a tensor of the result's dtype, to its last digit."""
    return emit.constant(torch.tensor(float(value), dtype=getattr(torch, emit.out.dtype)), "number")
