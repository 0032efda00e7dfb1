# SPDX-License-Identifier: Apache-2.0
"""Text out of a port by transformers' own loops: `Port.generate`, and commands where `paritas.texts` is too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import set_seed
from transformers.generation.streamers import TextStreamer

from paritas.capture.tokenizer import tokenizer
from paritas.errors import InputError, PortError
from paritas.pipeline import Port
from paritas.texts import Tell
from paritas.transformers.directory import model_with


def generate(port: Port, inputs: Any, options: Mapping[str, Any]) -> Any:
    """See `Port.generate`."""
    model = model_with(port)
    if isinstance(inputs, str):
        return Writer(port).write(inputs, options)
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(text, str) for text in inputs):
        return Writer(port).write_all(inputs, options)
    plain = inputs is None and not any(isinstance(value, torch.Tensor) for value in options.values())
    if isinstance(inputs, list | tuple):
        inputs = np.array(inputs)
    given = {name: _tensor(value) for name, value in options.items()}
    found = model.generate(None if inputs is None else _tensor(inputs), **given)
    back = isinstance(inputs, np.ndarray) or (plain and any(isinstance(v, np.ndarray) for v in options.values()))
    return found.numpy() if back and isinstance(found, torch.Tensor) else found


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class _Telling(TextStreamer):
    """Hands each piece of text on as soon as it is there."""

    def __init__(self, tokenizer: Any, tell: Tell) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._tell = tell

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._tell(text)


class Writer:
    """Goes on with texts, as `paritas.texts.Writer` does."""

    def __init__(self, port: Port) -> None:
        self.port, self.model, directory = port, model_with(port), port.artifact.directory
        try:
            self.tokenizer = tokenizer(directory)
        except (OSError, ValueError) as error:
            raise PortError(
                f"There is no tokenizer beside {port!r}, so it takes token ids and no text. Save one to {directory}: "
                "tokenizer.save_pretrained(...)"
            ) from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def write(self, prompt: str, options: Mapping[str, Any], tell: Tell | None = None, *, whole: bool = False) -> str:
        """The text that follows `prompt`. whole: it has its special tokens already, as a template writes them."""
        given = dict(options)
        if tell is not None and given.get("num_beams", 1) == 1:
            given["streamer"] = _Telling(self.tokenizer, tell)
        found = self._written([prompt], given, whole)[0]
        if tell is not None and "streamer" not in given:
            tell(found)
        return found

    def write_all(self, prompts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        return self._written(prompts, dict(options), False)

    def _written(self, prompts: Sequence[str], options: dict[str, Any], whole: bool) -> list[str]:
        if (seed := options.pop("seed", None)) is not None:
            set_seed(seed)
        read = self.tokenizer(
            list(prompts),
            return_tensors="pt",
            padding=len(prompts) > 1,
            padding_side="left",
            add_special_tokens=not whole,
            return_token_type_ids=False,
        )
        if not read["input_ids"].shape[1]:
            raise InputError("The prompt has no token.")
        options.setdefault("pad_token_id", self.tokenizer.pad_token_id)
        ids = self.model.generate(**read, **options)
        return self.tokenizer.batch_decode(ids[:, read["input_ids"].shape[1] :], skip_special_tokens=True)

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """These messages as the tokenizer's chat template writes them, up to where the answer begins."""
        if not self.tokenizer.chat_template:
            raise PortError("The tokenizer has no chat template: paritas generate goes on with texts.")
        plain = [dict(message) for message in messages]
        written: Any = self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        return str(written)
