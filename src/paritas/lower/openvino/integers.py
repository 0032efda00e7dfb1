# SPDX-License-Identifier: Apache-2.0
"""Whole numbers that the CPU plugin would compute in float32, in words that are exact for all 32 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Output, out


def _zero(like: Any) -> np.ndarray:
    return np.array(0, out(like).get_element_type().to_dtype())


def _ones_where(condition: Any, like: Any) -> Any:
    return ops.convert(condition, out(like).get_element_type().to_string())


def floor_division(a: Any, b: Any) -> tuple[Output, Output]:
    """(a // b, a % b) as Python has them, of two int32 or int64 tensors; b is not 0.

    OpenVINO 2026.4 divides in float32 and rounds to zero. Here that is a first guess, which the rest of the division
    mends: the second guess is off by one at most.
    """
    kind = out(a).get_element_type().to_string()
    divisor = ops.convert(b, "f32")
    first = ops.convert(ops.divide(ops.convert(a, "f32"), divisor), kind)
    rest = ops.subtract(a, ops.multiply(first, b))
    second = ops.convert(ops.divide(ops.convert(rest, "f32"), divisor), kind)
    quotient, rest = ops.add(first, second), ops.subtract(rest, ops.multiply(second, b))
    for _ in range(2):  # a rest of the other sign: one less
        wrong = ops.logical_and(
            ops.not_equal(rest, _zero(a)),
            ops.not_equal(ops.less(rest, _zero(a)), ops.less(b, _zero(a))),
        )
        off = _ones_where(wrong, a)
        quotient, rest = ops.subtract(quotient, off), ops.add(rest, ops.multiply(off, b))
    off = _ones_where(ops.greater_equal(ops.abs(rest), ops.abs(b)), a)  # a rest as large as b: one more
    quotient, rest = ops.add(quotient, off), ops.subtract(rest, ops.multiply(off, b))
    return out(quotient), out(rest)


def truncated_division(a: Any, b: Any) -> tuple[Output, Output]:
    """The quotient rounded to zero, and the rest with the sign of a."""
    quotient, rest = floor_division(a, b)
    differ = ops.not_equal(ops.less(a, _zero(a)), ops.less(b, _zero(a)))
    off = _ones_where(ops.logical_and(differ, ops.not_equal(rest, _zero(a))), a)
    return out(ops.add(quotient, off)), out(ops.subtract(rest, ops.multiply(off, b)))
