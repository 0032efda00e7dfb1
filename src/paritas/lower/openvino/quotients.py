# SPDX-License-Identifier: Apache-2.0
"""Quotients of floats, and what is left: the plugin (2026.4) multiplies by the inverse of a constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino.opset16 as ops


def floored(a: Any, b: Any) -> Any:
    """floor(a / b) of floats, exact where the quotient's rounding crosses a whole number."""
    quotient = ops.floor(ops.divide(a, b))
    rest = ops.subtract(a, ops.multiply(quotient, b))
    zero = np.float32(0)
    below = ops.less(ops.multiply(ops.sign(rest), ops.sign(b)), zero)
    above = ops.greater_equal(ops.multiply(rest, ops.sign(b)), ops.abs(b))
    mended = ops.add(quotient, ops.convert(above, "f32"))
    mended = ops.subtract(mended, ops.convert(below, "f32"))
    found = ops.select(ops.is_finite(rest), mended, quotient)
    # A small one of another sign, which the rest has lost.
    opposed = ops.select(ops.less(ops.multiply(ops.sign(a), ops.sign(b)), zero), np.float32(-1), zero)
    return ops.select(ops.less(ops.abs(a), ops.abs(b)), opposed, found)


def floor_quotient(a: Any, b: Any) -> Any:
    """floor(a / b) of floats as torch has it, by the exact rest; NaN of an infinity."""
    rest, zero, one = exact_rest(a, b), np.float32(0), np.float32(1)
    found = ops.divide(ops.subtract(a, rest), b)
    opposed = ops.less(ops.multiply(ops.sign(rest), ops.sign(b)), zero)
    found = ops.subtract(found, ops.select(opposed, one, zero))
    below = ops.floor(found)
    below = ops.add(below, ops.convert(ops.less(np.float32(0.5), ops.subtract(found, below)), "f32"))
    return ops.select(ops.equal(b, zero), ops.divide(a, b), below)


def exact_rest(a: Any, b: Any) -> Any:
    """a - trunc(a / b) * b of floats, with the sign of a, by |a| and |b|.

    The product is rounded where the quotient has many bits: its low part is subtracted by itself.
    """
    x, y = ops.abs(a), ops.abs(b)
    rest = x
    for _ in range(3):  # each round takes 12 bits or more off the quotient
        quotient = ops.floor(ops.divide(rest, y))
        # The leading 12 bits of quotient and divisor: their products are exact.
        high, low = halves(quotient)
        first, second = halves(y)
        for part in (high, low):
            rest = ops.subtract(ops.subtract(rest, ops.multiply(part, first)), ops.multiply(part, second))
        wrong = ops.convert(ops.less(rest, np.float32(0)), "f32")
        rest = ops.add(rest, ops.multiply(wrong, y))
    rest = ops.select(ops.greater_equal(rest, y), ops.subtract(rest, y), rest)
    rest = ops.select(ops.less(x, y), x, rest)
    return ops.multiply(ops.sign(a), rest)


def halves(x: Any) -> tuple[Any, Any]:
    """x as the sum of two floats of 12 bits each, for |x| below 2^115."""
    spread = ops.multiply(x, np.float32(4097))
    high = ops.subtract(spread, ops.subtract(spread, x))
    return high, ops.subtract(x, high)
