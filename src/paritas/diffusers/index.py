# SPDX-License-Identifier: Apache-2.0
"""What a saved pipeline's directory says of itself. It may come from anyone: it is read before anything is loaded, and
believed only as far as it can do no harm.

Classes are those of diffusers and transformers, named by what they are called there. Nothing that a directory names is
imported, no file of code in it is looked at, names lead to no other place, and nothing is unpickled.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import safetensors.torch
import torch
import transformers

from paritas import files
from paritas.diffusers.saving import PORTS, Entry
from paritas.errors import InputError, PortError
from paritas.program import Manifest
from paritas.pytree import described
from paritas.run.engine import about

#: Of diffusers, what says of which components a pipeline is.
INDEX = "model_index.json"

#: Of a `ports.json`.
_LARGEST = 1 << 24

#: Of a component, and of a folder: no separator, nothing that begins with a dot.
_NAME = re.compile(r"[A-Za-z0-9_](\.?[A-Za-z0-9_-])*")

_METHOD = re.compile(r"([a-z][A-Za-z0-9_]*)?")


def entries(root: Path) -> dict[str, list[Entry]]:
    """The ports of each network, as `ports.json` has them. Raises `PortError`."""
    told = _json(root / PORTS)
    if told.get("format") != 1:
        raise PortError(f"{root / PORTS} has the format {told.get('format')!r}, and this Paritas reads 1.")
    try:
        found = {n: [Entry(**{**e, "scalars": tuple(e["scalars"])}) for e in es] for n, es in told["networks"].items()}
        for name, of_network in found.items():
            for one in of_network:
                _check(name, one)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PortError(f"{root / PORTS} is damaged: {error!r}.") from error
    for folder in {*found, *(one.folder for of_network in found.values() for one in of_network)}:
        if (root / folder).is_symlink():
            raise PortError(f"{root / folder} is a link: a port is read from its own directory.")
    return found


def _check(name: str, one: Entry) -> None:
    """Raise `ValueError` for an entry that `saving` cannot have written."""
    texts = (*one.inputs.items(), *one.outputs.items(), *enumerate(one.scalars))
    if (
        not _NAME.fullmatch(name)
        or not _NAME.fullmatch(one.folder)
        or not isinstance(one.path, str)
        or not _METHOD.fullmatch(one.method)
        or not isinstance(one.fixed, dict)
        or not all(isinstance(text, str) for _, text in texts)
        or not described(one.structure)
        or not all(map(described, one.nesting.values()))
    ):
        raise ValueError(f"of {one.folder!r}")


def origin_of(root: Path) -> tuple[str, dict[str, Any]]:
    """(of which pipeline a directory was made, a call that its ports answer), as far as it says so."""
    told = _json(root / PORTS)
    source, call = told.get("source") or "", told.get("call") or {}
    if not isinstance(source, str) or not isinstance(call, dict):
        raise PortError(f"{root / PORTS} is damaged: its source or its call is no such thing.")
    return source, call


def _json(place: Path) -> dict[str, Any]:
    try:
        if place.stat().st_size > _LARGEST:
            raise PortError(f"{place} is larger than any that was ever written.")
        found = files.parsed(files.text(place))
    except FileNotFoundError:
        raise PortError(f"There is no {place}: this is no saved pipeline, or a part of one.") from None
    except (OSError, ValueError) as error:
        raise PortError(f"{place} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise PortError(f"{place} is damaged: it holds no object.")
    return found


# --- classes -------------------------------------------------------------------------------------------------


def classes(
    root: Path, networks: Mapping[str, Any], original: Any, given: Mapping[str, Any]
) -> dict[str, type[torch.nn.Module]]:
    """The classes of the networks. Raises `PortError` for an index that names anything but classes of both libraries.

    original: by which class the pipeline is opened. given: what the caller has instead of what the directory names.
    """
    index = _json(root / INDEX)
    found = {}
    for name, value in index.items():
        if name.startswith("_") or name in given or not isinstance(value, list):
            continue
        if not _NAME.fullmatch(name):
            raise PortError(f"{root / INDEX} names a component {name!r}.")
        library, cls = value if len(value) == 2 else (None, None)
        if name not in networks and not (isinstance(library, str) and isinstance(cls, str)):
            continue  # nothing, or numbers
        if not isinstance(library, str) or not isinstance(cls, str):
            raise PortError(f"{root / INDEX} does not say of which class {name} is.")
        known = _class(library, cls)
        if known is None:
            raise PortError(
                f"{root / INDEX} says that {name} is {library}.{cls}, which is no class of diffusers or transformers: "
                f"make it yourself, from_pretrained(..., {name}=...)."
            )
        if (root / name).is_symlink():
            raise PortError(f"{root / name} is a link: a component is read from its own directory.")
        found[name] = known
    for name in networks:
        if name not in given and name not in found and name.partition(".")[0] not in found:
            raise PortError(f"{root / INDEX} does not say of which class {name} is.")
        if name not in given and not issubclass(found.get(name, object), torch.nn.Module):
            raise PortError(f"{name} is no network of diffusers or transformers: open its ports one by one.")
    if "custom_pipeline" not in given and getattr(original, "__name__", "") == "DiffusionPipeline":
        _check_pipeline(root, index.get("_class_name"))
    return found


def _check_pipeline(root: Path, name: Any) -> None:
    cls = getattr(diffusers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        raise PortError(
            f"{root / INDEX} says that this is a {name}, which is no pipeline of diffusers. If it is one of your own, "
            "from_pretrained(..., custom_pipeline=...) runs its code."
        )


def _class(library: str, name: str) -> Any:
    """A class of transformers' or diffusers', as `model_index.json` names it. Importing anything else would run it."""
    if not name.isidentifier():
        return None
    if library in ("transformers", "diffusers"):
        holder: Any = transformers if library == "transformers" else diffusers
    else:
        holder = getattr(diffusers.pipelines, library, None) if library.isidentifier() else None
        if holder is None and library.isidentifier():
            with_name = f"diffusers.pipelines.{library}"
            holder = importlib.import_module(with_name) if importlib.util.find_spec(with_name) else None
    found = getattr(holder, name, None)
    if not isinstance(found, type) or found.__module__.partition(".")[0] not in ("transformers", "diffusers"):
        return None
    return found


# --- what of a network is no port ----------------------------------------------------------------------------


def config_of(cls: Any, place: Path) -> Any:
    """The configuration of a network of transformers'. Raises `PortError`."""
    try:
        config = cls.config_class.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise PortError(f"{place} is damaged: its configuration cannot be read: {error}") from error
    if "/" in str(getattr(config, "_attn_implementation", None) or ""):
        raise PortError(
            f"{place} asks for kernels of {config._attn_implementation}: that would be code from elsewhere."
        )
    return config


def small(place: Path) -> dict[str, torch.Tensor]:
    """The small tensors that pipelines read of a network. Raises `PortError`."""
    try:
        buffer, _ = files.read(place)
        return safetensors.torch.load(bytes(buffer))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise PortError(f"{place} cannot be read: {error}") from error


def of_network(name: str, ours: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Our keywords for one network, of those that may name a value for each. Raises `InputError` for unknown names."""
    found = {}
    for key, value in ours.items():
        if isinstance(value, Mapping) and key not in ("ov_config",):
            if unknown := sorted(set(value) - set(known)):
                raise InputError(f"{key} names {', '.join(unknown)}, and the networks are {', '.join(known)}.")
            value = value.get(name)
        if value is not None:
            found[key] = value
    return found


def check_is(place: Path, manifest: Manifest, ours: Mapping[str, Any]) -> None:
    """Raise `InputError` for an engine or weights that a port is not made for."""
    engine, weights = ours.get("engine"), ours.get("weights")
    if engine and manifest.engine != about(engine).name:
        raise InputError(f"{place} is on {manifest.engine}, not on {engine}: port the original again for that.")
    has = str(manifest.settings.get("weights") or "")
    if weights and weights != has:
        raise InputError(
            f"{place} has weights {f'of {has}' if has else 'as the original has them'}, not {weights}: port the "
            "original again for that."
        )
