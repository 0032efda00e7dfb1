# SPDX-License-Identifier: Apache-2.0
"""PyTorch, the reference: a captured `Program` at any precision, or the original's class from a port on disk.

In float64 a program is the truth that both PyTorch's fp32 and an engine's numbers are measured against, so
nothing in it may stay at fp32: parameters, constants, inputs, every dtype argument, every default dtype.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paritas import contents, leftovers
from paritas.arguments import invoke, nest
from paritas.errors import EngineError, ParitasError, PortError, first_line
from paritas.program import Artifact, Program
from paritas.run.session import Gradients
from paritas.run.torch.gradients import eager_gradients, graph_gradients, node_vjps
from paritas.run.torch.walk import LocalWalk, Seen, Walk, captured_dtype, dtype_of
from paritas.run.values import describe_output, from_numpy, to_numpy


def eager_session(artifact: Artifact, mode: str, precision: str, device: str) -> EagerSession:
    """The original's class with the port's weights, in eager mode.

    The directory holds config.json and model.safetensors; nothing else of it is read, and no code in it
    is run. Raises `PortError` if the manifest's class is not one of transformers' or the weights do not
    fit it, `EngineError` for an unknown mode, precision or device.
    """
    if mode:
        raise EngineError(f"The engine torch has no modes, so not {mode!r} either.")
    precision = precision or artifact.manifest.dtype
    dtype = dtype_of(precision)
    model = _original(artifact)
    try:
        model = model.to(device=device or "cpu", dtype=dtype).eval()
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"torch cannot use the device {device!r}: {first_line(error)}") from None
    return EagerSession(model, artifact, precision)


def _original(artifact: Artifact) -> torch.nn.Module:
    name = artifact.manifest.source.model_class
    module, _, cls_name = name.rpartition(".")
    # The manifest is data from a directory: it may choose among transformers' classes, and nothing else.
    if not module.startswith("transformers."):
        raise PortError(
            f"{artifact.directory}: its original is {name or 'unknown'}, which is no class of transformers, so torch "
            "cannot build it from the directory alone. Pass the original: port.verify() needs the module in memory."
        )
    from transformers import PreTrainedModel

    try:
        cls = getattr(importlib.import_module(module), cls_name)
    except (ImportError, AttributeError):
        raise PortError(f"{artifact.directory}: the installed transformers has no {name}.") from None
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise PortError(f"{artifact.directory}: {name} is no model.")
    for file in ("config.json", "model.safetensors"):
        if not contents.has(artifact, file):
            raise PortError(f"{artifact.directory}: {file} is missing, which torch needs to build {cls_name}.")
    try:
        # Alone in a directory, for transformers reads whatever else it finds beside them: adapters, indices of shards.
        with leftovers.temporary("checked") as place:
            for file in ("config.json", "model.safetensors"):
                (place / file).write_bytes(contents.take(artifact, file))
            loaded: Any = cls.from_pretrained(
                place,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except ParitasError:
        raise
    except Exception as error:
        raise PortError(f"{artifact.directory}: {cls_name} cannot be loaded: {first_line(error)}") from error
    model, loading = loaded
    bad = {kind: sorted(map(str, loading.get(kind) or ())) for kind in ("missing_keys", "mismatched_keys")}
    if any(bad.values()):
        rows = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:5])}" for kind, keys in bad.items() if keys)
        raise PortError(f"{artifact.directory}: model.safetensors does not fit {cls_name}: {rows}")
    return model


class EagerSession:
    """An original in eager mode. Explicit casts in its code stay: in "float64" it is not yet the truth."""

    def __init__(self, model: torch.nn.Module, artifact: Artifact, precision: str):
        self.precision = precision
        self._model: torch.nn.Module | None = model
        self._manifest = artifact.manifest

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Flat outputs in the manifest's order. Raises `EngineError` with torch's reason."""
        if self._model is None:
            raise EngineError("This session is closed.")
        inputs = {
            # A copy, since some models write into their inputs.
            spec.name: self._placed(from_numpy(np.array(feed[spec.name]), "torch", spec.dtype))
            for spec in self._manifest.inputs
        }
        try:
            with torch.no_grad():
                arguments = {**nest(inputs, self._manifest.nesting), **self._manifest.constants}
                result = invoke(self._model, arguments)
        except Exception as error:
            raise EngineError(f"torch could not run {type(self._model).__name__}: {first_line(error)}") from error
        tensors, _ = describe_output(result)
        flat = [to_numpy(f"output {i}", tensor) for i, tensor in enumerate(tensors)]
        if len(flat) != len(self._manifest.outputs):
            raise EngineError(
                f"{type(self._model).__name__} returned {len(flat)} tensors, not {len(self._manifest.outputs)}."
            )
        return flat

    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """See `run.session.Differentiates`. Raises `EngineError` with torch's reason."""
        if self._model is None:
            raise EngineError("This session is closed.")
        manifest = self._manifest
        return eager_gradients(self._model, feed, cotangents, manifest.nesting, manifest.constants)

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Where the weights are, and if it is a float, in their dtype."""
        assert self._model is not None
        weight = next(self._model.parameters())
        return tensor.to(weight.device, weight.dtype if tensor.is_floating_point() else None)

    def close(self) -> None:
        self._model = None


class TorchSession:
    """A captured program, run node by node.

    precision: at the dtype of the captured weights the graph runs as it is; at any other, every float in it
    becomes that dtype, so a graph captured at fp32 has no fp32 island left in bfloat16, which the eager
    model may have (take the eager model for PyTorch's own error there). Process-wide settings, the default
    dtype among them, are left alone. bfloat16 leaves as float32, which holds it exactly.
    """

    observed_with = "the graph's own nodes, nothing changed"

    def __init__(self, program: Program, precision: str = "float32"):
        self.precision = precision
        self._dtype = dtype_of(precision)
        self._program: Program | None = program
        self._cast = captured_dtype(program) != self._dtype

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Flat outputs in the program's order; floats at the session's precision."""
        return self.walk(feed)

    def observe(self, feed: Mapping[str, np.ndarray], names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """{node name: value} for `names`, by default all that leave some module. Nodes of tuples are left out."""
        found: dict[str, np.ndarray] = {}
        self.walk(feed, found.__setitem__, names)
        return found

    def walk(
        self, feed: Mapping[str, np.ndarray], see: Seen | None = None, names: Collection[str] | None = None
    ) -> list[np.ndarray]:
        """Run, and show `see(node name, value)` each named node when it is computed; nothing is kept for it.

        An intermediate value lives until its last use. Raises `EngineError` naming the node and its source line.
        """
        program = self._opened()
        if names is None:
            names = {name for call in program.modules for name in call.outputs} if see else ()
        walk = Walk(program, self._dtype if self._cast else None, see, frozenset(names))
        return walk.outputs(feed)

    def locally(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], see: Seen, names: Collection[str] = ()
    ) -> list[np.ndarray]:
        """Run, and show `see(node name, value)` what each node of `given` makes of the *given* values before it.

        Whatever uses such a node goes on with the value in `given`, cast to the session's dtype: an error in one
        node reaches no other. names: further nodes that are shown. Returns the outputs.
        """
        walk = LocalWalk(self._opened(), self._dtype if self._cast else None, see, given, frozenset(names))
        return walk.outputs(feed)

    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """See `run.session.Differentiates`: of the parameters that require gradients and of the floating inputs."""
        return graph_gradients(self._opened(), self._dtype, feed, cotangents)

    def vjps(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]
    ) -> Gradients:
        """See `run.session.TakesVjps`."""
        return node_vjps(self._opened(), self._dtype, feed, given, cotangents)

    def _opened(self) -> Program:
        if self._program is None:
            raise EngineError("This session is closed.")
        return self._program

    def close(self) -> None:
        self._program = None
