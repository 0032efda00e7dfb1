# SPDX-License-Identifier: Apache-2.0
"""What torch's own decompositions are made of, where they end in `prims`: operands of one dtype."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino import integers
from paritas.lower.openvino.emit import out
from paritas.lower.openvino.ops.arithmetic import computed, exp_of
from paritas.lower.registry import lowers, schema_of

_TWO = {
    "add": ops.add,
    "sub": ops.subtract,
    "mul": ops.multiply,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
}
_ONE = {
    "abs": ops.abs,
    "neg": ops.negative,
    "sqrt": ops.sqrt,
    "rsqrt": lambda x: ops.divide(np.float32(1), ops.sqrt(x)),
    "exp": exp_of,
    "log": ops.log,
    "sin": ops.sin,
    "cos": ops.cos,
    "tanh": ops.tanh,
    "floor": ops.floor,
    "ceil": ops.ceiling,
    "round": lambda x: ops.round(x, "half_to_even"),
    "trunc": lambda x: ops.multiply(ops.sign(x), ops.floor(ops.abs(x))),
}
_COMPARED = {
    "eq": integers.equal,
    "ne": integers.not_equal,
    "lt": integers.less,
    "le": integers.less_equal,
    "gt": lambda a, b: integers.less(b, a),
    "ge": lambda a, b: integers.less_equal(b, a),
}


def _named(name, rule):
    rule.__doc__ = schema_of(f"prims.{name}.default")
    rule.__name__ = rule.__qualname__ = name
    lowers("openvino", f"prims.{name}.default")(rule)


def _two(function):
    return lambda emit, self, other: computed(emit, function, self, other)


def _one(function):
    return lambda emit, self: computed(emit, function, self)


def _compared(function):
    def rule(emit, self, other):
        dtype = emit.promoted(self, other)
        kind = torch.int32 if dtype == torch.bool else dtype
        return function(emit.wide(self, kind), emit.wide(other, kind))

    return rule


for _name, _function in _TWO.items():
    _named(_name, _two(_function))
for _name, _function in _ONE.items():
    _named(_name, _one(_function))
for _name, _function in _COMPARED.items():
    _named(_name, _compared(_function))


@lowers("openvino", "prims.div.default")
def div(emit, self, other):
    """div(Tensor self, Tensor other) -> Tensor"""
    if not emit.dtype.is_floating_point:
        raise emit.refuse("a quotient of whole numbers, which torch cuts off")
    return computed(emit, ops.divide, self, other)


@lowers("openvino", "prims.where.default")
def where(emit, pred, a, b):
    """where(Tensor pred, Tensor a, Tensor b) -> Tensor"""
    return integers.chosen(pred, emit.cast(a, emit.dtype), emit.cast(b, emit.dtype))


@lowers("openvino", "prims.scalar_tensor.default")
def scalar_tensor(emit, s, dtype=None, device=None):
    """scalar_tensor(Scalar s, *, ScalarType? dtype=None, Device? device=None) -> Tensor"""
    return out(emit.number(s, emit.dtype))
