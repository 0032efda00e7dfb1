# SPDX-License-Identifier: Apache-2.0
"""What a lowering returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from paritas.files import Theirs
from paritas.program import Guard, Note, TensorSpec


@dataclasses.dataclass(frozen=True)
class Lowered:
    """The files that are now in the directory: which one the engine opens, and how."""

    entry: str
    settings: Mapping[str, Any]  # the engine's own, JSON values only
    notes: tuple[Note, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()  # where the engine leaves less free than the program: what is left
    outputs: tuple[TensorSpec, ...] = ()
    guards: tuple[Guard, ...] = ()  # what was asked of sizes while lowering, beside the program's own
    dtype: str = ""  # of the arithmetic, where the lowering chose it
    theirs: Mapping[str, Theirs] = dataclasses.field(default_factory=dict)  # files that are the checkpoint's own
