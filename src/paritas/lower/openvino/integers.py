# SPDX-License-Identifier: Apache-2.0
"""Whole numbers that the CPU plugin would compute in float32, in words that are exact for all 32 bits.

Measured with OpenVINO 2026.4: comparisons and choices whose operands are broadcast go through float32, where 2^24 and
2^24 + 1 are one number; signs, bits, sums, differences and products are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Output, out

#: Whole numbers of which float32 knows each from its neighbours lie within.
KNOWN_APART = 2**24 - 1


def _zero(like: Any) -> np.ndarray:
    return np.array(0, out(like).get_element_type().to_dtype())


def _ones_where(condition: Any, like: Any) -> Any:
    return ops.convert(condition, out(like).get_element_type().to_string())


def _is_wide(x: Any) -> bool:
    return out(x).get_element_type() in (openvino.Type.i32, openvino.Type.i64)


def _is_known(x: Any) -> bool:
    """Whether x is a constant that float32 knows from its neighbours: comparisons with it are exact."""
    node = out(x).get_node()
    if node.get_type_name() != "Constant":
        return False
    value = node.data
    return value.size == 0 or (value.min() >= -KNOWN_APART and value.max() <= KNOWN_APART)


def equal(a: Any, b: Any) -> Output:
    """a == b of two tensors of one type."""
    if not _is_wide(a) or _is_known(a) or _is_known(b):
        return out(ops.equal(a, b))
    return out(ops.equal(ops.bitwise_xor(a, b), _zero(a)))


def not_equal(a: Any, b: Any) -> Output:
    if not _is_wide(a) or _is_known(a) or _is_known(b):
        return out(ops.not_equal(a, b))
    return out(ops.not_equal(ops.bitwise_xor(a, b), _zero(a)))


def less(a: Any, b: Any) -> Output:
    """a < b of two tensors of one type.

    Of whole numbers by the sign of their difference, and by a's where that wraps around.
    """
    if not _is_wide(a) or _is_known(a) or _is_known(b):
        return out(ops.less(a, b))
    apart = ops.subtract(a, b)
    wraps = ops.bitwise_and(ops.bitwise_xor(a, b), ops.bitwise_xor(apart, a))
    return out(ops.less(ops.bitwise_xor(apart, wraps), _zero(a)))


def less_equal(a: Any, b: Any) -> Output:
    if not _is_wide(a) or _is_known(a) or _is_known(b):
        return out(ops.less_equal(a, b))
    return out(ops.logical_not(less(b, a)))


def chosen(condition: Any, a: Any, b: Any) -> Output:
    """`a` where the condition holds, else `b`, of two tensors of one type, of any shapes."""
    a, b = (ops.constant(x) if isinstance(x, np.ndarray) else x for x in (a, b))
    if not _is_wide(a) or (_is_known(a) and _is_known(b)):
        return out(ops.select(condition, a, b))
    mask = ops.negative(_ones_where(condition, a))
    return out(ops.bitwise_xor(b, ops.bitwise_and(ops.bitwise_xor(a, b), mask)))


def _mask_of_negatives(x: Any) -> Any:
    """-1 where x is below 0, else 0."""
    return ops.bitwise_right_shift(x, np.array(31, out(x).get_element_type().to_dtype()))


def _mask_of_others(x: Any) -> Any:
    """-1 where x is not 0, else 0."""
    return _mask_of_negatives(ops.bitwise_or(x, ops.negative(x)))


def _guessed_division(a: Any, b: Any) -> tuple[Any, Any]:
    """(quotient, rest) of two divisions in float32, the second of the first's rest: off by one at most."""
    kind = out(a).get_element_type().to_string()
    divisor = ops.convert(b, "f32")
    first = ops.convert(ops.divide(ops.convert(a, "f32"), divisor), kind)
    rest = ops.subtract(a, ops.multiply(first, b))
    second = ops.convert(ops.divide(ops.convert(rest, "f32"), divisor), kind)
    quotient, rest = ops.add(first, second), ops.subtract(rest, ops.multiply(second, b))
    return quotient, rest


def floor_division(a: Any, b: Any) -> tuple[Output, Output]:
    """(a // b, a % b) as Python has them, of two int32 or int64 tensors; b is not 0.

    OpenVINO 2026.4 divides in float32 and rounds to zero. Here that is a first guess, which the rest of the division
    mends: the second guess is off by one at most.
    """
    quotient, rest = _guessed_division(a, b)
    for _ in range(2):  # a rest of the other sign: one less
        off = ops.bitwise_and(_mask_of_negatives(ops.bitwise_xor(rest, b)), _mask_of_others(rest))
        quotient, rest = ops.add(quotient, off), ops.add(rest, ops.bitwise_and(off, b))
    # A rest as large as b: one more. Their difference has b's sign then, or is 0.
    side = _mask_of_negatives(b)
    beyond = ops.subtract(ops.bitwise_xor(ops.subtract(rest, b), side), side)
    off = ops.bitwise_not(_mask_of_negatives(beyond))
    quotient, rest = ops.subtract(quotient, off), ops.subtract(rest, ops.bitwise_and(off, b))
    return out(quotient), out(rest)


def truncated_division(a: Any, b: Any) -> tuple[Output, Output]:
    """The quotient rounded to zero, and the rest with the sign of a."""
    quotient, rest = floor_division(a, b)
    off = ops.bitwise_and(_mask_of_negatives(ops.bitwise_xor(a, b)), _mask_of_others(rest))
    return out(ops.subtract(quotient, off)), out(ops.subtract(rest, ops.bitwise_and(off, b)))


def division_of_sizes(a: Any, b: Any) -> tuple[Output, Output]:
    """(a // b, a % b) of sizes below 2^24, which OpenVINO can compute while it finds shapes: it has no bits there."""
    quotient, rest = _guessed_division(a, b)
    for _ in range(2):  # a rest of the other sign: one less
        wrong = ops.logical_and(
            ops.not_equal(rest, _zero(a)), ops.not_equal(ops.less(rest, _zero(a)), ops.less(b, _zero(a)))
        )
        off = _ones_where(wrong, a)
        quotient, rest = ops.subtract(quotient, off), ops.add(rest, ops.multiply(off, b))
    off = _ones_where(ops.greater_equal(ops.abs(rest), ops.abs(b)), a)  # a rest as large as b: one more
    quotient, rest = ops.add(quotient, off), ops.subtract(rest, ops.multiply(off, b))
    return out(quotient), out(rest)
