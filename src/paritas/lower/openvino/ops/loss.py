# SPDX-License-Identifier: Apache-2.0
"""Losses that torch's own decompositions get wrong; the others are made of what there is."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Tensor, out, rank_of
from paritas.lower.openvino.ops.registry import lowers

NONE, MEAN, SUM = 0, 1, 2


def reduced(emit: Emitter, x: Tensor, reduction: int) -> Tensor:
    """The loss of each sample, their mean or their sum."""
    axes = emit.array(range(rank_of(x)))
    if reduction == NONE or rank_of(x) == 0:
        return out(x)
    return (ops.reduce_mean if reduction == MEAN else ops.reduce_sum)(x, axes, False)


@lowers("aten.multilabel_margin_loss.default")
def multilabel_margin_loss(emit: Emitter, self: Tensor, target: Tensor, reduction: int) -> Tensor:
    """torch's decomposition (2.13) also counts the labels after the first -1, as if they were 0."""
    rank = rank_of(self)
    is_row = rank < 2
    if is_row and reduction == NONE:
        raise emit.refuse("torch itself gives a single row another shape in a graph: pass a batch of one")
    x, target = (emit.unsqueeze(value, *range(2 - rank)) if is_row else out(value) for value in (self, target))
    zero = np.int64(0)
    ended = ops.cum_sum(ops.convert(ops.less(target, zero), "i32"), np.int64(1))
    counts = ops.equal(ended, np.int32(0))  # the labels before the first -1
    places = ops.select(counts, target, zero)
    classes = emit.arange(0, emit.size(x, 1))
    hit = ops.logical_and(emit.unsqueeze(counts, 2), ops.equal(emit.unsqueeze(places, 2), classes))
    is_label = ops.reduce_logical_or(hit, emit.array([1]), True)
    score = emit.unsqueeze(ops.gather_elements(x, places, 1), 2)
    margin = ops.add(ops.subtract(np.float32(1), score), emit.unsqueeze(x, 1))
    margin = ops.maximum(margin, np.float32(0))
    kept = ops.logical_and(emit.unsqueeze(counts, 2), ops.logical_not(is_label))
    margin = ops.select(kept, margin, np.float32(0))
    total = ops.reduce_sum(margin, emit.array([1, 2]), False)
    each = ops.divide(total, emit.number(emit.size(x, 1), torch.float32))
    return reduced(emit, emit.squeeze(each, 0) if is_row else each, reduction)
