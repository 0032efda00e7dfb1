# SPDX-License-Identifier: Apache-2.0
"""Common divisors and multiples of whole numbers."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Tensor, out
from paritas.lower.openvino.integers import chosen, truncated_division
from paritas.lower.openvino.ops.registry import lowers

#: Euclid's algorithm needs no more steps for 32 bits: Fibonacci numbers are the worst, and one to turn them round.
STEPS = {torch.int64: 47, torch.int32: 47, torch.int16: 24, torch.int8: 12, torch.uint8: 13}


def common_divisor(emit: Emitter, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """By remainders that keep their sign, as in C++: the smallest number of a type has no absolute value in it."""
    a, b = (emit.wide(emit.cast(ops.abs(emit.wide(x, dtype)), dtype), dtype) for x in (a, b))
    kind = out(a).get_element_type().to_dtype()
    zero, one = np.array(0, kind), np.array(1, kind)
    for _ in range(STEPS[dtype]):
        done = ops.equal(a, zero)
        rest = truncated_division(b, chosen(done, one, a))[1]
        a, b = chosen(done, zero, rest), chosen(done, b, a)
    return ops.abs(b) if dtype == torch.int64 else b


@lowers("aten.gcd.default")
def gcd(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    return emit.result(common_divisor(emit, self, other, emit.dtype))


@lowers("aten.lcm.default")
def lcm(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    dtype = emit.dtype
    divisor = common_divisor(emit, self, other, dtype)
    kind = out(divisor).get_element_type().to_dtype()
    divisor = chosen(ops.equal(divisor, np.array(0, kind)), np.array(1, kind), divisor)  # of two zeros
    a, b = emit.wide(self, dtype), emit.wide(other, dtype)
    return emit.result(ops.abs(ops.multiply(truncated_division(a, divisor)[0], b)))
