# SPDX-License-Identifier: Apache-2.0
"""Ports that are kept from one process to the next, so that a second start traces nothing.

They lie in `$PARITAS_CACHE`, by default `~/.cache/paritas/ports`, one directory each, named after everything that
the port depends on: weights, modules, attributes, configuration, code, signature, engine, versions. A model that holds
what has no description is not kept. When all of them are larger than `$PARITAS_CACHE_GIB` (20), those that were not
used for longest go. Several processes may use it at once: a port appears whole or not at all, and one that is gone or
broken is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from paritas import files, pipeline
from paritas.dropin.kept import USED, describe, size_of
from paritas.dropin.kept import directory as directory
from paritas.dropin.library import packages
from paritas.errors import ParitasError, PortError
from paritas.options import BuildOptions
from paritas.run.engine import about, versions

_warned: set[str] = set()


def place(root: Path, options: BuildOptions, content: Sequence[str], key: Any, sizes: Any) -> Path:
    """The directory of the port for calls of that key. content: what describes the model, whole."""
    lasting = about(options.engine).lasting(dict(options.config))
    parts = {
        "key": repr(key),
        "sizes": repr(sizes),
        # A dataset is in what is said of the weights, by its digest.
        "engine": dataclasses.astuple(
            dataclasses.replace(options, config=tuple(sorted(lasting.items())), calibration=None)
        ),
        "model": content,
        "versions": versions(("paritas", "torch", *packages(), about(options.engine).package)),
        "machine": platform.machine(),
    }
    return root / hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read(place: Path | None, options: BuildOptions) -> pipeline.Port | None:
    """The port that is kept there, on the device and with the properties of `options`; None if none is whole."""
    if place is None or not place.is_dir() or not _private(place):
        return None
    try:
        config = dict(options.config)
        port = pipeline.load_port(place / "port", mode=options.mode, device=options.device, ov_config=config)
    except ParitasError:  # another process removed it, or the disk did: it is made again
        shutil.rmtree(place, ignore_errors=True)
        return None
    _touch(place)
    return port


def write(port: pipeline.Port, place: Path | None, told: Mapping[str, str] | None = None) -> None:
    """Keep the port, and what is told of it. A full or read-only disk costs the next start its time."""
    if place is None:
        return
    with contextlib.suppress(OSError, PortError):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if files.private(place.parent.resolve()):
            return
        if place.is_symlink() or files.private(place):
            _discard(place)
        place.mkdir(exist_ok=True, mode=0o700)
        if not (place / "port").exists():
            port.save(place / "port")
        describe(place, told or {})
        _touch(place)
        _shrink(place.parent, place)


def _private(place: Path) -> bool:
    """Whether only this user can have written what is kept there: else another model may answer for this one."""
    root = place.parent.resolve()
    if reason := files.private(root):
        if str(root) not in _warned:
            _warned.add(str(root))
            warnings.warn(
                f"Ports that are kept in {root} are not used, since it {reason}. Make it yours alone:   "
                f"chmod go-w {root}   or name another directory in PARITAS_CACHE.",
                RuntimeWarning,
                stacklevel=2,
            )
        return False
    return not (files.private(place) or files.foreign(place))


def _discard(place: Path) -> None:
    """Remove what others may have put there; a link, and not what it leads to."""
    if place.is_symlink():
        place.unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of every tensor: of what it is, not of where it came from. "" if one of them has no bytes of its own."""

    def one(item: tuple[str, torch.Tensor]) -> bytes:
        name, value = item
        # Flat: of a kernel of one pixel, channels may lie last in memory that counts as contiguous.
        raw: Any = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        head = f"{name} {value.dtype} {tuple(value.shape)} ".encode()
        return hashlib.sha256(head + hashlib.sha256(raw).digest()).digest()

    if any(t.layout is not torch.strided or t.is_meta or t.is_quantized for t in tensors.values()):
        return ""
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock
        return hashlib.sha256(b"".join(pool.map(one, tensors.items()))).hexdigest()


def _touch(place: Path) -> None:
    with contextlib.suppress(OSError):
        (place / USED).touch()


def _shrink(root: Path, but: Path) -> None:
    most = float(os.environ.get("PARITAS_CACHE_GIB") or 20) * 2**30
    found = []
    for one in root.iterdir():
        with contextlib.suppress(OSError):
            found.append(((one / USED).stat().st_mtime, size_of(one), one))
    total = sum(size for _, size, _ in found)
    for _, size, one in sorted(found):
        if total <= most:
            return
        if one != but:
            shutil.rmtree(one, ignore_errors=True)
            total -= size
