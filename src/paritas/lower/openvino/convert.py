# SPDX-License-Identifier: Apache-2.0
"""From a program to `openvino_model.xml` and `.bin`, with the program's names on every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino

from paritas.caches import keeps_inside
from paritas.errors import LoweringError
from paritas.lower.decompose import decomposed
from paritas.lower.openvino import configuration
from paritas.lower.openvino.angles import keep_angles
from paritas.lower.openvino.by_nncf import compress_by_nncf
from paritas.lower.openvino.composed import COMPOSED
from paritas.lower.openvino.compress import HALVES, compress, half_constants, mark, widened
from paritas.lower.openvino.configuration import HINTS
from paritas.lower.openvino.constants import fold_constants
from paritas.lower.openvino.graph import build
from paritas.lower.openvino.precision import notes_of
from paritas.lower.openvino.spool import Spool
from paritas.lower.openvino.stateful import make_stateful
from paritas.lower.randomness import refuse_random_ops
from paritas.lower.registry import lowerings
from paritas.lower.result import Lowered
from paritas.options import BuildOptions, parsed_weights
from paritas.program import Note, Program

ENTRY = "openvino_model.xml"


def entry_of(component: str) -> str:
    """As optimum-intel calls it: `openvino_encoder_model.xml`; of a "language_model", `openvino_language_model.xml`."""
    return f"openvino_{component.removesuffix('_model')}_model.xml" if component else ENTRY


#: Operators that notes name one by one.
_MOST_NOTES = 3


def _complex(program: Program) -> tuple[Note, ...]:
    names = [spec.name for spec in (*program.inputs, *program.outputs) if "complex" in spec.dtype]
    if not names:
        return ()
    return (
        Note(
            "lower",
            "OpenVINO has no complex numbers: in openvino_model.xml they are pairs (real, imaginary) on a last axis of "
            f"2: {', '.join(names)}",
        ),
    )


def _unnoticed(lines: Sequence[str]) -> tuple[Note, ...]:
    notes = [
        Note("lower", f"whole numbers beyond 32 bits, which OpenVINO cuts off, are not noticed in {line}")
        for line in list(lines)[:_MOST_NOTES]
    ]
    if len(lines) > _MOST_NOTES:
        notes.append(Note("lower", f"nor in {len(lines) - _MOST_NOTES} more operators on whole numbers"))
    return tuple(notes)


def lower(program: Program, directory: Path, options: BuildOptions) -> Lowered:
    """Write the program as an OpenVINO model.

    Inputs and outputs carry the program's names; every tensor inside carries the name of its node. Dynamic
    dimensions stay dynamic. `options.dtype` is the arithmetic that is asked for: the graph is float32, its weights
    are stored as float16 where that is the dtype, or compressed: see `compress`. Raises `UnsupportedOps` and
    `LoweringError`.
    """
    dtype, weights = options.dtype or "float32", options.weight_format
    if dtype not in HINTS:
        raise LoweringError(f"openvino has no dtype {dtype!r}; it has {', '.join(HINTS)}.")
    refuse_random_ops(program, "openvino")
    notes: tuple[Note, ...] = notes_of(program)
    simple = decomposed(program, lowerings("openvino"), COMPOSED)
    built = build(simple)
    converted = built.model
    fold_constants(converted)
    if keeps_inside(program):
        make_stateful(converted, program)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[dtype]}
    spool, marks, halves = Spool(directory), list[str](), half_constants(converted)
    if weights:
        settings["weights"] = weights
        asked = parsed_weights(weights)
        if asked.by_nncf:
            converted, told = compress_by_nncf(converted, asked, options.calibration, program)
        else:
            note, marks = compress(converted, weights, spool)
            told = (note,)
        notes += told
    if weights not in HALVES:
        widened(converted, halves, spool)
    if dtype != "float32":
        keep_angles(converted, built.halves)
    entry = entry_of(program.source.component)
    # One configuration for all components of a model, of which some remember.
    properties = configuration.of(dtype, remembers=keeps_inside(program) or bool(program.source.component))
    properties |= configuration.lasting(dict(options.config))
    configuration.store(converted, properties)
    configuration.write(directory, properties)
    try:
        openvino.save_model(converted, str(directory / entry), compress_to_fp16=dtype == "float16")
    except RuntimeError as error:  # OpenVINO says no more than "iostream error" where the disk is full
        raise LoweringError(f"OpenVINO cannot write its files to {directory}: {error}. Is the disk full?") from error
    if built.largest < 2**31 - 1:
        settings["largest_whole"] = built.largest
    if built.watched:
        settings["watched"] = list(built.watched)
    notes += _unnoticed(built.unnoticed) + _complex(program)
    mark(directory / entry, marks)
    del built, spool  # until here: the model reads its weights
    return Lowered(entry, settings, notes, guards=simple.guards[len(program.guards) :])
