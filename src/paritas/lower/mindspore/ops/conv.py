# SPDX-License-Identifier: Apache-2.0
"""Convolutions.

MindSpore's CPU kernel is up to 250 times slower than torch's, because of the layout it hands to oneDNN;
a module with `ops.Conv2D` in it runs with oneDNN capped (run/mindspore.py), which slows its matrix products
on some processors. So what can be one matrix product is: kernels of one pixel, patch embeddings (stride equal
to the kernel) and 1-d convolutions. All others are `ops.Conv2D`, which is then a matrix product inside oneDNN;
volumes become images with the taps of the depth as channels.
"""

from typing import Any

from paritas.lower.mindspore.ops.conv_places import WITHOUT_KERNEL, by_places, places
from paritas.lower.mindspore.ops.matmul import dense
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Sizes, Value


@lowers("aten.conv1d.default", "aten.conv2d.default", "aten.conv3d.default")
def convolution(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: Size,
) -> Value:
    """Any convolution of 1 to 3 dimensions, of a batch or of one."""
    if (nothing := emit.if_empty()) is not None:
        return nothing
    rank = weight.rank - 2
    of_known_size(emit, weight)
    stride, padding, dilation = (per_axis(v, rank) for v in (stride, padding, dilation))
    if input.dtype in WITHOUT_KERNEL:
        return by_places(emit, input, weight, bias, places(input, weight, emit.out, stride, padding, dilation), groups)
    unbatched = input.rank == rank + 1
    if unbatched:
        input = emit.typed(emit.call("ops.expand_dims", input, 0), shape=(1, *input.shape))
    result = _convolved(emit, input, weight, bias, stride, padding, dilation, groups)
    return emit.call("ops.squeeze", result, 0) if unbatched else result


def of_known_size(emit: Emitter, weight: Value) -> None:
    if not all(isinstance(size, int) for size in weight.shape):
        raise emit.refuse("a convolution whose kernel has a free size")


def per_axis(value: Any, rank: int) -> tuple[int, ...]:
    """An argument that may be one number for all axes."""
    value = [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
    return tuple(value * rank if len(value) == 1 else value)


def _convolved(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Value:
    kernel = tuple(int(k) for k in weight.shape[2:])
    cpu, rank = emit.target == "cpu", len(kernel)
    if cpu and groups == 1 and set(kernel) == set(stride) == {1} and not any(padding):
        return _points(emit, input, weight, bias)
    tiles = kernel == stride and not any(padding) and set(dilation) == {1}
    if cpu and groups == 1 and tiles and _divides(input, kernel):
        return _patches(emit, input, weight, bias, kernel)
    if cpu and rank == 1 and groups == 1:
        result = emit.prelude("convolve_columns", input, weight, stride[0], padding[0], dilation[0])
        return biased(emit, result, bias)
    if rank == 1:
        wide = emit.typed(emit.call("ops.expand_dims", input, 2), shape=(*input.shape[:2], 1, input.shape[2]))
        flat = emit.typed(emit.call("ops.expand_dims", weight, 2), shape=(*weight.shape[:2], 1, weight.shape[2]))
        result = images(emit, wide, flat, bias, (1, *stride), (0, *padding), (1, *dilation), groups)
        return emit.call("ops.squeeze", result, 2)
    if rank == 3:
        return volumes(emit, input, weight, bias, stride, padding, dilation, groups)
    return images(emit, input, weight, bias, stride, padding, dilation, groups)


def biased(emit: Emitter, result: Value, bias: Value | None) -> Value:
    return result if bias is None else emit.prim("ops.BiasAdd")(result, bias)


def images(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Value:
    """A 2-d convolution."""
    options = {
        "kernel_size": tuple(int(k) for k in weight.shape[2:]), "pad_mode": "pad",
        "pad": (padding[0], padding[0], padding[1], padding[1]), "stride": stride, "dilation": dilation,
        "group": groups,
    }  # fmt: skip
    return biased(emit, emit.prim("ops.Conv2D", int(weight.shape[0]), **options)(input, weight), bias)


def volumes(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Value:
    """A 3-d convolution as a 2-d one over the windows along the depth."""
    outputs, channels, deep, high, wide = (int(size) for size in weight.shape)
    input = emit.let(input, "x")
    windows = emit.prelude("depth_windows", input, deep, stride[0], padding[0], dilation[0])
    flat = emit.typed(
        emit.call("ops.reshape", weight, (outputs, channels * deep, high, wide)),
        shape=(outputs, channels * deep, high, wide),
    )
    result = images(emit, windows, flat, bias, stride[1:], padding[1:], dilation[1:], groups)
    return emit.prelude("depth_joined", result, emit.size(input.shape[0]))


def _points(emit: Emitter, input: Value, weight: Value, bias: Value | None) -> Value:
    """A convolution of kernel 1: a matrix product with all positions."""
    outputs, channels = (int(size) for size in weight.shape[:2])
    flat = emit.call("ops.reshape", weight, (outputs, channels))
    if input.shape[0] == 1:
        rows = emit.call("ops.reshape", input, (channels, -1))
        result = emit.call("ops.expand_dims", emit.prim("ops.MatMul")(flat, rows), 0)
    else:
        rows = emit.call("ops.reshape", input, (*emit.dims(input.shape[:1]), channels, -1))
        result = emit.call("ops.matmul", flat, rows)
    result = biased(emit, result, bias)
    sizes = emit.dims(input.shape[2:])
    return emit.call("ops.reshape", result, (*emit.dims(input.shape[:1]), outputs, *sizes))


def _divides(input: Value, kernel: Sizes) -> bool:
    # A remainder at the edge, which the convolution leaves out, would have to be cut off first.
    return all(isinstance(size, int) and size % k == 0 for size, k in zip(input.shape[2:], kernel, strict=True))


def _patches(emit: Emitter, input: Value, weight: Value, bias: Value | None, kernel: Sizes) -> Value:
    """Cut the image into patches and multiply: [B, C, h*k, w*k] -> [B*h*w, C*k*k] @ [out, C*k*k].T."""
    batch, channels = emit.dims(input.shape[:2])
    outputs, depth = int(weight.shape[0]), int(weight.shape[1])
    for size in kernel:
        depth *= size
    grid = [int(size) // k for size, k in zip(input.shape[2:], kernel, strict=True)]
    patches = input
    if any(size > 1 for size in grid):
        pairs = [part for pair in zip(grid, kernel, strict=True) for part in pair]
        order = [0, *range(2, 2 + 2 * len(grid), 2), 1, *range(3, 3 + 2 * len(grid), 2)]
        cut = emit.call("ops.reshape", input, (batch, channels, *pairs))
        patches = emit.call("ops.transpose", cut, tuple(order))
    patches = emit.let(emit.call("ops.reshape", patches, (-1, depth)), "patches")
    flat = emit.let(emit.call("ops.reshape", weight, (outputs, depth)), "kernel")
    product = dense(emit, patches, flat, bias)
    if all(size == 1 for size in grid):
        return emit.call("ops.reshape", product, (-1, outputs, *grid))
    product = emit.let(emit.call("ops.reshape", product, (-1, *grid, outputs)), "grid")
    return emit.call("ops.transpose", product, (0, len(grid) + 1, *range(1, len(grid) + 1)))
