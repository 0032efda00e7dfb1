# SPDX-License-Identifier: Apache-2.0
"""What verification, bisection and a race ask of a port: `paritas.Port` is one, and anything else may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from paritas.program import Artifact, Manifest, Note, Program, TensorSpec
from paritas.run.session import Session

if TYPE_CHECKING:
    import torch


class Others(Protocol):
    """The ports that were made beside a first one, for other sizes."""

    @property
    def ports(self) -> Sequence[Subject]: ...


class Subject(Protocol):
    """A port with its original. Feeds are one array per input, by name; outputs are flat, in the manifest's order."""

    artifact: Artifact
    session: Session
    mode: str

    @property
    def manifest(self) -> Manifest: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def notes(self) -> tuple[Note, ...]: ...

    @property
    def others(self) -> Others | None: ...

    def feed(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the engine gets of a call's arguments. Raises `InputError`."""
        ...

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...

    def original(self, given: torch.nn.Module | None = None, *, in_files: bool = False) -> torch.nn.Module:
        """The original module. Raises `OriginalMissing` if it was in memory only and is not `given`."""
        ...

    def program(self, *, in_files: bool = False) -> Program: ...

    def examples(self) -> dict[str, np.ndarray]:
        """What the port was made with; {} where it keeps no example."""
        ...

    def save(self, directory: Path) -> object: ...
