# SPDX-License-Identifier: Apache-2.0
"""Lower: a `Program` becomes an engine's files in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paritas.lower.result import Lowered
    from paritas.program import Program

__all__ = ["lower"]


def lower(
    program: Program,
    engine: str,
    directory: Path,
    *,
    dtype: str,
    target: str = "cpu",
    weights: str = "",
) -> Lowered:
    """Write the engine's files into `directory`. Raises `UnsupportedOps` or `LoweringError`."""
    if engine == "mindspore":
        from paritas.lower.mindspore.lower import lower as to_mindspore

        return to_mindspore(program, directory, target=target)
    if engine == "openvino":
        from paritas.lower.openvino import lower as to_openvino

        return to_openvino(program, directory, dtype=dtype, weights=weights)
    from paritas.lower.torch import lower as to_torch

    return to_torch(program, directory)
