# SPDX-License-Identifier: Apache-2.0
"""Comparison, logic, and bits."""

from typing import Any

import torch

from paritas.lower.mindspore.ops.arithmetic import FLOATS, WHOLE, exactly, promote, wrapped
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Value


def _comparable(emit: Emitter, self: Value, other: Any) -> tuple[Size | float, Size | float]:
    """Both operands in the dtype that torch compares in, which the result, a bool, does not say."""
    if isinstance(other, Value) and other.dtype:
        # torch.result_type knows that a 0-d tensor does not widen its own kind.
        samples = [torch.empty([1] * min(x.rank, 1), dtype=getattr(torch, str(x.dtype))) for x in (self, other)]
        wide = torch.result_type(*samples)
        if wide is torch.bool:  # MindSpore has no order on bools
            wide = torch.int32
        return emit.cast(self, wide), emit.cast(other, wide)
    if isinstance(other, bool):
        other = int(other)
    if isinstance(other, float) and self.dtype not in FLOATS:
        return emit.cast(self, "float32"), other
    if self.dtype == "float16":  # torch rounds the number to float16 first
        return self, emit.call("ops.full", (), other, dtype=emit.dtype("float16"))
    if self.dtype == "bool":  # MindSpore would cast the number to bool
        return emit.cast(self, "int64"), other
    if self.dtype in WHOLE and isinstance(other, int):  # torch wraps it around
        return self, wrapped(other, self.dtype)
    return self, other


@lowers("aten.eq.Tensor", "aten.eq.Scalar", symbol="==")
@lowers("aten.ne.Tensor", "aten.ne.Scalar", "aten.not_equal.Tensor", "aten.not_equal.Scalar", symbol="!=")
@lowers("aten.lt.Tensor", "aten.lt.Scalar", "aten.less.Tensor", "aten.less.Scalar", symbol="<")
@lowers("aten.le.Tensor", "aten.le.Scalar", "aten.less_equal.Tensor", "aten.less_equal.Scalar", symbol="<=")
@lowers("aten.gt.Tensor", "aten.gt.Scalar", "aten.greater.Tensor", "aten.greater.Scalar", symbol=">")
@lowers("aten.ge.Tensor", "aten.ge.Scalar", "aten.greater_equal.Tensor", "aten.greater_equal.Scalar", symbol=">=")
def compared(emit: Emitter, symbol: str, self: Value, other: Any) -> Value:
    return emit.infix(symbol, *_comparable(emit, self, other))


@lowers("aten.__and__.Tensor", "aten.__and__.Scalar", boolean="ops.logical_and", bits="ops.bitwise_and")
@lowers("aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar", boolean="ops.logical_and", bits="ops.bitwise_and")
@lowers("aten.__or__.Tensor", "aten.__or__.Scalar", boolean="ops.logical_or", bits="ops.bitwise_or")
@lowers("aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar", boolean="ops.logical_or", bits="ops.bitwise_or")
@lowers("aten.__xor__.Tensor", "aten.__xor__.Scalar", boolean="ops.logical_xor", bits="ops.bitwise_xor")
@lowers("aten.bitwise_xor.Tensor", "aten.bitwise_xor.Scalar", boolean="ops.logical_xor", bits="ops.bitwise_xor")
def bitwise(emit: Emitter, boolean: str, bits: str, self: Value, other: Any) -> Value:
    if not isinstance(other, Value):
        other = exactly(emit, other, emit.out.dtype)
    if emit.out.dtype == "bool":
        return emit.call(boolean, self, other)
    return emit.call(bits, *promote(emit, self, other))


@lowers("aten.bitwise_not.default")
def bitwise_not(emit: Emitter, self: Value) -> Value:
    return emit.call("ops.logical_not" if self.dtype == "bool" else "ops.invert", self)


@lowers("aten.logical_not.default")
def logical_not(emit: Emitter, self: Value) -> Value:
    return emit.call("ops.logical_not", truth(emit, self))


def truth(emit: Emitter, value: Value) -> Value:
    """Whether each element is not zero. A cast would do, but for NaN in float16."""
    return value if value.dtype == "bool" else emit.typed(emit.infix("!=", value, 0), dtype="bool", shape=value.shape)


@lowers("aten.logical_and.default", function="ops.logical_and")
@lowers("aten.logical_or.default", function="ops.logical_or")
@lowers("aten.logical_xor.default", function="ops.logical_xor")
def logical(emit: Emitter, function: str, self: Value, other: Value) -> Value:
    return emit.call(function, truth(emit, self), truth(emit, other))


@lowers("aten.isin.Tensor_Tensor")
def isin(emit: Emitter, elements: Value, test_elements: Value, *, invert: bool, **_: object) -> Value:
    flat = emit.call("ops.reshape", test_elements, (-1,))
    equal = emit.infix("==", emit.call("ops.expand_dims", elements, -1), flat)
    found = emit.prim("ops.ReduceAny")(equal, -1)
    return emit.call("ops.logical_not", found) if invert else found
