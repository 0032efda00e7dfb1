# SPDX-License-Identifier: Apache-2.0
"""Normalisation over the last dimensions."""

from collections.abc import Callable
from typing import Any

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Sizes, Value


@lowers("aten.layer_norm.default")
def layer_norm(
    emit: Emitter,
    input: Value,
    normalized_shape: Sizes,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-05,
    cudnn_enable: bool = True,
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    weight, bias = (
        _given(emit, weight, "ops.ones", input.shape[-len(normalized_shape) :]),
        _given(emit, bias, "ops.zeros", input.shape[-len(normalized_shape) :]),
    )
    if emit.target == "cpu" and len(normalized_shape) > 1:  # as one dimension
        x, weight, bias = _as_rows(emit, input, weight, bias, dims=len(normalized_shape))
        found = _in_float32(emit, x, weight, bias, write=lambda *x: emit.prelude("layer_norm", *x, eps))
        return emit.call("ops.reshape", found, emit.dims(input.shape, free=True))
    if emit.target == "cpu":
        return _in_float32(emit, input, weight, bias, write=lambda *x: emit.prelude("layer_norm", *x, eps))
    begin = input.rank - len(normalized_shape)
    result = emit.prim("ops.LayerNorm", begin, begin, eps)(input, weight, bias)
    return Value(f"{result.text}[0]")


@lowers("aten.rms_norm.default")
def rms_norm(
    emit: Emitter, input: Value, normalized_shape: Sizes, weight: Value | None = None, eps: float | None = None
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if eps is None:  # of the dtype in which torch computes
        eps = {"float64": 2.220446049250313e-16}.get(input.dtype, 1.1920928955078125e-07)
    weight = _given(emit, weight, "ops.ones", normalized_shape)
    if emit.target == "ascend" and emit.out.dtype != "float64" and input.dtype == weight.dtype:
        return Value(f"{emit.call('ops.rms_norm', input, weight, eps).text}[0]")
    if len(normalized_shape) == 1:
        return _in_float32(emit, input, weight, write=lambda *x: emit.prelude("rms_norm", *x, eps))
    x, weight = _as_rows(emit, input, weight, dims=len(normalized_shape))
    found = _in_float32(emit, x, weight, write=lambda *x: emit.prelude("rms_norm", *x, eps))
    return emit.call("ops.reshape", found, emit.dims(input.shape, free=True))


def _as_rows(emit: Emitter, *tensors: Any, dims: int) -> list[Value]:
    """The tensors with their last `dims` dimensions as one."""
    flat = []
    for x in tensors:
        shape = (*emit.dims(x.shape[: x.rank - dims]), -1)
        flat.append(emit.typed(emit.call("ops.reshape", x, shape), dtype=x.dtype, shape=shape))
    return flat


def _given(emit: Emitter, weight: Value | None, otherwise: str, shape: Sizes) -> Value:
    if weight is not None:
        return weight
    made = emit.call(otherwise, emit.dims(shape), emit.dtype(emit.out.dtype))
    return emit.typed(made, shape=shape)


def _in_float32(emit: Emitter, *tensors: Any, write: Callable[..., Any]) -> Value:
    """float16 by way of float32, as torch: a sum of squares overflows in float16."""
    if emit.out.dtype != "float16":
        return write(*tensors)
    return emit.cast(emit.typed(write(*(emit.cast(x, "float32") for x in tensors)), dtype="float32"), "float16")
