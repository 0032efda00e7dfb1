# SPDX-License-Identifier: Apache-2.0
"""Generation with the keys and values inside OpenVINO: its state, with the rows of a beam search chosen inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
from openvino._offline_transformations import apply_make_stateful_transformation

from paritas.errors import EngineError
from paritas.program import Manifest
from paritas.run.openvino import model_file
from paritas.run.state import Array, remembered, unchanged

_ROWS = "paritas_rows"


def stateful(model: openvino.Model, manifest: Manifest, own_name: Any) -> openvino.Model:
    """The model with what it remembers as variables instead of inputs and outputs. Changes `model`.

    Every variable is read through a choice of rows, the input `paritas_rows`, as beam search needs it; the
    plugin fuses both into its attention.
    """
    names = remembered(manifest)
    inputs = {own_name(port): port for port in model.inputs}
    sized = next(name for name in inputs if name not in names)
    rows = ops.parameter(openvino.PartialShape([-1]), np.int32, name=_ROWS)
    rows.output(0).get_tensor().add_names({_ROWS})
    pairs: dict[str, str] = {}
    for name, index in names.items():
        past, present = inputs[name], model.outputs[index]
        consumers = past.get_target_inputs()
        chosen = ops.gather(past, rows, ops.constant(np.int64(0)))
        for consumer in consumers:
            consumer.replace_source_output(chosen.output(0))
        result = f"paritas_next_{index}"
        present.get_tensor().add_names({result})
        pairs[name] = result
    model.add_parameters([rows])
    _repeat_heads_by_ones(model)
    left_out = unchanged(manifest)
    for result in [node for i, node in enumerate(model.get_results()) if i in left_out]:
        model.remove_result(result)
    model.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(model, pairs)
    # A variable begins with no tokens, and with as many rows as the inputs have.
    batch = ops.gather(
        ops.shape_of(inputs[sized].get_node(), output_type="i64"),
        ops.constant(np.array([0], np.int64)),
        ops.constant(np.int64(0)),
    )
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, width = (dim.get_min_length() for dim in node.get_output_partial_shape(0))
            shape = ops.concat([batch, ops.constant(np.array([heads, 0, width], np.int64))], axis=0)
            zero = ops.constant(np.array(0, np.float32))
            node.set_arguments([ops.broadcast(zero, shape)])
    model.validate_nodes_and_infer_types()
    return model


def _repeat_heads_by_ones(model: openvino.Model) -> None:
    """Keys and values that several heads share are multiplied by ones instead of broadcast.

    The plugin takes grouped attention and the state behind it for one operator only where it is written so.
    """
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
        ones = ops.constant(np.ones((1, 1, times, 1, 1), np.float32))
        repeated = ops.multiply(node.input_value(0), ones)
        repeated.set_friendly_name(node.get_friendly_name())
        for consumer in node.output(0).get_target_inputs():
            consumer.replace_source_output(repeated.output(0))


class OpenVINOState:
    """One generation: a request of the compiled model, whose variables are its memory."""

    def __init__(self, compiled: openvino.CompiledModel, manifest: Manifest, own_name: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [own_name(port) for port in compiled.inputs]
        skipped = set(remembered(manifest).values()) | unchanged(manifest)
        self._outputs = [i for i in range(len(manifest.outputs)) if i not in skipped]
        self._order = list(remembered(manifest))
        self._whole = model_file.largest_whole(manifest)
        self._watched = model_file.watched(manifest)
        self._sized = next(name for name in self._inputs if name != _ROWS)
        self._rows: Array | None = None
        self._batch = 0
        self.length = 0

    def run(self, feed: Mapping[str, Array], tokens: int) -> dict[int, Array]:
        model_file.check_whole(feed, self._whole)
        batch = len(feed[self._sized])
        if self._rows is None and self.length and self._batch != batch:
            raise EngineError(
                f"{batch} sequences were given to go on from {self._batch}; a cache belongs to its own batch."
            )
        rows = np.arange(batch, dtype=np.int32) if self._rows is None else self._rows
        if not self.length:
            self._request.reset_state()
        values = {i: rows if name == _ROWS else feed[name] for i, name in enumerate(self._inputs)}
        try:
            found = self._request.infer(values, share_inputs=True, share_outputs=True).to_tuple()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed while generating: {str(error).splitlines()[-1]}") from error
        found = model_file.taken_off(found, self._watched)
        self._rows, self._batch = None, batch
        self.length += tokens
        return {index: np.array(value) for index, value in zip(self._outputs, found, strict=True)}

    def reorder(self, rows: Array) -> None:
        rows = rows.astype(np.int32)
        self._rows = rows if self._rows is None else self._rows[rows]

    def crop(self, tokens: int) -> None:
        self.length -= tokens
        if tokens and self.length:
            for variable in self._variables():
                variable.state = openvino.Tensor(np.ascontiguousarray(variable.state.data[:, :, : self.length]))

    def arrays(self) -> list[Array]:
        found = [np.array(variable.state.data) for variable in self._variables()] if self.length else []
        return found if self._rows is None else [array[self._rows] for array in found]

    def load(self, arrays: Sequence[Array]) -> None:
        for variable, array in zip(self._variables(), arrays, strict=True):
            variable.state = openvino.Tensor(np.ascontiguousarray(array))
        self._rows = None
        self.length, self._batch = arrays[0].shape[2], len(arrays[0])

    def _variables(self) -> list[Any]:
        """In the order of the inputs that they were: a variable's name is "<input><output>"."""
        known = {variable.name: variable for variable in self._request.query_state()}
        return [
            next(v for name, v in known.items() if name.startswith(f"{given}paritas_next_")) for given in self._order
        ]
