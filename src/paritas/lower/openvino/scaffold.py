# SPDX-License-Identifier: Apache-2.0
"""How a new lowering looks here, for `paritas scaffold op`."""

from __future__ import annotations

#: The family of what resembles nothing.
FIRST = "arithmetic.py"

#: No function has to be allowed: nothing is generated.
NAMES = ""


#: What a tensor is in a lowering.
TENSOR = "Tensor"

#: Where the types of a lowering are: the emitter's, and the others'.
EMITTER, TYPES = "paritas.lower.openvino.emit", "paritas.lower.openvino.emit"


def result(is_one_tensor: bool) -> str:
    """The type of what a lowering returns."""
    return TENSOR if is_one_tensor else f"list[{TENSOR}]"


def body(function: str, arguments: str) -> str:
    """The line that makes a node of the opset ("ops.erf") of these arguments."""
    return f"return {function}({arguments})"
