# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of transformers' Trainer: whether one is whole, and of this model, before any of it is believed.

transformers writes a checkpoint file by file, and its state last: a process that is killed leaves one that is cut.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paritas.errors import InputError

logger = logging.getLogger("paritas.dropin")

STATE, WEIGHTS = "trainer_state.json", "model.safetensors"

_NAMED = re.compile(r"checkpoint-(\d+)")


def last_whole(directory: Path) -> Path | None:
    """The latest checkpoint in a directory that is whole; None where there is none at all.

    Later ones that are cut are named in a warning. Raises `InputError` where all are.
    """
    found = [(int(m[1]), path) for path in directory.iterdir() if (m := _NAMED.fullmatch(path.name)) and path.is_dir()]
    cut = []
    for _, path in sorted(found, reverse=True):
        if why := fault(path):
            cut.append(f"{path.name} ({why})")
            continue
        if cut:
            logger.warning("%s is gone on with: %s was cut while it was written", path.name, ", ".join(cut))
        return path
    if cut:
        raise InputError(f"No checkpoint in {directory} is whole: {', '.join(cut)}. Train without resume.")
    return None


def check_whole(path: Path) -> None:
    """Raise `InputError` for a checkpoint that is none or was cut."""
    if not path.is_dir():
        raise InputError(f"There is no checkpoint {path}.")
    if why := fault(path):
        raise InputError(
            f"The checkpoint {path} is cut: {why}. Resume from an earlier one, or with True from the last."
        )


def fault(path: Path) -> str:
    """What of a checkpoint is missing or ends too early, in words; "" for one that is whole."""
    try:
        state = json.loads((path / STATE).read_text())
    except FileNotFoundError:
        return f"it has no {STATE}, which is written last"
    except ValueError:
        return f"{STATE} ends too early"
    if not isinstance(state, dict) or "global_step" not in state:
        return f"{STATE} is not one"
    for file in sorted(path.iterdir()):
        if file.suffix == ".safetensors" and _shapes(file) is None:
            return f"{file.name} ends too early"
        if file.suffix in (".pt", ".pth", ".bin") and file.name != "training_args.bin" and not zipfile.is_zipfile(file):
            return f"{file.name} ends too early"
    return ""


def check_fits(path: Path, model: Any) -> None:
    """Raise `InputError` where the weights of a checkpoint are those of another model."""
    if not (path / WEIGHTS).is_file():
        return  # shards or adapters, of which transformers says what does not fit
    held, own = _shapes(path / WEIGHTS) or {}, model.state_dict(keep_vars=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    tied = {own[name].data_ptr() for name in held if name in own}
    wrong = [f"{name} is not in this model" for name in held if name not in shapes]
    wrong += [
        f"{name} is {shape} and not {shapes[name]}"
        for name, shape in held.items()
        if name in shapes and shape != shapes[name]
    ]
    left_out = [re.compile(form) for form in getattr(model, "_keys_to_ignore_on_save", None) or ()]
    wrong += [
        f"{name} is missing"
        for name in own
        if name not in held and own[name].data_ptr() not in tied and not any(form.search(name) for form in left_out)
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"The checkpoint {path} is of another model than this {type(model).__name__}: {'; '.join(wrong[:3])}{more}."
        )


def _shapes(file: Path) -> Mapping[str, tuple[int, ...]] | None:
    """What a file holds, and in which shape; None where it is cut."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as held:
            return {name: tuple(held.get_slice(name).get_shape()) for name in held.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError:
        return None
