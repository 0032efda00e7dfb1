# SPDX-License-Identifier: Apache-2.0
"""Half precision inside float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Output, out


def rounded_to_half(x: Any, dtype: torch.dtype) -> Output:
    """A float32 that is rounded as a cast to bfloat16 or float16 rounds it; a cast there and back is elided.

    Dekker's splitting leaves the leading bits, to nearest. What is even decides where two are as near.
    """
    bits = 8 if dtype == torch.bfloat16 else 11
    huge = ops.greater(ops.abs(x), np.float32(2.0**100))
    down = ops.select(huge, np.float32(2.0**-40), np.float32(1))
    y = ops.multiply(x, down)
    found = leading(y, bits)
    other = ops.add(found, ops.multiply(np.float32(2), ops.subtract(y, found)))  # as far on the other side
    tie = ops.logical_and(ops.not_equal(other, found), ops.equal(leading(other, bits), other))
    even = ops.equal(leading(found, bits - 1), found)
    found = ops.select(ops.logical_and(tie, ops.logical_not(even)), other, found)
    found = ops.multiply(found, ops.select(huge, np.float32(2.0**40), np.float32(1)))
    if dtype == torch.float16:
        small = ops.less(ops.abs(x), np.float32(2.0**-14))
        steps = ops.round(ops.multiply(x, np.float32(2.0**24)), "half_to_even")
        found = ops.select(small, ops.multiply(steps, np.float32(2.0**-24)), found)
        over = ops.greater_equal(ops.abs(x), np.float32(65520))
        found = ops.select(over, ops.multiply(ops.sign(x), np.float32(np.inf)), found)
    return out(ops.select(ops.is_finite(x), found, x))


def leading(x: Any, bits: int) -> Output:
    """The first `bits` bits of x, to nearest."""
    spread = ops.multiply(x, np.float32(2 ** (24 - bits) + 1))
    return out(ops.subtract(spread, ops.subtract(spread, x)))
