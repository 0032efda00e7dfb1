# SPDX-License-Identifier: Apache-2.0
"""The zoo: tiny random models of every architecture, as data. One JSON file per model type, a list of entries.

An entry names a class, the configuration that makes it tiny, and its inputs. Inputs are described, not stored:

    {"shape": [2, 16], "dtype": "int64", "dist": "randint", "low": 5, "high": 90, "set": [[3, 7, 91]]}
    {"shape": [1, 3, 30, 30], "dtype": "float32", "dist": "normal", "std": 1.0, "mean": 0.0}
    "uniform" (low, high), "const" (value), "tile" (values, along the last dimension), "arange"
    {"data": [[1, 2]], "dtype": "int64"}   {"dict": {name: ..}}   {"list": [..]}   {"py": value}

"set" writes values over [start, end) of the last dimension: placeholders of images among ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paritas import store
from paritas.errors import ZooError

#: What an entry must have; the class is "package.Class" or "package.module:Class".
_REQUIRED = ("name", "model_type", "class", "config", "inputs")


#: Standard deviation of what is added to parameters that have one value everywhere.
NOISE = 0.05


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model: its class, the configuration that makes it tiny, and what it is called with."""

    name: str
    model_type: str
    library: str
    model_class: str
    config_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    flags: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes with everything that a result depends on."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """What `entry_of` makes an entry of."""
        one = dataclasses.asdict(self)
        return {**one, "class": one.pop("model_class")}

    def model(self, seed: int = 0) -> torch.nn.Module:
        """The model with seeded random weights, in evaluation mode. Raises `ZooError`.

        What is initialised to one value everywhere, as biases, scales and gates are, gets noise: a bias of 0 hides
        that it was forgotten, and a router of zeros chooses among equals as each engine pleases.
        """
        torch.manual_seed(seed)
        made = self.built()
        _make_uneven(made, torch.Generator().manual_seed(seed))
        return made.eval()

    def built(self) -> torch.nn.Module:
        """The model as its class makes it, on the default device. Raises `ZooError`."""
        cls = find_class(self.model_class, self.name)
        try:
            if self.config_class:
                return cls(find_class(self.config_class, self.name)(**self.config))
            return cls(**self.config)
        except ZooError:
            raise
        except Exception as error:
            raise ZooError(
                f"{self.name} cannot be built: {type(error).__name__}: {str(error).strip().splitlines()[:1]}"
            ) from error

    def values(self, seed: int = 0) -> dict[str, Any]:
        """The inputs: tensors, Python values, and what holds them."""
        generator = torch.Generator().manual_seed(seed)
        return {name: _value(spec, generator) for name, spec in self.inputs.items()}


def _make_uneven(model: torch.nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            flat = parameter.flatten()
            if parameter.is_floating_point() and flat.numel() > 1 and bool((flat == flat[0]).all()):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=NOISE)


def read(directory: Path) -> list[Entry]:
    """Every entry below `directory`, by name. Raises `ZooError` for a file that is none of a zoo's."""
    files = sorted(directory.glob("*/*.json"))
    if not files:
        raise ZooError(
            f"There is no zoo in {directory}: it has no <library>/<model type>.json. "
            "Stand in the repository, or name the directory: --zoo PATH"
        )
    entries = [entry for file in files for entry in _file(file)]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ZooError(f"{directory}: {len(twice)} names are there twice, first {twice[0]}.")
    return entries


def write(entries: Sequence[Entry], directory: Path) -> Path:
    """Put entries of one model type into its file, in place of those of the same names."""
    (library, model_type) = {(e.library, e.model_type) for e in entries}.pop()
    file = directory / library / f"{model_type}.json"
    kept = list(_file(file)) if file.is_file() else []
    named = {entry.name: entry for entry in (*kept, *entries)}
    file.parent.mkdir(parents=True, exist_ok=True)
    store.replace_text(file, "[\n" + ",\n".join(_text(e) for e in named.values()) + "\n]\n")
    return file


def _text(entry: Entry) -> str:
    """An entry as JSON, a line for each field and each input: so that a change of one shows as one."""
    fields: dict[str, Any] = {"name": entry.name, "class": entry.model_class}
    if entry.config_class:
        fields["config_class"] = entry.config_class
    if entry.flags:
        fields["flags"] = list(entry.flags)
    fields["config"] = entry.config
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
    inputs = [f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.inputs.items()]
    lines.append('  "inputs": {\n' + ",\n".join(inputs) + "\n  }")
    return " {\n" + ",\n".join(lines) + "\n }"


def _file(file: Path) -> Iterator[Entry]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for one in found:
            yield entry_of({"model_type": file.stem, "library": file.parent.name, **one})
    except (ValueError, TypeError, AttributeError) as error:
        raise ZooError(f"{file} is no file of a zoo: {error}") from error


def entry_of(one: Mapping[str, Any]) -> Entry:
    """An entry of what its JSON says."""
    if missing := [key for key in _REQUIRED if key not in one]:
        raise ZooError(f"The entry {one.get('name', '?')} has no {', '.join(missing)}.")
    return Entry(
        name=one["name"],
        model_type=one["model_type"],
        library=one.get("library") or "transformers",
        model_class=one["class"],
        config_class=one.get("config_class") or "",
        config=one["config"],
        inputs=one["inputs"],
        flags=tuple(one.get("flags", ())),
    )


def find_class(path: str, name: str) -> Any:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ZooError(f"{name}: {path} is not installed here: {error}") from error


def _value(spec: Mapping[str, Any], generator: torch.Generator) -> Any:
    if "py" in spec:
        return spec["py"]
    if "dict" in spec:
        return {key: _value(inner, generator) for key, inner in spec["dict"].items()}
    if "list" in spec:
        return tuple(_value(inner, generator) for inner in spec["list"])
    dtype = getattr(torch, spec["dtype"])
    if "data" in spec:
        return torch.tensor(spec["data"], dtype=dtype)
    made = _drawn(spec, generator)
    for start, end, value in spec.get("set", ()):
        made[..., start:end] = value
    return made.to(dtype)


def _drawn(spec: Mapping[str, Any], generator: torch.Generator) -> torch.Tensor:
    shape = spec["shape"]
    match spec["dist"]:
        case "normal":
            drawn = torch.randn(shape, generator=generator)
            return drawn * spec.get("std", 1.0) + spec.get("mean", 0.0)
        case "uniform":
            return torch.rand(shape, generator=generator) * (spec["high"] - spec["low"]) + spec["low"]
        case "randint":
            return torch.randint(spec["low"], spec["high"], shape, generator=generator)
        case "const":
            return torch.full(shape, float(spec["value"]))
        case "tile":
            return torch.tensor(spec["values"], dtype=torch.float64).expand(shape).clone()
        case "arange":
            return torch.arange(shape[-1]).expand(shape).clone()
    raise ZooError(f"There is no distribution {spec['dist']!r}.")
