# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose padding is a word: "same" or "valid"."""

from paritas.lower.mindspore.ops.conv import convolution, of_known_size
from paritas.lower.mindspore.ops.pad_roll_repeat import constant_pad_nd
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Sizes, Value


@lowers("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding")
def padded_convolution(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: str,
    dilation: Sizes,
    groups: Size,
) -> Value:
    """What "same" adds is halved between both ends, and one more at the end where it is odd."""
    rank = weight.rank - 2
    if padding == "valid":
        return convolution(emit, input, weight, bias, stride, [0] * rank, dilation, groups)
    of_known_size(emit, weight)
    dilation = list(dilation) * rank if len(dilation) == 1 else list(dilation)
    totals = [d * (int(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        uneven = [size for total in reversed(totals) for size in (0, total % 2)]
        input = constant_pad_nd(emit, input, uneven)
    halves = [total // 2 for total in totals]
    return convolution(emit, input, weight, bias, stride, halves, dilation, groups)
