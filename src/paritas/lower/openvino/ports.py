# SPDX-License-Identifier: Apache-2.0
"""The names and types of a model's tensors, inputs and outputs."""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.program import TensorSpec

#: What a tensor's name begins with if the rest is the name of a node of the program.
TENSOR = "node/"

#: The input that says which row of what is remembered each row goes on with, int32 [batch].
ROWS = "beam_idx"

#: In the name of what is remembered, between those of the input and of the output that it was.
PRESENT = "present."


def own_name(port: openvino.Output) -> str:
    """A port's name: an input's tensor may carry the names of nodes beside it, which did nothing to it."""
    return next((name for name in port.get_names() if not name.startswith(TENSOR)), "")


def type_of(spec: TensorSpec) -> openvino.Type:
    """How the tensor crosses the border: every float as float32, a complex number as a pair of these."""
    is_real = "float" in spec.dtype or "complex" in spec.dtype
    return openvino.Type.f32 if is_real else openvino.Type(np.dtype(spec.dtype))


def result(value: openvino.Output, spec: TensorSpec) -> openvino.Node:
    """An output port of this name and dtype, with its own tensor: a value may be an input or come twice."""
    kind = type_of(spec)
    own = ops.identity(value) if value.get_element_type() == kind else ops.convert(value, kind.to_string())
    own.output(0).get_tensor().set_names({spec.name})
    own.set_friendly_name(f"{spec.name}/output")
    return ops.result(own)
