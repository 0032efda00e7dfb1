# SPDX-License-Identifier: Apache-2.0
"""Functions for generated modules: whole numbers to their last bit, and floats to theirs near 0.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

import mindspore as ms
from mindspore import Tensor, ops

from paritas.lower.mindspore.prelude.special import whole_quotient


def int_pow(x: Tensor, exponent: Tensor, bits: int) -> Tensor:
    # ops.pow goes by way of float64: it loses what lies above 2**53, and does not wrap around. A turn
    # for each bit that an exponent may have.
    size = ops.abs(exponent) + ops.zeros_like(x)
    base = x + ops.zeros_like(size)
    one = ops.ones_like(base)
    power = one
    turns = ops.zeros((bits,), ms.int64)
    step = Tensor(0, ms.int64)
    while step < turns.shape[0]:
        power = ops.where(ops.bitwise_and(size, one) == 1, power * base, power)
        base = base * base
        size = ops.bitwise_right_shift(size, one)
        step = step + 1
    # A negative power is 1 / x ** n, rounded towards 0.
    inverse = ops.where(ops.abs(x) == 1, power, ops.zeros_like(power))
    return ops.where(exponent < 0, inverse, power)


def log1p(x: Tensor) -> Tensor:
    # In float64. ops.log1p is the logarithm of 1 + x, which loses what is small.
    near = ops.atanh(x / (x + 2.0)) * 2.0
    return ops.where(ops.abs(x) < 0.5, near, ops.log(x + 1.0))


def expm1(x: Tensor) -> Tensor:
    # In float64. ops.expm1 is exp(x) - 1, which loses what is small.
    half = ops.tanh(x * 0.5)
    return ops.where(ops.abs(x) < 0.5, 2.0 * half / (1.0 - half), ops.exp(x) - 1.0)


def log1p_near(x: Tensor) -> Tensor:
    # In float64, for a result in float32: below 1e-9 it is x itself.
    return ops.where(ops.abs(x) < 1e-09, x, ops.log(x + 1.0))


def expm1_near(x: Tensor) -> Tensor:
    return ops.where(ops.abs(x) < 1e-09, x, ops.exp(x) - 1.0)


def gelu_64(x: Tensor) -> Tensor:
    return x * (ops.erf(x / ops.sqrt(ops.full_like(x, 2.0))) + 1.0) * 0.5


def hypot(x: Tensor, y: Tensor) -> Tensor:
    # In float64, whose squares may overflow; an infinity wins over NaN.
    x, y = ops.abs(x), ops.abs(y)
    large, small = ops.maximum(x, y), ops.minimum(x, y)
    share = small / ops.where(large == 0, ops.ones_like(large), large)
    found = large * ops.sqrt(share * share + 1.0) + (x - x) + (y - y)
    either = ops.logical_or(x == float("inf"), y == float("inf"))
    return ops.where(either, ops.full_like(found, float("inf")), found)


def common_divisor(x: Tensor, y: Tensor) -> Tensor:
    return ops.abs(ops.gcd(x, y))


def common_divisor_narrow(x: Tensor, y: Tensor, least: int, turns: int) -> Tensor:
    # Euclid's algorithm as C++ runs it: the smallest number of a type has no absolute value in it, and every
    # remainder has its dividend's sign. float32 holds all of these numbers, and their quotients far enough.
    x, y = ops.where(x == least, x, ops.abs(x)), ops.where(y == least, y, ops.abs(y))
    counted = ops.zeros((turns,), ms.int64)
    step = Tensor(0, ms.int64)
    while step < counted.shape[0]:
        done = x == 0
        divisor = ops.where(done, ops.ones_like(x), x)
        rest = y - ops.trunc(y / divisor) * divisor
        x, y = ops.where(done, x, rest), ops.where(done, y, x)
        step = step + 1
    return y


def common_multiple(x: Tensor, y: Tensor) -> Tensor:
    divisor = ops.abs(ops.gcd(x, y))
    divisor = ops.where(divisor == 0, ops.ones_like(divisor), divisor)
    return ops.abs(whole_quotient(x, divisor) * y)
