# SPDX-License-Identifier: Apache-2.0
"""Functions for generated modules: systems of equations, in float64.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

from mindspore import Tensor, ops

sum_last = ops.ReduceSum()
greatest_last = ops.ReduceMax()


def with_a_one(x: Tensor) -> Tensor:
    # With a row and a column more, 1 where they meet: MindSpore's kernels know no matrix of one row.
    # Determinant and inverse of the rest are as before.
    rows = x.shape[:-1]
    wide = ops.cat((x, ops.zeros((*rows, 1), x.dtype)), -1)
    last = (ops.arange(x.shape[-1] + 1) == x.shape[-1]).astype(x.dtype)
    row = ops.broadcast_to(last, (*x.shape[:-2], 1, x.shape[-1] + 1))
    return ops.cat((wide, row), -2)


def inverted(x: Tensor) -> Tensor:
    # ops.inverse answers for a matrix that has no inverse; here the answer is NaN.
    whole = with_a_one(x)
    size = ops.slogdet(whole)[1]
    there = ops.expand_dims(ops.expand_dims(size - size == 0, -1), -1)
    inverse = ops.inverse(whole)
    inverse = ops.where(there, inverse, ops.full_like(inverse, float("nan")))
    return inverse[..., :-1, :-1]


def solved(a: Tensor, b: Tensor) -> Tensor:
    # The second product takes the rounding of the first back.
    inverse = inverted(a)
    x = ops.matmul(inverse, b)
    return x + ops.matmul(inverse, b - ops.matmul(a, x))


def determinant(x: Tensor) -> Tensor:
    return ops.det(with_a_one(x))


def sign_and_log(x: Tensor) -> Tensor:
    # ops.slogdet gives NaN no sign of its own.
    return ops.slogdet(with_a_one(x))


def lower_of(x: Tensor) -> Tensor:
    # As torch, which reads no element above the diagonal.
    row = ops.arange(x.shape[-1])
    below = ops.where(ops.expand_dims(row, -1) >= row, x, ops.zeros_like(x))
    under = ops.where(ops.expand_dims(row, -1) > row, x, ops.zeros_like(x))
    return below + under.swapaxes(-1, -2)


def eigenvalues(x: Tensor) -> Tensor:
    # Of a symmetric matrix, the smallest first: moved so far that none is negative, they are its
    # singular values.
    size = ops.abs(x)
    least = ops.expand_dims(ops.expand_dims(greatest_sum(size), -1), -1)
    row = ops.arange(x.shape[-1])
    moved = x + least * (ops.expand_dims(row, -1) == row).astype(x.dtype)
    return ops.flip(ops.svd(moved, False, False), (-1,)) - ops.squeeze(least, -1)


def greatest_sum(x: Tensor) -> Tensor:
    # The largest of the sums of rows.
    total = sum_last(x, -1)
    return greatest_last(total, -1)


def pseudo_inverse(x: Tensor, absolute: Tensor | float, relative: Tensor | float) -> Tensor:
    # Singular values that are small beside the largest count as 0.
    values, left, right = ops.svd(x, False, True)
    bound = ops.maximum(relative * greatest_last(values, -1), absolute)
    counted = values > ops.expand_dims(bound, -1)
    inverse = ops.where(counted, 1.0 / values, ops.zeros_like(values))
    return ops.matmul(right * ops.expand_dims(inverse, -2), left.swapaxes(-1, -2))
