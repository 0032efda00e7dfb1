# SPDX-License-Identifier: Apache-2.0
"""Running a port on OpenVINO. Needs NumPy and OpenVINO, nothing else."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.caches import computed_once, keeps_inside, remembered, unchanged
from paritas.errors import EngineError, ParitasError
from paritas.lower.openvino import configuration
from paritas.lower.openvino.configuration import HINTS
from paritas.lower.openvino.ports import TENSOR, own_name
from paritas.program import Artifact, Manifest
from paritas.run.openvino import devices, model_file, nodes
from paritas.run.openvino.devices import core
from paritas.run.openvino.last_tokens import add_first_token
from paritas.run.openvino.model_file import crossing, returned
from paritas.run.openvino.state import OpenVINOState, functional
from paritas.run.openvino.state import check as check_state

#: dtype -> what OpenVINO calls it among a device's capabilities.
CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
_DTYPES = {hint: dtype for dtype, hint in HINTS.items()}

#: The layers that multiply matrices: their precision is the model's.
_PRODUCTS = {"FullyConnected", "MatMul", "Convolution", "Deconvolution", "RNNSeq"}


class OpenVINOSession:
    """A compiled model. `run` may be called from several threads, which then take turns."""

    #: What `observe` changes to see inside: the fusions across each observed tensor are gone.
    observed_with = "outputs added to the graph"
    #: And `lockstep`: nothing is fused across a node.
    computed_with = "the graph cut at every node, so that nothing is fused across one"
    #: And `part`.
    cut_with = "the port's own graph, cut at their borders only: inside, the engine fuses what it fuses in the whole"
    cut_mode, cut_runs_all = "", False

    def __init__(self, artifact: Artifact, dtype: str, device: str, properties: Mapping[str, str] | None = None):
        self._artifact, self.device = artifact, device
        self._file = model_file.File(artifact)
        dtype = _attempt("asking for its abilities", computed_on, device, dtype)
        adopted = bool(artifact.manifest.settings.get("adopted"))
        self._config = configuration.of(dtype, remembers=keeps_inside(artifact.manifest), adopted=adopted)
        #: Properties of OpenVINO's own that were asked for.
        self.config = dict(properties or {})
        self._lock = threading.Lock()
        self._model: _Model | None = None
        self._stateful: openvino.CompiledModel | None = None
        self._closed = False
        if keeps_inside(artifact.manifest):  # its tensors stay inside
            self._stateful = _attempt("loading this port", self._compile_stateful)
        else:
            self._open()
        self._file.settle()

    @functools.cached_property
    def precision(self) -> str:
        """The precision of the matrix products in the graph that runs: not always the one asked for."""
        found: Counter[str] = Counter()
        compiled = self._stateful or self._open().compiled
        if self.runs_on != "CPU":  # others do not say it of their layers
            return _DTYPES[self._config["INFERENCE_PRECISION_HINT"]]
        for node in compiled.get_runtime_model().get_ops():
            about = node.get_rt_info()
            if about["layerType"].value in _PRODUCTS:
                found[about["primitiveType"].value.rpartition("_")[2]] += 1  # "brgemm_avx512_f32"
        hint = self._config["INFERENCE_PRECISION_HINT"]
        return _DTYPES.get(found.most_common(1)[0][0] if found else hint, "float32")

    @functools.cached_property
    def runs_on(self) -> str:
        """The device that computes: AUTO's choice, say."""
        if self.device == "CPU":
            return self.device
        compiled = self._stateful or self._open().compiled
        return ", ".join(name.strip("()") for name in compiled.get_property("EXECUTION_DEVICES"))

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs in the manifest's order, float32, integer or bool. They stay valid after the next call.

        feed: one array per input of the manifest; those that the model does not need are ignored. Raises `InputError`
        for whole numbers of more than 32 bits, which OpenVINO's CPU plugin would cut without a word.
        """
        with self._lock:
            call = self._call_stateful if self._stateful is not None else self._open()
            results = _attempt("running", call, feed)
            outputs = self._artifact.manifest.outputs
            return [returned(value, spec.dtype) for value, spec in zip(results, outputs, strict=True)]

    def observe(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Node name -> value, for every node that leaves a module and that the model still has."""
        with self._lock:
            model, names = self._with_outputs()
            # Not kept: it is as large as the model that runs.
            observer = _attempt("adding outputs to this port", self._compile, model)
            results = _attempt("running with added outputs", observer, feed)
            return {name: np.array(value) for name, value in zip(names, results, strict=True)}

    def nodes(self) -> set[str]:
        """The nodes whose values the model still has: what `lockstep` can compute."""
        return nodes.names(self._read(), TENSOR)

    def lockstep(self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Node name -> value, for the nodes of `given`, each computed from the *given* values of those before it."""
        with self._lock:
            return _attempt(
                "computing its nodes one by one",
                lambda: dict(nodes.alone(self._read(), TENSOR, given, _crossed(feed), self._compiled)),
            )

    def borders(self) -> list[frozenset[str]]:
        """The tensors at which `part` can cut, each with the names of the nodes that it is the value of."""
        return nodes.borders(self._read(), TENSOR)

    def part(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Node name -> value, for `outputs`, computed in one go from the *given* values of other nodes."""
        with self._lock:
            return _attempt("computing a part of it", self._part, feed, given, outputs)

    def part_model(self, given: Mapping[str, np.ndarray], outputs: Collection[str]) -> openvino.Model:
        """What `part` compiles, with the configuration `self.configuration`."""
        return _attempt("cutting its graph", nodes.cut, self._read(), TENSOR, given, outputs)

    def _part(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Collection[str]
    ) -> dict[str, np.ndarray]:
        compiled = self._compiled(nodes.cut(self._read(), TENSOR, given, outputs))
        known = {**_crossed(feed), **{TENSOR + name: value for name, value in given.items()}}
        arrays = {}
        for index, port in enumerate(compiled.inputs):
            name = next((name for name in port.get_names() if name in known), port.get_any_name())
            value = known[name]
            arrays[index] = value.astype(port.get_element_type().to_dtype(), copy=False)
        results = compiled.create_infer_request().infer(arrays).to_tuple()
        found: dict[str, np.ndarray] = {}
        for port, value in zip(compiled.outputs, results, strict=True):
            names = (name.removeprefix(TENSOR) for name in port.get_names() if name.startswith(TENSOR))
            found |= {name: np.array(value) for name in names if name in outputs}
        return found

    @property
    def configuration(self) -> dict[str, Any]:
        """How this session compiles."""
        return {**devices.for_device(self._config, self.device), **self.config}

    def state(self) -> OpenVINOState:
        """A new generation: nothing is remembered yet. For a port whose cache is among its inputs."""
        if self._stateful is None:
            raise EngineError("This port remembers nothing: it has no cache among its inputs, or is closed.")
        return OpenVINOState(self._stateful, self._artifact.manifest, self._file)

    def close(self) -> None:
        """Free the compiled model. The session cannot run any more."""
        self._model = self._stateful = None
        self._closed = True

    def _open(self) -> _Model:
        if self._closed:
            raise EngineError("This session is closed; load the port again.")
        if self._model is None:
            model = self._read()
            _attempt("reading this port", model_file.check, model, self._artifact.manifest, own_name)
            watched = model_file.watched(self._artifact.manifest)
            self._model = _attempt("loading this port", self._compile, model, watched)
        return self._model

    def _call_stateful(self, feed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        """A call that is given what the model remembers, and returns it: by its variables."""
        manifest, state = self._artifact.manifest, self.state()
        names = remembered(manifest)
        past = [feed[name] for name in names]
        if all(array.size for array in past):
            state.load(past)
        found = state.run(feed, 1)
        found |= dict(zip(names.values(), state.arrays(), strict=True))
        found |= dict(zip(computed_once(manifest).values(), state.computed(), strict=True))
        found |= {index: feed[manifest.outputs[index].name] for index in unchanged(manifest)}
        return [found[index] for index in range(len(manifest.outputs))]

    def _compile_stateful(self) -> openvino.CompiledModel:
        model = self._file.model(core())
        check_state(model, self._artifact.manifest)
        add_first_token(model)
        with self._file.lightly():
            return core().compile_model(model, self.device, self.configuration)

    def _read(self) -> openvino.Model:
        model = _attempt("reading this port", self._file.model, core())
        return functional(model, self._artifact.manifest) if keeps_inside(self._artifact.manifest) else model

    def _compile(self, model: openvino.Model, watched: Sequence[str] = ()) -> _Model:
        return _Model(self._compiled(model), self._artifact.manifest, watched, self._file)

    def _compiled(self, model: openvino.Model) -> openvino.CompiledModel:
        with self._file.lightly():
            return core().compile_model(model, self.device, self.configuration)

    def _with_outputs(self) -> tuple[openvino.Model, list[str]]:
        """The model with the nodes that leave a module as its outputs, and their names."""
        wanted = {name for module in self._artifact.manifest.modules for name in module.outputs}
        model = self._read()
        results: list[openvino.Node] = []
        observed: list[str] = []
        for output in [output for op in model.get_ordered_ops() for output in op.outputs()]:
            for name in sorted(output.get_names()):
                if name.startswith(TENSOR) and name.removeprefix(TENSOR) in wanted:
                    results.append(ops.result(ops.identity(output)))
                    observed.append(name.removeprefix(TENSOR))
        return openvino.Model(results, model.get_parameters(), "observed"), observed


class _Model:
    """A compiled model with one request; a call returns views that the next call overwrites."""

    def __init__(
        self, compiled: openvino.CompiledModel, manifest: Manifest, watched: Sequence[str], file: model_file.File
    ):
        self.compiled, self._watched, self._file = compiled, watched, file
        self._whole = model_file.largest_whole(manifest)
        self._request = compiled.create_infer_request()
        self._inputs = [own_name(port) for port in compiled.inputs]

    def __call__(self, feed: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        model_file.check_whole(feed, self._whole)
        values = {index: crossing(feed[name]) for index, name in enumerate(self._inputs)}
        with self._file.call():
            found = self._request.infer(values, share_inputs=True, share_outputs=True).to_tuple()
        return model_file.taken_off(found, self._watched)


def _crossed(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: crossing(value) for name, value in feed.items()}


def computed_on(device: str, dtype: str) -> str:
    """The dtype in which a device computes what is asked for in `dtype`: float32 where it has not that one, or less."""
    able = devices.capabilities(device)
    return next((one for one in (dtype, "float32", "float16") if CAPABILITIES.get(one) in able), "float32")


def _attempt(doing: str, action: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except ParitasError:
        raise
    except KeyError as error:
        raise EngineError(f"OpenVINO failed while {doing}: the input {error} is missing.") from None
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
        raise EngineError(
            f"OpenVINO failed while {doing}: {' '.join(said or lines or [type(error).__name__])[:600]}"
        ) from error
