# SPDX-License-Identifier: Apache-2.0
"""What a model is taken apart into, where it needs several graphs: its own modules, each with what it is captured with.

A component shares the original's weights, and computes with its code: nothing of a model is written again here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from paritas.capture import encoder_decoder, vision_language
from paritas.capture.component import Component
from paritas.errors import SourceError
from paritas.program import Source

__all__ = ["TASKS", "Component", "component"]

#: Task, by optimum's name -> what takes a model for it apart, into components by name.
#: Each raises `InputsNeeded` for a model that is not of that kind.
TASKS: dict[str, Callable[[Any], Mapping[str, Component]]] = {**encoder_decoder.TASKS, **vision_language.TASKS}


def component(model: torch.nn.Module, source: Source) -> torch.nn.Module:
    """The network of `model` that a port's source names; the model itself where it names none. Raises `SourceError`."""
    if not source.component:
        return model
    found = TASKS[source.task](model) if source.task in TASKS else {}
    if source.component not in found:
        raise SourceError(
            f"{type(model).__name__} has no component {source.component!r} for {source.task or 'no task'}. "
            "Was the port made by another Paritas? Make it again."
        )
    return found[source.component].module
