# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint is (a directory, the hub, the hub's cache) and whether its files are whole."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from paritas import files
from paritas.errors import SourceError, first_line
from paritas.program import Source

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"
_WEIGHTS = re.compile(r"(model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin)(\.index\.json)?")
_MODULE = re.compile(r"\d+_[A-Za-z]\w*/[^/]+")
_SMALL = (".json", ".txt", ".model", ".jinja", ".vocab", ".bpe", ".spm", ".merges", ".tiktoken")


@dataclasses.dataclass(frozen=True)
class Place:
    """A checkpoint on this machine: the directory with its config.json, and the source it is of."""

    directory: Path
    source: Source


def _at_home(path: Path) -> str:
    """The path as `locate` finds it again: "~/models/bert", as a port that travels need not say whose home that was."""
    home = Path("~").expanduser()
    inside = home.is_absolute() and home != Path(home.anchor) and path.is_relative_to(home.resolve())
    return f"~/{path.relative_to(home.resolve())}" if inside else str(path)


def locate(name: str | os.PathLike[str], *, revision: str | None = None, subfolder: str = "") -> Place:
    """The directory of a checkpoint, after downloading it where `name` is a hub id that is not cached.

    Raises `SourceError`, which says whether the id does not exist or the hub cannot be reached.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.is_dir():
        directory = _below(path, subfolder)
        return Place(directory, Source("directory", _at_home(path.resolve()), subfolder=subfolder))
    if path.is_file():
        raise SourceError(f"{text} is a file. Give the directory that holds it and its config.json.")
    if isinstance(name, os.PathLike) or not _HUB_ID.fullmatch(text) or text.startswith("~"):
        raise SourceError(f"There is no directory {text}.{_similar(path)}")
    directory, commit = _download(text, revision, subfolder)
    return Place(_below(directory, subfolder), Source("hub", text, commit, subfolder))


def listing(directory: Path, most: int = 10) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in directory.iterdir())
    return (", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")) or "nothing"


def _below(directory: Path, subfolder: str) -> Path:
    path = directory / subfolder
    if ".." in PurePosixPath(subfolder).parts or not path.is_dir():
        raise SourceError(f"{directory} has no directory {subfolder!r}. It holds: {listing(directory)}.")
    return path


def _similar(path: Path) -> str:
    try:
        names = [other.name for other in path.parent.iterdir() if other.is_dir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, 3)
    return f" Near it: {', '.join(str(path.parent / name) for name in close)}." if close else ""


# --- the hub -----------------------------------------------------------------------------------


def _download(name: str, revision: str | None, subfolder: str) -> tuple[Path, str]:
    """The snapshot of a hub id in the hub's cache, and its commit."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    cached = _cached(name, revision)
    if cached and revision and cached.name == revision and _complete(cached, subfolder):
        return cached, cached.name  # a commit never changes: no need to ask
    try:
        info = hub.HfApi().model_info(name, revision=revision, timeout=10)
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{name} is on the hub, but its authors ask for your agreement first. "
            f"Give it at https://huggingface.co/{name}, then   hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(f"{name} is on the hub, but has no revision {revision!r}.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise SourceError(
            f"There is no model {name} on the hub, and no directory of that name here. If it is private:   "
            f"hf auth login{_cached_like(name)}"
        ) from error
    except Exception as error:
        if cached and _complete(cached, subfolder):
            return cached, cached.name
        raise SourceError(_unreachable(name, revision, cached, error)) from error
    files = _wanted([sibling.rfilename for sibling in info.siblings or []], subfolder)
    if not any(_WEIGHTS.fullmatch(PurePosixPath(file).name) for file in files):
        names = sorted(sibling.rfilename for sibling in info.siblings or [])
        raise SourceError(f"{name} has no {_SAFE} or {_PICKLED}. It holds: {', '.join(names[:12]) or 'nothing'}.")
    try:
        directory = hub.snapshot_download(name, revision=info.sha or revision, allow_patterns=files)
    except Exception as error:
        raise SourceError(f"{name} could not be downloaded: {first_line(error).rstrip('.')}. Try again.") from error
    return Path(directory), str(info.sha or Path(directory).name)


def _wanted(names: Sequence[str], subfolder: str) -> list[str]:
    """Of a repository's files those that loading needs: one kind of weights, and what is small."""
    top = [name for name in names if str(PurePosixPath(name).parent) == (subfolder or ".")]
    small = [name for name in names if name.endswith(_SMALL) and len(PurePosixPath(name).parts) <= 3]
    weights = [name for name in names if _WEIGHTS.fullmatch(PurePosixPath(name).name) and not name.endswith(".json")]
    # Of weights below the top, only the ones of modules of sentence-transformers ("0_Transformer/", "2_Dense/").
    modules = [name for name in weights if name not in top and _MODULE.match(name)]
    weights = [name for name in weights if name in top or "Transformer" in name]
    safe = [name for name in weights if name.endswith(".safetensors")]
    return list(dict.fromkeys([*small, *(safe or weights), *modules]))


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, whole or not."""
    import huggingface_hub as hub

    try:
        return Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not there, or not whole; then a part of it may be  # noqa: BLE001 - whatever the hub's client raises
        found = hub.try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(found).parent if isinstance(found, str) else None


def _complete(snapshot: Path, subfolder: str) -> bool:
    directory = snapshot / subfolder
    if (directory / "modules.json").is_file():
        return True
    found = [path for path in directory.glob("*") if _WEIGHTS.fullmatch(path.name)] if directory.is_dir() else []
    return (directory / "config.json").is_file() and bool(found)


def _unreachable(name: str, revision: str | None, cached: Path | None, error: Exception) -> str:
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    state = f"only in part in the cache ({cached})" if cached else "not in the cache"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{name}{at} is {state}, and HF_HUB_OFFLINE forbids to ask the hub.{_cached_like(name)}"
    reason = first_line(error).rstrip(".")
    if isinstance(error, errors.HfHubHTTPError):
        return f"{name}{at} is {state}, and the hub answers with an error: {reason}. Try again later."
    near = f" There is no directory of that name either.{_similar(Path(name))}"
    return f"{name}{at} is {state}, and the hub cannot be reached: {reason}.{_cached_like(name)}{near}"


def _cached_like(name: str, most: int = 5) -> str:
    """What the cache has that resembles `name`, or else what it has."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE)
    try:
        folders = [path.name.removeprefix("models--") for path in root.iterdir() if path.name.startswith("models--")]
    except OSError:
        folders = []
    cached = sorted(folder.replace("--", "/") for folder in folders)
    tails = {model.rpartition("/")[2].lower(): model for model in cached}
    close = difflib.get_close_matches(name, cached, most) or [
        tails[tail] for tail in difflib.get_close_matches(name.rpartition("/")[2].lower(), tails, most)
    ]
    if close:
        return f" In the cache there is: {', '.join(close)}."
    return f" In the cache there are: {', '.join(cached[:most])}." if cached else f" The cache ({root}) is empty."


#: Ways of quantising whose weights transformers turns into plain ones while it loads them, where no GPU is.
_UNPACKED = frozenset({"fp8", "mxfp8", "mxfp4"})
#: Ways for which it needs a package, and does so too: how they are called in config.json, and the package.
_UNPACKED_BY = {"compressed-tensors": "compressed_tensors"}


def check_quantisation(directory: Path, config: Mapping[str, Any]) -> None:
    """Raise `SourceError` for a checkpoint whose weights are packed for kernels that no graph has: nothing is read."""
    said = config.get("quantization_config")
    text = config.get("text_config")
    said = said or (text.get("quantization_config") if isinstance(text, dict) else None)
    if not isinstance(said, dict):
        return
    method = str(said.get("quant_method") or ("bitsandbytes" if "load_in_8bit" in said else "an unknown method"))
    package = _UNPACKED_BY.get(method)
    if method in _UNPACKED or (package and importlib.util.find_spec(package)):
        return
    bits = said.get("bits") or (4 if said.get("load_in_4bit") else 8 if said.get("load_in_8bit") else None)
    install = f"transformers unpacks them with {package}, which is not installed, or p" if package else "P"
    raise SourceError(
        f"The weights in {directory} are quantised by {method}{f', {bits} bits' if bits else ''}: packed for kernels "
        f"of its own, which no graph has. {install}ort the checkpoint that it was made of, with "
        f'weights="{"int4" if bits == 4 else "int8"}".'
    )


# --- the files ---------------------------------------------------------------------------------


def check_weights(directory: Path, config: Mapping[str, Any]) -> None:
    """Say what is wrong with a checkpoint's weight files before anything reads them. Opens, never unpickles.

    Raises `SourceError` for none, for a shard that is missing, and for files that are cut off or no weights.
    """
    named = config.get("transformers_weights")
    first = [named] if isinstance(named, str) else [_SAFE, f"{_SAFE}.index.json", _PICKLED, f"{_PICKLED}.index.json"]
    found = next((directory / name for name in first if (directory / name).is_file()), None)
    if found is None:
        raise SourceError(_no_weights(directory))
    wrong = [problem for file in _shards(found) if (problem := _problem(file))]
    if wrong:
        raise SourceError(f"The weights in {directory} are damaged:\n  " + "\n  ".join(wrong) + "\nGet them again.")


def _no_weights(directory: Path) -> str:
    names = {path.suffix for path in directory.iterdir()}
    other = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX", ".ckpt": "another format"}
    kinds = [kind for suffix, kind in other.items() if suffix in names]
    only = f" There are only {' and '.join(kinds)} weights." if kinds else ""
    return f"{directory} has no weights: no {_SAFE} and no {_PICKLED}.{only} It holds: {listing(directory)}."


def safetensors_of(source: Source) -> list[Path]:
    """The files of a checkpoint's weights; [] where it has none of that format, or not all of them."""
    if source.kind == "module":
        return []
    root = locate(source.id, revision=source.revision or None, subfolder=source.subfolder).directory
    firsts = (root / _SAFE, root / f"{_SAFE}.index.json")
    found = next((_shards(first) for first in firsts if first.is_file()), [])
    return found if all(path.is_file() for path in found) else []


def _shards(first: Path) -> list[Path]:
    if not first.name.endswith(".index.json"):
        return [first]
    try:
        shards = sorted(set(files.json_of(first)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{first} is damaged: {error!r}. Get it again.") from error
    if outside := [name for name in shards if not isinstance(name, str) or PurePosixPath(name).name != name]:
        raise SourceError(f"{first} names weights outside its directory: {outside[0]!r}.")
    return [first.parent / name for name in shards]


def _problem(path: Path) -> str:
    """What is wrong with a weights file, or ""."""
    if not path.is_file():
        return f"{path.name} is missing, though the index names it"
    size = path.stat().st_size
    with open(files.opened(path, links=True), "rb") as file:
        head = file.read(256)
        if head.startswith(b"version https://git-lfs"):
            return f"{path.name} is a Git LFS pointer, not the weights. Fetch them:   git lfs pull"
        if path.suffix != ".safetensors":
            return _problem_of_pickle(path, head, size)
        length = int.from_bytes(head[:8], "little")
        if size < 8 or length > size - 8:
            return f"{path.name} is cut off or no safetensors: {length + 8} bytes of header, {size} in all"
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return f"{path.name} is no safetensors file: its header is not the JSON that it should be"
    if (want := 8 + length + end) != size:
        return f"{path.name} is {'cut off' if size < want else 'too long'}: {want} bytes expected, {size} found"
    return ""


def _problem_of_pickle(path: Path, head: bytes, size: int) -> str:
    if size == 0:
        return f"{path.name} is empty"
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"{path.name} is cut off: {size} bytes, without the end of its archive"
    return ""
