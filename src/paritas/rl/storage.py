# SPDX-License-Identifier: Apache-2.0
"""Tensors in safetensors and everything else in JSON, in a directory that is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paritas import files, leftovers
from paritas.errors import InputError, first_line
from paritas.store.directory import move_into_place


@contextlib.contextmanager
def written(directory: Path) -> Iterator[Path]:
    """A folder beside `directory`, which takes its place once it is full."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file: name a directory.")
    staging = leftovers.beside(directory.absolute(), "tmp")
    staging.mkdir()
    try:
        yield staging
        move_into_place(staging, directory.absolute())
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.array(value, order="C") for name, value in arrays.items()}, path)


def read_tensors(path: Path, what: str) -> dict[str, np.ndarray]:
    """Raises `InputError` for a file that is not there or is none of tensors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path.parent} is no {what}: it has no {path.name}.") from error
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path} is broken, or no file of tensors: {first_line(error)}") from error


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Raises `InputError` for a file that is not there or holds no object."""
    try:
        found = files.json_of(path)
    except OSError as error:
        raise InputError(f"{path.parent} is no {what}: it has no {path.name}.") from error
    except ValueError as error:
        raise InputError(f"{path} is broken: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} is broken: it holds no object.")
    return found


def fill(known: Mapping[str, Any], given: Mapping[str, np.ndarray], where: str) -> None:
    """Put arrays into tensors of torch of the same names and shapes. Raises `InputError` where they do not fit."""
    import torch

    wrong = [f"{name} is missing" for name in known if name not in given]
    wrong += [f"{name} is in no network here" for name in given if name not in known]
    wrong += [
        f"{name} is {given[name].shape}, and the network's {tuple(known[name].shape)}"
        for name in known
        if name in given and tuple(given[name].shape) != tuple(known[name].shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"The weights in {where} do not fit this network: {'; '.join(wrong[:3])}{more}.")
    with torch.no_grad():
        for name, tensor in known.items():
            tensor.copy_(torch.from_numpy(np.array(given[name])))
