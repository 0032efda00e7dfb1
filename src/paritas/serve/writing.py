# SPDX-License-Identifier: Apache-2.0
"""A version of a model that goes on with texts, or embeds them, among the versions that a server has loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from paritas.errors import PortError
from paritas.extras import missing
from paritas.ports import Port
from paritas.program import TensorSpec
from paritas.serve import embeddings, generation
from paritas.serve.generation import Generator, Wanted
from paritas.serve.model import DEFAULT, Arrays, Servable, Signature, TensorInfo
from paritas.serve.refusals import Refused
from paritas.serve.settings import Engine, Limits


class Writing(Servable):
    """A port that goes on with texts. Asked by TensorFlow Serving's protocol it takes texts and returns what follows,
    the likeliest tokens of each; `generator` is what OpenAI's routes use.
    """

    def __init__(self, port: Port, name: str, version: int, *, limits: Limits, engine: Engine, queue: int) -> None:
        # Not the base's, which reads what goes into the port: here its own loop says so.
        self.name, self.version, self.directory = name, version, port.artifact.directory
        self.limits, self.reader, self.answer, self.labels = limits, None, None, ()
        self.generator: Generator = generation.open_generator(
            port,
            name,
            config=engine.config,
            device=engine.device,
            context=limits.context,
            longest=limits.new_tokens,
            queue=queue,
        )
        self.how = self.generator.writes.how
        # The port itself is used up: where its arrays would be asked for, there is a text.
        text = TensorSpec("text", "uint8", ())
        example = {"text": np.zeros((1, 1), np.uint8)}
        self.port: Any = SimpleNamespace(inputs=(text,), outputs=(text,), examples=lambda: example, close=lambda: None)
        info = TensorInfo("text", "bytes", (None,), "text")
        self.signatures = {DEFAULT: Signature(DEFAULT, {"text": info}, {"text": info})}

    def prepare(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Arrays:
        values = inputs.get("text")
        if values is None or values.ndim != 1 or len(inputs) > 1:
            raise Refused("INVALID_ARGUMENT", f"{self.name} takes texts, as the input 'text' of the shape [batch].")
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
        return {"text": np.array([*texts, None], object)[:-1]}

    def compute(self, feed: Mapping[str, np.ndarray]) -> Arrays:
        def write(text: str) -> str:
            ids = self.generator.tokens(text)
            most = max(1, min(self.generator.longest, self.generator.context - len(ids), 256))
            tokens, _ = self.generator.write(Wanted(tuple(ids), most, temperature=0, ends=self.generator.ends))
            found: str = self.generator.tokenizer.decode([one for one in tokens if one not in self.generator.ends])
            return found

        texts = feed["text"].tolist()
        with ThreadPoolExecutor(max(1, len(texts))) as crowd:
            return {"text": np.array(list(crowd.map(write, texts)))}

    def finish(self, signature: Signature, outputs: Arrays) -> Arrays:
        return outputs

    def close(self) -> None:
        self.generator.close()


def maker(engine: Engine, queue: int) -> Callable[..., Servable]:
    """What makes a `Servable` of a port, for `model.open_servable`: `Writing` of one that goes on with texts."""

    def make(port: Port, name: str, version: int, *, limits: Limits, directory: Path) -> Servable:
        if not generation.why_not(port):
            return Writing(port, name, version, limits=limits, engine=engine, queue=queue)
        found = Servable(port, name, version, limits=limits, directory=directory)
        found.embedder = embedder_of(port, name, directory)
        return found

    return make


def embedder_of(port: Port, name: str, directory: Path) -> embeddings.Embedder | None:
    """What `/v1/embeddings` uses of a port, if it is one of sentence-transformers whose modules are known."""
    if not embeddings.embeds(directory) or missing("text"):
        return None
    try:
        return embeddings.Embedder(port, name)
    except PortError:
        return None
