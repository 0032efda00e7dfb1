# SPDX-License-Identifier: Apache-2.0
"""`Servable`: one version of one model, from what a client sends to what it is answered.

The way has three parts, so that a batch is computed of several requests: `prepare` makes the engine's arrays of one
request, `compute` runs the engine on any number of rows, `finish` makes the answer of one request's rows.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paritas.errors import PortError
from paritas.ports import Port
from paritas.program import TensorSpec
from paritas.serve import answers, readers
from paritas.serve.refusals import Refused
from paritas.serve.settings import Engine, Limits

#: The signature that TensorFlow Serving's clients mean where they name none.
DEFAULT = "serving_default"
#: Arrays in, arrays out: what every port has.
TENSORS = "tensors"
#: Of a classifier: all classes with their scores, as `:classify` returns them.
CLASSIFY = "classify"
#: Of a regression: a value a row, as `:regress` returns it.
REGRESS = "regress"

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    dtype: NumPy's name, or "bytes" for strings, images and sounds. shape: None where it is free; the first is the
    batch. content: "tensor", "image", "text", "audio", "label" or "score": what it holds.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    content: str = "tensor"
    optional: bool = False  # the model knows what to take where it is left out


@dataclasses.dataclass(frozen=True)
class Signature:
    """What can be asked of a model. method: "predict", "classify" or "regress", by TensorFlow Serving's names."""

    name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method: str = "predict"


class Servable:
    """One version of one model. Its methods may be called from several threads.

    name, version: as it is asked for. labels: of a classifier, its classes by number. signatures: what can be asked.
    """

    def __init__(
        self, port: Port, name: str, version: int, *, limits: Limits | None = None, directory: Path | None = None
    ) -> None:
        self.port, self.name, self.version = port, name, version
        self.directory = directory or port.artifact.directory
        self.limits = limits or Limits()
        self.generator: Any = None  # what OpenAI's routes ask: see `writing`
        self.embedder: Any = None
        self.how = ""  # of one that has an order of its own: which
        self.reader = readers.reader_for(self.directory, port, self.limits)
        self.answer = answers.answer_for(self.directory, port)
        self.labels: tuple[str, ...] = self.answer.labels if self.answer else ()
        self.signatures = self._signatures()

    # --- what can be asked ---

    def _signatures(self) -> dict[str, Signature]:
        raw_in = {spec.name: _info(spec) for spec in self.port.inputs}
        raw_out = {spec.name: _info(spec) for spec in self.port.outputs}
        found = {TENSORS: Signature(TENSORS, raw_in, raw_out)}
        given, answered = raw_in, raw_out
        if self.reader is not None:
            given = {self.reader.name: TensorInfo(self.reader.name, "bytes", (None,), self.reader.content)}
            found[self.reader.content] = Signature(self.reader.content, given, raw_out)
            if self.answer is not None:
                answered = {one: TensorInfo(one, dtype, (None,), what) for one, dtype, what in self.answer.outputs}
        found[DEFAULT] = Signature(DEFAULT, given, answered)
        if self.answer is not None and self.answer.method == "classify":
            several = {
                "classes": TensorInfo("classes", "bytes", (None, len(self.labels)), "label"),
                "scores": TensorInfo("scores", "float32", (None, len(self.labels)), "score"),
            }
            found[CLASSIFY] = Signature(CLASSIFY, given, several, "classify")
        elif self.answer is not None:
            values = {one: TensorInfo(one, dtype, (None,), what) for one, dtype, what in self.answer.outputs}
            found[REGRESS] = Signature(REGRESS, given, values, "regress")
        return found

    def signature(self, name: str = "") -> Signature:
        """The signature of that name; "" is `serving_default`. Raises `Refused`, INVALID_ARGUMENT."""
        found = self.signatures.get(name or DEFAULT)
        if found is None:
            raise Refused(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{name}" not found in signature def. '
                f"{self.name} has: {', '.join(self.signatures)}.",
            )
        return found

    # --- the three parts of an answer ---

    def prepare(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The engine's arrays for one request, batch first.

        inputs: by the names of the signature; strings and bytes as arrays of objects. Raises `InputError` or `Refused`.
        """
        unknown = [name for name in inputs if name not in signature.inputs]
        if unknown:
            raise Refused(
                "INVALID_ARGUMENT",
                f"{self.name} has no input {', '.join(map(repr, unknown))} in the signature {signature.name}; "
                f"it has: {', '.join(signature.inputs)}.",
            )
        content = next((info.content for info in signature.inputs.values()), "tensor")
        if content == "tensor":
            return self.port.feed(inputs)
        assert self.reader is not None
        if self.reader.name not in inputs:
            raise Refused("INVALID_ARGUMENT", f"The input {self.reader.name!r} of {self.name} is missing.")
        values = inputs[self.reader.name]
        if values.ndim != 1:
            raise Refused(
                "INVALID_ARGUMENT",
                f"{self.reader.name} of {self.name} is one {self.reader.content} a row, of shape [batch]; "
                f"got the shape {list(values.shape)}.",
            )
        return self.port.feed(self.reader.read(values.tolist()))

    def compute(self, feed: Mapping[str, np.ndarray]) -> Arrays:
        """The engine's outputs by name, for the rows of one or several requests. Raises `EngineError`."""
        return dict(zip((spec.name for spec in self.port.outputs), self.port.run(feed), strict=True))

    def finish(self, signature: Signature, outputs: Arrays) -> Arrays:
        """The answer of one request: arrays by the names of the signature's outputs; strings as arrays of `str`."""
        if self.answer is None or not any(info.content in ("label", "score") for info in signature.outputs.values()):
            return outputs
        return self.answer.every(outputs) if signature.name == CLASSIFY else self.answer.best(outputs)

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """All three, for one request by itself."""
        asked = self.signature(signature)
        return self.finish(asked, self.compute(self.prepare(asked, inputs)))

    def close(self) -> None:
        """Free the engine's memory."""
        self.port.close()


def _info(spec: TensorSpec) -> TensorInfo:
    dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
    shape = tuple(dim if isinstance(dim, int) else None for dim in spec.dims)
    return TensorInfo(spec.name, dtype, shape, optional=spec.default is not None)


def open_servable(
    directory: str | os.PathLike[str],
    name: str = "",
    version: int = 1,
    *,
    limits: Limits | None = None,
    engine: Engine | None = None,
    make: Callable[..., Servable] = Servable,
) -> Servable:
    """The port in a directory, checked and loaded, with what reads its inputs and words its answers.

    Raises what `paritas.load` raises, and `PortError` for a directory of several networks.
    """
    from paritas.pipeline import load

    how = engine or Engine()
    place = Path(directory)
    found: Any = load(place, device=how.device, ov_config=dict(how.config) or None)
    if not isinstance(found, Port):
        found.close()
        raise PortError(f"{place} holds several networks, {', '.join(found)}: only ports of one are served so.")
    return make(found, name or place.name, version, limits=limits or Limits(), directory=place)
