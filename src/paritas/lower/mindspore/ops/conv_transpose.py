# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions, each as a plain one: what it puts between two positions becomes channels.

Position p of the input reaches the outputs stride * p .. stride * p + kernel - 1. So the outputs from
stride * n to stride * (n + 1) depend on the ceil(kernel / stride) positions up to n alone: a convolution of
stride 1 with stride times the channels, whose results are then put beside one another.
"""

from paritas.lower.mindspore.ops.conv import biased, convolution, images, of_known_size, per_axis, volumes
from paritas.lower.mindspore.ops.conv_places import WITHOUT_KERNEL, by_places, places
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Sizes, Value


@lowers("aten.convolution.default")
def any_convolution(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,
    groups: Size,
    **_: object,
) -> Value:
    if transposed:
        return transposed_convolution(emit, input, weight, bias, stride, padding, groups, dilation)
    return convolution(emit, input, weight, bias, stride, padding, dilation, groups)


@lowers("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def transposed_convolution(
    emit: Emitter,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sizes,
    padding: Sizes,
    groups: Size,
    dilation: Sizes,
    **_: object,
) -> Value:
    # output_padding is in the size of the result.
    if (nothing := emit.if_empty()) is not None:
        return nothing
    rank = weight.rank - 2
    of_known_size(emit, weight)
    if input.dtype in WITHOUT_KERNEL:
        way = (per_axis(v, rank) for v in (stride, padding, dilation))
        found = places(input, weight, emit.out, *way, transposed=True)
        return by_places(emit, input, weight, bias, found, groups, transposed=True)
    if input.dtype == "float16":  # torch adds in float32
        x, kernel = (emit.typed(emit.cast(v, "float32"), shape=v.shape) for v in (input, weight))
        added = bias if bias is None else emit.typed(emit.cast(bias, "float32"), shape=bias.shape)
        summed = transposed_convolution(emit, x, kernel, added, stride, padding, groups, dilation)
        return emit.cast(emit.typed(summed, dtype="float32"), "float16")
    missing = 3 - rank
    batched = input.rank == rank + 2
    # Fewer dimensions are a volume of depth 1, and of height 1.
    ones = (1,) * missing
    stride = (*ones, *per_axis(stride, rank))
    dilation = (*ones, *per_axis(dilation, rank))
    padding = (*[0] * missing, *per_axis(padding, rank))
    outs = (*ones, *emit.out.shape[-rank:])
    kernel = _dilated(emit, weight, rank, dilation)
    taps = [d * (int(k) - 1) + 1 for d, k in zip(dilation, (*ones, *weight.shape[2:]), strict=True)]
    blocks = tuple(-(-t // s) for t, s in zip(taps, stride, strict=True))
    kernel = emit.call("ops.reshape", kernel, (*(int(s) for s in weight.shape[:2]), *taps))
    phases = emit.let(emit.prelude("phase_kernel", kernel, groups, *stride), "phases")
    deep = blocks[0] > 1 or rank == 3
    shape = (int(weight.shape[1]) * groups * stride[0] * stride[1] * stride[2], int(weight.shape[0]) // groups)
    sizes = (*ones, *input.shape[-rank:])
    batch = input.shape[0] if batched else 1
    edge = tuple(b - 1 for b in blocks)
    none = (1, 1, 1)
    if deep:
        volume = (batch, weight.shape[0], *sizes)
        x = emit.typed(emit.call("ops.reshape", input, emit.dims(volume)), shape=volume)
        result = volumes(emit, x, emit.typed(phases, shape=(*shape, *blocks)), None, none, edge, none, groups)
    else:
        image = (batch, weight.shape[0], *sizes[1:])
        x = emit.typed(emit.call("ops.reshape", input, emit.dims(image)), shape=image)
        flat = emit.call("ops.squeeze", phases, 2)
        flat = emit.typed(flat, shape=(*shape, *blocks[1:]))
        result = images(emit, x, flat, None, none[1:], edge[1:], none[1:], groups)
        result = emit.call("ops.expand_dims", result, 2)
    result = emit.prelude("unphased", result, *stride)
    for axis in range(missing, 3):
        result = emit.prelude("window_of", result, axis + 2, padding[axis], emit.size(outs[axis]))
    batches = emit.dims((batch, int(weight.shape[1]) * groups))
    if rank == 3:  # ops.BiasAdd knows no volumes on CPU
        rows = emit.call("ops.reshape", result, (*batches, emit.size(outs[0]), -1))
        result = biased(emit, rows if bias is not None else result, bias)
    else:
        result = emit.call("ops.reshape", result, (*batches, *emit.dims(outs[missing:])))
        result = biased(emit, result, bias)
    return emit.call("ops.reshape", result, emit.dims(emit.out.shape)) if rank == 3 or not batched else result


def _dilated(emit: Emitter, weight: Value, rank: int, dilation: Sizes) -> Value:
    for axis in range(rank):
        if dilation[3 - rank + axis] > 1:
            weight = emit.prelude("dilated", weight, axis + 2, dilation[3 - rank + axis])
    return weight
