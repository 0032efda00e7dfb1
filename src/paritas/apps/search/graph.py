# SPDX-License-Identifier: Apache-2.0
"""The graph of neighbours of usearch, in which near vectors are found without comparing all."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
from pathlib import Path
from typing import Any

#: Of the graph of neighbours: edges of each, and how far a search looks around while it is built and asked.
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 384


def made(dimensions: int, *, lookups: bool = True) -> Any:
    with contextlib.suppress(OSError):
        # usearch 2.26 brings a C++ library whose symbols whatever is loaded later takes for its own: OpenVINO 2026.4
        # then reads no model. Where the system's is there first, for all to see, that is the one.
        ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)
    from usearch.index import Index as Graph

    return Graph(
        ndim=dimensions,
        metric="cos",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
        enable_key_lookups=lookups,
    )


def ends(path: Path, length: int = 1 << 16) -> str:
    """sha256 of the beginning and the end of a file: what is looked at whenever it is opened."""
    with path.open("rb") as file:
        found = hashlib.sha256(file.read(length))
        file.seek(max(path.stat().st_size - length, 0))
        found.update(file.read(length))
    return found.hexdigest()


def digest(path: Path) -> str:
    """sha256 of all of it; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
