# SPDX-License-Identifier: Apache-2.0
"""Convolutions whose padding is a word: "same" or "valid"."""

from paritas.lower.mindspore.ops.conv import conv1d, conv2d, conv3d, of_known_size
from paritas.lower.mindspore.ops.pad_roll_repeat import constant_pad_nd
from paritas.lower.registry import lowers


def _word(emit, input, weight, padding, dilation, rank):
    """The padded input, and the padding that is left to the convolution. "same" may need one more at the end."""
    if padding == "valid":
        return input, [0] * rank
    of_known_size(emit, weight)
    dilation = list(dilation) * rank if len(dilation) == 1 else list(dilation)
    totals = [d * (int(k) - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(total % 2 for total in totals):
        uneven = [size for total in reversed(totals) for size in (0, total % 2)]
        input = constant_pad_nd(emit, input, uneven)
    return input, [total // 2 for total in totals]


@lowers("mindspore", "aten.conv2d.padding")
def conv2d_padding(
    emit, input, weight, bias=None, stride=(1, 1), padding="valid", dilation=(1, 1), groups=1
):
    """conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[2] stride=[1, 1], str padding="valid", SymInt[2] dilation=[1, 1], SymInt groups=1) -> Tensor"""  # noqa: E501
    input, padding = _word(emit, input, weight, padding, dilation, 2)
    return conv2d(emit, input, weight, bias, stride, padding, dilation, groups)


@lowers("mindspore", "aten.conv1d.padding")
def conv1d_padding(
    emit, input, weight, bias=None, stride=(1,), padding="valid", dilation=(1,), groups=1
):
    """conv1d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[1] stride=[1], str padding="valid", SymInt[1] dilation=[1], SymInt groups=1) -> Tensor"""  # noqa: E501
    input, padding = _word(emit, input, weight, padding, dilation, 1)
    return conv1d(emit, input, weight, bias, stride, padding, dilation, groups)


@lowers("mindspore", "aten.conv3d.padding")
def conv3d_padding(
    emit, input, weight, bias=None, stride=(1, 1, 1), padding="valid", dilation=(1, 1, 1), groups=1
):
    """conv3d.padding(Tensor input, Tensor weight, Tensor? bias=None, SymInt[3] stride=[1, 1, 1], str padding="valid", SymInt[3] dilation=[1, 1, 1], SymInt groups=1) -> Tensor"""  # noqa: E501
    input, padding = _word(emit, input, weight, padding, dilation, 3)
    return conv3d(emit, input, weight, bias, stride, padding, dilation, groups)
