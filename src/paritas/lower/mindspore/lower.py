# SPDX-License-Identifier: Apache-2.0
"""The entry of this lowering: a readable module that imports only mindspore, and the checkpoint beside it."""

from __future__ import annotations

import re
from pathlib import Path

from paritas.capture.settle import settled
from paritas.errors import LoweringError, TamperedPort
from paritas.lower.chance import refuse_chance
from paritas.lower.mindspore import grammar, steps
from paritas.lower.mindspore.module import Module, generate
from paritas.lower.mindspore.weights import constants_for_file
from paritas.lower.result import Lowered
from paritas.program import Program

WEIGHTS, CONSTANTS = "model.safetensors", "constants.safetensors"


def lower(program: Program, directory: Path, *, target: str = "cpu") -> Lowered:
    """Write `modeling_<name>.py` and `model.safetensors` into `directory`, in the program's own dtypes.

    Raises `UnsupportedOps` and `LoweringError` before anything is written.
    """
    refuse_chance(program, "mindspore")
    whole, program = program, settled(program)
    module = generate(program, target=target)
    entry = f"modeling_{_snake(module.class_name)}.py"
    try:
        grammar.check(module.source, entry)  # what a reader will refuse must not be written
    except TamperedPort as error:
        raise LoweringError(
            f"the generated module is not of its own grammar, a bug of Paritas: {error}"
        ) from error
    (directory / entry).write_text(module.source, encoding="utf-8")
    _save(module, directory)
    settings = {
        "class": module.class_name,
        "returns": {key: list(nodes) for key, nodes in module.outputs.items()},
        "steps": steps.to_json(module.steps),
    }
    notes = program.notes[len(whole.notes) :]
    return Lowered(entry, settings, notes, inputs=program.inputs, outputs=program.outputs)


def _save(module: Module, directory: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: value.contiguous() for name, value in module.weights.items()}
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    constants = constants_for_file(module.constants)
    if constants:
        save_file(constants, directory / CONSTANTS)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
