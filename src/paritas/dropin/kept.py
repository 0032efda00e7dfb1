# SPDX-License-Identifier: Apache-2.0
"""What ports are kept in the cache, of which models, and their removal. Needs neither torch nor an engine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas import files, store
from paritas.errors import InputError, ParitasError

#: Touched at each use.
USED = ".used"

#: What an entry says of itself, beside its port.
_ABOUT = "about.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A port that is kept. model: what it was loaded from, "" where it was made in memory."""

    place: Path
    model: str
    model_class: str
    call: str  # "computes", or "begins" and "goes on" of a generation
    engine: str
    weights: str
    bytes: int
    used: float  # seconds since 1970

    @property
    def name(self) -> str:
        """As `remove` takes it."""
        return self.place.name[:12]


def directory() -> Path | None:
    """Where ports are kept; None if `PARITAS_CACHE` is empty, which turns it off."""
    named = os.environ.get("PARITAS_CACHE")
    if named is not None:
        return Path(named).expanduser() if named else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paritas" / "ports"


def size_of(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def describe(place: Path, about: Mapping[str, str]) -> None:
    """Write beside a port what it is of."""
    store.replace_text(place / _ABOUT, json.dumps(dict(about), indent=1) + "\n")


def entries() -> list[Entry]:
    """What is kept, the last used first."""
    root = directory()
    if root is None or not root.is_dir():
        return []
    return sorted(_entries(root), key=lambda one: -one.used)


def _entries(root: Path) -> Iterator[Entry]:
    for place in root.iterdir():
        with contextlib.suppress(OSError, ParitasError):
            if place.is_symlink() or not (place / "port").is_dir():
                continue
            manifest = store.read(place / "port", verify_checksums=False).manifest
            about = _about(place)
            mark = place / USED
            yield Entry(
                place,
                str(about.get("model", manifest.source.id)),
                manifest.source.model_class.rpartition(".")[2],
                str(about.get("call", "")),
                manifest.engine,
                str(manifest.settings.get("weights", "")) or manifest.dtype,
                size_of(place),
                (mark if mark.exists() else place).stat().st_mtime,
            )


def _about(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(files.text(place / _ABOUT))
    except (OSError, ValueError):  # an older Paritas wrote none
        return {}
    return found if isinstance(found, dict) else {}


def chosen(names: Sequence[str]) -> list[Entry]:
    """The entries that are meant: by name, by model or by class. Raises `InputError` for what means none."""
    known = entries()
    found: dict[Path, Entry] = {}
    for name in names:
        meant = [
            one
            for one in known
            if name in (one.model, one.model_class, one.model.rstrip("/").rpartition("/")[2])
            or (len(name) >= 4 and one.place.name.startswith(name))
        ]
        if not meant:
            raise InputError(f"No port is kept of {name!r}. What there is:   paritas cache ls")
        found |= {one.place: one for one in meant}
    return list(found.values())


def remove(what: Sequence[Entry]) -> int:
    """Remove entries; how many bytes that was. A process that has one loaded goes on with it."""
    for one in what:
        shutil.rmtree(one.place, ignore_errors=True)
    return sum(one.bytes for one in what)
