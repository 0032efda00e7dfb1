# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint of sentence-transformers has beside its transformer: pooling, dense layers, normalisation.

They are no part of the graph. SentenceTransformer and CrossEncoder compute them from the folders that `modules.json`
names, around whatever computes the transformer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paritas import files
from paritas.errors import SourceError
from paritas.program import Note

LIST = "modules.json"

#: Of a module's folder: what it says of itself, its weights, a tokenizer.
_DATA = (".json", ".txt", ".safetensors", ".model", ".jinja")

#: Weights as sentence-transformers before 2.3 left them, and as they are now.
_PICKLED, _SAFE = "pytorch_model.bin", "model.safetensors"


def listed(directory: Path) -> list[dict[str, Any]] | None:
    """The modules of a checkpoint of sentence-transformers, None for any other. Raises `SourceError`."""
    path = directory / LIST
    try:
        modules = files.json_of(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    return [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []


def is_transformer(module: dict[str, Any]) -> bool:
    return str(module.get("type", "")).endswith(".Transformer")


def kinds(modules: Sequence[dict[str, Any]]) -> list[str]:
    """What stands beside the transformer, by the names of their classes."""
    return [str(m.get("type", "")).rpartition(".")[2] for m in modules if not is_transformer(m)]


def folder(root: Path, module: dict[str, Any]) -> Path:
    """Where a module is. Raises `SourceError` for a place outside the checkpoint."""
    path = root / str(module.get("path", ""))
    if "\0" in str(path) or not path.resolve().is_relative_to(root.resolve()):
        raise SourceError(f"{root / LIST} names a directory outside the checkpoint: {path}.")
    return path


def copy(root: Path, directory: Path) -> tuple[Note, ...]:
    """Put the modules' folders into a port's directory, and a `modules.json` that finds the transformer at its top.

    Weights that are pickled are read by torch's weights-only loader and written as safetensors. What cannot be taken
    along is a note.
    """
    modules = listed(root)
    if modules is None:
        return ()
    notes = []
    for module in modules:
        if is_transformer(module):
            module["path"] = ""
            continue
        kind = str(module.get("type", ""))
        if not kind.startswith("sentence_transformers."):
            text = f"{kind} is code of its own, which sentence-transformers needs and the port does not hold"
            notes.append(Note("capture", text))
        place = folder(root, module)
        if place.is_dir() and place.resolve() != root.resolve():
            _copy_folder(place, directory / place.relative_to(root))
    (directory / LIST).write_text(json.dumps(modules, indent=2))
    return tuple(notes)


def _copy_folder(place: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, kind in files.walk(place):
        if kind == "other" or not (place / name).is_file():  # in the hub's cache files are links
            continue
        if name.endswith(_DATA):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / name, target / name)
        elif Path(name).name == _PICKLED and not (place / name).with_name(_SAFE).exists():
            _rewrite(place / name, (target / name).with_name(_SAFE))


def _rewrite(pickled: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        weights = torch.load(pickled, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SourceError(
            f"The pickled weights {pickled} are refused by torch's weights-only loader; they were not executed. "
            "Save the model again with a current sentence-transformers."
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, target)
