# SPDX-License-Identifier: Apache-2.0
"""What becomes a model's constants, in a file without a name until it is saved: not in memory."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

#: Bytes of an array that is not worth a file.
_SMALL = 1 << 16


class Spool:
    """Arrays in a file of `directory` that vanishes with them. held: what has to live as long."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - open as long as what was made of it
        self._end = 0
        self.held: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> np.ndarray:
        """The same numbers in the file's pages, which the system may take back. A small array stays where it is."""
        array = np.ascontiguousarray(array)
        if array.nbytes < _SMALL:
            return array
        self._file.seek(self._end)
        raw: Any = array.reshape(-1).view(np.uint8)
        self._file.write(raw)
        self._file.flush()
        # OpenVINO takes memory that may be written to only; nobody does, so that it stays the file's.
        pages = mmap.mmap(self._file.fileno(), array.nbytes, access=mmap.ACCESS_COPY, offset=self._end)
        unit = mmap.ALLOCATIONGRANULARITY
        self._end += -(-array.nbytes // unit) * unit
        return np.frombuffer(pages, array.dtype).reshape(array.shape)
