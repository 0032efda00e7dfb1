# SPDX-License-Identifier: Apache-2.0
"""A model without a network: each word has a vector, and a text is their sum. It loads at once."""

from __future__ import annotations

import hashlib
import re
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np

from paritas.apps.search.embedding import Embedder, Identity

DIMENSIONS = 48


class Words:
    """A tokenizer whose tokens are words."""

    def num_special_tokens_to_add(self) -> int:
        return 2

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {"offset_mapping": [match.span() for match in re.finditer(r"\S+", text)]}


class Hashed(Embedder):
    def __init__(self, name: str = "hashed", precision: str = "fp32", longest: int = 64) -> None:
        self.identity = Identity(name, hashlib.sha256(name.encode()).hexdigest(), precision, DIMENSIONS)
        self.model = types.SimpleNamespace(tokenizer=Words(), max_seq_length=longest, engine="")
        self.asked = 0

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        self.asked += len(texts)
        found = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()) or [""]:
                row += _vector(word)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def _vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)


def main(place: str, what: str, first: str) -> None:
    """Add or delete texts until killed, and say of each batch that it is done."""
    from paritas.apps.search import directory
    from paritas.apps.search.filters import parsed
    from paritas.apps.search.indexing import add_rows, delete
    from paritas.apps.search.reading import Row

    directory.WAITING = 40
    settings = {"text": "text", "split": "verses", "key": ""}
    number = int(first)
    while True:
        if what == "delete" and number % 4 == 1:
            delete(place, [parsed(f"batch = {number - 1}")])
            print("gone", number - 1, flush=True)
        else:
            rows = [
                Row(f"{number}-{i}", f"text {i} of batch {number}\n\nrain {i}", {"batch": number}) for i in range(8)
            ]
            add_rows(place, rows, Hashed(), settings)
            print("there", number, flush=True)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
