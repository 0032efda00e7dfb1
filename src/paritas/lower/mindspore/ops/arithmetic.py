# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, element by element, with torch's type promotion. The result's dtype is the one torch computes in."""

import math
from collections.abc import Iterator
from typing import Any

import torch

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter, is_float32
from paritas.lower.mindspore.write.source import Scalar, Value

#: Where MindSpore's own quotient and remainder lose digits: by which functions of ours they are computed.
_EXACT = {"int64": "whole", "float32": "float", "float64": "float"}

FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


#: dtype -> (its smallest number, how many there are).
WHOLE = {
    "int64": (-(2**63), 2**64),
    "int32": (-(2**31), 2**32),
    "int16": (-(2**15), 2**16),
    "int8": (-(2**7), 2**8),
    "uint8": (0, 2**8),
}


def wrapped(value: int, dtype: str) -> int:
    """A whole number as an integer dtype has it."""
    low, count = WHOLE[dtype]
    return (int(value) - low) % count + low


def promote(emit: Emitter, *operands: Any) -> list[Any]:
    """The operands in the result's dtype. Python's floats and small whole numbers stay as they are."""
    return [_promoted(emit, x) for x in operands]


def _promoted(emit: Emitter, x: Any) -> Any:
    if isinstance(x, Value):
        return emit.cast(x, emit.out.dtype) if x.dtype else x
    if isinstance(x, complex) or (isinstance(x, int) and emit.out.dtype in ("uint8", "int8", "int16")):
        return _tensor(emit, x)  # MindSpore takes no complex number, and widens others to fit
    return x


def _scaled(emit: Emitter, value: Value, alpha: float) -> Value:
    return value if alpha == 1 else emit.infix("*", value, alpha)


@lowers("aten.add.Tensor", "aten.add.Scalar")
def add(emit: Emitter, self: Value, other: Any, *, alpha: Scalar = 1) -> Value:
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_or", self, _truth(emit, other)) if alpha else self
    self, other = promote(emit, self, other)
    if isinstance(other, (int, float)):
        return emit.infix("+", self, other * alpha)
    return emit.infix("+", self, _scaled(emit, other, alpha))


def _truth(emit: Emitter, value: Value) -> Value:
    return value if isinstance(value, Value) else emit.call("ops.full", (), bool(value), dtype=emit.dtype("bool"))


@lowers("aten.sub.Tensor", "aten.sub.Scalar", "aten.subtract.Tensor", "aten.subtract.Scalar")
def sub(emit: Emitter, self: Value, other: Any, *, alpha: Scalar) -> Value:
    self, other = promote(emit, self, other)
    if isinstance(other, (int, float)):
        return emit.infix("-", self, other * alpha)
    return emit.infix("-", self, _scaled(emit, other, alpha))


@lowers("aten.rsub.Scalar")
def rsub(emit: Emitter, self: Value, other: Scalar, alpha: Scalar) -> Value:
    self, other = promote(emit, self, other)
    return emit.infix("-", other, _scaled(emit, self, alpha))


@lowers("aten.rsub.Tensor")
def rsub_tensor(emit: Emitter, self: Value, other: Value, *, alpha: Scalar) -> Value:
    self, other = promote(emit, self, other)
    return emit.infix("-", other, _scaled(emit, self, alpha))


@lowers("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "aten.multiply.Scalar")
def mul(emit: Emitter, self: Value, other: Any) -> Value:
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_and", self, _truth(emit, other))
    return emit.infix("*", *promote(emit, self, other))


@lowers(
    "aten.div.Tensor",
    "aten.div.Scalar",
    "aten.true_divide.Tensor",
    "aten.divide.Tensor",
    "aten.divide.Scalar",
    "aten.true_divide.Scalar",
)
def div(emit: Emitter, self: Value, other: Any) -> Value:
    self, other = promote(emit, self, other)
    if isinstance(other, (int, float)) and math.isfinite(other) and other:
        # Division is 10 times slower than multiplication on CPU; only a power of two has an exact reciprocal.
        if abs(math.frexp(other)[0]) == 0.5:
            return emit.infix("*", self, 1.0 / other)
    elif isinstance(other, (int, float)):
        # MindSpore's Div gives NaN / 0 as -inf; x * inf is what x / 0 should be.
        return emit.infix(
            "*", self, math.nan if other != other else 1.0 / other if other else math.copysign(math.inf, other)
        )
    return emit.infix("/", self, other)


def _tensor(emit: Emitter, value: Any) -> Value:
    """A Python number as a tensor: MindSpore's integer division takes no other."""
    return value if isinstance(value, Value) else exactly(emit, value, emit.out.dtype)


def _tensors(emit: Emitter, *values: Any) -> Iterator[Any]:
    return (_tensor(emit, value) for value in values)


def exactly(emit: Emitter, value: Any, dtype: str) -> Value:
    """A number of Python, or a size, as a 0-d tensor of `dtype`, to its last digit.

    In Graph mode ops.full knows numbers of 32 bits only (MindSpore 2.10): beyond them it takes a constant.
    """
    if dtype == "bool":
        value = bool(value)
    elif dtype in WHOLE and not isinstance(value, Value):
        value = wrapped(value, dtype)
        if not -(2**31) <= value < 2**31:
            return emit.constant(torch.tensor(value, dtype=getattr(torch, dtype)), "number")
    elif dtype in ("complex64", "complex128"):
        half = "float32" if dtype == "complex64" else "float64"
        parts = (exactly(emit, part, half) for part in (complex(value).real, complex(value).imag))
        return emit.typed(emit.prim("ops.Complex")(*parts), dtype=dtype, shape=())
    elif dtype == "float64" and not isinstance(value, Value) and not is_float32(value):
        return emit.constant(torch.tensor(value, dtype=torch.float64), "number")
    made = emit.call("ops.full", (), value, dtype=emit.dtype(dtype))
    return emit.typed(made, dtype=dtype, shape=())


@lowers("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.divide.Tensor_mode", "aten.divide.Scalar_mode")
def div_mode(emit: Emitter, self: Value, other: Any, *, rounding_mode: str | None) -> Value:
    if rounding_mode is None:
        return div(emit, self, other)
    if rounding_mode == "floor":
        return floor_divide(emit, self, other)
    self, other = promote(emit, self, other)
    if emit.out.dtype in FLOATS:
        return emit.call("ops.trunc", emit.infix("/", self, other))
    if emit.out.dtype == "int64":
        return emit.prelude("whole_quotient_truncated", *_tensors(emit, self, other))
    return emit.prim("ops.TruncateDiv")(*_tensors(emit, self, other))


@lowers("aten.floor_divide.default", "aten.floor_divide.Scalar")
def floor_divide(emit: Emitter, self: Value, other: Any) -> Value:
    self, other = promote(emit, self, other)
    helper = _EXACT.get(emit.out.dtype)
    if helper:
        return emit.prelude(f"{helper}_quotient", *_tensors(emit, self, other))
    return emit.prim("ops.FloorDiv")(*_tensors(emit, self, other))


@lowers("aten.remainder.Tensor", "aten.remainder.Scalar")
def remainder(emit: Emitter, self: Value, other: Any) -> Value:
    self, other = promote(emit, self, other)
    helper = _EXACT.get(emit.out.dtype)
    if helper:
        return emit.prelude(f"{helper}_remainder", *_tensors(emit, self, other))
    return emit.prim("ops.FloorMod")(*_tensors(emit, self, other))


@lowers("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(emit: Emitter, self: Value, other: Any) -> Value:
    self, other = promote(emit, self, other)
    if emit.out.dtype in FLOATS:
        return emit.prim("ops.TruncateMod")(*_tensors(emit, self, other))
    self, other = (
        emit.let(self, "x"),
        emit.let(_tensor(emit, other), "y"),
    )  # TruncateMod has no kernel for most whole numbers
    if emit.out.dtype == "int64":
        quotient = emit.prelude("whole_quotient_truncated", self, other)
    else:
        quotient = emit.prim("ops.TruncateDiv")(self, other)
    return emit.infix("-", self, emit.infix("*", quotient, other))


@lowers("aten.square.default", exponent=2)
@lowers("aten.pow.Tensor_Scalar")
def pow_(emit: Emitter, self: Value, exponent: Scalar) -> Value:
    (self,) = promote(emit, self)
    floating = emit.out.dtype in FLOATS
    if exponent == 0:
        return emit.call("ops.ones_like", self)
    if exponent == 1:
        return self
    if exponent in (2, 3, 4):  # ops.Square and ops.Pow are 6 and 15 times slower on CPU
        x = emit.let(self, "x")
        return Value(" * ".join([x.text] * int(exponent)), emit.out.dtype, emit.out.shape, atomic=False)
    if floating and exponent == 0.5:
        return emit.call("ops.sqrt", self)
    if floating and exponent == -0.5:
        return emit.call("ops.rsqrt", self)
    if floating and exponent == -1:
        return emit.infix("/", 1.0, self)
    if not floating:
        return emit.prelude("int_pow", self, _tensor(emit, exponent), abs(exponent).bit_length())
    return emit.call("ops.pow", self, float(exponent))


def _bits(dtype: str) -> int:
    """How many an exponent has at most."""
    return WHOLE[dtype][1].bit_length() - 1


@lowers("aten.pow.Tensor_Tensor")
def pow_tensor(emit: Emitter, self: Value, exponent: Value) -> Value:
    if emit.out.dtype not in FLOATS:
        return emit.prelude("int_pow", *promote(emit, self, exponent), _bits(emit.out.dtype))
    return emit.call("ops.pow", *promote(emit, self, exponent))


@lowers("aten.pow.Scalar")
def pow_scalar(emit: Emitter, self: Scalar, exponent: Value) -> Value:
    (exponent,) = promote(emit, exponent)
    if emit.out.dtype not in FLOATS:
        return emit.prelude("int_pow", _tensor(emit, self), exponent, _bits(emit.out.dtype))
    return emit.call("ops.pow", float(self), exponent)


@lowers("aten.lerp.Scalar")
def lerp(emit: Emitter, self: Value, end: Value, weight: Scalar) -> Value:
    self, end = (emit.let(x, "x") for x in promote(emit, self, end))
    # torch starts from the nearer end, which is exact there.
    if abs(weight) < 0.5:
        return emit.infix("+", self, emit.infix("*", weight, emit.infix("-", end, self)))
    return emit.infix("-", end, emit.infix("*", emit.infix("-", end, self), 1.0 - weight))


@lowers("aten.addcmul.default")
def addcmul(emit: Emitter, self: Value, tensor1: Value, tensor2: Value, *, value: Scalar) -> Value:
    self, tensor1, tensor2 = promote(emit, self, tensor1, tensor2)
    return emit.infix("+", self, emit.infix("*", _scaled(emit, tensor1, value), tensor2))


@lowers("aten.addcdiv.default")
def addcdiv(emit: Emitter, self: Value, tensor1: Value, tensor2: Value, *, value: Scalar) -> Value:
    self, tensor1, tensor2 = promote(emit, self, tensor1, tensor2)
    return emit.infix("+", self, emit.infix("/", _scaled(emit, tensor1, value), tensor2))


def _real(emit: Emitter, self: Value) -> Value:
    """What a cast to real numbers keeps of complex ones."""
    if self.dtype not in ("complex64", "complex128") or emit.out.dtype.startswith("complex"):
        return self
    if emit.out.dtype == "bool":
        return emit.typed(emit.infix("!=", self, 0), dtype="bool", shape=self.shape)
    half = "float32" if self.dtype == "complex64" else "float64"
    return emit.typed(emit.call("ops.real", self), dtype=half, shape=self.shape)


@lowers("aten._to_copy.default", "aten.to.dtype", "aten.type_as.default")
def cast(emit: Emitter, self: Value, **_: object) -> Value:
    """The result's dtype says all."""
    return emit.cast(_real(emit, self), emit.out.dtype)


@lowers("aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default")
def clone(emit: Emitter, self: Value) -> Value:
    return self


@lowers("aten.copy.default")
def copy(emit: Emitter, self: Value, src: Value) -> Value:
    src = emit.cast(src, emit.out.dtype)
    return src if src.shape == emit.out.shape else emit.call("ops.broadcast_to", src, emit.dims(emit.out.shape))
