# SPDX-License-Identifier: Apache-2.0
"""Which modules a model computes anew in its backward, by `torch.utils.checkpoint`: a graph does not say it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from paritas.program import Note


@dataclasses.dataclass
class Recomputed:
    """paths: of modules whose activations are not kept. others: functions that are no module's, by their names."""

    paths: set[str] = dataclasses.field(default_factory=set)
    others: set[str] = dataclasses.field(default_factory=set)


@contextlib.contextmanager
def noted(model: torch.nn.Module) -> Iterator[Recomputed]:
    """Hear of what the model hands to `torch.utils.checkpoint`, from wherever it has that, and call it as it is."""
    found = Recomputed()
    paths = {id(module): path for path, module in model.named_modules()}

    def note(function: Any) -> None:
        module = _module_of(function)
        if module is not None and id(module) in paths:
            found.paths.add(paths[id(module)])
        else:
            found.others.add(getattr(function, "__qualname__", type(function).__qualname__))

    def without_reentry(function: Any, *_: Any, **__: Any) -> Iterator[None]:
        note(function)
        yield

    class Function:
        @staticmethod
        def apply(function: Any, preserve: bool, *args: Any) -> Any:
            note(function)
            return function(*args)

    place = importlib.import_module("torch.utils.checkpoint")
    with (
        mock.patch.object(place, "_checkpoint_without_reentrant_generator", without_reentry),
        mock.patch.object(place, "CheckpointFunction", Function),
    ):
        yield found


def notes(found: Recomputed) -> list[Note]:
    """What is said of a port for MindSpore's loops, whose cells are its user's."""
    if not found.paths:
        return []
    first = min(found.paths)
    more = f" and of {len(found.paths) - 1} more" if len(found.paths) > 1 else ""
    return [
        Note(
            "capture",
            f"the activations of {first}{more} are kept, though torch.utils.checkpoint would compute them again: "
            "MindSpore's own recompute() of a cell does it, and is wrong where the cell draws dropout: it draws anew",
        )
    ]


def _module_of(function: Any) -> Any:
    """The module whose call or forward a function is; None for any other."""
    if isinstance(function, functools.partial):
        given = next((one for one in function.args if isinstance(one, torch.nn.Module)), None)
        return _module_of(function.func) or given
    if isinstance(function, torch.nn.Module):
        return function
    owner = getattr(function, "__self__", None)
    return owner if isinstance(owner, torch.nn.Module) else None
