# SPDX-License-Identifier: Apache-2.0
"""Convolutions, forwards and transposed, in groups or not."""

from typing import Any

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, rank_of
from paritas.lower.openvino.integers import division_of_sizes
from paritas.lower.openvino.ops.conv_free import convolved_as_product, is_free, transposed_as_product
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


def each(value: Any, count: int) -> list[int]:
    """One number per axis of space."""
    value = list(value) if isinstance(value, (list, tuple)) else [value]
    return value * count if len(value) == 1 else value


@lowers("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default", x=Arg("input"))
@lowers("aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.padding", x=Arg("input"))
def convolved(
    emit: Emitter,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: Size,
) -> Tensor:
    count = rank_of(weight) - 2
    single = rank_of(x) == count + 1  # a picture without a batch
    x = emit.unsqueeze(x, 0) if single else x
    stride, dilation = each(stride, count), each(dilation, count)
    begins, ends = paddings(emit, padding, weight, dilation, count)
    x, weight = emit.wide(x, emit.dtype), emit.wide(weight, emit.dtype)
    if is_free(emit, weight) or not emit.dtype.is_floating_point:
        found = convolved_as_product(emit, x, weight, stride, begins, ends, dilation, groups)
    elif groups == 1:
        found = ops.convolution(x, weight, stride, begins, ends, dilation)
    else:
        outputs, *rest = emit.sizes(weight)
        filters = emit.reshape(weight, [groups, outputs // groups, *rest])
        found = ops.group_convolution(x, filters, stride, begins, ends, dilation)
    if bias is not None:
        found = ops.add(found, emit.unsqueeze(emit.wide(bias, emit.dtype), 0, *range(2, count + 2)))
    return emit.result(emit.squeeze(found, 0) if single else found)


def paddings(emit: Emitter, padding: Sizes | str, weight: Tensor, dilation: Sizes, count: int) -> tuple[Any, Any]:
    if isinstance(padding, str):
        if padding == "valid":
            return [0] * count, [0] * count
        total = [emit.times(emit.minus(k, 1), d) for d, k in zip(dilation, emit.sizes(weight)[2:], strict=True)]
        before = [t // 2 if isinstance(t, int) else division_of_sizes(t, np.int64(2))[0] for t in total]
        return before, [emit.minus(t, b) for t, b in zip(total, before, strict=True)]
    padding = each(padding, count)
    return padding, padding


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input", x=Arg("input"))
def transposed(
    emit: Emitter,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: Size,
    dilation: Sizes,
) -> Tensor:
    count = rank_of(weight) - 2
    single = rank_of(x) == count + 1
    x = emit.unsqueeze(x, 0) if single else x
    stride, padding, dilation, more = (each(v, count) for v in (stride, padding, dilation, output_padding))
    options = {
        "strides": stride,
        "pads_begin": padding,
        "pads_end": padding,
        "dilations": dilation,
        "output_padding": more,
    }
    x, weight = emit.wide(x, emit.dtype), emit.wide(weight, emit.dtype)
    if is_free(emit, weight) or not emit.dtype.is_floating_point:
        found = transposed_as_product(emit, x, weight, stride, padding, more, groups, dilation)
    elif groups == 1:
        found = ops.convolution_backprop_data(x, weight, **options)
    else:
        inputs, *rest = emit.sizes(weight)
        filters = emit.reshape(weight, [groups, inputs // groups, *rest])
        found = ops.group_convolution_backprop_data(x, filters, **options)
    if bias is not None:
        found = ops.add(found, emit.unsqueeze(emit.wide(bias, emit.dtype), 0, *range(2, count + 2)))
    return emit.result(emit.squeeze(found, 0) if single else found)


@lowers("aten.convolution.default", transposed_=Arg("transposed"))
def convolution(
    emit: Emitter,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed_: bool,
    output_padding: Sizes,
    groups: Size,
) -> Tensor:
    if transposed_:
        return transposed(emit, input, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolved(emit, input, weight, bias, stride, padding, dilation, groups)
