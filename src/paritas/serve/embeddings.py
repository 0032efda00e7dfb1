# SPDX-License-Identifier: Apache-2.0
"""Embeddings of texts by a port of a sentence-transformers directory, without torch: what its modules behind the
transformer do is a line of NumPy each. A module that is none of these is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas import files
from paritas.errors import PortError
from paritas.serve.beside import tokenizer
from paritas.serve.refusals import Refused
from paritas.texts import said_in

Array = np.ndarray


def _mean(tokens: Array, mask: Array) -> Array:
    found: Array = (tokens * mask[..., None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1e-9)
    return found


def _weighted(tokens: Array, mask: Array) -> Array:
    return _mean(tokens, mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32))


#: By sentence-transformers' names: [batch, length, width] and [batch, length] -> [batch, width], float32.
POOLING: Mapping[str, Callable[[Array, Array], Array]] = {
    "cls": lambda tokens, mask: tokens[:, 0],
    "mean": _mean,
    "max": lambda tokens, mask: np.where(mask[..., None] > 0, tokens, -np.inf).max(1),
    "mean_sqrt_len_tokens": lambda tokens, mask: (tokens * mask[..., None]).sum(1) / np.sqrt(mask.sum(1))[:, None],
    "weightedmean": _weighted,
    "lasttoken": lambda tokens, mask: tokens[np.arange(len(tokens)), mask.sum(1).astype(int) - 1],
}

#: As they were called before they had one name.
_OLD = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}  # fmt: skip

#: Texts that are computed at once.
TOGETHER = 32


def embeds(directory: Path) -> bool:
    """Whether a directory is one of sentence-transformers."""
    return (directory / "modules.json").is_file()


class Embedder:
    """Texts become embeddings, float32 [texts, width]. Its methods may be called from several threads.

    Raises `PortError` for a port that is no transformer of sentence-transformers, or has modules that are not known.
    """

    def __init__(self, port: Any, name: str) -> None:
        self.port, self.name = port, name
        directory: Path = port.artifact.directory
        self._modes, self._normalised = _modules(directory)
        outputs = [index for index, spec in enumerate(port.outputs) if len(spec.dims) == 3]
        self._inputs = [spec.name for spec in port.inputs]
        if not outputs or set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids", "position_ids"}:
            raise PortError(f"{name} is not computed of tokens alone, or has no embedding of each.")
        self._output = outputs[0]
        self._tokenizer = tokenizer(directory)
        about = said_in(directory, "sentence_bert_config.json")
        config = said_in(directory, "config.json")
        places = [about.get("max_seq_length"), config.get("max_position_embeddings")]
        self.longest = min([one for one in places if isinstance(one, int) and one > 0], default=1 << 16)
        self._lower = bool(about.get("do_lower_case"))
        prompts = said_in(directory, "config_sentence_transformers.json")
        self._prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
        self._pad = config.get("pad_token_id") or 0
        self._vocabulary = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._lock = threading.Lock()

    def tokens(self, text: str) -> list[int]:
        text = self._prompt + text
        found: list[int] = self._tokenizer.encode(text.lower() if self._lower else text).ids
        return found

    def embed(self, texts: Sequence[Sequence[int]]) -> Array:
        """The embeddings of texts that are tokens. Raises `Refused` for one that is too long, or unknown tokens."""
        for place, ids in enumerate(texts):
            if not 0 < len(ids) <= self.longest:
                raise Refused(
                    "INVALID_ARGUMENT",
                    f"This model's maximum context length is {self.longest} tokens, and input {place} has {len(ids)}.",
                )
            if min(ids) < 0 or max(ids) >= self._vocabulary:
                raise Refused("INVALID_ARGUMENT", f"Input {place} has a token that is none of {self._vocabulary}.")
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found: list[Array] = [np.empty(0)] * len(texts)
        for begin in range(0, len(order), TOGETHER):
            places = order[begin : begin + TOGETHER]
            for place, row in zip(places, self._computed([texts[place] for place in places]), strict=True):
                found[place] = row
        return np.stack(found)

    def _computed(self, texts: Sequence[Sequence[int]]) -> Array:
        shape = len(texts), max(map(len, texts))
        ids, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        given = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros(shape, np.int64),
            "position_ids": np.broadcast_to(np.arange(shape[1], dtype=np.int64), shape),
        }
        with self._lock:
            feed = self.port.feed({name: given[name] for name in self._inputs})
            tokens = self.port.run(feed)[self._output].astype(np.float32)
        found = np.concatenate([POOLING[mode](tokens, mask.astype(np.float32)) for mode in self._modes], axis=1)
        if self._normalised:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    def close(self) -> None:
        self.port.close()


def _modules(directory: Path) -> tuple[list[str], bool]:
    modules = files.parsed(files.text(directory / "modules.json", 1 << 20))
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    known = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    if kinds not in known:
        raise PortError(
            f"{directory} has the modules {', '.join(kinds)}; embeddings are served of a transformer with pooling and "
            "normalisation alone. paritas.sentence_transformers computes all."
        )
    about = said_in(directory / str(modules[1]["path"]), "config.json")
    told = about.get("pooling_mode") or [mode for old, mode in _OLD.items() if about.get(old)]
    modes = [told] if isinstance(told, str) else list(told)
    if not modes or any(mode not in POOLING for mode in modes) or about.get("include_prompt") is False:
        raise PortError(f"{directory} pools by {', '.join(map(str, modes)) or 'nothing'}, which is not known here.")
    return modes, kinds[-1] == "Normalize"
