# SPDX-License-Identifier: Apache-2.0
"""One of two values for each element: where, masks, the larger, the smaller, bounds.

MindSpore's Maximum and Minimum return the second operand where the comparison is false, so NaN passes
from there and not from the first: bounds come first.
"""

from paritas.lower.mindspore.ops.arithmetic import FLOATS, WHOLE, exactly, promote
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import lowers


def number(emit, value, dtype=None):
    """A Python number, or a size, as a tensor of the result's dtype."""
    dtype = dtype or emit.out.dtype
    return exactly(emit, value, dtype)


def _where(emit, condition, self, other):
    parts = [x if isinstance(x, Value) else number(emit, x) for x in (self, other)]
    if condition.dtype != "bool":
        condition = emit.cast(condition, "bool")
    return emit.call("ops.where", condition, *promote(emit, *parts))


@lowers("mindspore", "aten.where.self")
def where(emit, condition, self, other):
    """where.self(Tensor condition, Tensor self, Tensor other) -> Tensor"""
    return _where(emit, condition, self, other)


@lowers("mindspore", "aten.where.ScalarOther")
def where_scalar_other(emit, condition, self, other):
    """where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor"""
    return _where(emit, condition, self, other)


@lowers("mindspore", "aten.where.ScalarSelf")
def where_scalar_self(emit, condition, self, other):
    """where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor"""
    return _where(emit, condition, self, other)


@lowers("mindspore", "aten.where.Scalar")
def where_scalar(emit, condition, self, other):
    """where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor"""
    return _where(emit, condition, self, other)


@lowers("mindspore", "aten.masked_fill.Scalar")
def masked_fill(emit, self, mask, value):
    """masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor"""
    return _where(emit, mask, value, self)


@lowers("mindspore", "aten.masked_fill.Tensor")
def masked_fill_tensor(emit, self, mask, value):
    """masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor"""
    return _where(emit, mask, value, self)


def larger(emit, bound, x):
    """max(bound, x); NaN only where x has it."""
    return emit.call("ops.maximum", bound, x)


def smaller(emit, bound, x):
    return emit.call("ops.minimum", bound, x)


@lowers("mindspore", "aten.maximum.default")
def maximum(emit, self, other):
    """maximum(Tensor self, Tensor other) -> Tensor"""
    self, other = promote(emit, self, other)
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_or", self, other)
    return (
        emit.help("maximum_nan", self, other)
        if emit.out.dtype in FLOATS
        else larger(emit, self, other)
    )


@lowers("mindspore", "aten.minimum.default")
def minimum(emit, self, other):
    """minimum(Tensor self, Tensor other) -> Tensor"""
    self, other = promote(emit, self, other)
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_and", self, other)
    return (
        emit.help("minimum_nan", self, other)
        if emit.out.dtype in FLOATS
        else smaller(emit, self, other)
    )


@lowers("mindspore", "aten.max.other")
def max_other(emit, self, other):
    """max.other(Tensor self, Tensor other) -> Tensor"""
    return maximum(emit, self, other)


@lowers("mindspore", "aten.min.other")
def min_other(emit, self, other):
    """min.other(Tensor self, Tensor other) -> Tensor"""
    return minimum(emit, self, other)


def bounded(emit, self, low, high):
    (x,) = promote(emit, self)
    if low is not None:
        x = larger(emit, _bound(emit, low), x)
    if high is not None:
        x = smaller(emit, _bound(emit, high), x)
    return x


def _bound(emit, value):
    """A bound in the result's dtype; one beyond an integer's range is that end of it, but wraps below 0 of bytes."""
    if emit.out.dtype == "float32" or not isinstance(value, (int, float)):
        return value if emit.out.dtype == "float32" else number(emit, value)
    if emit.out.dtype in WHOLE:
        low, count = WHOLE[emit.out.dtype]
        if low == 0 and -count < value < 0:
            value += count
        value = min(max(int(value), low), low + count - 1)
    return number(emit, value)


@lowers("mindspore", "aten.clamp.default")
def clamp(emit, self, min=None, max=None):
    """clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    return bounded(emit, self, min, max)


@lowers("mindspore", "aten.clip.default")
def clip(emit, self, min=None, max=None):
    """clip(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor"""
    return bounded(emit, self, min, max)


@lowers("mindspore", "aten.clamp_min.default")
def clamp_min(emit, self, min):
    """clamp_min(Tensor self, Scalar min) -> Tensor"""
    return bounded(emit, self, min, None)


@lowers("mindspore", "aten.clamp_max.default")
def clamp_max(emit, self, max):
    """clamp_max(Tensor self, Scalar max) -> Tensor"""
    return bounded(emit, self, None, max)


@lowers("mindspore", "aten.hardtanh.default")
def hardtanh(emit, self, min_val=-1, max_val=1):
    """hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor"""
    return bounded(emit, self, min_val, max_val)


@lowers("mindspore", "aten.relu6.default")
def relu6(emit, self):
    """relu6(Tensor self) -> Tensor"""
    return bounded(emit, self, 0, 6)


@lowers("mindspore", "aten.relu.default")
def relu(emit, self):
    """relu(Tensor self) -> Tensor"""
    if emit.out.dtype not in FLOATS:
        return bounded(emit, self, 0, None)
    return emit.help("relu", self, emit.training)


@lowers("mindspore", "aten.clamp.Tensor")
def clamp_tensor(emit, self, min=None, max=None):
    """clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor"""
    x = self
    if min is not None:
        x = maximum(emit, x, min)
    return x if max is None else minimum(emit, x, max)


@lowers("mindspore", "aten.clamp_min.Tensor")
def clamp_min_tensor(emit, self, min):
    """clamp_min.Tensor(Tensor self, Tensor min) -> Tensor"""
    return maximum(emit, self, min)


@lowers("mindspore", "aten.clamp_max.Tensor")
def clamp_max_tensor(emit, self, max):
    """clamp_max.Tensor(Tensor self, Tensor max) -> Tensor"""
    return minimum(emit, self, max)
