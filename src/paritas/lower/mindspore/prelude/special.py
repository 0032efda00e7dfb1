# SPDX-License-Identifier: Apache-2.0
"""Functions for generated modules: special functions, distances, and reductions by index.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

from mindspore import Tensor, ops

flat_add = ops.TensorScatterAdd()
flat_max = ops.TensorScatterMax()
flat_min = ops.TensorScatterMin()
distance_product = ops.BatchMatMul(transpose_b=True)
plain_sum = ops.ReduceSum()
kept_sum = ops.ReduceSum(keep_dims=True)
whole_division = ops.FloorDiv()
truncated_remainder = ops.TruncateMod()


def erfinv(y: Tensor) -> Tensor:
    # In float64. ops.erfinv is 2 % off; this is torch's way: a rational guess on either side of
    # 0.7, and two steps of Newton.
    size = ops.abs(y)
    z = y * y
    top = ((-0.140543331 * z + 0.914624893) * z - 1.645349621) * z + 0.886226899
    low = (((0.012229801 * z - 0.329097515) * z + 1.442710462) * z - 2.118377725) * z + 1.0
    # Where the other side is used, numbers that keep this one finite.
    inner = y * top / low
    tail = ops.where(size > 0.7, size, ops.full_like(size, 0.8))
    z = ops.sqrt(-ops.log((1.0 - tail) * 0.5))
    top = ((1.641345311 * z + 3.429567803) * z - 1.624906493) * z - 1.970840454
    outer = top / ((1.637067800 * z + 3.543889200) * z + 1.0) * ops.sign(y)
    x = ops.where(size > 0.7, outer, inner)
    x = x - (ops.erf(x) - y) / (1.1283791670955126 * ops.exp(-x * x))
    x = x - (ops.erf(x) - y) / (1.1283791670955126 * ops.exp(-x * x))
    x = ops.where(size == 1.0, ops.sign(y) * float("inf"), x)
    return ops.where(size <= 1.0, x, ops.full_like(x, float("nan")))


def distances(x: Tensor, y: Tensor) -> Tensor:
    # The Euclidean distance of each row of x to each row of y, by the product of the two, in
    # float64: in float32 the difference of two squares would lose half of its digits.
    square_x = plain_sum(x * x, -1)
    square_y = plain_sum(y * y, -1)
    total = ops.expand_dims(square_x, -1) + ops.expand_dims(square_y, -2)
    left = total - 2.0 * distance_product(x, y)
    return ops.sqrt(ops.where(left < 0.0, ops.zeros_like(left), left))


def blocks_inverted(inverse: Tensor, x: Tensor, size: int) -> Tensor:
    # The inverse of the blocks of 2 * size rows on the diagonal of a lower triangular matrix with
    # ones there, of the inverses of those of `size` rows: forward substitution by blocks.
    row = ops.arange(x.shape[-1]) // size
    apart = ops.expand_dims(row, -1) - row
    below = ops.logical_and(apart == 1, row % 2 == 0)
    part = ops.where(below, x, ops.zeros_like(x))
    return inverse - ops.matmul(ops.matmul(inverse, part), inverse)


def nan_beyond(x: Tensor, rows: int) -> Tensor:
    # NaN where a row and a column lie in different blocks of so many rows.
    row = ops.arange(x.shape[-1]) // rows
    return ops.where(ops.expand_dims(row, -1) == row, x, ops.full_like(x, float("nan")))


def any_missing(x: Tensor, places: Tensor, written: Tensor) -> Tensor:
    # Where a NaN takes part, in x or in what is written: the scatters of the largest and of the
    # smallest step over some.
    counted = flat_add((x != x).astype(x.dtype), places, (written != written).astype(x.dtype))
    return counted > 0


def scatter_largest(x: Tensor, places: Tensor, written: Tensor) -> Tensor:
    found = flat_max(x, places, written)
    return ops.where(any_missing(x, places, written), ops.full_like(x, float("nan")), found)


def scatter_smallest(x: Tensor, places: Tensor, written: Tensor) -> Tensor:
    found = flat_min(x, places, written)
    return ops.where(any_missing(x, places, written), ops.full_like(x, float("nan")), found)


def whole_sum(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    # ops.ReduceSum adds int64 in float64, and loses what lies above 2**53: two halves of 32 bits stay below.
    low = ops.bitwise_and(x, 4294967295)
    high = whole_division(x - low, ops.zeros_like(x) + 4294967296)
    return plain_sum(high, axis) * 4294967296 + plain_sum(low, axis)


def whole_sum_kept(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    low = ops.bitwise_and(x, 4294967295)
    high = whole_division(x - low, ops.zeros_like(x) + 4294967296)
    return kept_sum(high, axis) * 4294967296 + kept_sum(low, axis)


def whole_quotient(x: Tensor, y: Tensor) -> Tensor:
    # ops.FloorDiv divides int64 in float64: what is left is divided again, and the result is then off by one at most.
    quotient = whole_division(x, y)
    quotient = quotient + whole_division(x - quotient * y, y)
    left = x - quotient * y
    below = ops.logical_and(left != 0, (left < 0) != (y < 0))
    reached = ops.logical_or(ops.logical_and(y > 0, left >= y), ops.logical_and(y < 0, left <= y))
    beyond = ops.logical_and(ops.logical_not(below), reached)
    return quotient - below.astype(x.dtype) + beyond.astype(x.dtype)


def whole_remainder(x: Tensor, y: Tensor) -> Tensor:
    return x - whole_quotient(x, y) * y


def whole_quotient_truncated(x: Tensor, y: Tensor) -> Tensor:
    quotient = whole_quotient(x, y)
    inexact = ops.logical_and(quotient < 0, quotient * y != x)
    return quotient + inexact.astype(x.dtype)


def float_remainder(x: Tensor, y: Tensor) -> Tensor:
    # ops.FloorMod loses the remainder of large numbers; ops.TruncateMod has it, with the sign of x.
    left = truncated_remainder(x, y)
    return ops.where(ops.logical_and(left != 0, (left < 0) != (y < 0)), left + y, left)


def float_quotient(x: Tensor, y: Tensor) -> Tensor:
    # As torch has it: x without its remainder, over y, is a whole number but for rounding.
    left = truncated_remainder(x, y)
    whole = (x - left) / y
    whole = ops.where(ops.logical_and(left != 0, (left < 0) != (y < 0)), whole - 1, whole)
    lower = ops.floor(whole)
    lower = ops.where(whole - lower > 0.5, lower + 1, lower)
    lower = ops.where(whole == 0, ops.zeros_like(lower), lower)
    # MindSpore's Div gives NaN / 0 as -inf; x * inf is what x / 0 should be.
    return ops.where(y == 0, x * (1.0 / y), lower)
