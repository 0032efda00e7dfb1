# SPDX-License-Identifier: Apache-2.0
"""Comparisons, logic, bits, and choices by a condition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino import integers
from paritas.lower.openvino.emit import Emitter, Tensor, is_tensor, out
from paritas.lower.openvino.ops.arithmetic import computed, operand
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten.eq.Tensor", "aten.eq.Scalar", plain=ops.equal, exact=integers.equal)
@lowers("aten.ne.Tensor", "aten.ne.Scalar", plain=ops.not_equal, exact=integers.not_equal)
@lowers("aten.lt.Tensor", "aten.lt.Scalar", plain=ops.less, exact=integers.less)
@lowers("aten.le.Tensor", "aten.le.Scalar", plain=ops.less_equal, exact=integers.less_equal)
# OpenVINO 2026.4 finds NaN > 1 and NaN >= 1; < and <= are right.
@lowers("aten.gt.Tensor", "aten.gt.Scalar", plain=lambda a, b: ops.less(b, a), exact=lambda a, b: integers.less(b, a))
@lowers(
    "aten.ge.Tensor",
    "aten.ge.Scalar",
    plain=lambda a, b: ops.less_equal(b, a),
    exact=lambda a, b: integers.less_equal(b, a),
)
def compared(emit: Emitter, plain: Callable[..., Any], exact: Callable[..., Any], self: Tensor, other: Any) -> Tensor:
    """plain compares floats and small whole numbers, exact any."""
    dtype = emit.promoted(self, other)
    if dtype == torch.bool:
        dtype = torch.int32  # the order of False and True
    if dtype in (torch.int32, torch.int64) and not emit.operands_within(integers.KNOWN_APART):
        plain = exact
    if dtype == torch.int64 and isinstance(other, int) and not -(2**31) <= other < 2**31:
        # Larger than all that is held here, or smaller: so any number on that side of 0 says.
        side = emit.const(1 if other > 0 else -1, dtype)
        return plain(emit.full(emit.sizes(self), 0, dtype), side)
    return plain(operand(emit, self, dtype), operand(emit, other, dtype))


@lowers("aten.logical_and.default", function=ops.logical_and)
@lowers("aten.logical_or.default", function=ops.logical_or)
@lowers("aten.logical_xor.default", function=ops.logical_xor)
def logical(emit: Emitter, function: Callable[..., Any], self: Tensor, other: Tensor) -> Tensor:
    return function(emit.cast(self, torch.bool), emit.cast(other, torch.bool))


@lowers("aten.__and__.Tensor", "aten.__and__.Scalar", boolean=ops.logical_and, bits=ops.bitwise_and)
@lowers("aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar", boolean=ops.logical_and, bits=ops.bitwise_and)
@lowers("aten.bitwise_and.Scalar_Tensor", boolean=ops.logical_and, bits=ops.bitwise_and)
@lowers("aten.__or__.Tensor", "aten.__or__.Scalar", boolean=ops.logical_or, bits=ops.bitwise_or)
@lowers("aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar", boolean=ops.logical_or, bits=ops.bitwise_or)
@lowers("aten.bitwise_or.Scalar_Tensor", boolean=ops.logical_or, bits=ops.bitwise_or)
@lowers("aten.__xor__.Tensor", "aten.__xor__.Scalar", boolean=ops.logical_xor, bits=ops.bitwise_xor)
@lowers("aten.bitwise_xor.Tensor", "aten.bitwise_xor.Scalar", boolean=ops.logical_xor, bits=ops.bitwise_xor)
@lowers("aten.bitwise_xor.Scalar_Tensor", boolean=ops.logical_xor, bits=ops.bitwise_xor)
def bitwise(emit: Emitter, boolean: Callable[..., Any], bits: Callable[..., Any], self: Any, other: Any) -> Tensor:
    return computed(emit, boolean if emit.dtype == torch.bool else bits, self, other)


@lowers("aten.bitwise_not.default")
def bitwise_not(emit: Emitter, self: Tensor) -> Tensor:
    return computed(emit, ops.logical_not if emit.dtype == torch.bool else ops.bitwise_not, self)


@lowers("aten.logical_not.default")
def logical_not(emit: Emitter, self: Tensor) -> Tensor:
    return ops.logical_not(emit.cast(self, torch.bool))


def _never(emit: Emitter, x: Tensor) -> Tensor:
    return ops.not_equal(x, x) if emit.dtype_of(x) != torch.bool else ops.logical_xor(x, x)


@lowers("aten.isnan.default", function=ops.is_nan)
@lowers("aten.isinf.default", function=ops.is_inf)
# OpenVINO's `is_finite` takes denormals for none.
@lowers("aten.isfinite.default", function=lambda x: ops.less(ops.abs(x), np.float32(np.inf)), of_integers=True)
@lowers("aten.isposinf.default", function=lambda x: ops.equal(x, np.float32(np.inf)))
@lowers("aten.isneginf.default", function=lambda x: ops.equal(x, np.float32(-np.inf)))
def about_floats(emit: Emitter, function: Callable[..., Any], self: Tensor, of_integers: bool = False) -> Tensor:
    if emit.dtype_of(self).is_floating_point:
        return function(self)
    never = _never(emit, self)
    return ops.logical_not(never) if of_integers else never


@lowers("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def where(emit: Emitter, condition: Tensor, self: Any, other: Any) -> Tensor:
    dtype = emit.dtype
    return integers.chosen(emit.cast(condition, torch.bool), emit.cast(self, dtype), emit.cast(other, dtype))


@lowers("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(emit: Emitter, self: Tensor, mask: Tensor, value: Any) -> Tensor:
    return integers.chosen(emit.cast(mask, torch.bool), emit.cast(value, emit.dtype), self)


@lowers("aten.isin.Tensor_Tensor")
@lowers("aten.isin.Tensor_Scalar", test_elements=Arg("test_element"))
def isin(emit: Emitter, elements: Tensor, test_elements: Any, invert: bool, **_: object) -> Tensor:
    dtype = emit.promoted(elements, test_elements)
    wanted = operand(emit, test_elements, dtype)
    wanted = ops.reshape(wanted, emit.array([-1]), False)
    each = emit.unsqueeze(emit.wide(elements, dtype), -1)
    found = ops.reduce_logical_or(integers.equal(each, wanted), emit.array([-1]), False)
    return ops.logical_not(found) if invert else found


@lowers("aten.bitwise_left_shift.Tensor", "aten.__lshift__.Tensor", "aten.__lshift__.Scalar")
def left_shift(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    def shifted(x: Tensor, places: Tensor) -> Tensor | None:
        # The processor takes places from 32 on for those of their last five bits.
        kind = out(x).get_element_type().to_dtype()
        gone = ops.not_equal(ops.bitwise_and(places, np.array(~31, kind)), np.array(0, kind))
        return integers.chosen(gone, np.array(0, kind), ops.bitwise_left_shift(x, places))

    return computed(emit, shifted, self, other)


@lowers("aten.bitwise_right_shift.Tensor", "aten.__rshift__.Tensor", "aten.__rshift__.Scalar")
def right_shift(emit: Emitter, self: Tensor, other: Any) -> Tensor:
    return computed(emit, ops.bitwise_right_shift, self, other)


@lowers("aten.equal.default", "aten._is_all_true.default")
def equal(emit: Emitter, self: Tensor, other: Tensor | None = None) -> Tensor:
    same = out(self) if not is_tensor(other) else integers.equal(self, other)
    return ops.reduce_logical_and(ops.reshape(same, emit.array([-1]), False), emit.array([0]), False)
