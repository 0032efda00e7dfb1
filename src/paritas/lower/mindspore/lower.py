# SPDX-License-Identifier: Apache-2.0
"""The entry of this lowering: a readable module that imports only mindspore, and the checkpoint beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from paritas.capture.specialize import specialized
from paritas.errors import LoweringError, TamperedPort
from paritas.files import Theirs, copied
from paritas.lower.mindspore import halves
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.untouched import untouched
from paritas.lower.mindspore.widen import NOTE, is_bfloat16
from paritas.lower.mindspore.write import steps
from paritas.lower.mindspore.write.module import Module, generate
from paritas.lower.mindspore.write.weights import constants_for_file
from paritas.lower.randomness import refuse_random_ops
from paritas.lower.result import Lowered
from paritas.options import BuildOptions
from paritas.program import Note, Program

WEIGHTS, CONSTANTS = "model.safetensors", "constants.safetensors"

_THEIRS = Note(
    "lower",
    "the weights are the checkpoint's own files, under another name where the disk allows that: written to in their "
    "place, they change for both, and the port is then refused",
)


def lower(program: Program, directory: Path, options: BuildOptions) -> Lowered:
    """Write `modeling_<name>.py` and `model.safetensors` into `directory`, in the program's own dtypes.

    But for bfloat16 on "cpu", which is float32 there. Raises `UnsupportedOps` and `LoweringError` before anything is
    written.
    """
    target = options.target
    refuse_random_ops(program, "mindspore")
    whole, program = program, specialized(program)
    module = generate(program, target=target)
    entry = f"modeling_{_snake(module.class_name)}.py"
    try:
        grammar.check(module.source, entry)  # what a reader will refuse must not be written
    except TamperedPort as error:
        raise LoweringError(f"the generated module is not of its own grammar, a bug of Paritas: {error}") from error
    (directory / entry).write_text(module.source, encoding="utf-8")
    theirs = _save(module, program, directory)
    settings = {
        "class": module.class_name,
        "returns": {key: list(nodes) for key, nodes in module.outputs.items()},
        "steps": steps.to_json(module.steps),
        **({"names": dict(module.renamed)} if module.renamed else {}),
        **({"shards": list(theirs)} if len(theirs) > 1 else {}),
    }
    notes = program.notes[len(whole.notes) :]
    if theirs:
        notes = (*notes, _THEIRS)
    wide = target == "cpu" and is_bfloat16(program)
    if target == "cpu" and program.autocast:
        settings |= dict.fromkeys(halves.HALVES.values(), "float32")
        notes = (*notes, halves.note(program.autocast))
    elif wide:
        settings["bfloat16"], notes = "float32", (*notes, NOTE)
    return Lowered(
        entry,
        settings,
        notes,
        inputs=program.inputs,
        outputs=program.outputs,
        guards=module.guards,
        dtype="float32" if wide else "",
        theirs=theirs,
    )


def _save(module: Module, program: Program, directory: Path) -> dict[str, Theirs]:
    """Write the weights, or have the checkpoint's own files in their place, which are returned by their names there."""
    from safetensors.torch import save_file

    found = untouched(module.weights, program.source)
    names = [WEIGHTS] if len(found) == 1 else [path.name for path in found]
    theirs = {name: Theirs.at(path) for name, path in zip(names, found, strict=True)}
    for name, one in theirs.items():
        if not one.shared(directory / name):
            copied(one.path, directory / name)
    if not theirs:
        save_file(_apart(module.weights), directory / WEIGHTS, metadata={"format": "pt"})
    constants = constants_for_file(module.constants)
    for name, value in constants.items():
        if value.dtype == torch.complex128:  # no file of safetensors holds it
            raise LoweringError(
                f"mindspore: the constant {name} {tuple(value.shape)} is complex128, which a port's file cannot hold. "
                "Make it complex64, or keep its real and imaginary parts as two tensors of float64."
            )
    if constants:
        save_file(_apart(constants), directory / CONSTANTS)
    return theirs


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, none of which shares memory with another: a file holds no parts of one."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        found[name] = value
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()[:100]
