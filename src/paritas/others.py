# SPDX-License-Identifier: Apache-2.0
"""The ports that are made beside a first one, for sizes with which the original's code goes another way."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from paritas.arguments import nest
from paritas.errors import InputError, ParitasError, SizeError
from paritas.program import Manifest, Note
from paritas.run.values import check_feed

#: Each holds the weights once more.
MOST_OTHERS = 8


class Sized(Protocol):
    """A port of which another one can be told by the inputs that it takes."""

    @property
    def manifest(self) -> Manifest: ...

    def feed(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the engine gets of a call's arguments. Raises `InputError`."""
        ...


P = TypeVar("P", bound=Sized)


class Others(Generic[P]):
    """Found by the inputs that they take; each keeps its own notes, and is verified by itself."""

    def __init__(self, first: P, make: Callable[[Any], P]) -> None:
        self._first, self._make = weakref.proxy(first), make
        self.ports: list[P] = []
        self.notes: list[Note] = []

    def port(self, given: Mapping[str, Any], refused: SizeError) -> P:
        """A port that takes these inputs, made now if there is none. Raises `refused` where none can be made."""
        for other in self.ports:
            with contextlib.suppress(InputError):
                other.feed(given)
                return other
        if len(self.ports) == MOST_OTHERS:
            raise refused
        example = self._example(given)
        shapes = ", ".join(f"{n}{list(v.shape)}" for n, v in example.items() if hasattr(v, "shape"))
        try:
            other = self._make(example)
            other.feed(given)
        except ParitasError as error:
            raise refused from error
        self.ports.append(other)
        self.notes.append(Note("run", f"another port was made for {shapes}, since {refused}"))
        return other

    def _example(self, given: Mapping[str, Any]) -> dict[str, Any]:
        import torch

        manifest = self._first.manifest
        feed = check_feed(given, manifest.inputs, manifest.constants, manifest.limits, manifest.signature)
        tensors = {
            spec.name: torch.from_numpy(np.array(feed[spec.name])).to(getattr(torch, spec.dtype))
            for spec in manifest.inputs
        }
        return {**nest(tensors, manifest.nesting), **manifest.constants}
