# SPDX-License-Identifier: Apache-2.0
"""Writing into a weight's memory past torch, which leaves no version: through its storage, an array that was there
before the weight, another library.

Before each call some numbers of each weight are read, which are spread over its rows and columns, and all of a small
one. What writes a whole weight, a sixteenth of its rows or half of its columns meets one of them. In files that are
mapped nothing is read, which would bring their pages into memory: the system says which of them are copies that were
written to.
"""

from __future__ import annotations

import math
import mmap
import sys
import zlib
from collections.abc import Iterable
from ctypes import string_at
from typing import Any

import numpy as np
import torch

from paritas.dropin.memory import mapped_files, pages_of, states_of_pages

#: Of so many numbers or fewer all are read; of more, half to twice as many.
PLACES = 32

#: How far it is from a place to the next in columns: a fraction that no number of steps makes whole.
_ACROSS = (math.sqrt(5) - 1) / 2

#: Of a page's state: a copy of a file's page, which was written to.
_IN_MEMORY, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61


class Samples:
    """What to read of tensors in memory. It may be read while they are alive, and where they were."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        here = [t for t in tensors if _has_memory(t)]
        # Memory that torch may make larger or smaller is none of a file.
        apart = [t for t in here if not t.untyped_storage().resizable()]
        files = mapped_files(private=True) if apart and _knows_pages() else None
        mapped = {id(t): t for t in apart if files is not None and files.holds(t)}
        by_size: dict[int, list[np.ndarray]] = {}
        for tensor in here:
            if id(tensor) not in mapped:
                by_size.setdefault(tensor.element_size(), []).append(_places(tensor))
        self._places = list(by_size.values())
        self._pages = [pages_of(t) for t in mapped.values()]
        self._stretches = _joined(self._pages)

    def taken(self) -> bytes:
        """What is there now: another one after a write that met a place."""
        found = [np.concatenate(places, axis=None).tobytes() for places in self._places]
        return b"".join([*found, *self._written()])

    def _written(self) -> list[bytes]:
        """Of what lies in files, which pages were written to, and of some of these what is in them."""
        found = []
        for first, states in states_of_pages(self._stretches):
            in_memory = (states & np.uint64(_IN_MEMORY | _SWAPPED)) != 0
            written = in_memory & ((states & np.uint64(_OF_FILE)) == 0)
            if written.any():
                found.append(np.packbits(written).tobytes())
                inside = ((start - first, count) for start, count in self._pages if 0 <= start - first < len(states))
                for start, count in inside:
                    pages = np.flatnonzero(written[start : start + count])
                    some = pages[:: max(1, len(pages) // PLACES)] + (first + start)
                    found += [b"%08x" % zlib.crc32(string_at(int(p) * mmap.PAGESIZE, mmap.PAGESIZE)) for p in some]
        return found


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether it may be read where it says that it is."""
    if tensor.device.type != "cpu" or not tensor.numel() or not tensor.data_ptr():
        return False
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + last + 1) * tensor.element_size() <= tensor.untyped_storage().nbytes()


class _Memory:
    """Memory as an array of NumPy, without holding it: who counts a weight's users would find one more."""

    def __init__(self, address: int, size: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (address, True),
            "typestr": "<c16" if size == 16 else f"<u{size}",
            "shape": shape,
            "strides": tuple(step * size for step in steps),
        }


def _places(tensor: torch.Tensor) -> np.ndarray:
    address, size, count = tensor.data_ptr(), tensor.element_size(), tensor.numel()
    shape, steps = tuple(tensor.shape), tuple(tensor.stride())
    if count > PLACES and _is_dense(shape, steps):
        row = max(steps)
        step = _step(count, row if row > 1 else count)
        shape, steps = (-(-count // step),), (step,)
    elif count > PLACES:
        each = max(2, int(PLACES ** (1 / len(shape))))
        apart = [n // each | 1 for n in shape]
        steps = tuple(step * one for step, one in zip(steps, apart, strict=True))
        shape = tuple(-(-n // one) for n, one in zip(shape, apart, strict=True))
    memory: Any = _Memory(address, size, shape, steps)
    return np.asarray(memory)


def _step(count: int, row: int) -> int:
    """From one place to the next, in numbers that lie behind one another in rows of so many."""
    rows, across = count // row, _ACROSS * row
    whole = rows // PLACES * row if rows > PLACES else 0
    while not whole and count / across < PLACES / 2:
        across /= 2
    step = max(1, round(across))
    while math.gcd(step, row) > 1:  # it would come back to the same columns
        step += 1
    return whole + step


def _is_dense(shape: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    """Whether numbers lie behind one another without gaps, in any order of dimensions."""
    expected = 1
    for step, size in sorted(zip(steps, shape, strict=True)):
        if size > 1:
            if step != expected:
                return False
            expected *= size
    return True


def _knows_pages() -> bool:
    """Whether the system says of which pages copies were made."""
    try:
        with open("/proc/self/pagemap", "rb"):
            return sys.platform == "linux"
    except OSError:
        return False


def _joined(pages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same pages in few stretches: neighbours are one."""
    found: list[tuple[int, int]] = []
    for first, count in sorted(pages):
        if found and first <= found[-1][0] + found[-1][1]:
            begin, length = found.pop()
            first, count = begin, max(length, first + count - begin)
        found.append((first, count))
    return found
