# SPDX-License-Identifier: Apache-2.0
"""Files of weights, read without executing anything of them, and written: PyTorch's, TorchScript archives,
safetensors and MindSpore's .ckpt."""

from __future__ import annotations

import contextlib
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from paritas import leftovers
from paritas.dtypes import dtype_name
from paritas.errors import SourceError, first_line
from paritas.extras import install
from paritas.run.values import from_numpy, to_numpy

Weights = dict[str, torch.Tensor]

#: The kinds of files, by how their names end.
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")

#: MindSpore's names of what PyTorch calls otherwise, where its own layers hold them.
_OF_MINDSPORE = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embedding_table": "weight",
}

#: Where training libraries keep the weights in a checkpoint, and what they put before each name.
_INSIDE, _BEFORE = "state_dict", "module."

_CLASS = re.compile(r"^class (\w+)\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]", re.M)


def read(path: str | os.PathLike[str]) -> Weights:
    """The weights in a file, by name: on the CPU, in their own dtypes.

    Nothing of it is executed: of a TorchScript archive the tensors are read and its code is not. Raises `SourceError`
    for a file that is not there, is damaged, is of no known kind or holds anything but tensors.
    """
    place = Path(path)
    if not place.is_file():
        raise SourceError(f"There is no file {place}.")
    if place.suffix == ".safetensors":
        return _safetensors(place)
    if place.suffix == ".ckpt" and not zipfile.is_zipfile(place):
        return _of_mindspore(place)
    if is_archive(place):
        return _of_archive(place)
    try:
        found = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SourceError(_unreadable(place, error)) from error
    return _plain(found, place)


def write(weights: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write them beside, and move them into place. Raises `SourceError` for a kind that is none."""
    place = Path(path)
    beside = leftovers.beside(place, "tmp")
    tensors = {name: value.detach().contiguous() for name, value in weights.items()}
    try:
        if place.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file({name: value.clone() for name, value in tensors.items()}, beside)
        elif place.suffix == ".ckpt":
            _write_mindspore(tensors, beside)
        elif place.suffix in SUFFIXES:
            torch.save(tensors, beside)
        else:
            raise SourceError(f"{place.name} ends in none of {', '.join(SUFFIXES)}, which say what is to be written.")
        mask = os.umask(0o077)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)  # the libraries' own writers leave files that only this user, or nobody, may write
        os.replace(beside, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a program of TorchScript with its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextlib.contextmanager
def for_torch(path: str | os.PathLike[str], kinds: tuple[str, ...] = (".safetensors", ".pt")) -> Iterator[str]:
    """A file of the kinds that another reader knows: that one, or for a while the first of them, of the same weights.

    An archive of TorchScript is none of them, and neither is a file that holds more than tensors: `SourceError`.
    """
    place = Path(path)
    if place.suffix == ".safetensors" in kinds:
        yield str(place)
        return
    weights = read(place)
    if place.suffix not in (".safetensors", ".ckpt") and not is_archive(place):
        yield str(place)
        return
    with leftovers.temporary("weights") as folder:
        other = folder / f"weights{kinds[0]}"
        write(weights, other)
        yield str(other)


def _plain(found: Any, place: Path) -> Weights:
    if isinstance(found, Mapping) and isinstance(found.get(_INSIDE), Mapping):
        found = found[_INSIDE]
    if not isinstance(found, Mapping) or not found:
        raise SourceError(f"{place} holds a {type(found).__name__}, and no weights by name.")
    wrong = [str(name) for name, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise SourceError(f"{place} holds more than weights: {', '.join(wrong[:3])}{more} are no tensors.")
    named = {str(name): value for name, value in found.items()}
    if all(name.startswith(_BEFORE) for name in named):
        named = {name.removeprefix(_BEFORE): value for name, value in named.items()}
    return named


def _unreadable(place: Path, error: Exception) -> str:
    refused = sorted(set(re.findall(r"GLOBAL (\S+) (?:was|whose)", str(error))))
    if refused:
        return (
            f"{place} holds objects that are not unpickled, because they can run code: {', '.join(refused)}. "
            "Only tensors by name are read. If you trust the file, write its weights alone where it comes from: "
            "torch.save(model.state_dict(), FILE)."
        )
    return f"{place} cannot be read, so it is damaged or no file of weights: {first_line(error)[:200]}"


def _safetensors(place: Path) -> Weights:
    from safetensors.torch import load_file

    try:
        return _plain(load_file(place), place)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{place} is no whole safetensors file: {first_line(error)[:200]}") from error


# --- TorchScript ---------------------------------------------------------------------------------------------


class _Module:
    """What becomes of a module of an archive: its attributes, and no code."""


def _tagged(value: Any, _tag: Any) -> Any:
    return value


def _listed(value: Any) -> Any:
    return list(value)


def _of_archive(place: Path) -> Weights:
    """Of each module what its source declares as parameter or buffer: other tensors are constants of its code."""
    try:
        with zipfile.ZipFile(place) as archive:
            prefix = next(n for n in archive.namelist() if n.endswith("/constants.pkl")).rpartition("/")[0]
            kept = _declared(archive, prefix)
            opcodes = pickletools.genops(archive.read(f"{prefix}/data.pkl"))
            names = {str(arg).replace(" ", ".") for op, arg, _ in opcodes if op.name == "GLOBAL"}
            classes = {n: type(n, (_Module,), {}) for n in names if n.startswith("__torch__.")}
            lists = [(_listed, n) for n in names if re.fullmatch(r"torch\.jit\._pickle\.build_\w+list", n)]
            known: list[Any] = [*((cls, n) for n, cls in classes.items()), *lists]
            known.append((_tagged, "torch.jit._pickle.restore_type_tag"))
            with leftovers.temporary("weights") as folder, torch.serialization.safe_globals(known):
                data = _data_of(archive, prefix, folder / "data.pt")
                root = torch.load(data, map_location="cpu", weights_only=True)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(_unreadable(place, error)) from error
    found: Weights = {}
    _gather(root, "", kept, {cls: name for name, cls in classes.items()}, found)
    return _plain(found, place)


def _data_of(archive: zipfile.ZipFile, prefix: str, place: Path) -> Path:
    """The archive's tensors as a file that is no program."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as other:
        for name in archive.namelist():
            part = name.removeprefix(f"{prefix}/")
            if part in ("data.pkl", "version", "byteorder") or part.startswith("data/"):
                with archive.open(name) as source, other.open(f"{prefix}/{part}", "w", force_zip64=True) as target:
                    while block := source.read(1 << 22):
                        target.write(block)
    return place


def _declared(archive: zipfile.ZipFile, prefix: str) -> dict[str, set[str]]:
    """Class -> the names of its parameters and buffers, as its source says."""
    found: dict[str, set[str]] = {}
    for name in archive.namelist():
        if name.startswith(f"{prefix}/code/") and name.endswith(".py"):
            module = name.removeprefix(f"{prefix}/code/").removesuffix(".py").replace("/", ".")
            text = archive.read(name).decode("utf-8", "replace")
            for cls, parameters, buffers in _CLASS.findall(text):
                found[f"{module}.{cls}"] = set(re.findall(r'"([^"]*)"', parameters + buffers))
    return found


def _gather(module: Any, path: str, kept: Mapping[str, set[str]], names: Mapping[type, str], found: Weights) -> None:
    own = kept.get(names.get(type(module), ""), set())
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            if name in own:
                found[f"{path}{name}"] = value
        elif isinstance(value, _Module):
            _gather(value, f"{path}{name}.", kept, names, found)


# --- MindSpore -----------------------------------------------------------------------------------------------


def _of_mindspore(place: Path) -> Weights:
    mindspore = _mindspore(place)
    try:
        found = mindspore.load_checkpoint(str(place))
    except Exception as error:
        raise SourceError(f"{place} is no whole checkpoint of MindSpore's: {first_line(error)[:200]}") from error
    weights = {
        _as_in_torch(name): from_numpy(to_numpy(name, value), "torch", str(value.dtype).lower())
        for name, value in found.items()
    }
    return _plain(weights, place)


def _as_in_torch(name: str) -> str:
    before, dot, last = name.rpartition(".")
    return f"{before}{dot}{_OF_MINDSPORE.get(last, last)}"


def _write_mindspore(tensors: Mapping[str, torch.Tensor], place: Path) -> None:
    mindspore = _mindspore(place)
    named = [
        {"name": name, "data": from_numpy(to_numpy(name, value), "mindspore", dtype_name(value.dtype))}
        for name, value in tensors.items()
    ]
    other = place.with_name(f"{place.name}.ckpt")  # MindSpore insists on how a name ends
    try:
        mindspore.save_checkpoint(named, str(other))
        os.replace(other, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            other.chmod(0o600)  # which it has made read-only
            other.unlink()


def _mindspore(place: Path) -> Any:
    try:
        import mindspore
    except ImportError:
        raise SourceError(f"{place.name} is MindSpore's, which is not installed: {install('mindspore')}") from None
    return mindspore
