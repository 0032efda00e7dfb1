# SPDX-License-Identifier: Apache-2.0
"""Convolutions of whole numbers and of float64, of which MindSpore's CPU backend has no kernel.

For each output and each tap of the kernel one place of the input is looked up; what is left is a matrix product.
"""

import itertools
import math
from collections.abc import Sequence

import torch

from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Sizes, Value

WITHOUT_KERNEL = ("int64", "int32", "int16", "int8", "uint8", "float64")


def places(
    input: Value, weight: Value, out: Value, stride: Sizes, padding: Sizes, dilation: Sizes, *, transposed: bool = False
) -> torch.Tensor | None:
    """The place of the flat image for each tap and output, [taps, outputs]; -1 where there is none.

    None if a size is not known.
    """
    kernel = [int(size) for size in weight.shape[2:]]
    sizes, outs = input.shape[-len(kernel) :], out.shape[-len(kernel) :]
    if not all(isinstance(size, int) for size in (*sizes, *outs)):
        return None
    axes = []
    for size, taps, after, step, edge, apart in zip(sizes, kernel, outs, stride, padding, dilation, strict=True):
        tap, place = torch.arange(taps)[:, None] * apart, torch.arange(after)
        if transposed:
            reached = place + edge - tap
            found = torch.where(reached % step == 0, reached // step, -1)
        else:
            found = place * step - edge + tap
        axes.append(torch.where((found >= 0) & (found < size), found, -1))
    rows = [
        _joined([axis[tap] for axis, tap in zip(axes, taps, strict=True)], sizes)
        for taps in itertools.product(*(range(size) for size in kernel))
    ]
    return torch.stack(rows)


def _joined(axes: Sequence[torch.Tensor], sizes: Sizes) -> torch.Tensor:
    flat, inside = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    for found, size in zip(axes, sizes, strict=True):
        flat = (flat[:, None] * size + found.clamp(min=0)).reshape(-1)
        inside = (inside[:, None] & (found >= 0)).reshape(-1)
    return torch.where(inside, flat, -1)


def by_places(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    found: torch.Tensor | None,
    groups: int,
    *,
    transposed: bool = False,
) -> Value:
    """The convolution, of what `places` has found."""
    if found is None:
        raise emit.refuse(f"a convolution of {input.dtype} with a size that is free")
    rank = weight.rank - 2
    taps, count = found.shape
    batch, channels = (1, *input.shape)[-rank - 2 : -rank]
    size = math.prod(input.shape[-rank:])
    outputs = int(weight.shape[1]) * groups if transposed else int(weight.shape[0])
    rows = (*emit.dims((batch,)), int(channels), size)
    flat = emit.call("ops.reshape", input, rows)
    edge = emit.call("ops.zeros", (*rows[:2], 1), emit.dtype(input.dtype))  # what lies outside
    flat = emit.call("ops.cat", (flat, edge), -1)
    index = emit.constant(torch.where(found < 0, size, found).reshape(-1), "places")
    taken = emit.call("ops.gather", flat, index, 2)
    each = int(channels) // groups
    taken = emit.call("ops.reshape", taken, (rows[0], groups, each * taps, count))
    kernel = weight
    if transposed:  # [in, out, taps]
        kernel = emit.call("ops.reshape", weight, (groups, each, outputs // groups, taps))
        kernel = emit.call("ops.transpose", kernel, (0, 2, 1, 3))
    kernel = emit.call("ops.reshape", kernel, (groups, outputs // groups, each * taps))
    result = emit.call("ops.matmul", kernel, taken)
    result = emit.call("ops.reshape", result, emit.dims(emit.out.shape))
    if bias is None:
        return result
    return emit.infix("+", result, emit.call("ops.reshape", bias, (-1, *[1] * rank)))
