# SPDX-License-Identifier: Apache-2.0
"""How a new lowering looks here, for `paritas scaffold op`. Needs no MindSpore."""

from __future__ import annotations

#: The family of what resembles nothing.
FIRST = "special.py"

#: Where the functions are listed that generated code may call, from the root of a checkout.
NAMES = "src/paritas/lower/mindspore/check/allowed_names.py"


#: What a tensor is in a lowering.
TENSOR = "Value"

#: Where the types of a lowering are: the emitter's, and the others'.
EMITTER, TYPES = "paritas.lower.mindspore.write.emitter", "paritas.lower.mindspore.write.source"


def result(is_one_tensor: bool) -> str:
    """The type of what a lowering returns: several tensors are one expression too."""
    return TENSOR


def body(function: str, arguments: str) -> str:
    """The line that calls a function of MindSpore's ("ops.erfc") with these arguments."""
    return f'return emit.call("{function}", {arguments})'
