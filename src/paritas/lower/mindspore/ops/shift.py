# SPDX-License-Identifier: Apache-2.0
"""Bits moved to the left or to the right. Beyond an integer's width torch leaves nothing, or the sign."""

from paritas.lower.mindspore.ops.arithmetic import WHOLE, exactly, promote, wrapped
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import lowers


def _bits(dtype):
    return WHOLE[dtype][1].bit_length() - 1


def _most(dtype):
    """Where torch ends to count when it moves to the right: the sign is all that is left."""
    return _bits(dtype) - (dtype != "uint8")


def _by(emit, name, self, other):
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
        by = int(other) if inside else _most(dtype)
        return emit.call(f"ops.bitwise_{name}_shift", x, _full(emit, by))
    x = promote(emit, self)[0] if isinstance(self, Value) else _full(emit, self)
    by = emit.let(promote(emit, other)[0], "by")
    bound = _bits(dtype) if left else _most(dtype)
    outside = emit.let(
        emit.call("ops.logical_or", Value(f"{by} < 0"), Value(f"{by} >= {bound}")), "outside"
    )
    if left:
        by = emit.call("ops.where", outside, emit.call("ops.zeros_like", by), by)
        moved = emit.call("ops.bitwise_left_shift", x, by)
        return emit.call("ops.where", outside, emit.call("ops.zeros_like", by), moved)
    by = emit.call("ops.where", outside, emit.call("ops.full_like", by, bound), by)
    return emit.call("ops.bitwise_right_shift", x, by)


def _full(emit, value):
    return exactly(emit, value, emit.out.dtype)


def _named(name, target, schema):
    def lowering(emit, self, other):
        return _by(emit, name, self, other)

    lowering.__doc__, lowering.__name__ = schema, target.split(".")[1]
    lowers("mindspore", target)(lowering)


for _sign, _name in (("l", "left"), ("r", "right")):
    for _overload in ("Tensor", "Scalar"):
        _packet = f"__{_sign}shift__"
        _schema = f"{_packet}.{_overload}(Tensor self, {_overload} other) -> Tensor"
        _named(_name, f"aten.{_packet}.{_overload}", _schema)
    for _overload, _types in (
        ("Tensor", ("Tensor", "Tensor")),
        ("Tensor_Scalar", ("Tensor", "Scalar")),
        ("Scalar_Tensor", ("Scalar", "Tensor")),
    ):
        _packet = f"bitwise_{_name}_shift"
        _schema = f"{_packet}.{_overload}({_types[0]} self, {_types[1]} other) -> Tensor"
        _named(_name, f"aten.{_packet}.{_overload}", _schema)
