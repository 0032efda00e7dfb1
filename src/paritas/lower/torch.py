# SPDX-License-Identifier: Apache-2.0
"""The reference "lowers" to itself: the checkpoint, from which transformers builds the original again."""

from __future__ import annotations

from pathlib import Path

from paritas.lower.result import Lowered
from paritas.options import BuildOptions
from paritas.program import Program


def lower(program: Program, directory: Path, options: BuildOptions) -> Lowered:
    from safetensors.torch import save_file

    weights = {name: value.contiguous() for name, value in program.weights.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return Lowered("model.safetensors", {})
