# SPDX-License-Identifier: Apache-2.0
"""Attention as one operator, which the CPU plugin has a kernel for."""

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Tensor, out, rank_of
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.ops.shape import shared_sizes

#: The lowest value of a mask: just above bfloat16's minimum, so that no rounding makes it -inf.
SMALLEST = -3.38e38


@lowers("aten.scaled_dot_product_attention.default")
def scaled_dot_product_attention(
    emit: Emitter,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    **_: object,
) -> Tensor:
    """OpenVINO's own gives NaN for a row that attends to nothing, or where the mask's minimum becomes -inf in bfloat16;
    torch gives 0 for a row of False or -inf, and the mean for a row of a finite minimum. So masks are made finite, and
    the rows that see nothing are multiplied by 0.
    """
    if dropout_p:
        raise emit.refuse(f"it drops {dropout_p} of the attention at random")
    rank = rank_of(query)
    width = emit.meta(query).shape[-1]
    if scale is not None:
        factor = ops.constant(np.float32(scale))
    elif isinstance(width, int):
        factor = ops.constant(np.float32(width**-0.5))
    else:  # a free size: float(width) would be that of the example
        width = emit.size(query, rank - 1)
        factor = ops.power(ops.convert(width, "f32"), np.float32(-0.5))
    tensors = [query, key, value]
    if len({rank_of(x) for x in tensors}) > 1:  # torch broadcasts what is in front of the matrices
        most = max(map(rank_of, tensors))
        lead = shared_sizes(emit, [_first_axes(emit, x) for x in tensors])[: most - 2]
        tensors = [emit.broadcast(x, [*lead, *emit.sizes(x)[-2:]]) for x in tensors]
        rank = most
    if rank < 4:
        tensors = [emit.unsqueeze(x, *range(4 - rank)) for x in tensors]
        if attn_mask is not None and 2 < rank_of(attn_mask) < 4:
            attn_mask = emit.unsqueeze(attn_mask, *range(4 - rank_of(attn_mask)))
    query, key, value = tensors
    key, value = repeated_heads(emit, query, key), repeated_heads(emit, query, value)
    # Where there is a scale there must be a mask: this one is added to every score.
    mask, rows = np.zeros((1, 1), np.float32), None
    if attn_mask is not None:
        mask, rows = prepared(emit, attn_mask)
    found = ops.scaled_dot_product_attention(query, key, value, mask, factor, bool(is_causal))
    if rows is not None:
        found = ops.multiply(found, rows)
    return emit.squeeze(found, *range(4 - rank)) if rank < 4 else found


def _first_axes(emit: Emitter, x: Tensor) -> Tensor:
    """`x` of matrices of one element, so that only the axes in front of them are broadcast."""
    axis = rank_of(x) - 1
    return emit.slice(emit.slice(x, 0, 1, axis), 0, 1, axis - 1)


def prepared(emit: Emitter, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(a finite additive mask, 1.0 for each row that sees anything and 0.0 for the others).

    Each mask is prepared once for all its layers.
    """
    key = mask.get_node().get_name(), mask.get_index()
    if key not in emit.shared:
        smallest = ops.constant(np.float32(SMALLEST))
        if out(mask).get_element_type() == openvino.Type.boolean:
            alive = mask
            finite = ops.select(mask, ops.constant(np.float32(0)), smallest)
        else:
            # Compared before it is reduced: the CPU's maximum of nothing but -inf is the smallest float instead.
            alive = ops.greater(mask, ops.constant(np.float32(-np.inf)))
            finite = ops.maximum(mask, smallest)
        ones = ops.select(alive, ops.constant(np.float32(1)), ops.constant(np.float32(0)))
        emit.shared[key] = out(finite), out(ops.reduce_max(ones, emit.array([-1]), True))
    return emit.shared[key]


def repeated_heads(emit: Emitter, query: Tensor, x: Tensor) -> Tensor:
    """Grouped-query attention: `x`, [batch, heads, length, width], with as many heads as `query` has."""
    batch, heads, length, width = emit.sizes(x)
    wanted = emit.size(query, 1)
    if not isinstance(wanted, int) or not isinstance(heads, int) or heads == wanted:
        return x
    wide = emit.broadcast(emit.unsqueeze(x, 2), [batch, heads, wanted // heads, length, width])
    return ops.reshape(
        wide,
        emit.array([0, wanted, -1, width]) if isinstance(width, int) else emit.dims([batch, wanted, length, width]),
        isinstance(width, int),
    )
