# SPDX-License-Identifier: Apache-2.0
"""Directories that hold a port: of which class it is, and what `from_pretrained` may be told about it."""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from paritas import pipeline, store
from paritas.components import Components
from paritas.dropin.calls import original_class
from paritas.errors import InputError, PortError
from paritas.options import weights_of
from paritas.program import ComponentsManifest, Manifest
from paritas.store.directory import MANIFEST
from paritas.transformers.encoder_decoder import TwoPorts
from paritas.transformers.models import Ported
from paritas.transformers.opened import how_again, model_of
from paritas.transformers.vision_language import ImagesInPatches, of_images

#: Where the classes are that a port of transformers may be of. Importing what a file names would run its code.
_CLASS = re.compile(r"transformers(\.[a-z][a-z0-9_]*)+\.[A-Z][A-Za-z0-9_]*")

#: Keywords of transformers' `from_pretrained` that say where files are, or how weights are read.
_OF_READING = frozenset({
    "cache_dir", "force_download", "local_files_only", "token", "use_auth_token", "revision", "code_revision",
    "proxies", "trust_remote_code", "low_cpu_mem_usage", "use_safetensors", "weights_only", "resume_download",
    "subfolder", "attn_implementation", "experts_implementation", "max_memory", "offload_folder", "variant",
    "ignore_mismatched_sizes", "output_loading_info", "config", "dtype", "device_map", "adapter_kwargs", "commit_hash",
})  # fmt: skip

#: What a configuration says of calls, and not of the network.
_OF_CALLS = (
    "use_cache", "return_dict", "output_attentions", "output_hidden_states", "name_or_path", "_name_or_path", "dtype",
    "transformers_version", "architectures", "_attn_implementation",
)  # fmt: skip


def port_in(source: Any, kwargs: Mapping[str, Any]) -> Path | None:
    """The directory of a port, if that is what `from_pretrained(source, **kwargs)` names."""
    if not isinstance(source, str | os.PathLike):
        return None
    place = Path(source) / str(kwargs.get("subfolder") or "")
    try:
        return place if (place / MANIFEST).is_file() else None
    except (OSError, ValueError):  # too long for a name
        return None


def opened_by(asked: Any, args: Sequence[Any], theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
    """The model of `asked.from_pretrained(*args, **theirs)` if that names a port's directory; None for any other."""
    more = dict(theirs)
    source = args[0] if args else more.pop("pretrained_model_name_or_path", None)
    place = port_in(source, more)
    return None if place is None else open_model(place, asked, more, ours)


Ported._paritas_open = staticmethod(opened_by)


def open_model(
    directory: str | os.PathLike[str],
    asked: Any = None,
    theirs: Mapping[str, Any] | None = None,
    ours: Mapping[str, Any] | None = None,
) -> Any:
    """The port in `directory` as a model of transformers; with `output_loading_info`, and what it lacks: nothing.

    asked: the class or Auto class that it is to be of; None for its own. theirs: keywords of `from_pretrained`. ours:
    `engine`, `mode`, `target`, `weights`, `engine_device`. Raises `PortError` for a port that is none of transformers,
    `InputError` for what it is not, and what `paritas.load` raises.
    """
    theirs, ours = dict(theirs or {}), dict(ours or {})
    found = store.read_any(directory, verify_checksums=False).manifest
    manifest = found if isinstance(found, Manifest) else found.components[_kind(found, directory)[0]]
    original = _class_of(manifest, directory)
    config, unused = _config(directory, theirs)
    if asked is not None:
        _check_class(asked, original, config, manifest, directory)
    _check_keywords(manifest, {**theirs, **ours}, unused)
    port = pipeline.load(directory, device=str(ours.get("engine_device") or ""), mode=str(ours.get("mode") or ""))
    again = functools.partial(open_model, str(directory), None, theirs, ours)
    one, answers = _who_answers(port, directory)
    model = model_of(one, original, config, Path(directory), again, answers)
    if theirs.pop("output_loading_info", False):
        return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    return model


#: Components of a model of transformers -> the one that generates, and what answers for all of them.
_KINDS: dict[frozenset[str], tuple[str, Any]] = {
    frozenset({"encoder", "decoder"}): ("decoder", TwoPorts),
    frozenset({"text_embeddings", "vision_embeddings", "language_model"}): ("language_model", of_images),
    frozenset({"text_embeddings", "vision_embeddings", "vision_embeddings_merger", "language_model"}): (
        "language_model",
        ImagesInPatches,
    ),
    frozenset(
        {
            "text_embeddings",
            "vision_embeddings",
            "vision_embeddings_pos",
            "vision_embeddings_merger",
            "language_model",
        }
    ): ("language_model", ImagesInPatches),
}


def _kind(manifest: ComponentsManifest, directory: Any) -> tuple[str, Any]:
    """Raises `PortError` for components of which no model of transformers is opened."""
    found = _KINDS.get(frozenset(manifest.components))
    if found is None:
        raise PortError(
            f"{directory} holds {', '.join(manifest.components)}, which no model of transformers is opened of here. "
            f"Load it:   paritas.load({str(directory)!r})"
        )
    return found


def _who_answers(port: pipeline.Port | Components[pipeline.Port], directory: Any) -> tuple[pipeline.Port, Any]:
    """(the port that a model is made of, what makes the one who answers for it: None where that is the port alone)."""
    if isinstance(port, pipeline.Port):
        return port, None
    main, kind = _kind(port.artifacts.manifest, directory)
    return port[main], functools.partial(kind, components=port)


def model_with(port: pipeline.Port | Components[pipeline.Port]) -> Any:
    """A port that is loaded already as a model of transformers, which is kept with it: it generates.

    Raises `PortError` for a port that is none of transformers, and `InputError` for a model that does not generate.
    """
    found = getattr(port, "_as_model", None)
    if found is None:
        artifact = port.artifacts if isinstance(port, Components) else port.artifact
        one, answers = _who_answers(port, artifact.directory)
        place = one.artifact.directory
        original = _class_of(one.manifest, place)
        config = _own(place)
        found = model_of(one, original, config, place, functools.partial(open_model, str(place)), answers)
        port._as_model = found  # type: ignore[union-attr]
    if not found.can_generate():
        raise InputError(f"{port!r} does not generate: {type(found).__name__} writes nothing. Call it instead.")
    return found


def _class_of(manifest: Manifest, directory: Any) -> Any:
    """The class of transformers that a port was made of. Raises `PortError` for one that is not its."""
    name = manifest.source.model_class
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute) if _CLASS.fullmatch(name) else None
    except (ImportError, AttributeError):
        found = None
    if found is None or not hasattr(found, "_from_config"):
        raise PortError(
            f"{directory} is a port of {name or 'an unknown class'}, which is no model of transformers. "
            f"Load it:   paritas.load({str(directory)!r})"
        )
    if not Path(directory, "config.json").is_file():
        raise PortError(f"{directory} has no config.json. Load it:   paritas.load({str(directory)!r})")
    return found


def _own(directory: Any) -> Any:
    """The configuration beside a port. Anyone may have written it: code that it names is not run, nor asked about."""
    return AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def _config(directory: Any, theirs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The port's configuration, with what was asked for that changes no network, and keywords that are none of its."""
    wanted = {name: value for name, value in theirs.items() if name not in _OF_READING}
    own = _own(directory)
    given = theirs.get("config")
    if isinstance(given, str | os.PathLike):
        given = AutoConfig.from_pretrained(given, local_files_only=True)
    config = own if given is None else given
    settable = {name: value for name, value in wanted.items() if hasattr(config, name)}
    for name, value in settable.items():
        setattr(config, name, value)
    if config is not own or settable:
        before = own if given is not None else _own(directory)
        old, new = ({k: v for k, v in c.to_dict().items() if k not in _OF_CALLS} for c in (before, config))
        if len(old.get("id2label") or ()) == len(new.get("id2label") or ()):  # other names of the same classes
            for name in ("id2label", "label2id"):
                old.pop(name, None), new.pop(name, None)
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k) and not k.endswith("_token_id"))
        if changed:
            listed = ", ".join(f"{name}={new.get(name)!r} (it was made with {old.get(name)!r})" for name in changed[:3])
            raise InputError(
                f"This port's network is fixed: {listed}. Load the original with that, and port it again:   "
                "paritas.port(model)"
            )
    return config, {name: value for name, value in wanted.items() if name not in settable}


def _check_class(asked: Any, original: Any, config: Any, manifest: Manifest, directory: Any) -> None:
    """Raise `InputError` for a class that the port is not of."""
    asked = original_class(asked)
    if isinstance(asked, type) and issubclass(original, asked):
        return
    mapping = getattr(asked, "_model_mapping", None)
    would: Any = ()
    if mapping is not None:
        try:
            would = mapping[type(config)]
        except KeyError:
            would = ()
        would = would if isinstance(would, tuple | list) else (would,)
        if original in would:
            return
    be = f", and {asked.__name__} would be {would[0].__name__}" if would else f", and not of {asked.__name__}"
    raise InputError(
        f"{directory} is a port of {original.__name__}{be}. Open it as {original.__name__}, or port the other class: "
        f"{how_again(manifest).replace('paritas port ', f'paritas port --class {asked.__name__} ')}"
    )


def _check_keywords(manifest: Manifest, given: Mapping[str, Any], unused: Mapping[str, Any]) -> None:
    """Raise one `InputError` for everything that was asked for and that the port is not."""
    wrong = []
    for name, has in (
        ("engine", manifest.engine),
        ("target", manifest.target),
        ("weights", str(manifest.settings.get("weights", ""))),
    ):
        asked = given.get(name)
        if asked and name == "weights":
            asked = weights_of(asked)[0].text
        if asked and asked != has:
            wrong.append(f"{name}={asked!r} (it has {has or 'those of the original'})")
    dtype = given.get("dtype")
    if isinstance(dtype, torch.dtype) and str(dtype).removeprefix("torch.") != manifest.dtype:
        wrong.append(f"dtype={dtype} (it computes in {manifest.dtype})")
    device_map = given.get("device_map")
    devices = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    if not all(device is None or str(device) in ("cpu", "auto") for device in devices):
        wrong.append(f"device_map={device_map!r} (say engine_device= as OpenVINO names it: CPU, GPU, NPU)")
    wrong += [f"{name}={value!r}" for name, value in unused.items() if not name.startswith("_") and value is not None]
    if wrong:
        raise InputError(
            f"This port is not what was asked for: {'; '.join(wrong)}. Port the original again with that: "
            f"{how_again(manifest)}"
        )
