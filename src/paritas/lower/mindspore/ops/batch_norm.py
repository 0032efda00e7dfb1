# SPDX-License-Identifier: Apache-2.0
"""Normalisation over channels and groups."""

from collections.abc import Sequence
from typing import Any

import paritas.capture.training  # noqa: F401 - whose operator one of these is
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Value


def _per_channel(emit: Emitter, value: Value, rank: int) -> Value:
    return emit.call("ops.reshape", value, (1, -1, *[1] * (rank - 2)))


def _batch_norm(
    emit: Emitter,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    eps: float,
) -> Value:
    # One scale and one offset per channel; ops.BatchNorm gives the same and takes 4-d tensors only.
    scale = emit.call("ops.rsqrt", emit.infix("+", running_var, eps))
    scale = emit.let(scale if weight is None else emit.infix("*", scale, weight), "scale")
    offset = emit.prefix("-", emit.infix("*", running_mean, scale))
    offset = offset if bias is None else emit.infix("-", bias, emit.infix("*", running_mean, scale))
    if emit.target == "cpu" and input.dtype == "float32":
        return emit.prelude("scaled_channels", input, scale, offset)
    scaled = emit.infix("*", input, _per_channel(emit, scale, input.rank))
    return emit.infix("+", scaled, _per_channel(emit, offset, input.rank))


@lowers("aten.batch_norm.default")
def batch_norm(
    emit: Emitter,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    training: bool,
    eps: float,
    **_: object,
) -> Value:
    if training and running_mean is None:  # as weights are standardised: nothing is remembered
        return _by_own_statistics(emit, input, weight, bias, eps)[0]
    if training:
        raise emit.refuse("batch_norm that updates its running statistics belongs to training")
    return _batch_norm(emit, input, weight, bias, running_mean, running_var, eps)


@lowers("paritas.batch_norm.default")
def batch_norm_of_the_batch(
    emit: Emitter,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> Value:
    """In training mode by the batch's statistics, of which the running ones go on; else by these."""
    if input.dtype != "float32":
        raise emit.refuse(f"batch_norm of {input.dtype} in training mode")
    kind, channels = emit.dtype("float32"), emit.dims(input.shape[1:2])
    weight = emit.call("ops.ones", channels, kind) if weight is None else weight
    bias = emit.call("ops.zeros", channels, kind) if bias is None else bias
    return emit.prelude("batch_norm", input, weight, bias, running_mean, running_var, momentum, eps, emit.training)


@lowers("aten._native_batch_norm_legit_no_training.default", training=False)
@lowers("aten.native_batch_norm.default")
def native_batch_norm(
    emit: Emitter,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    training: bool,
    eps: float,
    **_: object,
) -> Value:
    if training:
        raise emit.refuse("batch_norm that updates its running statistics belongs to training")
    none = f"ops.zeros((0,), {emit.dtype(input.dtype)})"  # what training would save
    return Value(f"({_batch_norm(emit, input, weight, bias, running_mean, running_var, eps)}, {none}, {none})")


@lowers("aten._native_batch_norm_legit.no_stats")
def native_batch_norm_no_stats(
    emit: Emitter, input: Value, weight: Value | None, bias: Value | None, eps: float, **_: object
) -> Value:
    out, mean, scale = _by_own_statistics(emit, input, weight, bias, eps)
    saved = (emit.call("ops.reshape", value, (-1,)) for value in (mean, scale))
    return Value(f"({', '.join([out.text, *(value.text for value in saved)])})")


def _by_own_statistics(
    emit: Emitter, input: Value, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, Value, Value]:
    """The result, and mean and scale of each channel."""
    axes = tuple(axis for axis in range(input.rank) if axis != 1)
    keep = emit.prim("ops.ReduceMean", keep_dims=True)
    x = emit.let(emit.typed(emit.cast(input, "float32"), dtype="float32"), "x")
    mean = emit.let(keep(x, axes), "mean")
    centred = emit.let(emit.infix("-", x, mean), "centred")
    spread = keep(emit.infix("*", centred, centred), axes)
    scale = emit.let(emit.call("ops.rsqrt", emit.infix("+", spread, eps)), "scale")
    out = _affine(emit, emit.infix("*", centred, scale), weight, bias, input.rank)
    return emit.cast(emit.typed(out, dtype="float32"), input.dtype), mean, scale


def _normalised(emit: Emitter, x: Value, axes: int | Sequence[int], eps: Any) -> Any:
    mean = emit.prim("ops.ReduceMean", keep_dims=True)
    centred = emit.let(emit.infix("-", x, mean(x, axes)), "centred")
    spread = mean(emit.infix("*", centred, centred), axes)
    return emit.infix("*", centred, emit.call("ops.rsqrt", emit.infix("+", spread, eps)))


def _affine(emit: Emitter, x: Value, weight: Value | None, bias: Value | None, rank: int) -> Value:
    x = x if weight is None else emit.infix("*", x, _per_channel(emit, weight, rank))
    return x if bias is None else emit.infix("+", x, _per_channel(emit, bias, rank))


@lowers("aten.group_norm.default")
def group_norm(
    emit: Emitter,
    input: Value,
    num_groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-05,
    cudnn_enabled: bool = True,
) -> Value:
    if is_empty(input):
        return filled(emit, 0)
    x = emit.cast(input, "float64" if input.dtype == "float64" else "float32")
    if emit.target == "cpu":
        return emit.cast(_grouped(emit, x, num_groups, weight, bias, eps), input.dtype)
    grouped = emit.let(emit.call("ops.reshape", x, (*emit.dims(input.shape[:1]), num_groups, -1)), "grouped")
    whole = emit.call("ops.reshape", _normalised(emit, grouped, -1, eps), emit.dims(input.shape))
    return emit.cast(emit.typed(_affine(emit, whole, weight, bias, input.rank), dtype=x.dtype), input.dtype)


def _grouped(emit: Emitter, x: Value, groups: Size, weight: Value | None, bias: Value | None, eps: float) -> Value:
    shape = (emit.size(x.shape[1]),)
    ones, zeros = (emit.call(f"ops.{name}", shape, emit.dtype(x.dtype)) for name in ("ones", "zeros"))
    weight = ones if weight is None else emit.cast(weight, x.dtype)
    bias = zeros if bias is None else emit.cast(bias, x.dtype)
    return emit.typed(emit.prelude("group_norm", x, groups, weight, bias, eps), dtype=x.dtype)


@lowers("aten.instance_norm.default")
def instance_norm(
    emit: Emitter,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    use_input_stats: bool,
    eps: float,
    **_: object,
) -> Value:
    if not use_input_stats:
        return _batch_norm(emit, input, weight, bias, running_mean, running_var, eps)
    if emit.target == "cpu":
        channels = emit.size(input.shape[1])
        x = emit.cast(input, "float64" if input.dtype == "float64" else "float32")
        return emit.cast(_grouped(emit, x, channels, weight, bias, eps), input.dtype)
    axes = tuple(range(2, input.rank))
    return _affine(emit, _normalised(emit, emit.let(input, "x"), axes, eps), weight, bias, input.rank)


@lowers("aten._weight_norm.default")
def weight_norm(emit: Emitter, v: Value, g: Value, dim: int) -> Value:
    axes = tuple(a for a in range(v.rank) if a != dim % v.rank) if dim != -1 else tuple(range(v.rank))
    v = emit.let(v, "v")
    total = emit.prim("ops.ReduceSum", keep_dims=True)(emit.infix("*", v, v), axes)
    return emit.infix("*", v, emit.infix("/", g, emit.call("ops.sqrt", total)))
