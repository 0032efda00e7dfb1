# SPDX-License-Identifier: Apache-2.0
"""Scores of the last tokens only: a loop that generates wants no others, and a prompt has hundreds.

The product with the vocabulary is then computed for these alone, as openvino-genai does it, which is a tenth of a small
model's work on a prompt. The port's file stays as it is: this is for a model that is about to be compiled.
"""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset16 as ops

#: The input that says from which token on, as Python's slices count: 0 for all, -1 for the last.
FIRST = "first_token"

#: What computes each token's scores by themselves, between the product and the output.
_OF_EACH_TOKEN = frozenset({"Add", "Convert", "Divide", "Identity", "Multiply", "Subtract", "Tanh"})


def add_first_token(model: openvino.Model) -> bool:
    """Give a model with one output [batch, tokens, vocabulary] the input `FIRST`; whether it has it now."""
    if len(model.outputs) != 1:
        return False
    node = model.get_results()[0].input_value(0).get_node()
    while node.get_type_name() in _OF_EACH_TOKEN:
        moving = [node.input_value(i) for i in range(node.get_input_size()) if not _is_constant(node.input_value(i))]
        if len(moving) != 1 or moving[0].get_partial_shape().rank != node.get_output_partial_shape(0).rank:
            return False
        node = moving[0].get_node()
    if node.get_type_name() != "MatMul" or node.get_attributes().get("transpose_a"):
        return False
    hidden, weights = node.input_value(0), node.input_value(1)
    ranks = [value.get_partial_shape().rank for value in (hidden, weights)]
    if any(rank.is_dynamic for rank in ranks) or [rank.get_length() for rank in ranks] != [3, 2]:
        return False
    first = ops.parameter(openvino.PartialShape([1]), np.int64, name=FIRST)
    first.output(0).get_tensor().set_names({FIRST})
    last, one, axis = (ops.constant(np.array([value], np.int64)) for value in (np.iinfo(np.int64).max, 1, 1))
    node.input(0).replace_source_output(ops.slice(hidden, first, last, one, axis).output(0))
    model.add_parameters([first])
    model.validate_nodes_and_infer_types()
    return True


def _is_constant(value: openvino.Output) -> bool:
    """Whether it is a constant, or one that is widened."""
    node = value.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
