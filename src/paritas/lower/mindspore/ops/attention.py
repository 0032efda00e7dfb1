# SPDX-License-Identifier: Apache-2.0
"""Scaled dot product attention."""

import math

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    emit: Emitter,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Scalar = None,
    enable_gqa: bool = False,
) -> Value:
    """scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0., bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor"""  # noqa: E501
    if dropout_p:
        raise emit.refuse("dropout inside attention belongs to training")
    if scale is None:
        width = query.shape[-1]
        if isinstance(width, int) or getattr(width, "is_Integer", False):
            scale = 1 / math.sqrt(int(width))
        else:
            scale = emit.infix("**", emit.size(width), -0.5)
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        times = emit.size(query.shape[-3] // key.shape[-3])
        heads = query.shape[-3]
        key, value = (
            emit.typed(
                emit.prelude("repeat_heads", x, times),
                dtype=x.dtype,
                shape=(*x.shape[:-3], heads, *x.shape[-2:]),
            )
            for x in (key, value)
        )
    # One key for all heads (Falcon): BatchMatMul does not broadcast on CPU.
    query, key, value = (_as_many(emit, x) for x in (query, key, value))
    if is_causal:
        rows = emit.call("ops.arange", emit.size(query.shape[-2]))
        columns = emit.call("ops.arange", emit.size(key.shape[-2]))
        mask = emit.infix("<=", columns, emit.call("ops.expand_dims", rows, -1))
        ones = [1] * (query.rank - 2)
        mask = emit.call("ops.reshape", mask, (*ones, *emit.dims([query.shape[-2], key.shape[-2]])))
        return emit.prelude("attend_where", query, key, value, mask, scale)
    if attn_mask is None:
        return emit.prelude("attend", query, key, value, scale)
    if attn_mask.dtype == "bool":
        return emit.prelude("attend_where", query, key, value, attn_mask, scale)
    return emit.prelude("attend_bias", query, key, value, emit.cast(attn_mask, query.dtype), scale)


def _as_many(emit: Emitter, x: Value) -> Value:
    """`x` with as many batches and heads as the result."""
    batch = emit.out.shape[:-2]
    if tuple(x.shape[:-2]) == tuple(batch):
        return x
    shape = (*batch, *x.shape[-2:])
    return emit.typed(emit.call("ops.broadcast_to", x, emit.dims(shape)), dtype=x.dtype, shape=shape)
