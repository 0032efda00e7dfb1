# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparison and logic, element by element, with torch's type promotion."""

from paritas.lower.mindspore.source import Value
from paritas.lower.registry import lowers

_FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


def _promote(emit, *operands):
    """The operands in the dtype that torch computes in: the result's. Python numbers stay as they are."""
    return [emit.cast(x, emit.out.dtype) if isinstance(x, Value) and x.dtype else x for x in operands]


def _compared(emit, self, other):
    """Both operands of a comparison in one dtype."""
    if not (isinstance(self, Value) and isinstance(other, Value)) or self.dtype == other.dtype or not other.dtype:
        if self.dtype == "bool":  # MindSpore compares bool with a number after casting the number to bool
            return emit.cast(self, "int64"), other
        if isinstance(other, float) and self.dtype not in _FLOATS:
            return emit.cast(self, "float32"), other
        return self, other
    import torch

    wide = torch.promote_types(getattr(torch, self.dtype), getattr(torch, other.dtype))
    return emit.cast(self, wide), emit.cast(other, wide)


@lowers("mindspore", "aten.add.Tensor")
def add(emit, self, other, *, alpha=1):
    """add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_or", self, other)
    self, other = _promote(emit, self, other)
    return emit.infix("+", self, other if alpha == 1 else emit.infix("*", other, alpha))


@lowers("mindspore", "aten.add.Scalar")
def add_scalar(emit, self, other, alpha=1):
    """add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return add(emit, self, other, alpha=alpha)


@lowers("mindspore", "aten.sub.Tensor")
def sub(emit, self, other, *, alpha=1):
    """sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"""
    self, other = _promote(emit, self, other)
    return emit.infix("-", self, other if alpha == 1 else emit.infix("*", other, alpha))


@lowers("mindspore", "aten.sub.Scalar")
def sub_scalar(emit, self, other, alpha=1):
    """sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    return sub(emit, self, other, alpha=alpha)


@lowers("mindspore", "aten.rsub.Scalar")
def rsub(emit, self, other, alpha=1):
    """rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor"""
    (self,) = _promote(emit, self)
    return emit.infix("-", other, self if alpha == 1 else emit.infix("*", self, alpha))


@lowers("mindspore", "aten.mul.Tensor")
def mul(emit, self, other):
    """mul.Tensor(Tensor self, Tensor other) -> Tensor"""
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_and", self, other)
    return emit.infix("*", *_promote(emit, self, other))


@lowers("mindspore", "aten.mul.Scalar")
def mul_scalar(emit, self, other):
    """mul.Scalar(Tensor self, Scalar other) -> Tensor"""
    return mul(emit, self, other)


@lowers("mindspore", "aten.div.Tensor")
def div(emit, self, other):
    """div.Tensor(Tensor self, Tensor other) -> Tensor"""
    self, other = _promote(emit, self, other)
    if isinstance(other, (int, float)) and other not in (0, float("inf"), -float("inf")):
        # Division is 10 times slower than multiplication on CPU; only a power of two has an exact reciprocal.
        mantissa, _ = _frexp(float(other))
        if abs(mantissa) == 0.5:
            return emit.infix("*", self, 1.0 / other)
    return emit.infix("/", self, other)


def _frexp(value):
    import math

    return math.frexp(value)


@lowers("mindspore", "aten.div.Scalar")
def div_scalar(emit, self, other):
    """div.Scalar(Tensor self, Scalar other) -> Tensor"""
    return div(emit, self, other)


@lowers("mindspore", "aten.neg.default")
def neg(emit, self):
    """neg(Tensor self) -> Tensor"""
    return emit.prefix("-", self)


@lowers("mindspore", "aten.abs.default")
def abs_(emit, self):
    """abs(Tensor self) -> Tensor"""
    return emit.call("ops.abs", self)


@lowers("mindspore", "aten.pow.Tensor_Scalar")
def pow_(emit, self, exponent):
    """pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor"""
    (self,) = _promote(emit, self)
    if exponent == 2:  # ops.Square and ops.Pow are 6 and 15 times slower on CPU
        self = emit.let(self, "x")
        return emit.infix("*", self, self)
    if exponent == 3:
        self = emit.let(self, "x")
        return Value(f"{self} * {self} * {self}", emit.out.dtype, emit.out.shape, atomic=False)
    return emit.call("ops.pow", self, exponent)


@lowers("mindspore", "aten.rsqrt.default")
def rsqrt(emit, self):
    """rsqrt(Tensor self) -> Tensor"""
    return emit.call("ops.rsqrt", emit.cast(self, emit.out.dtype))


@lowers("mindspore", "aten.sqrt.default")
def sqrt(emit, self):
    """sqrt(Tensor self) -> Tensor"""
    return emit.call("ops.sqrt", emit.cast(self, emit.out.dtype))


@lowers("mindspore", "aten.exp.default")
def exp(emit, self):
    """exp(Tensor self) -> Tensor"""
    return emit.call("ops.exp", emit.cast(self, emit.out.dtype))


@lowers("mindspore", "aten.log.default")
def log(emit, self):
    """log(Tensor self) -> Tensor"""
    return emit.call("ops.log", emit.cast(self, emit.out.dtype))


@lowers("mindspore", "aten.sin.default")
def sin(emit, self):
    """sin(Tensor self) -> Tensor"""
    return emit.call("ops.sin", emit.cast(self, emit.out.dtype))


@lowers("mindspore", "aten.cos.default")
def cos(emit, self):
    """cos(Tensor self) -> Tensor"""
    return emit.call("ops.cos", emit.cast(self, emit.out.dtype))


def _comparison(target, symbol, schema):
    def lowering(emit, self, other):
        self, other = _compared(emit, self, other)
        return emit.infix(symbol, self, other)

    lowering.__doc__ = schema
    lowering.__name__ = target.split(".")[1]
    return lowers("mindspore", target)(lowering)


for _name, _symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    _comparison(f"aten.{_name}.Tensor", _symbol, f"{_name}.Tensor(Tensor self, Tensor other) -> Tensor")
    _comparison(f"aten.{_name}.Scalar", _symbol, f"{_name}.Scalar(Tensor self, Scalar other) -> Tensor")


def _bitwise(target, logical, integer, schema):
    def lowering(emit, self, other):
        if emit.out.dtype == "bool":
            return emit.call(logical, self, other)
        return emit.call(integer, *_promote(emit, self, other))

    lowering.__doc__ = schema
    lowering.__name__ = target.split(".")[1]
    return lowers("mindspore", target)(lowering)


for _target, _schema in (
    ("aten.__and__.Tensor", "__and__.Tensor(Tensor self, Tensor other) -> Tensor"),
    ("aten.bitwise_and.Tensor", "bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor"),
):
    _bitwise(_target, "ops.logical_and", "ops.bitwise_and", _schema)
for _target, _schema in (
    ("aten.__or__.Tensor", "__or__.Tensor(Tensor self, Tensor other) -> Tensor"),
    ("aten.bitwise_or.Tensor", "bitwise_or.Tensor(Tensor self, Tensor other) -> Tensor"),
):
    _bitwise(_target, "ops.logical_or", "ops.bitwise_or", _schema)


@lowers("mindspore", "aten.bitwise_not.default")
def bitwise_not(emit, self):
    """bitwise_not(Tensor self) -> Tensor"""
    return emit.call("ops.logical_not" if self.dtype == "bool" else "ops.bitwise_not", self)


@lowers("mindspore", "aten.logical_not.default")
def logical_not(emit, self):
    """logical_not(Tensor self) -> Tensor"""
    return emit.call("ops.logical_not", emit.cast(self, "bool"))


@lowers("mindspore", "aten.logical_and.default")
def logical_and(emit, self, other):
    """logical_and(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.logical_and", emit.cast(self, "bool"), emit.cast(other, "bool"))


@lowers("mindspore", "aten.minimum.default")
def minimum(emit, self, other):
    """minimum(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.minimum", *_promote(emit, self, other))


@lowers("mindspore", "aten.min.other")
def min_other(emit, self, other):
    """min.other(Tensor self, Tensor other) -> Tensor"""
    return minimum(emit, self, other)


@lowers("mindspore", "aten.max.other")
def max_other(emit, self, other):
    """max.other(Tensor self, Tensor other) -> Tensor"""
    return maximum(emit, self, other)


@lowers("mindspore", "aten.maximum.default")
def maximum(emit, self, other):
    """maximum(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.maximum", *_promote(emit, self, other))


@lowers("mindspore", "aten.where.self")
def where(emit, condition, self, other):
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.where", condition, *_promote(emit, self, other))


@lowers("mindspore", "aten.where.ScalarOther")
def where_scalar_other(emit, condition, self, other):
    """where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor"""
    return emit.call("ops.where", condition, emit.cast(self, emit.out.dtype), other)


@lowers("mindspore", "aten.where.ScalarSelf")
def where_scalar_self(emit, condition, self, other):
    """where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor"""
    return emit.call("ops.where", condition, self, emit.cast(other, emit.out.dtype))


@lowers("mindspore", "aten.masked_fill.Scalar")
def masked_fill(emit, self, mask, value):
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return emit.call("ops.masked_fill", self, mask, value)


@lowers("mindspore", "aten._to_copy.default")
def to_copy(emit, self, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None):
    """_to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    return emit.cast(self, emit.out.dtype)


@lowers("mindspore", "aten.type_as.default")
def type_as(emit, self, other):
    """type_as(Tensor self, Tensor other) -> Tensor"""
    return emit.cast(self, emit.out.dtype)
