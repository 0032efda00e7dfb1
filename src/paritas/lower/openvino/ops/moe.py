# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts."""

import numpy as np
import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Tensor
from paritas.lower.openvino.ops.move import END
from paritas.lower.openvino.ops.registry import lowers


@lowers("transformers.grouped_mm_fallback.default")
def grouped_mm_fallback(emit: Emitter, input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """input [tokens, in], sorted by expert; weight [experts, in, out]; offs [experts], where each expert's tokens end.
    Rows behind the last end are zero.
    """
    count = emit.size(weight, 0)
    if not isinstance(count, int):
        raise emit.refuse("a free number of experts")
    ends = ops.convert(offs, "i64")
    start, parts = emit.array([0]), []
    for expert in range(count):
        end = emit.slice(ends, expert, expert + 1, 0)
        rows = ops.slice(input, start, end, emit.array([1]), emit.array([0]))
        matrix = ops.gather(weight, np.int64(expert), np.int64(0))
        parts.append(ops.matmul(rows, matrix, False, False))
        start = end
    rest = ops.slice(input, start, emit.array([END]), emit.array([1]), emit.array([0]))
    nothing = ops.broadcast(np.float32(0), emit.dims([emit.size(rest, 0), emit.size(weight, 2)]))
    return ops.concat([*parts, nothing], 0)
