# SPDX-License-Identifier: Apache-2.0
"""Mixture of experts: rows sorted by their expert, each times the weights of that expert."""

import re

from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value

_TRANSPOSED = re.compile(r"ops\.transpose\(([\w.\[\]]+), \(0, 2, 1\)\)")


@lowers("transformers.grouped_mm_fallback.default")
def grouped_mm_fallback(emit: Emitter, input: Value, weight: Value, offs: Value) -> Value:
    stored = _TRANSPOSED.fullmatch(weight.text)
    if stored:
        experts, inputs, outputs = weight.shape
        weight = Value(stored[1], weight.dtype, (experts, outputs, inputs))
        return emit.prelude("experts_product_t", input, weight, offs)
    return emit.prelude("experts_product", input, weight, offs)


@lowers("aten.histc.default")
def histc(emit: Emitter, self: Value, bins: int, min: Scalar, max: Scalar) -> Value:
    if min == max and bins == 1:  # the range is that of the values: all of them are in it
        count = emit.call("ops.reshape", emit.call("ops.ones_like", self), (-1,))
        return emit.call("ops.reshape", emit.prim("ops.ReduceSum")(count, 0), (1,))
    if min == max:
        if is_empty(self):
            return filled(emit, 0)
        return emit.prelude("histogram_of_all", self, bins)
    return emit.prelude("histogram", self, bins, float(min), float(max))
