# SPDX-License-Identifier: Apache-2.0
"""Comparisons, logic, bits, and choices by a condition."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino import integers
from paritas.lower.openvino.emit import is_tensor, out
from paritas.lower.openvino.ops.arithmetic import computed, operand
from paritas.lower.registry import lowers, schema_of

_COMPARISONS = {
    "eq": (ops.equal, integers.equal),
    "ne": (ops.not_equal, integers.not_equal),
    "lt": (ops.less, integers.less),
    "le": (ops.less_equal, integers.less_equal),
    # OpenVINO 2026.4 finds NaN > 1 and NaN >= 1; < and <= are right.
    "gt": (lambda a, b: ops.less(b, a), lambda a, b: integers.less(b, a)),
    "ge": (lambda a, b: ops.less_equal(b, a), lambda a, b: integers.less_equal(b, a)),
}


def compared(emit, functions, a, b):
    """functions: what compares floats and small whole numbers, and what compares any."""
    dtype = emit.promoted(a, b)
    if dtype == torch.bool:
        dtype = torch.int32  # the order of False and True
    plain, exact = functions
    if dtype in (torch.int32, torch.int64) and not emit.operands_within(integers.KNOWN_APART):
        plain = exact
    if dtype == torch.int64 and isinstance(b, int) and not -(2**31) <= b < 2**31:
        # Larger than all that is held here, or smaller: so any number on that side of 0 says.
        side = emit.const(1 if b > 0 else -1, dtype)
        return plain(emit.full(emit.sizes(a), 0, dtype), side)
    return plain(operand(emit, a, dtype), operand(emit, b, dtype))


def _comparison(name, functions):
    def lowering(emit, self, other):
        return compared(emit, functions, self, other)

    lowering.__doc__ = schema_of(f"aten.{name}.Tensor")
    lowering.__name__ = lowering.__qualname__ = name
    lowers("openvino", f"aten.{name}.Tensor", f"aten.{name}.Scalar")(lowering)


for _name, _functions in _COMPARISONS.items():
    _comparison(_name, _functions)


def _logic(name, function):
    def lowering(emit, self, other):
        return function(emit.cast(self, torch.bool), emit.cast(other, torch.bool))

    lowering.__doc__ = schema_of(f"aten.logical_{name}.default")
    lowering.__name__ = lowering.__qualname__ = f"logical_{name}"
    lowers("openvino", f"aten.logical_{name}.default")(lowering)


for _name, _function in {
    "and": ops.logical_and,
    "or": ops.logical_or,
    "xor": ops.logical_xor,
}.items():
    _logic(_name, _function)


def _bits(name, logical, bitwise):
    def lowering(emit, self, other):
        return computed(emit, logical if emit.dtype == torch.bool else bitwise, self, other)

    lowering.__doc__ = schema_of(f"aten.bitwise_{name}.Tensor")
    lowering.__name__ = lowering.__qualname__ = f"bitwise_{name}"
    overloads = [f"aten.bitwise_{name}.{kind}" for kind in ("Tensor", "Scalar", "Scalar_Tensor")]
    overloads += [f"aten.__{name}__.{kind}" for kind in ("Tensor", "Scalar")]
    lowers("openvino", *overloads)(lowering)


_bits("and", ops.logical_and, ops.bitwise_and)
_bits("or", ops.logical_or, ops.bitwise_or)
_bits("xor", ops.logical_xor, ops.bitwise_xor)


@lowers("openvino", "aten.bitwise_not.default")
def bitwise_not(emit, self):
    """bitwise_not(Tensor self) -> Tensor"""
    return computed(emit, ops.logical_not if emit.dtype == torch.bool else ops.bitwise_not, self)


@lowers("openvino", "aten.logical_not.default")
def logical_not(emit, self):
    """logical_not(Tensor self) -> Tensor"""
    return ops.logical_not(emit.cast(self, torch.bool))


def _never(emit, x):
    return ops.not_equal(x, x) if emit.dtype_of(x) != torch.bool else ops.logical_xor(x, x)


def _about_floats(name, function, of_integers):
    def lowering(emit, self):
        if emit.dtype_of(self).is_floating_point:
            return function(self)
        never = _never(emit, self)
        return ops.logical_not(never) if of_integers else never

    lowering.__doc__ = schema_of(f"aten.{name}.default")
    lowering.__name__ = lowering.__qualname__ = name
    lowers("openvino", f"aten.{name}.default")(lowering)


_about_floats("isnan", ops.is_nan, False)
_about_floats("isinf", ops.is_inf, False)
# OpenVINO's `is_finite` takes denormals for none.
_about_floats("isfinite", lambda x: ops.less(ops.abs(x), np.float32(np.inf)), True)
_about_floats("isposinf", lambda x: ops.equal(x, np.float32(np.inf)), False)
_about_floats("isneginf", lambda x: ops.equal(x, np.float32(-np.inf)), False)


@lowers(
    "openvino",
    "aten.where.self",
    "aten.where.ScalarOther",
    "aten.where.ScalarSelf",
    "aten.where.Scalar",
)
def where(emit, condition, self, other):
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    dtype = emit.dtype
    return integers.chosen(emit.cast(condition, torch.bool), emit.cast(self, dtype), emit.cast(other, dtype))


@lowers("openvino", "aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(emit, self, mask, value):
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return integers.chosen(emit.cast(mask, torch.bool), emit.cast(value, emit.dtype), self)


@lowers("openvino", "aten.isin.Tensor_Tensor", "aten.isin.Tensor_Scalar")
def isin(emit, elements, test_elements, assume_unique=False, invert=False):
    """isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor"""  # noqa: E501
    dtype = emit.promoted(elements, test_elements)
    wanted = operand(emit, test_elements, dtype)
    wanted = ops.reshape(wanted, emit.array([-1]), False)
    each = emit.unsqueeze(emit.wide(elements, dtype), -1)
    found = ops.reduce_logical_or(integers.equal(each, wanted), emit.array([-1]), False)
    return ops.logical_not(found) if invert else found


@lowers("openvino", "aten.bitwise_left_shift.Tensor", "aten.__lshift__.Tensor", "aten.__lshift__.Scalar")
def left_shift(emit, self, other):
    """bitwise_left_shift.Tensor(Tensor self, Tensor other) -> Tensor"""

    def shifted(x, places):
        # The processor takes places from 32 on for those of their last five bits.
        kind = out(x).get_element_type().to_dtype()
        gone = ops.not_equal(ops.bitwise_and(places, np.array(~31, kind)), np.array(0, kind))
        return integers.chosen(gone, np.array(0, kind), ops.bitwise_left_shift(x, places))

    return computed(emit, shifted, self, other)


@lowers("openvino", "aten.bitwise_right_shift.Tensor", "aten.__rshift__.Tensor", "aten.__rshift__.Scalar")
def right_shift(emit, self, other):
    """bitwise_right_shift.Tensor(Tensor self, Tensor other) -> Tensor"""
    return computed(emit, ops.bitwise_right_shift, self, other)


@lowers("openvino", "aten.equal.default", "aten._is_all_true.default")
def equal(emit, self, other=None):
    """equal(Tensor self, Tensor other) -> bool"""
    same = out(self) if not is_tensor(other) else integers.equal(self, other)
    return ops.reduce_logical_and(ops.reshape(same, emit.array([-1]), False), emit.array([0]), False)
