# SPDX-License-Identifier: Apache-2.0
"""What a model draws in training mode. In evaluation mode the cell draws nothing."""

import paritas.capture.training  # noqa: F401 - whose operators these are
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("paritas.dropout_mask.default")
def dropout_mask(emit: Emitter, like: Value, p: float) -> Value:
    return emit.prelude("dropout_mask", like, p, emit.training)
