# SPDX-License-Identifier: Apache-2.0
"""Texts become tokens, as the port's own tokenizer makes them: by `tokenizers` alone where its file is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.errors import InputError
from paritas.extras import require
from paritas.ports import Port
from paritas.serve.beside import TOKENIZER, said, tokenizer
from paritas.serve.settings import Limits


class Texts:
    """Reads texts for a port. A text that is too long is refused: cutting it would answer another question."""

    name, content = "text", "text"

    def __init__(self, directory: Path, port: Port, limits: Limits) -> None:
        self._wanted = {spec.name for spec in port.inputs}
        self._theirs: Any = None
        told, config = said(directory, TOKENIZER), said(directory, "config.json")
        places = [int(config[name]) for name in ("max_position_embeddings", "n_positions") if config.get(name)]
        most = told.get("model_max_length")
        if isinstance(most, int | float) and 0 < most < 1e9:
            places.append(int(most))
        ids = next(spec for spec in port.inputs if spec.name == "input_ids")
        places += [port.manifest.limits[dim] for dim in map(str, ids.dims[1:]) if dim in port.manifest.limits]
        places += [dim for dim in ids.dims[1:] if isinstance(dim, int)]
        if limits.tokens:
            places.append(limits.tokens)
        self.longest = min(places, default=1 << 20)
        self.pad_token = config.get("pad_token_id") or 0
        self._fixed = next((dim for dim in ids.dims[1:] if isinstance(dim, int)), 0)
        #: Whether filling up behind a text was measured to change no answer: see `layout.measured`.
        self.pads = True
        if (directory / "tokenizer.json").is_file():
            require("text", "paritas serve, of texts")
            self._tokenizer: Any = tokenizer(directory)
            pad = told.get("pad_token")
            pad = pad.get("content") if isinstance(pad, dict) else pad
            if pad and (found := self._tokenizer.token_to_id(pad)) is not None:
                self.pad_token = found
        else:
            require("port", "paritas serve, of texts for a tokenizer without tokenizer.json")
            from transformers import AutoTokenizer

            self._tokenizer = None
            self._theirs = AutoTokenizer.from_pretrained(directory)

    def read(self, values: Sequence[bytes | str]) -> dict[str, Any]:
        texts = [_text(row, value) for row, value in enumerate(values)]
        if self._tokenizer is not None:
            found = self._tokenizer.encode_batch(texts)
            columns = {
                "input_ids": [one.ids for one in found],
                "attention_mask": [one.attention_mask for one in found],
                "token_type_ids": [one.type_ids for one in found],
            }
        else:
            theirs = self._theirs(texts)
            columns = {
                name: list(theirs[name]) for name in ("input_ids", "attention_mask", "token_type_ids") if name in theirs
            }
        lengths = [len(ids) for ids in columns["input_ids"]]
        for row, length in enumerate(lengths):
            if length > self.longest:
                raise InputError(f"text {row} has {length} tokens, more than the {self.longest} that this model takes.")
            if not length:
                raise InputError(f"text {row} has no token.")
        longest = self._fixed or max(lengths)
        # A port of one length is filled up to it, as its mask says.
        fills = "attention_mask" in self._wanted and (self.pads or bool(self._fixed))
        if min(lengths) < longest and not fills:
            about = f"the {longest} that this port has" if self._fixed else "another one of the request"
            raise InputError(
                f"text {lengths.index(min(lengths))} has {min(lengths)} tokens, fewer than {about}, and filling up "
                "would change this model's answer: send texts of different lengths in requests of their own."
            )
        fill = {"input_ids": self.pad_token}
        return {
            name: _padded(rows, longest, fill.get(name, 0)) for name, rows in columns.items() if name in self._wanted
        }


def _text(row: int, value: bytes | str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InputError(f"text {row} is not UTF-8.") from None


def _padded(rows: Sequence[Sequence[int]], longest: int, fill: int) -> np.ndarray:
    """int64 [rows, longest], filled up behind, as that is what was measured."""
    found = np.full((len(rows), longest), fill, np.int64)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found
