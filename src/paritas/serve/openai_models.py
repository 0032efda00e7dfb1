# SPDX-License-Identifier: Apache-2.0
"""What OpenAI's routes see of the models that a server has loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from paritas.serve import openai
from paritas.serve.registry import Registry


def models_of(registry: Registry) -> openai.Models:
    """What OpenAI's routes see of a server: the newest version of each model."""

    def each(what: str) -> dict[str, Any]:
        live = {name: model.versions[model.live[-1]].servable for name, model in registry.models.items() if model.live}
        return {name: found for name, one in live.items() if (found := getattr(one, what, None)) is not None}

    @contextlib.contextmanager
    def hold(name: str, what: str) -> Iterator[Any]:
        with registry.admit(name), registry.lease(name) as version:
            yield getattr(version.servable, what)

    return openai.Models(
        generators=lambda: each("generator"),
        embedders=lambda: each("embedder"),
        others=lambda: list(registry.models),
        hold=hold,
    )
