# SPDX-License-Identifier: Apache-2.0
"""Lower: a `Program` becomes an engine's files in a directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paritas.lower.result import Lowered
    from paritas.program import Program

__all__ = ["lower"]

#: Operators that notes name one by one.
_MOST_NOTES = 3


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

        return _in_32_bits(program, to_openvino(program, directory, dtype=dtype, weights=weights))
    from paritas.lower.torch import lower as to_torch

    return to_torch(program, directory)


def _in_32_bits(program: Program, lowered: Lowered) -> Lowered:
    """How large whole numbers may be at the door, and notes on what may leave 32 bits all the same."""
    from paritas.capture.normalise import name_of
    from paritas.capture.ranges import largest_input
    from paritas.program import Note

    known = {s.name: (s.low or 0, s.high - 1) for s in program.inputs if s.high is not None}
    largest, beyond = largest_input(program.exported, known, program.limits)
    lines = dict.fromkeys(f"{name_of(node)} at {program.origin(node.name)}" for node in beyond)
    notes = [
        Note("lower", f"whole numbers beyond 32 bits, which OpenVINO cuts off, are not noticed in {line}")
        for line in list(lines)[:_MOST_NOTES]
    ]
    if len(lines) > _MOST_NOTES:
        notes.append(Note("lower", f"nor in {len(lines) - _MOST_NOTES} more operators on whole numbers"))
    settings = {**lowered.settings, "largest_whole": largest} if largest < 2**31 - 1 else lowered.settings
    return dataclasses.replace(lowered, settings=settings, notes=(*lowered.notes, *notes))
