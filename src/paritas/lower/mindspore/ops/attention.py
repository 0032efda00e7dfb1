# SPDX-License-Identifier: Apache-2.0
"""Scaled dot product attention."""

import math
from typing import Any

import paritas.capture.training  # noqa: F401 - whose operator one of these is
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    emit: Emitter,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None,
    dropout_p: float,
    is_causal: bool,
    *,
    scale: Scalar,
    enable_gqa: bool,
) -> Value:
    if dropout_p:
        raise emit.refuse("dropout inside attention belongs to training")
    scale = _scale(emit, query) if scale is None else scale
    if emit.target == "ascend" and (found := _fused(emit, query, key, value, attn_mask, is_causal, scale)):
        return found
    if enable_gqa:
        key, value = (_for_all_heads(emit, query, x) for x in (key, value))
    # One key for all heads (Falcon): BatchMatMul does not broadcast on CPU.
    query, key, value = (_as_many(emit, x) for x in (query, key, value))
    parts = "_in_parts" if _is_large(query, key) else ""
    if is_causal:
        ones = [1] * (query.rank - 2)
        seen = _causal(emit, query, key, "<=")
        mask = emit.call("ops.reshape", seen, (*ones, *emit.dims([query.shape[-2], key.shape[-2]])))
        return emit.prelude(f"attend_where{parts}", query, key, value, mask, scale)
    if attn_mask is None:
        return emit.prelude(f"attend{parts}", query, key, value, scale)
    if attn_mask.dtype == "bool":
        return emit.prelude(f"attend_where{parts}", query, key, value, attn_mask, scale)
    return emit.prelude(f"attend_bias{parts}", query, key, value, emit.cast(attn_mask, query.dtype), scale)


@lowers("paritas.attention_weights.default")
def attention_weights(
    emit: Emitter,
    query: Value,
    key: Value,
    attn_mask: Value | None,
    is_causal: bool,
    scale: Scalar,
    enable_gqa: bool,
) -> Value:
    scale = _scale(emit, query) if scale is None else scale
    if enable_gqa:
        key = _for_all_heads(emit, query, key)
    query, key = (_as_many(emit, x) for x in (query, key))
    if is_causal:
        ones = [1] * (query.rank - 2)
        seen = _causal(emit, query, key, "<=")
        attn_mask = emit.call("ops.reshape", seen, (*ones, *emit.dims([query.shape[-2], key.shape[-2]])))
        return emit.prelude("attention_weights_where", query, key, attn_mask, scale)
    if attn_mask is None:
        return emit.prelude("attention_weights", query, key, scale)
    if attn_mask.dtype == "bool":
        return emit.prelude("attention_weights_where", query, key, attn_mask, scale)
    return emit.prelude("attention_weights_bias", query, key, emit.cast(attn_mask, query.dtype), scale)


def _is_large(query: Value, key: Value) -> bool:
    """Whether its scores are more than `queries_at_once` takes at once. Not where a size is free: a graph for any size,
    as a generation has, cannot say in how many parts it computes."""
    sizes = (*query.shape[:-1], key.shape[-2])
    return query.rank > 2 and all(map(is_whole, sizes)) and math.prod(map(int, sizes)) > 1 << 24


def _scale(emit: Emitter, query: Value) -> Any:
    width = query.shape[-1]
    if isinstance(width, int) or getattr(width, "is_Integer", False):
        return 1 / math.sqrt(int(width))
    return emit.infix("**", emit.size(width), -0.5)


def _for_all_heads(emit: Emitter, query: Value, x: Value) -> Value:
    """Keys or values of a few heads, once for each head of `query`."""
    heads = query.shape[-3]
    if heads == x.shape[-3]:
        return x
    times = emit.size(heads // x.shape[-3])
    shape = (*x.shape[:-3], heads, *x.shape[-2:])
    return emit.typed(emit.prelude("repeat_heads", x, times), dtype=x.dtype, shape=shape)


def _causal(emit: Emitter, query: Value, key: Value, comparison: str) -> Value:
    """Of each query, which keys are not behind it ("<="), or are (">")."""
    rows = emit.call("ops.arange", emit.size(query.shape[-2]))
    columns = emit.call("ops.arange", emit.size(key.shape[-2]))
    return emit.infix(comparison, columns, emit.call("ops.expand_dims", rows, -1))


def _fused(
    emit: Emitter,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None,
    is_causal: bool,
    scale: float | Value,
) -> Value | None:
    """Ascend's fused kernel, which takes half precision, heads of widths by 16, and says what is hidden.

    None where it does not compute what is asked for. MindSpore 2.10: `ops.flash_attention_score`.
    """
    width, heads = query.shape[-1], query.shape[-3] if query.rank == 4 else 0
    plain = all(is_whole(size) for size in (width, heads)) and heads and isinstance(scale, float)
    if query.dtype not in ("float16", "bfloat16") or not plain or int(width) % 16 or int(width) > 512:
        return None
    if value.shape[-1] != width or (is_causal and attn_mask is not None):
        return None
    options = {}
    if is_causal:
        options["attn_mask"] = _causal(emit, query, key, ">")
    elif attn_mask is not None:
        batch, lengths = query.shape[0], (query.shape[-2], key.shape[-2])
        hides = attn_mask.dtype == "bool"
        rows = attn_mask.shape[-3] if hides and attn_mask.rank > 2 else 1 if hides else heads
        shape = emit.dims((batch, rows, *lengths))
        if hides:
            hidden = emit.call("ops.logical_not", attn_mask)
            options["attn_mask"] = emit.call("ops.broadcast_to", hidden, shape)
        else:
            options["real_shift"] = emit.call("ops.broadcast_to", emit.cast(attn_mask, query.dtype), shape)
    return emit.call(
        "ops.flash_attention_score", query, key, value, int(heads), **options, scalar_value=scale, input_layout="BNSD"
    )


def is_whole(size: object) -> bool:
    return isinstance(size, int) or bool(getattr(size, "is_Integer", False))


def _as_many(emit: Emitter, x: Value) -> Value:
    """`x` with as many batches and heads as the result."""
    batch = emit.out.shape[:-2]
    if tuple(x.shape[:-2]) == tuple(batch):
        return x
    shape = (*batch, *x.shape[-2:])
    return emit.typed(emit.call("ops.broadcast_to", x, emit.dims(shape)), dtype=x.dtype, shape=shape)
