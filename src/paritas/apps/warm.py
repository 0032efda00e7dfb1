# SPDX-License-Identifier: Apache-2.0
"""The ports that a first call of a model would make, made before it: the model is called as a user would call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import paritas.transformers as ours
from paritas.capture import tokenizer
from paritas.capture.source import quiet
from paritas.dropin import kept
from paritas.errors import InputError, SourceError, first_line

#: Of one second and of one picture, as pipelines take them.
_SAMPLES: dict[str, Any] = {
    "text": "One sentence.",
    "audio": {"raw": np.zeros(16000, np.float32), "sampling_rate": 16000},
    "question": {"question": "What?", "context": "That."},
}


def warm(
    source: str,
    *,
    task: str = "",
    engine: str | None = None,
    weights: str = "",
    device: str = "",
    progress: Callable[[str], None] = lambda stage: None,
) -> list[str]:
    """Load a model onto an engine and call it once; what ports it has then, in words.

    task: a pipeline's, which then calls it. Raises `SourceError`, and `InputError` where ports are not kept, or nothing
    is known that the model could be called with.
    """
    if kept.directory() is None:
        raise InputError("No ports are kept: PARITAS_CACHE is empty.")
    options: dict[str, Any] = {"engine": engine, "weights": weights or None, "engine_device": device or None}
    options = {name: value for name, value in options.items() if value}
    try:
        if task:
            made = ours.pipeline(task, model=source, **options)
            model: Any = made.model
        else:
            model, made = _loaded(source, options), None
    except (OSError, KeyError) as error:
        raise SourceError(f"{source} cannot be loaded: {first_line(error)}") from error
    progress("warm")
    with torch.no_grad():
        if made is not None:
            _call_pipeline(made, task)
        else:
            _call(model, source)
    return [
        f"{type(model).__name__} on {port.manifest.engine}, {port.session.precision}: "
        + ", ".join(map(str, port.manifest.inputs[:3]))
        for port in model.ports
    ]


def _loaded(source: str, options: dict[str, Any]) -> Any:
    with quiet():
        config = transformers.AutoConfig.from_pretrained(source)
        names = config.architectures or ["AutoModel"]
        return getattr(ours, names[0]).from_pretrained(source, **options)


def _call(model: Any, source: str) -> None:
    """As its tokenizer would have it called; else with what a port is made with."""
    reader = _tokenizer(source)
    if reader is not None:
        inputs = dict(reader(_SAMPLES["text"], return_tensors="pt"))
    else:
        from paritas.capture.inputs import example_inputs

        inputs = example_inputs(model.in_pytorch())
    if model.can_generate():
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    else:
        model(**inputs)


def _tokenizer(source: str) -> Any:
    """None where there is none. One that is there and cannot be read is an error."""
    place = Path(source)
    if place.is_dir():
        return tokenizer.tokenizer(place) if tokenizer.is_in(place) else None
    try:
        return tokenizer.tokenizer(source)
    except (OSError, ValueError, KeyError):
        return None


def _call_pipeline(made: Any, task: str) -> None:
    if "speech" in task or "audio" in task:
        sample = _SAMPLES["audio"]
    elif task == "question-answering":
        sample = _SAMPLES["question"]
    elif "image" in task or "object" in task or "depth" in task:
        from PIL import Image

        sample = Image.new("RGB", (64, 64))
    elif task == "fill-mask":
        sample = f"One {made.tokenizer.mask_token}."
    else:
        sample = _SAMPLES["text"]
    more = {"max_new_tokens": 2} if task in ("text-generation", "summarization", "translation") else {}
    made(sample, **more)
