# SPDX-License-Identifier: Apache-2.0
"""Common divisors and multiples of whole numbers."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import out
from paritas.lower.openvino.integers import chosen, floor_division
from paritas.lower.registry import lowers

#: Euclid's algorithm needs no more steps for 32 bits: Fibonacci numbers are the worst.
STEPS = {torch.int64: 46, torch.int32: 46, torch.int16: 23, torch.int8: 11, torch.uint8: 12}


def common_divisor(emit, a, b, dtype):
    a, b = ops.abs(emit.wide(a, dtype)), ops.abs(emit.wide(b, dtype))
    kind = out(a).get_element_type().to_dtype()
    zero, one = np.array(0, kind), np.array(1, kind)
    for _ in range(STEPS[dtype]):
        done = ops.equal(b, zero)
        rest = floor_division(a, chosen(done, one, b))[1]
        a, b = chosen(done, a, b), chosen(done, zero, rest)
    return a


@lowers("openvino", "aten.gcd.default")
def gcd(emit, self, other):
    """gcd(Tensor self, Tensor other) -> Tensor"""
    return emit.result(common_divisor(emit, self, other, emit.dtype))


@lowers("openvino", "aten.lcm.default")
def lcm(emit, self, other):
    """lcm(Tensor self, Tensor other) -> Tensor"""
    dtype = emit.dtype
    divisor = common_divisor(emit, self, other, dtype)
    kind = out(divisor).get_element_type().to_dtype()
    divisor = ops.maximum(divisor, np.array(1, kind))  # of two zeros
    a, b = emit.wide(self, dtype), emit.wide(other, dtype)
    return emit.result(ops.abs(ops.multiply(floor_division(a, divisor)[0], b)))
