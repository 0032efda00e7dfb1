# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that transformers wrote, and what our classes read in them. Run as a script, a process for each side:

    python checkpoints.py write DIRECTORY NAME...   the zoo's models of these names, by transformers' own classes
    python checkpoints.py read DIRECTORY            each of them by ours; a line of JSON says what differs

The reading process has made no model of transformers' own class: that is what a program with a changed import does.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import torch
import transformers as hf

from paritas.apps.zoo import entries as zoo
from paritas.transformers.models import ported_class

ZOO = Path(__file__).parents[1] / "zoo"


def of_zoo() -> list[zoo.Entry]:
    return [entry for entry in zoo.read(ZOO) if entry.library == "transformers"]


def name_of(entry: zoo.Entry) -> str:
    """The name of its class."""
    return re.split("[.:]", entry.model_class)[-1]


def entries() -> dict[str, zoo.Entry]:
    """A tiny configuration for each model class of transformers that the zoo knows one for, by the class's name.

    A class that is not in the zoo has that of another of the same configuration class.
    """
    classes = {}
    for entry in of_zoo():
        if issubclass(zoo.find_class(entry.model_class, entry.name), hf.PreTrainedModel):
            classes.setdefault(name_of(entry), entry.config_class)
    configs = set(classes.values())
    for name in dir(hf):
        cls = getattr(hf, name, None) if name.endswith("Model") or "For" in name else None
        if isinstance(cls, type) and issubclass(cls, hf.PreTrainedModel) and not name.endswith("PreTrainedModel"):
            config = f"transformers.{getattr(cls.config_class, '__name__', '')}"
            if config in configs:
                classes.setdefault(name, config)
    return of_names(classes)


def of_names(names: Collection[str]) -> dict[str, zoo.Entry]:
    """The entries of these classes, without importing any other model of transformers."""
    named: dict[str, zoo.Entry] = {}
    configs: dict[str, zoo.Entry] = {}
    for entry in of_zoo():
        named.setdefault(name_of(entry), entry)
        configs.setdefault(entry.config_class, entry)
    found = {name: named[name] for name in names if name in named}
    for name in set(names) - found.keys():
        alike = configs[f"transformers.{getattr(hf, name).config_class.__name__}"]
        found[name] = dataclasses.replace(alike, name=name, model_class=f"transformers.{name}")
    return {name: found[name] for name in names}


def zoo_classes() -> set[str]:
    """The names of those that are in the zoo themselves."""
    return {name for name, entry in entries().items() if "/" in entry.name}


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, those that no checkpoint holds too."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


def write(directory: Path, names: list[str]) -> None:
    known = of_names(names)
    for name in names:
        place = directory / name
        try:
            model = known[name].model()
            model.save_pretrained(place)
        except Exception as error:  # noqa: BLE001 - none that transformers itself can write: nothing to compare
            print(json.dumps({"name": name, "fault": f"not written: {error}"[:200]}), flush=True)
            shutil.rmtree(place, ignore_errors=True)
            continue
        # What transformers reads is the measure: a few of its classes make some buffers anew.
        torch.save(tensors(type(model).from_pretrained(place)), place / "tensors.pt")


def read(directory: Path) -> None:
    places = sorted(directory.iterdir())
    known = of_names([place.name for place in places])
    for place in places:
        print(json.dumps({"name": place.name, "fault": fault(known[place.name], place)}), flush=True)


def fault(entry: zoo.Entry, place: Path) -> str:
    """What is not as transformers reads it; "" if all is."""
    cls = ported_class(zoo.find_class(entry.model_class, entry.name))
    try:
        got = tensors(cls.from_pretrained(place, engine="torch"))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    want = torch.load(place / "tensors.pt")
    if got.keys() != want.keys():
        return f"other names: {sorted(got.keys() ^ want.keys())[:4]}"
    wrong = [name for name, value in want.items() if not same(value, got[name])]
    return f"{len(wrong)} of {len(want)} tensors differ: {wrong[:3]}" if wrong else ""


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


if __name__ == "__main__":
    hf.logging.set_verbosity_error()
    hf.logging.disable_progress_bar()
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), sys.argv[3:])
    else:
        read(Path(sys.argv[2]))
