# SPDX-License-Identifier: Apache-2.0
"""What torch's own decompositions are made of, where they end in `prims`: operands of one dtype."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino import integers
from paritas.lower.openvino.emit import Emitter, Scalar, Tensor, out
from paritas.lower.openvino.ops.arithmetic import computed, exp_of
from paritas.lower.openvino.ops.registry import lowers


@lowers("prims.add.default", function=ops.add)
@lowers("prims.sub.default", function=ops.subtract)
@lowers("prims.mul.default", function=ops.multiply)
@lowers("prims.maximum.default", function=ops.maximum)
@lowers("prims.minimum.default", function=ops.minimum)
def of_two(emit: Emitter, function: Callable[..., Any], self: Tensor, other: Tensor) -> Tensor:
    return computed(emit, function, self, other)


@lowers("prims.abs.default", function=ops.abs)
@lowers("prims.neg.default", function=ops.negative)
@lowers("prims.sqrt.default", function=ops.sqrt)
@lowers("prims.rsqrt.default", function=lambda x: ops.divide(np.float32(1), ops.sqrt(x)))
@lowers("prims.exp.default", function=exp_of)
@lowers("prims.log.default", function=ops.log)
@lowers("prims.sin.default", function=ops.sin)
@lowers("prims.cos.default", function=ops.cos)
@lowers("prims.tanh.default", function=ops.tanh)
@lowers("prims.floor.default", function=ops.floor)
@lowers("prims.ceil.default", function=ops.ceiling)
@lowers("prims.round.default", function=lambda x: ops.round(x, "half_to_even"))
@lowers("prims.trunc.default", function=lambda x: ops.multiply(ops.sign(x), ops.floor(ops.abs(x))))
def of_one(emit: Emitter, function: Callable[..., Any], self: Tensor) -> Tensor:
    return computed(emit, function, self)


@lowers("prims.eq.default", function=integers.equal)
@lowers("prims.ne.default", function=integers.not_equal)
@lowers("prims.lt.default", function=integers.less)
@lowers("prims.le.default", function=integers.less_equal)
@lowers("prims.gt.default", function=lambda a, b: integers.less(b, a))
@lowers("prims.ge.default", function=lambda a, b: integers.less_equal(b, a))
def compared(emit: Emitter, function: Callable[..., Any], self: Tensor, other: Tensor) -> Tensor:
    dtype = emit.promoted(self, other)
    kind = torch.int32 if dtype == torch.bool else dtype
    return function(emit.wide(self, kind), emit.wide(other, kind))


@lowers("prims.div.default")
def div(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    if not emit.dtype.is_floating_point:
        raise emit.refuse("a quotient of whole numbers, which torch cuts off")
    return computed(emit, ops.divide, self, other)


@lowers("prims.where.default")
def where(emit: Emitter, pred: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return integers.chosen(pred, emit.cast(a, emit.dtype), emit.cast(b, emit.dtype))


@lowers("prims.scalar_tensor.default")
def scalar_tensor(emit: Emitter, s: Scalar) -> Tensor:
    return out(emit.number(s, emit.dtype))
