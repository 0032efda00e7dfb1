# SPDX-License-Identifier: Apache-2.0
"""Products of rows with the weights of their experts, for generated modules.

A library of source text, as `attention_and_norm.py` is. Measured with MindSpore 2.10 on x86 CPUs.
"""

import mindspore as ms
from mindspore import Tensor, ops

blocks_product = ops.BatchMatMul()
blocks_product_t = ops.BatchMatMul(transpose_b=True)
running_sum = ops.CumSum()
smallest_of_all = ops.ReduceMin()
largest_of_all = ops.ReduceMax()
scatter_add = ops.TensorScatterAdd()
sum_of = ops.ReduceSum()
counted_up = ops.Range(2**30)


def experts_product(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    # Rows ends[e - 1] to ends[e] of x times weight[e], and 0 for the rows behind the last expert's.
    rows, owner, place = expert_blocks(x, ops.cast(ends, ms.int64))
    product = blocks_product(rows, ops.gather(weight, owner, 0))
    return ops.gather(product.reshape((-1, weight.shape[2])), place, 0)


def experts_product_t(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    # The same for weights of shape (experts, outputs, inputs): to transpose them takes as long as
    # the product.
    rows, owner, place = expert_blocks(x, ops.cast(ends, ms.int64))
    product = blocks_product_t(rows, ops.gather(weight, owner, 0))
    return ops.gather(product.reshape((-1, weight.shape[1])), place, 0)


def expert_blocks(x: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Every expert's rows in blocks of one height, the last one padded: the blocks, the expert of
    # each, and each row's place in them. Only contents depend on the routing, all shapes are known,
    # so one compile serves every routing. A loop over the experts with slices of run-time sizes is
    # no faster and compiles in 0.1 s per expert and product, which makes minutes; a mask per expert
    # does the work as many times as there are experts.
    # Blocks copy an expert's weights once per block and compute on padding: as high as experts have
    # rows on average, they copy less than twice all weights and at most double the product. With
    # fewer rows than experts, as in decoding, a block is one row.
    count, experts, width = x.shape[0], ends.shape[0], x.shape[1]
    # Places without a row hold the row of zeros that is put behind x.
    padded = ops.cat((x, ops.zeros((1, width), x.dtype)), 0)
    row = ops.arange(count)
    expert = part_of(row, ends)
    if count <= experts:
        rows = ops.gather(padded, ops.where(row < ends[-1], row, count), 0)
        return rows.reshape((count, 1, width)), expert, row
    height = count // experts
    blocks = (count + (height - 1) * experts) // height
    begins = ops.cat((ops.zeros((1,), ms.int64), ends[:-1]), 0)
    used = (ends - begins + (height - 1)) // height
    last = running_sum(used, 0)
    first = last - used
    owner = part_of(ops.arange(blocks), last)
    held = (ops.arange(blocks) - ops.gather(first, owner, 0)) * height
    held = (held + ops.gather(begins, owner, 0)).reshape((blocks, 1)) + ops.arange(height)
    held = ops.where(held < ends[-1], held, count).reshape((-1,))
    rows = ops.gather(padded, held, 0).reshape((blocks, height, width))
    place = row - ops.gather(begins - first * height, expert, 0)
    return rows, owner, place


def part_of(position: Tensor, ends: Tensor) -> Tensor:
    # The first part that ends behind a position; the last part for what lies behind all.
    passed = ops.cast(position.reshape((-1, 1)) >= ends, ms.int64)
    return ops.minimum(sum_of(passed, 1), ends.shape[0] - 1)


def repeated_places(repeats: Tensor) -> Tensor:
    # Each place as many times as its number says. How many these are is known when it runs.
    ends = running_sum(ops.cast(repeats, ms.int64), 0)
    zero = ends[-1] * 0
    return part_of(counted_up(zero, ends[-1], zero + 1), ends)


def histogram(x: Tensor, bins: int, low: float, high: float) -> Tensor:
    # What lies outside, and NaN, is counted in one bin more, which is left out.
    x = x.reshape((-1,))
    inside = ops.logical_and(x >= low, x <= high)
    scaled = (ops.where(inside, x, low) - low) * bins / (high - low)
    place = ops.where(inside, ops.minimum(ops.cast(scaled, ms.int64), bins - 1), bins)
    counts = ops.zeros((bins + 1,), x.dtype)
    return scatter_add(counts, place.reshape((-1, 1)), ops.ones_like(x))[:bins]


def histogram_of_all(x: Tensor, bins: int) -> Tensor:
    # From the smallest to the largest; around the one value if there is no other.
    x = x.reshape((-1,))
    low, high = smallest_of_all(x), largest_of_all(x)
    single = (low == high).astype(x.dtype)
    return histogram(x, bins, low - single, high + single)
