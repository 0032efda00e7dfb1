# SPDX-License-Identifier: Apache-2.0
"""Generation with the keys and values inside OpenVINO: its variables, with the rows of a beam search chosen inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.caches import computed_once, inside, is_state, remembered, unchanged
from paritas.errors import EngineError, PortError
from paritas.lower.openvino.ports import PRESENT, ROWS, own_name
from paritas.program import Manifest
from paritas.run.openvino import model_file
from paritas.run.openvino.last_tokens import FIRST
from paritas.run.state import Array


def functional(model: openvino.Model, manifest: Manifest) -> openvino.Model:
    """What a port's file remembers as inputs and outputs again, those of `port.json`. Changes `model`."""
    names = remembered(manifest)
    written, read = _variables_of(model)
    parameters = {own_name(p.output(0)): p for p in model.get_parameters()}
    del parameters[ROWS]
    for name in names:
        node = read[_variable(name)]
        past = ops.parameter(node.get_output_partial_shape(0), node.get_output_element_type(0), name=name)
        past.output(0).get_tensor().set_names({name})
        for chosen in [consumer.get_node() for consumer in node.output(0).get_target_inputs()]:
            for consumer in chosen.output(0).get_target_inputs():
                consumer.replace_source_output(past.output(0))
        parameters[name] = past
    others = iter(model.get_results())
    kept = {index: written[_variable(name)] for name, index in names.items()}
    for name, index in computed_once(manifest).items():
        kept[index] = read[name].input_value(0)
        for consumer in read[name].output(0).get_target_inputs():
            consumer.replace_source_output(kept[index])
    for index in unchanged(manifest):
        kept[index] = ops.identity(parameters[manifest.outputs[index].name]).output(0)
    results = [ops.result(kept[i]) if i in kept else next(others) for i in range(len(manifest.outputs))]
    return openvino.Model([*results, *others], list(parameters.values()), "functional")


def check(model: openvino.Model, manifest: Manifest) -> None:
    """Raise `PortError` unless the model takes, returns and remembers what `port.json` says."""
    names = remembered(manifest)
    written, read = _variables_of(model)
    once = computed_once(manifest)
    if not written.keys() == read.keys() == {*map(_variable, names), *once}:
        raise PortError("The model does not remember what port.json says that it does: make the port again.")
    taken = sorted(own_name(port) for port in model.inputs)
    if ROWS not in taken or not set(taken) - {ROWS} <= {spec.name for spec in manifest.inputs} - names.keys():
        raise PortError(f"The model takes {', '.join(taken)}, which is not what port.json says: make the port again.")
    outputs = len(manifest.outputs) - len(inside(manifest)) + bool(model_file.watched(manifest))
    if len(model.outputs) != outputs:
        raise PortError(f"The model returns {len(model.outputs)} tensors; port.json says {outputs}.")


def _variables_of(model: openvino.Model) -> tuple[dict[str, openvino.Output], dict[str, openvino.Node]]:
    """By name what is written into a variable, and the node that reads it."""
    written = {str(sink.get_attributes()["variable_id"]): sink.input_value(0) for sink in model.get_sinks()}
    read = {str(n.get_attributes()["variable_id"]): n for n in model.get_ops() if n.get_type_name() == "ReadValue"}
    return written, read


def _variable(name: str) -> str:
    """Of the input that it stands for."""
    return f"{name}{PRESENT}{name}"


class OpenVINOState:
    """One generation: a request of the compiled model, whose variables are its memory."""

    def __init__(self, compiled: openvino.CompiledModel, manifest: Manifest, file: model_file.File) -> None:
        self._file = file
        self._request = compiled.create_infer_request()
        self._inputs = [own_name(port) for port in compiled.inputs]
        skipped = inside(manifest)
        self._outputs = [i for i in range(len(manifest.outputs)) if i not in skipped]
        self._order = list(map(_variable, remembered(manifest)))
        self._once = list(computed_once(manifest))
        self._whole = model_file.largest_whole(manifest)
        self._watched = model_file.watched(manifest)
        self._sized = next(name for name in self._inputs if name not in (ROWS, FIRST))
        self._rows: Array | None = None
        self._alike: Array | None = None  # a number for each row of an encoder's tokens: the same for the same ones
        self._batch = 0
        self.length = 0

    def run(self, feed: Mapping[str, Array], tokens: int) -> dict[int, Array]:
        return self.run_last(feed, tokens, 0)

    def run_last(self, feed: Mapping[str, Array], tokens: int, last: int) -> dict[int, Array]:
        """As `run`, with scores of so many of the last tokens, where the model can leave out the others; 0 for all."""
        model_file.check_whole(feed, self._whole)
        batch = len(feed[self._sized])
        if self._rows is None and self.length and self._batch != batch:
            raise EngineError(
                f"{batch} sequences were given to go on from {self._batch}; a cache belongs to its own batch."
            )
        rows = np.arange(batch, dtype=np.int32) if self._rows is None else self._rows
        if not self.length:
            self._request.reset_state()
            self._alike = None
        if self._once:
            self._follow(feed, rows)
        own = {ROWS: rows, FIRST: np.array([-min(last, tokens)], np.int64)}
        values = {i: own[name] if name in own else feed[name] for i, name in enumerate(self._inputs)}
        try:
            with self._file.call():
                found = self._request.infer(values, share_inputs=True, share_outputs=True).to_tuple()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed while generating: {str(error).splitlines()[-1]}") from error
        found = model_file.taken_off(found, self._watched)
        self._rows, self._batch = None, batch
        self.length += tokens
        return {index: np.array(value) for index, value in zip(self._outputs, found, strict=True)}

    def _follow(self, feed: Mapping[str, Array], rows: Array) -> None:
        """Bring what the first call has computed into the order of the rows, where these are not alike.

        Those of a beam search are: the model does not choose among them, which would copy them in each step.
        """
        if self._alike is None:
            given = [value for value in feed.values() if value.dtype.kind == "f" and value.ndim > 2]
            texts = [b"".join(value[row].tobytes() for value in given) for row in range(len(rows))]
            self._alike = np.array([texts.index(text) for text in texts])
            return
        followed = self._alike[rows]
        if not np.array_equal(followed, self._alike):
            for variable in self._variables(self._once):
                variable.state = openvino.Tensor(np.ascontiguousarray(variable.state.data[rows]))
            self._alike = followed

    def reorder(self, rows: Array) -> None:
        rows = rows.astype(np.int32)
        self._rows = rows if self._rows is None else self._rows[rows]

    def crop(self, tokens: int) -> None:
        if tokens and any(map(is_state, self._order)):
            raise EngineError(
                "What this model remembers is a state, from which no token can be taken back: begin again."
            )
        self.length -= tokens
        if tokens and self.length:
            for variable in self._variables(self._order):
                variable.state = openvino.Tensor(np.ascontiguousarray(variable.state.data[:, :, : self.length]))

    def arrays(self) -> list[Array]:
        found = [np.array(one.state.data) for one in self._variables(self._order)] if self.length else []
        return found if self._rows is None else [array[self._rows] for array in found]

    def load(self, arrays: Sequence[Array]) -> None:
        for variable, array in zip(self._variables(self._order), arrays, strict=True):
            variable.state = openvino.Tensor(np.ascontiguousarray(array))
        self._rows = None
        growing = [array.shape[2] for name, array in zip(self._order, arrays, strict=True) if not is_state(name)]
        self.length, self._batch = growing[0] if growing else 1, len(arrays[0])

    def computed(self) -> list[Array]:
        """What the first call has computed for all: see `caches.computed_once`."""
        return [np.array(variable.state.data) for variable in self._variables(self._once)]

    def _variables(self, names: Sequence[str]) -> list[Any]:
        known = {variable.name: variable for variable in self._request.query_state()}
        return [known[name] for name in names]
