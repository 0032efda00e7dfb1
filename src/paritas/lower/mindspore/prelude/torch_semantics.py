# SPDX-License-Identifier: Apache-2.0
"""More functions for generated modules: those that give torch's meaning where MindSpore's is another.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

import mindspore as ms
from mindspore import Tensor, ops

any_true = ops.ReduceAny(keep_dims=True)
any_of = ops.ReduceAny()
softmax_rows = ops.Softmax(-1)
product = ops.MatMul()


def embedding_lookup(weight: Tensor, ids: Tensor, padding: int, training: bool) -> Tensor:
    # torch gives the row of the padding token no gradient; -1 is none. Only a cell in training has
    # any.
    rows = ops.gather(weight, ids, 0)
    if training and padding >= 0:
        padded = ops.broadcast_to(ops.expand_dims(ids == padding, -1), rows.shape)
        rows = ops.where(padded, ops.stop_gradient(rows), rows)
    return rows


def relu(x: Tensor, training: bool) -> Tensor:
    # ops.relu is no faster and turns NaN into 0; but ops.maximum gives x = 0 half of the gradient,
    # where torch gives it none.
    positive = ops.maximum(0, x)
    return ops.where(x > 0, x, ops.stop_gradient(positive)) if training else positive


def picked(x: Tensor, index: Tensor, axis: int, training: bool) -> Tensor:
    # ops.gather counts negative indices from the end, but loses their gradient.
    return ops.gather(x, index % x.shape[axis] if training else index, axis)


def as_bfloat16(x: Tensor) -> Tensor:
    # Rounded to bfloat16, and its gradient too. Kernels of that dtype are missing on the CPU.
    return ops.cast(ops.cast(x, ms.bfloat16), ms.float32)


def as_float16(x: Tensor) -> Tensor:
    # Rounded to float16, and its gradient too: what is beyond 65504 is infinite.
    return ops.cast(ops.cast(x, ms.float16), ms.float32)


def from_front(bound: int, size: int) -> int:
    # A bound of a slice that counts from the end if it is negative.
    return max(bound + size, 0) if bound < 0 else min(bound, size)


def maximum_nan(x: Tensor, y: Tensor) -> Tensor:
    # ops.maximum passes a NaN of its second operand only.
    return ops.where(x != x, x, ops.maximum(x, y))


def minimum_nan(x: Tensor, y: Tensor) -> Tensor:
    return ops.where(x != x, x, ops.minimum(x, y))


def softmax(x: Tensor) -> Tensor:
    # ops.Softmax leaves every row unwritten if one is -inf throughout, and a NaN stays in its
    # place; torch gives NaN for the whole row. `alive` is the sum of the row's weights: 0 or NaN
    # for such rows.
    width = x.shape[-1]
    rows = x.reshape((-1, width))
    weights = softmax_rows(
        ops.maximum(-65504.0 if x.dtype == ms.float16 else -3.4028234663852886e38, rows)
    )
    seen = weights * (rows > -float("inf")).astype(x.dtype)
    alive = product(seen, ops.ones((width, 1), x.dtype))
    return (weights * product(alive / alive, ops.ones((1, width), x.dtype))).reshape(x.shape)


def spread_nan(result: Tensor, x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    # ops.ReduceMax and ReduceMin step over NaN; torch's result is NaN. result: with the axes kept.
    return ops.where(any_true(x != x, axis), float("nan"), result)


def first_largest(x: Tensor, axis: int) -> Tensor:
    # torch answers with the first NaN if there is one; ops.Argmax steps over it.
    missing = x != x
    place = ops.argmax(missing.astype(ms.int32), axis)
    return ops.where(any_of(missing, axis), place, ops.argmax(x, axis))


def first_smallest(x: Tensor, axis: int) -> Tensor:
    missing = x != x
    place = ops.argmax(missing.astype(ms.int32), axis)
    return ops.where(any_of(missing, axis), place, ops.argmin(x, axis))


def row_starts(x: Tensor) -> Tensor:
    # Where a row differs from the one before it: the first row does.
    return ops.cat((ops.ones((1,), ms.bool_), any_of(x[1:] != x[:-1], 1)), 0)
