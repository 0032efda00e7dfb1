# SPDX-License-Identifier: Apache-2.0
"""What a generation remembers, inside the model: its variables, instead of inputs and outputs.

As optimum-intel writes it, so that openvino-genai, OpenVINO Model Server and optimum-intel run the file as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import openvino
import openvino.opset16 as ops
from openvino import op
from openvino._offline_transformations import apply_make_stateful_transformation
from openvino.op.util import Variable, VariableInfo

from paritas.caches import TOKENS, computed_once, remembered, tokens, unchanged
from paritas.errors import LoweringError
from paritas.lower.openvino.ports import PRESENT, ROWS, own_name
from paritas.program import Program


def make_stateful(model: openvino.Model, program: Program) -> None:
    """Turn what the program remembers into variables of `model`, each read through a choice of rows.

    The CPU plugin computes attention, with the variables behind it, as one operator.
    """
    names = remembered(program)
    inputs = {own_name(port): port for port in model.inputs}
    sized = next(name for name in inputs if name not in names)
    rows = ops.parameter(openvino.PartialShape([-1]), np.int32, name=ROWS)
    rows.output(0).get_tensor().set_names({ROWS})
    pairs: dict[str, str] = {}
    for name, index in names.items():
        past = inputs[name]
        consumers = past.get_target_inputs()
        chosen = ops.gather(past, rows, ops.constant(np.int64(0)))
        for consumer in consumers:
            consumer.replace_source_output(chosen.output(0))
        pairs[name] = PRESENT + name
        model.outputs[index].get_tensor().add_names({pairs[name]})
    model.add_parameters([rows])
    _repeat_heads(model)
    if not any(isinstance(dim, str) for spec in program.inputs if spec.name in names for dim in spec.dims[1:]):
        _take_masks_of_all(model, inputs, program)
    once = computed_once(program)
    left_out = unchanged(program) | set(once.values())
    results = model.get_results()
    kept = {name: _returned(results[index]) for name, index in once.items()}
    for result in [node for i, node in enumerate(results) if i in left_out]:
        model.remove_result(result)
    _compute_once(model, kept, {*names, sized})
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, pairs)
    # A variable begins with no tokens, and with as many rows as the inputs have.
    batch = ops.gather(
        ops.shape_of(inputs[sized].get_node(), output_type="i64"),
        ops.constant(np.array([0], np.int64)),
        ops.constant(np.int64(0)),
    )
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue" and node.get_attributes()["variable_id"] not in once:
            others = [dim.get_length() if dim.is_static else 0 for dim in list(node.get_output_partial_shape(0))[1:]]
            shape = ops.concat([batch, ops.constant(np.array(others, np.int64))], axis=0)
            node.set_arguments([ops.broadcast(ops.constant(np.float32(0)), shape)])
    model.validate_nodes_and_infer_types()


def _returned(result: openvino.Node) -> openvino.Output:
    """The value that a result is, behind the tensor that has the result's name."""
    value = result.input_value(0)
    return value.get_node().input_value(0) if value.get_node().get_type_name() == "Identity" else value


def _compute_once(model: openvino.Model, values: Mapping[str, openvino.Output], changing: Collection[str]) -> None:
    """Each of these values becomes a variable, which begins with it and stays.

    The CPU plugin then computes what leads there in the first call only. Such rows are not chosen: all that a beam
    search brings into another order are alike, and one row does for several.
    """
    for name, value in values.items():
        if wrong := _inputs_of(value.get_node()) & set(changing):
            raise LoweringError(f"{name} is computed of {', '.join(sorted(wrong))}, so no call can do it for all.")
        readers = value.get_target_inputs()
        about = VariableInfo()
        about.variable_id = name
        about.data_shape, about.data_type = value.get_partial_shape(), value.get_element_type()
        variable = Variable(about)  # one for both: opset's functions of that name make one each
        read = op.read_value(value, variable)
        for reader in readers:
            reader.replace_source_output(read.output(0))
        model.add_sinks([op.assign(read, variable)])


def _inputs_of(node: openvino.Node) -> set[str]:
    """The names of the model's inputs on whose values a node depends."""
    found, waiting, seen = set(), [node], set()
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen or node.get_type_name() == "ShapeOf":
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            found.add(own_name(node.output(0)))
        waiting += [given.get_node() for given in node.input_values()]
    return found


def _take_masks_of_all(model: openvino.Model, inputs: Mapping[str, openvino.Output], program: Program) -> None:
    """A mask of the new tokens may be one of all that were seen, which openvino-genai hands on to every model."""
    new = tokens(program)
    for spec in program.inputs:
        if spec.name.endswith("attention_mask") and len(spec.dims) == 2 and spec.dims[1] == new:
            mask = inputs[spec.name]
            counted = next(inputs[name] for name in TOKENS if name in inputs)
            consumers = mask.get_target_inputs()
            count = ops.gather(ops.shape_of(counted, output_type="i64"), np.array([1], np.int64), np.int64(0))
            last = ops.slice(
                mask,
                ops.negative(count),
                np.array([2**31 - 1], np.int64),
                np.array([1], np.int64),
                np.array([1], np.int64),
            )
            for consumer in consumers:
                consumer.replace_source_output(last.output(0))


def _repeat_heads(model: openvino.Model) -> None:
    """Keys and values that several heads share are repeated in the one way that both the CPU plugin, for attention with
    variables, and openvino-genai, for its paged attention, know."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Broadcast" or node.input_value(0).get_node().get_type_name() != "Unsqueeze":
            continue
        readers = [consumer.get_node() for consumer in node.output(0).get_target_inputs()]
        if len(readers) != 1 or readers[0].get_type_name() != "Reshape":
            continue
        narrow, wide = node.input_value(0).get_partial_shape(), readers[0].get_output_partial_shape(0)
        if narrow.rank.get_length() != 5 or wide.rank.get_length() != 4:
            continue
        heads, single, all_heads = narrow[1], narrow[2], wide[1]
        if not (heads.is_static and all_heads.is_static and single.is_static and single.get_length() == 1):
            continue
        times = all_heads.get_length() // heads.get_length()
        target = ops.constant(np.array([1, 1, times, 1, 1], np.int64))
        repeated = ops.broadcast(node.input_value(0), target, broadcast_spec="BIDIRECTIONAL")
        repeated.set_friendly_name(node.get_friendly_name())
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(repeated.output(0))
        # Whoever asks for the consumers of its input, as NNCF, would meet two nodes of one name.
        node.set_arguments([ops.constant(np.float32(0)), ops.constant(np.array([1], np.int64))])
