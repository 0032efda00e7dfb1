# SPDX-License-Identifier: Apache-2.0
"""Text out of a port by transformers' own loops: `generate` of ports and components, and of commands.

An encoder and a decoder answer a text, or say what is heard in a sound; all others go on with a text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoProcessor, set_seed
from transformers.generation.streamers import TextStreamer

from paritas.capture.tokenizer import tokenizer
from paritas.components import Components
from paritas.errors import InputError, PortError, first_line
from paritas.pipeline import Port
from paritas.texts import Tell
from paritas.transformers.directory import model_with
from paritas.transformers.listening import HEARS, Listener, is_sound, says_how_long


def generate(port: Port | Components[Port], inputs: Any, options: Mapping[str, Any]) -> Any:
    """See `Port.generate`."""
    model = model_with(port)
    if model.main_input_name in HEARS and is_sound(inputs):
        return writer(port).write(inputs, options)
    if isinstance(inputs, str):
        return Writer(port).write(inputs, options)
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(text, str) for text in inputs):
        return Writer(port).write_all(inputs, options)
    plain = inputs is None and not any(isinstance(value, torch.Tensor) for value in options.values())
    if isinstance(inputs, list | tuple):
        inputs = np.array(inputs)
    given = {name: _tensor(value) for name, value in options.items()}
    found = model.generate(**given) if inputs is None else model.generate(_tensor(inputs), **given)
    back = isinstance(inputs, np.ndarray) or (plain and any(isinstance(v, np.ndarray) for v in options.values()))
    return found.numpy() if back and isinstance(found, torch.Tensor) else found


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


class _Telling(TextStreamer):
    """Hands each piece of text on as soon as it is there."""

    def __init__(self, tokenizer: Any, tell: Tell) -> None:
        # Of an encoder and a decoder the prompt is what the decoder begins with: special tokens.
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._tell = tell

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._tell(text)


def writer(port: Port | Components[Port], images: Sequence[str | os.PathLike[str]] = ()) -> Any:
    """What writes with a port, of texts or of sounds; about images, where there are some. Raises `InputError` for a
    model that writes nothing."""
    model = model_with(port)
    if images:
        return Viewer(port, images)
    return Listener(port, model, _directory(port)) if model.main_input_name in HEARS else Writer(port)


def _directory(port: Port | Components[Port]) -> Path:
    return port.artifacts.directory if isinstance(port, Components) else port.artifact.directory


class Writer:
    """Goes on with texts, as `paritas.texts.Writer` does; an encoder and a decoder answer them."""

    def __init__(self, port: Port | Components[Port]) -> None:
        self.port, self.model, directory = port, model_with(port), _directory(port)
        self._answers: bool = self.model.config.is_encoder_decoder
        main = self.model.main_input_name
        if main not in ("input_ids", "inputs_embeds"):
            raise InputError(f"{port!r} writes about {main}, and a text is none: port.generate({main}=...)")
        try:
            self.tokenizer = tokenizer(directory)
        except (OSError, ValueError) as error:
            raise PortError(
                f"There is no tokenizer beside {port!r}, so it takes token ids and no text. Save one to {directory}: "
                "tokenizer.save_pretrained(...)"
            ) from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def ends_by_itself(self) -> bool:
        """Whether the model's generation configuration says how long what it writes may be."""
        return says_how_long(self.model)

    def write(self, prompt: str, options: Mapping[str, Any], tell: Tell | None = None, *, whole: bool = False) -> str:
        """The text that follows `prompt`. whole: it has its special tokens already, as a template writes them."""
        given = dict(options)
        beams = given.get("num_beams") or self.model.generation_config.num_beams or 1
        if tell is not None and beams == 1:  # those of a search are no text before its end
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
        read = self._read(prompts, whole)
        if not read["input_ids"].shape[1]:
            raise InputError("The prompt has no token.")
        options.setdefault("pad_token_id", self.tokenizer.pad_token_id)
        ids = self.model.generate(**read, **options)
        new = ids if self._answers else ids[:, read["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(new, skip_special_tokens=True)

    def _read(self, prompts: Sequence[str], whole: bool) -> Mapping[str, Any]:
        """What the model is given of these texts."""
        read: Mapping[str, Any] = self.tokenizer(
            list(prompts),
            return_tensors="pt",
            padding=len(prompts) > 1,
            # What goes on with a text has its end beside what follows.
            padding_side=None if self._answers else "left",
            add_special_tokens=not whole,
            return_token_type_ids=False,
        )
        return read

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """These messages as the tokenizer's chat template writes them, up to where the answer begins."""
        if not self.tokenizer.chat_template:
            raise PortError("The tokenizer has no chat template: paritas generate goes on with texts.")
        plain = [dict(message) for message in messages]
        written: Any = self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        return str(written)


class Viewer(Writer):
    """Goes on with a text about images, as the model's own processor prepares both."""

    def __init__(self, port: Port | Components[Port], images: Sequence[str | os.PathLike[str]]) -> None:
        super().__init__(port)
        if not hasattr(self.model, "get_image_features"):
            raise InputError(f"{port!r} takes no images: {type(self.model).__name__} reads texts alone.")
        self.images = [_picture(name) for name in images]
        directory = _directory(port)
        try:
            self.processor: Any = AutoProcessor.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        except (ImportError, OSError, ValueError) as error:
            raise PortError(
                f"What prepares images for {port!r} does not open ({first_line(error)}). Install what it asks for, or "
                f"save it to {directory}: processor.save_pretrained(...)"
            ) from error

    def _read(self, prompts: Sequence[str], whole: bool) -> Mapping[str, Any]:
        return dict(
            self.processor(text=[self._marked(text) for text in prompts], images=self.images, return_tensors="pt")
        )

    def _marked(self, prompt: str) -> str:
        """The prompt with the marks of the images: where it has them, or as the model's template puts them before."""
        mark = getattr(self.processor, "image_token", None) or ""
        if mark and mark in prompt:
            return prompt
        if getattr(self.processor, "chat_template", None):
            content = [*({"type": "image"} for _ in self.images), {"type": "text", "text": prompt}]
            message: Any = [{"role": "user", "content": content}]
            return str(self.processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
        return mark * len(self.images) + prompt


def _picture(name: str | os.PathLike[str]) -> Any:
    """Raises `InputError` for a file that is no image."""
    try:
        import PIL.Image
    except ImportError as error:
        raise InputError("An image is read by Pillow, which is not installed: pip install pillow") from error
    try:
        return PIL.Image.open(name).convert("RGB")
    except OSError as error:
        raise InputError(f"{os.fspath(name)} is no image that is read: {first_line(error)}") from error
