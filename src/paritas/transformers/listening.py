# SPDX-License-Identifier: Apache-2.0
"""What is said in a sound, by a port that hears: its own reader of sounds, its own loop, its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, GenerationConfig

from paritas.capture.tokenizer import tokenizer
from paritas.errors import InputError, PortError, first_line
from paritas.extras import require
from paritas.texts import Tell

#: Main inputs of models that hear: spectrograms, and waveforms.
HEARS = ("input_features", "input_values")


def is_sound(inputs: Any) -> bool:
    """Whether it is a sound, and not what a model's reader has made of one: a file's name, or one row of samples."""
    if isinstance(inputs, str | os.PathLike):
        return True
    return isinstance(inputs, np.ndarray | torch.Tensor) and inputs.ndim == 1 and _is_float(inputs)


def _is_float(values: Any) -> bool:
    return values.is_floating_point() if isinstance(values, torch.Tensor) else values.dtype.kind == "f"


def says_how_long(model: Any) -> bool:
    """Whether a model's generation configuration has a length of its own, and not transformers' 20."""
    told = model.generation_config
    return bool(told.max_new_tokens) or told.max_length not in (None, GenerationConfig().max_length, 20)


class Listener:
    """Writes what it hears. model: of `paritas.transformers`, opened from a port."""

    def __init__(self, port: Any, model: Any, directory: Any) -> None:
        self.port, self.model = port, model
        try:
            self.reader = AutoFeatureExtractor.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
            self.tokenizer = tokenizer(directory)
        except (OSError, ValueError) as error:
            raise PortError(
                f"{port!r} takes features and no sounds, since what reads sounds or writes texts is not beside it "
                f"({first_line(error)}). Save it to {directory}: processor.save_pretrained(...)"
            ) from error

    @property
    def ends_by_itself(self) -> bool:
        """Whether the model's generation configuration says how long what it writes may be."""
        return says_how_long(self.model)

    def write(self, sound: Any, options: Mapping[str, Any], tell: Tell | None = None) -> str:
        """The text of a sound: a file's name, or float [samples] of the reader's rate. options: of `generate`.

        Raises `InputError` for what is no sound.
        """
        rate = self.reader.sampling_rate
        if isinstance(sound, str | os.PathLike):
            require("speech", "Reading a sound file")
            from paritas.transformers.sound import recording

            sound = recording(sound, rate)
        samples = np.asarray(sound, np.float32)
        options = dict(options)
        if (seed := options.pop("seed", None)) is not None:
            torch.manual_seed(seed)
        how: dict[str, Any] = {"sampling_rate": rate, "return_tensors": "pt"}
        if len(samples) > getattr(self.reader, "n_samples", len(samples)):  # beyond the window of a model that has one
            how |= {"truncation": False, "padding": "longest", "return_attention_mask": True}
            options.setdefault("return_timestamps", True)
        try:
            given = self.reader(samples, **how)
        except ValueError as error:
            raise InputError(f"The sound is not read: {first_line(error)}") from error
        ids = self.model.generate(**given, **options)
        text: str = self.tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
        if tell is not None:
            tell(text)
        return text
