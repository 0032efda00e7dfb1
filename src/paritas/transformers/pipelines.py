# SPDX-License-Identifier: Apache-2.0
"""`pipeline(task, model=..., engine=...)`: the original's pipeline with its networks on an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import transformers

from paritas.transformers.models import Ported, attach, split


def pipeline(task: str | None = None, model: Any = None, *args: Any, **kwargs: Any) -> transformers.Pipeline:
    """As `transformers.pipeline`, and with `engine=`, `mode=`, `target=`, `engine_device=`.

    Raises what the original raises, `UnknownEngine` or `EngineMissing`.
    """
    ours, theirs = split(kwargs)
    build: Any = transformers.pipeline
    with _of_its_own_class(model):
        made = build(task, model, *args, **theirs)
    for name in ("model", "assistant_model", "vocoder"):
        part = getattr(made, name, None)
        if isinstance(part, Ported) and part.engine and not ours:
            continue  # it has an engine already, and its ports
        if isinstance(part, transformers.PreTrainedModel):
            setattr(made, name, attach(part, **ours))
    return made


@contextlib.contextmanager
def _of_its_own_class(model: Any) -> Iterator[None]:
    """While a pipeline is built: some look for the model's class in a table, whether a vocoder is needed."""
    ported: Any = type(model)
    if not isinstance(model, Ported):
        yield
        return
    model.__class__ = ported._paritas_original
    try:
        yield
    finally:
        model.__class__ = ported
