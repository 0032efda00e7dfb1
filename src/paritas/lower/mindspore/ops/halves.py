# SPDX-License-Identifier: Apache-2.0
"""Numbers of float32 as a narrower dtype has them."""

import paritas.capture.autocast  # noqa: F401 - whose operator it is
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("paritas.rounded.default")
def rounded(emit: Emitter, x: Value, dtype: str) -> Value:
    return emit.prelude(f"as_{dtype}", x)
