# SPDX-License-Identifier: Apache-2.0
"""What an engine writes of a script that shows a divergence without Paritas: source that makes the part and runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from paritas.program import Program
    from paritas.run.torch.part import Part, Recorded

#: What every script defines or imports, beside its engine's `script_names`.
RESERVED = frozenset({
    "HERE", "TENSORS", "EXPECTED", "TYPICAL", "ROUNDINGS", "OWN", "Path", "annotations", "build", "cast", "distance",
    "dtype", "found", "in_torch", "load_file", "main", "np", "run", "sys", "torch",
})  # fmt: skip


class Names(Protocol):
    """Variables of a script, for names from anywhere."""

    def new(self, name: str) -> str:
        """A variable that nothing else has."""
        ...

    def of(self, name: str) -> str:
        """The variable of this name, always the same."""
        ...


@dataclasses.dataclass(frozen=True)
class ToWrite:
    """A part of a port that is to become a script, and what the script says already.

    borders: the nodes at which the session can be cut. own: by variable, what PyTorch's side reads of the script's
    tensors. stem: of the script's file name. session: the port's. program: makes the part a program of its own, with
    the port's weights; it raises `LoweringError` for a part that is none. reserved: what no variable may be called.
    """

    part: Part
    recorded: Recorded
    borders: Sequence[str]
    own: Mapping[str, torch.Tensor]
    names: Names
    stem: str
    session: Any
    mode: str
    target: str
    program: Callable[[], Program]
    reserved: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Side:
    """What a script says of an engine.

    engine: its name, as its makers write it. imports, body: source; the body defines `build()`, which makes the model,
    and `run(model)`, which returns a dict from the variables of the outputs to arrays. tensors: what it reads from
    `TENSORS` besides the part's own. about: how it runs, in words. files: what else lies beside the script, by name,
    each with what writes it to a path.
    """

    engine: str
    imports: tuple[str, ...]
    body: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    about: str
    files: Mapping[str, Callable[[str], object]] = dataclasses.field(default_factory=dict)
