# SPDX-License-Identifier: Apache-2.0
"""Comparison, logic, and bits."""

import torch

from paritas.lower.mindspore.ops.arithmetic import FLOATS, WHOLE, exactly, promote, wrapped
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import lowers


def _compared(emit, self, other):
    """Both operands in the dtype that torch compares in, which the result, a bool, does not say."""
    if isinstance(other, Value) and other.dtype:
        # torch.result_type knows that a 0-d tensor does not widen its own kind.
        samples = [
            torch.empty([1] * min(x.rank, 1), dtype=getattr(torch, str(x.dtype)))
            for x in (self, other)
        ]
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


def _compare(symbol):
    def lowering(emit, self, other):
        return emit.infix(symbol, *_compared(emit, self, other))

    return lowering


def _named(function, target, schema):
    function.__doc__, function.__name__ = schema, target.split(".")[1]
    lowers("mindspore", target)(function)


for _name, _symbol in (
    ("eq", "=="),
    ("ne", "!="),
    ("lt", "<"),
    ("le", "<="),
    ("gt", ">"),
    ("ge", ">="),
):
    for _overload, _type in (("Tensor", "Tensor"), ("Scalar", "Scalar")):
        _schema = f"{_name}.{_overload}(Tensor self, {_type} other) -> Tensor"
        _named(_compare(_symbol), f"aten.{_name}.{_overload}", _schema)


def _bitwise(name):
    def lowering(emit, self, other):
        if not isinstance(other, Value):
            other = exactly(emit, other, emit.out.dtype)
        if emit.out.dtype == "bool":
            return emit.call(f"ops.logical_{name}", self, other)
        return emit.call(f"ops.bitwise_{name}", *promote(emit, self, other))

    return lowering


for _name in ("and", "or", "xor"):
    for _packet in (f"__{_name}__", f"bitwise_{_name}"):
        for _overload in ("Tensor", "Scalar"):
            _schema = f"{_packet}.{_overload}(Tensor self, {_overload} other) -> Tensor"
            _named(_bitwise(_name), f"aten.{_packet}.{_overload}", _schema)


@lowers("mindspore", "aten.bitwise_not.default")
def bitwise_not(emit, self):
    """bitwise_not(Tensor self) -> Tensor"""
    return emit.call("ops.logical_not" if self.dtype == "bool" else "ops.invert", self)


@lowers("mindspore", "aten.logical_not.default")
def logical_not(emit, self):
    """logical_not(Tensor self) -> Tensor"""
    return emit.call("ops.logical_not", truth(emit, self))


def truth(emit, value):
    """Whether each element is not zero. A cast would do, but for NaN in float16."""
    return (
        value
        if value.dtype == "bool"
        else emit.typed(emit.infix("!=", value, 0), dtype="bool", shape=value.shape)
    )


@lowers("mindspore", "aten.logical_and.default")
def logical_and(emit, self, other):
    """logical_and(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.logical_and", truth(emit, self), truth(emit, other))


@lowers("mindspore", "aten.logical_or.default")
def logical_or(emit, self, other):
    """logical_or(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.logical_or", truth(emit, self), truth(emit, other))


@lowers("mindspore", "aten.logical_xor.default")
def logical_xor(emit, self, other):
    """logical_xor(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.logical_xor", truth(emit, self), truth(emit, other))


@lowers("mindspore", "aten.isin.Tensor_Tensor")
def isin(emit, elements, test_elements, *, assume_unique=False, invert=False):
    """isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor"""  # noqa: E501
    flat = emit.call("ops.reshape", test_elements, (-1,))
    equal = emit.infix("==", emit.call("ops.expand_dims", elements, -1), flat)
    found = emit.prim("ops.ReduceAny")(equal, -1)
    return emit.call("ops.logical_not", found) if invert else found
