# SPDX-License-Identifier: Apache-2.0
"""What no input reaches, and OpenVINO computes only once it runs: computed here, and a constant of the model.

OpenVINO folds most constants itself. Of the operators that it does not fold, it keeps the result, and the CPU plugin
then lets the operator that reads it write its own result over it: the second call is wrong, without a word. It takes no
more than a convolution of zeros plus a convolution of the input.
"""

from __future__ import annotations

import numpy as np
import openvino
from openvino import opset13 as ops

#: The operators that OpenVINO does not fold.
NOT_FOLDED = frozenset(
    (
        "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
        "DeformableConvolution", "GroupNormalization", "BatchNormInference", "NormalizeL2", "LRN", "AvgPool", "MaxPool",
        "AdaptiveAvgPool", "AdaptiveMaxPool", "LSTMSequence", "GRUSequence", "RNNSequence",
        "LSTMCell", "GRUCell", "RNNCell",
    )
)  # fmt: skip

#: What has another value in each call, whatever it is given.
_CHANGES = frozenset(("Parameter", "ReadValue", "RandomUniform", "Multinomial"))


def fold_constants(model: openvino.Model) -> None:
    """Compute what depends on no input and has one of these operators in it, and put constants in its place."""
    depends: dict[str, bool] = {}  # whether on an input, by name: which is each node's own
    slow: set[str] = set()
    ordered = model.get_ordered_ops()
    for node in ordered:
        sources = [value.get_node().get_name() for value in node.input_values()]
        name = node.get_name()
        depends[name] = node.get_type_name() in _CHANGES or any(depends[source] for source in sources)
        if not depends[name] and (node.get_type_name() in NOT_FOLDED or any(source in slow for source in sources)):
            slow.add(name)
    wanted = [
        output
        for node in ordered
        if node.get_name() in slow
        for output in node.outputs()
        if any(_is_read_outside(target, slow) for target in output.get_target_inputs())
    ]
    if not wanted:
        return
    part = openvino.Model([ops.result(output) for output in wanted], [])
    compiled = openvino.Core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [np.array(value) for value in compiled({}).values()]
    for output, value in zip(wanted, found, strict=True):
        constant = ops.constant(value)
        constant.set_friendly_name(output.get_node().get_friendly_name())
        for target in output.get_target_inputs():
            if _is_read_outside(target, slow):
                target.replace_source_output(constant.output(0))
        constant.output(0).set_names(output.get_names())


def _is_read_outside(target: openvino.Input, slow: set[str]) -> bool:
    return target.get_node().get_name() not in slow
