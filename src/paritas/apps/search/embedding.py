# SPDX-License-Identifier: Apache-2.0
"""The model that embeds, on an engine, and how it is known again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas import files
from paritas.errors import InputError, SourceError, reason_of
from paritas.extras import require

#: The model that needs no network where `paritas[demo]` is installed.
MODEL = "all-MiniLM-L6-v2"

PRECISIONS = ("fp32", "bf16", "int8")

#: Of a model's directory, what its embeddings depend on.
_COUNTS = (".safetensors", ".bin", ".json", ".txt", ".model")

#: And what they do not: files that say who wrote it, and what other programs put beside it.
_ASIDE = ("README.md", "data_config.json", "port.json", "parity.json", "ov_config.json")


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which model embedded: what an index says of it.

    name: as it was asked for. digest: sha256 of its files. dimensions: how long its vectors are.
    """

    name: str
    digest: str
    precision: str
    dimensions: int


class Embedder:
    """A SentenceTransformer on an engine.

    Args:
        name: a directory or an id of the hub.
        engine: one of `paritas.engines()`; by default the best that is installed.
        precision: "fp32", "bf16", or "int8" for weights of 8 bits on OpenVINO.

    Raises:
        SourceError: there is no such model.
        InputError: there is no such precision.
    """

    def __init__(self, name: str = MODEL, *, engine: str | None = None, precision: str = "fp32") -> None:
        require("sentence", "paritas search")
        if precision not in PRECISIONS:
            raise InputError(f"{precision!r} is none of {', '.join(PRECISIONS)}.")
        place = directory_of(name)
        from paritas.sentence_transformers import SentenceTransformer

        ours: dict[str, Any] = {"engine": engine}
        if precision == "bf16":
            ours["model_kwargs"] = {"dtype": "bfloat16"}
        elif precision == "int8":
            ours["weights"] = "int8"
        try:
            self.model: Any = SentenceTransformer(str(place), device="cpu", **ours)
        except (OSError, ValueError) as error:
            raise SourceError(f"{name} is no model of sentence-transformers: {reason_of(error)}") from error
        dimensions = self.model.get_embedding_dimension()
        self.identity = Identity(name, digest(place), precision, int(dimensions or self.embed(["a"]).shape[1]))

    @property
    def engine(self) -> str:
        found: str = self.model.engine
        return found

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        """Embeddings of length 1, float32 [texts, dimensions]."""
        encode = self.model.encode_query if query else self.model.encode_document
        found: np.ndarray = encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32).reshape(len(texts), -1)


def directory_of(name: str) -> Path:
    """Where a model's files are: they are fetched, if need be. Raises `SourceError`."""
    if Path(name).is_dir():
        return Path(name)
    if name.rpartition("/")[2] == MODEL:
        from paritas.capture.source import minilm_directory

        try:
            return minilm_directory()
        except SourceError:  # then from the hub
            pass
    import huggingface_hub

    full = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return Path(
            huggingface_hub.snapshot_download(full, allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"])
        )
    except Exception as error:
        raise SourceError(f"There is no model {name}: no such directory, and {reason_of(error)}") from error


def digest(place: Path) -> str:
    """What a model is, as a hash of its files."""
    found = hashlib.sha256()
    for name in sorted(str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()):
        if name.endswith(_COUNTS) and Path(name).name not in _ASIDE:
            found.update(f"{name} {files.sha256((place / name).resolve())}\n".encode())
    return found.hexdigest()
