# SPDX-License-Identifier: Apache-2.0
"""Random numbers. A port cannot draw those that torch draws, and a port that draws others is another model.

So they are refused, unless nothing is left to chance. A model that needs noise gets it as an input.
"""

from typing import NoReturn

from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("aten.rand.default", "aten.randn.default", "aten.rand_like.default", "aten.randn_like.default")
@lowers("aten.normal.float_float")
def refused(emit: Emitter, **_: object) -> NoReturn:
    raise emit.refuse(
        "it draws random numbers, and MindSpore's are not torch's: no port could be compared with the original. "
        "Pass the noise to the model as an input, or switch it off"
    )


@lowers("aten.bernoulli.p")
def bernoulli(emit: Emitter, self: Value, p: float, **_: object) -> Value:
    if p not in (0, 1):
        refused(emit)
    return filled(emit, p)
