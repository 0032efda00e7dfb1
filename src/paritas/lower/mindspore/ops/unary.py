# SPDX-License-Identifier: Apache-2.0
"""Functions of one tensor, element by element. Integers become floats first, as in torch."""

import torch

from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import lowers


@lowers("mindspore", "aten.neg.default")
def neg(emit, self):
    """neg(Tensor self) -> Tensor"""
    return emit.prefix("-", self)


@lowers("mindspore", "aten.abs.default")
def abs_(emit, self):
    """abs(Tensor self) -> Tensor"""
    if self.dtype in ("complex64", "complex128"):  # ops.abs gives a complex number
        return emit.call("ops.real", emit.call("ops.abs", self))
    return self if self.dtype == "uint8" else emit.call("ops.abs", self)


@lowers("mindspore", "aten.sign.default")
def sign(emit, self):
    """sign(Tensor self) -> Tensor"""
    if self.dtype == "bool":
        return self
    if self.dtype in ("uint8", "int8", "int16"):  # no kernel
        return emit.cast(
            emit.typed(emit.call("ops.sign", emit.cast(self, "int32")), dtype="int32"), self.dtype
        )
    return emit.call("ops.sign", self)


@lowers("mindspore", "aten.reciprocal.default")
def reciprocal(emit, self):
    """reciprocal(Tensor self) -> Tensor"""
    return emit.infix("/", 1.0, emit.cast(self, emit.out.dtype))


def negative(emit, x):
    """Whether each float has its sign bit: the reciprocal of -0.0 says so, -inf."""
    below = emit.infix(
        "<", emit.typed(emit.call("ops.where", Value(f"{x} == 0"), Value(f"1.0 / {x}"), x)), 0
    )
    return emit.typed(below, dtype="bool")


def _floating(emit, function, self):
    return emit.call(function, emit.cast(self, emit.out.dtype))


def in_float64(emit, function, self):
    """In float64 where the fp32 kernel of MindSpore's CPU backend is 3e-6 off (torch: 6e-8), or wrong near 0."""
    if emit.target == "ascend" or emit.out.dtype not in ("float32", "float16"):
        return _floating(emit, function, self)
    wide = emit.typed(emit.call(function, emit.cast(self, "float64")), dtype="float64")
    return emit.cast(wide, emit.out.dtype)


def near_zero(emit, name, self):
    """log1p or expm1, of which MindSpore's CPU backend keeps nothing near 0. In and out: the result's dtype."""
    if emit.target == "ascend":
        return _floating(emit, f"ops.{name}", self)
    exact = name if emit.out.dtype == "float64" else f"{name}_near"
    wide = emit.typed(emit.help(exact, emit.cast(self, "float64")), dtype="float64")
    return emit.cast(wide, emit.out.dtype)


@lowers("mindspore", "aten.exp.default")
def exp(emit, self):
    """exp(Tensor self) -> Tensor"""
    return in_float64(emit, "ops.exp", self)


@lowers("mindspore", "aten.expm1.default")
def expm1(emit, self):
    """expm1(Tensor self) -> Tensor"""
    return near_zero(emit, "expm1", self)


@lowers("mindspore", "aten.log.default")
def log(emit, self):
    """log(Tensor self) -> Tensor"""
    return in_float64(emit, "ops.log", self)


@lowers("mindspore", "aten.log1p.default")
def log1p(emit, self):
    """log1p(Tensor self) -> Tensor"""
    return near_zero(emit, "log1p", self)


def _times(emit, value, factor):
    return emit.cast(emit.typed(emit.infix("*", value, factor), dtype="float64"), emit.out.dtype)


def _log64(emit, self):
    return emit.typed(emit.call("ops.log", emit.cast(self, "float64")), dtype="float64")


@lowers("mindspore", "aten.log2.default")
def log2(emit, self):
    """log2(Tensor self) -> Tensor"""
    return _times(emit, _log64(emit, self), 1.4426950408889634)


@lowers("mindspore", "aten.log10.default")
def log10(emit, self):
    """log10(Tensor self) -> Tensor"""
    return _times(emit, _log64(emit, self), 0.4342944819032518)


@lowers("mindspore", "aten.sqrt.default")
def sqrt(emit, self):
    """sqrt(Tensor self) -> Tensor"""
    return _floating(emit, "ops.sqrt", self)


@lowers("mindspore", "aten.rsqrt.default")
def rsqrt(emit, self):
    """rsqrt(Tensor self) -> Tensor"""
    return _floating(emit, "ops.rsqrt", self)


@lowers("mindspore", "aten.sin.default")
def sin(emit, self):
    """sin(Tensor self) -> Tensor"""
    return _floating(emit, "ops.sin", self)


@lowers("mindspore", "aten.cos.default")
def cos(emit, self):
    """cos(Tensor self) -> Tensor"""
    return _floating(emit, "ops.cos", self)


@lowers("mindspore", "aten.tan.default")
def tan(emit, self):
    """tan(Tensor self) -> Tensor"""
    return _floating(emit, "ops.tan", self)


@lowers("mindspore", "aten.atan.default")
def atan(emit, self):
    """atan(Tensor self) -> Tensor"""
    return _floating(emit, "ops.atan", self)


@lowers("mindspore", "aten.atan2.default")
def atan2(emit, self, other):
    """atan2(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.atan2", emit.cast(self, emit.out.dtype), emit.cast(other, emit.out.dtype))


@lowers("mindspore", "aten.erf.default")
def erf(emit, self):
    """erf(Tensor self) -> Tensor"""
    return _floating(emit, "ops.erf", self)


def _rounded(emit, function, self):
    """torch rounds integers to themselves."""
    return emit.call(function, self) if self.dtype.startswith(("float", "bfloat")) else self


@lowers("mindspore", "aten.floor.default")
def floor(emit, self):
    """floor(Tensor self) -> Tensor"""
    return _rounded(emit, "ops.floor", self)


@lowers("mindspore", "aten.ceil.default")
def ceil(emit, self):
    """ceil(Tensor self) -> Tensor"""
    return _rounded(emit, "ops.ceil", self)


@lowers("mindspore", "aten.round.default")
def round_(emit, self):
    """round(Tensor self) -> Tensor"""
    return _rounded(emit, "ops.round", self)


@lowers("mindspore", "aten.round.decimals")
def round_decimals(emit, self, *, decimals):
    """round.decimals(Tensor self, *, int decimals) -> Tensor"""
    if not self.dtype.startswith("float") or decimals == 0:
        return _rounded(emit, "ops.round", self)
    x = emit.cast(self, "float32") if self.dtype == "float16" else self
    by = float(10 ** abs(decimals))
    up, down = ("*", "/") if decimals > 0 else ("/", "*")
    moved = emit.call("ops.round", emit.infix(up, x, by))
    return emit.cast(emit.typed(emit.infix(down, moved, by), dtype=x.dtype), self.dtype)


@lowers("mindspore", "aten.trunc.default")
def trunc(emit, self):
    """trunc(Tensor self) -> Tensor"""
    return _rounded(emit, "ops.trunc", self)


@lowers("mindspore", "aten.isnan.default")
def isnan(emit, self):
    """isnan(Tensor self) -> Tensor"""
    x = emit.let(self, "x")
    return emit.infix("!=", x, x)


@lowers("mindspore", "aten.isinf.default")
def isinf(emit, self):
    """isinf(Tensor self) -> Tensor"""
    if not self.dtype.startswith(("float", "bfloat")):
        return emit.call("ops.zeros_like", emit.cast(self, "bool"))
    return emit.infix("==", emit.call("ops.abs", self), float("inf"))


@lowers("mindspore", "aten.isfinite.default")
def isfinite(emit, self):
    """isfinite(Tensor self) -> Tensor"""
    if not self.dtype.startswith(("float", "bfloat")):
        return emit.call("ops.ones_like", emit.cast(self, "bool"))
    return emit.infix("<", emit.call("ops.abs", self), float("inf"))


@lowers("mindspore", "aten.nan_to_num.default")
def nan_to_num(emit, self, nan=None, posinf=None, neginf=None):
    """nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor"""
    if not self.dtype.startswith("float"):
        return self
    top = torch.finfo(getattr(torch, self.dtype)).max
    high, low = top if posinf is None else posinf, -top if neginf is None else neginf
    x = self
    for where, value in (
        ("{} != {}", nan or 0.0),
        ('{} == float("inf")', high),
        ('{} == -float("inf")', low),
    ):
        x = emit.let(x, "x")  # ops.masked_fill would round a float64 to float32
        found = Value(where.format(x, x))
        x = emit.typed(emit.call("ops.where", found, _as(emit, value), x), like=self)
    return x


def _as(emit, value):
    """A number as a tensor of the result's dtype, to its last digit."""
    return emit.constant(torch.tensor(float(value), dtype=getattr(torch, emit.out.dtype)), "number")
