# SPDX-License-Identifier: Apache-2.0
"""Bits moved to the left or to the right. Beyond an integer's width torch leaves nothing, or the sign."""

from typing import Any

from paritas.lower.mindspore.ops.arithmetic import WHOLE, exactly, promote, wrapped
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


def _bits(dtype: str) -> int:
    return WHOLE[dtype][1].bit_length() - 1


def _most(dtype: str) -> int:
    """Where torch ends to count when it moves to the right: the sign is all that is left."""
    return _bits(dtype) - (dtype != "uint8")


@lowers("aten.__lshift__.Tensor", "aten.__lshift__.Scalar", name="left")
@lowers("aten.bitwise_left_shift.Tensor", "aten.bitwise_left_shift.Tensor_Scalar", name="left")
@lowers("aten.bitwise_left_shift.Scalar_Tensor", name="left")
@lowers("aten.__rshift__.Tensor", "aten.__rshift__.Scalar", name="right")
@lowers("aten.bitwise_right_shift.Tensor", "aten.bitwise_right_shift.Tensor_Scalar", name="right")
@lowers("aten.bitwise_right_shift.Scalar_Tensor", name="right")
def shifted(emit: Emitter, name: str, self: Any, other: Any) -> Value:
    dtype = emit.out.dtype
    if dtype not in WHOLE:
        raise emit.refuse("floats have no bits to move")
    left = name == "left"
    if not isinstance(other, Value):
        (x,) = promote(emit, self)
        other = wrapped(other, dtype)  # as torch takes it
        inside = 0 <= other < (_bits(dtype) if left else _most(dtype))
        if left and not inside:
            return emit.call("ops.zeros_like", x)
        places = int(other) if inside else _most(dtype)
        return emit.call(f"ops.bitwise_{name}_shift", x, _full(emit, places))
    x = promote(emit, self)[0] if isinstance(self, Value) else _full(emit, self)
    by = emit.let(promote(emit, other)[0], "by")
    bound = _bits(dtype) if left else _most(dtype)
    outside = emit.let(emit.call("ops.logical_or", Value(f"{by} < 0"), Value(f"{by} >= {bound}")), "outside")
    if left:
        by = emit.call("ops.where", outside, emit.call("ops.zeros_like", by), by)
        moved = emit.call("ops.bitwise_left_shift", x, by)
        return emit.call("ops.where", outside, emit.call("ops.zeros_like", by), moved)
    by = emit.call("ops.where", outside, emit.call("ops.full_like", by, bound), by)
    return emit.call("ops.bitwise_right_shift", x, by)


def _full(emit: Emitter, value: int) -> Value:
    return exactly(emit, value, emit.out.dtype)
