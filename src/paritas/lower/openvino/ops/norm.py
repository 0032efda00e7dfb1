# SPDX-License-Identifier: Apache-2.0
"""Normalisations."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, out, rank_of
from paritas.lower.openvino.ops.reduce import varied
from paritas.lower.openvino.ops.registry import lowers


@lowers("aten.layer_norm.default")
def layer_norm(
    emit: Emitter,
    input: Tensor,
    normalized_shape: Sizes,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    **_: object,
) -> Tensor:
    axes = emit.array(range(-len(normalized_shape), 0))
    found = ops.mvn(input, axes, True, float(eps), "inside_sqrt")
    found = found if weight is None else ops.multiply(found, weight)
    return found if bias is None else ops.add(found, bias)


def per_channel(emit: Emitter, values: Tensor, rank: int) -> Tensor:
    """One value per channel, [1, channels, 1, ..]."""
    return emit.unsqueeze(values, 0, *range(2, rank))


def per_channel_of(emit: Emitter, x: Tensor, value: int) -> Tensor:
    """The same number for each channel of `x`, also where it has a free number of them."""
    channels = emit.meta(x).shape[1]
    if isinstance(channels, int):
        return ops.constant(np.full(channels, value, np.float32))
    return emit.broadcast(ops.constant(np.float32(value)), [emit.size(x, 1)])


@lowers("aten.group_norm.default")
def group_norm(
    emit: Emitter,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> Tensor:
    scale = per_channel_of(emit, input, 1) if weight is None else weight
    shift = per_channel_of(emit, input, 0) if bias is None else bias
    if rank_of(input) > 2:
        return ops.group_normalization(input, scale, shift, num_groups, float(eps))
    # The plugin has none without an axis behind the channels.
    long = emit.unsqueeze(input, 2)
    return emit.squeeze(ops.group_normalization(long, scale, shift, num_groups, float(eps)), 2)


@lowers("aten.native_group_norm.default")
def native_group_norm(
    emit: Emitter,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: Size,
    group: int,
    eps: float,
    **_: object,
) -> list[Tensor]:
    rows = out(ops.reshape(input, emit.dims([N, group, -1]), False))
    mean, spread = ops.reduce_mean(rows, emit.array([2]), False), varied(emit, rows, [2], 0, False)
    scale = ops.divide(np.float32(1), ops.sqrt(ops.add(spread, np.float32(eps))))
    return [group_norm(emit, input, group, weight, bias, eps), mean, scale]


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm_inference(
    emit: Emitter,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    **_: object,
) -> list[Tensor]:
    nothing = emit.const(np.zeros(0), torch.float32)
    return [normalised(emit, input, weight, bias, running_mean, running_var, eps), nothing, nothing]


@lowers("aten.batch_norm.default")
def batch_norm(
    emit: Emitter,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
    **_: object,
) -> Tensor:
    if training and running_mean is not None:
        raise emit.refuse("training: the running statistics change")
    if training or running_mean is None:
        return of_the_batch(emit, input, weight, bias, eps)
    return normalised(emit, input, weight, bias, running_mean, running_var, eps)


def normalised(
    emit: Emitter, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    scale = per_channel_of(emit, x, 1) if weight is None else weight
    shift = per_channel_of(emit, x, 0) if bias is None else bias
    return out(ops.batch_norm_inference(x, scale, shift, mean, var, float(eps)))


def of_the_batch(emit: Emitter, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalised by the mean and the variance of each channel over all else."""
    rank = rank_of(x)
    axes = emit.array([axis for axis in range(rank) if axis != 1])
    off = ops.subtract(x, ops.reduce_mean(x, axes, True))
    spread = ops.reduce_mean(ops.multiply(off, off), axes, True)
    found = ops.divide(off, ops.sqrt(ops.add(spread, np.float32(eps))))
    found = found if weight is None else ops.multiply(found, per_channel(emit, weight, rank))
    return found if bias is None else ops.add(found, per_channel(emit, bias, rank))


@lowers("aten._native_batch_norm_legit.no_stats")
def batch_norm_no_stats(
    emit: Emitter, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, **_: object
) -> list[Tensor]:
    axes = emit.array([axis for axis in range(rank_of(input)) if axis != 1])
    mean = ops.reduce_mean(input, axes, False)
    off = ops.subtract(input, ops.reduce_mean(input, axes, True))
    spread = ops.reduce_mean(ops.multiply(off, off), axes, False)
    scale = ops.divide(np.float32(1), ops.sqrt(ops.add(spread, np.float32(eps))))
    return [of_the_batch(emit, input, weight, bias, eps), mean, scale]


@lowers("aten.instance_norm.default")
def instance_norm(
    emit: Emitter,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    eps: float,
    **_: object,
) -> Tensor:
    if not use_input_stats:
        return normalised(emit, input, weight, bias, running_mean, running_var, eps)
    rank = rank_of(input)
    found = ops.mvn(input, emit.array(range(2, rank)), True, float(eps), "inside_sqrt")
    found = found if weight is None else ops.multiply(found, per_channel(emit, weight, rank))
    return found if bias is None else ops.add(found, per_channel(emit, bias, rank))


@lowers("aten.rms_norm.default")
def rms_norm(emit: Emitter, input: Tensor, normalized_shape: Sizes, weight: Tensor | None, eps: float | None) -> Tensor:
    eps = torch.finfo(emit.dtype).eps if eps is None else eps
    axes = emit.array(range(-len(normalized_shape), 0))
    squares = ops.reduce_mean(ops.power(input, np.float32(2)), axes, True)
    root = ops.sqrt(ops.add(squares, np.float32(eps)))
    found = ops.multiply(input, ops.divide(np.float32(1), root))
    return found if weight is None else ops.multiply(found, weight)


@lowers("aten._weight_norm.default")
def weight_norm(emit: Emitter, v: Tensor, g: Tensor, dim: int) -> Tensor:
    rank = rank_of(v)
    kept = [] if dim == -1 else [dim % rank]
    axes = [axis for axis in range(rank) if axis not in kept]
    length = ops.sqrt(ops.reduce_sum(ops.multiply(v, v), emit.array(axes), True))
    return ops.multiply(v, ops.divide(g, length))
