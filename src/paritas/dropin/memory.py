# SPDX-License-Identifier: Apache-2.0
"""A model's weights while an engine computes in its place: in files that are mapped, of which no page is in memory.

They are still the model's own tensors. Whoever reads one, to save the model or to make another port, gets its pages
from the file again; what is written into one is a copy of that page, which stays in memory.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import gc
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

#: Bytes of a tensor from which on it is worth pages of its own.
_LEAST = 1 << 16

#: Of a page in `/proc/self/pagemap`: present, not swapped, of a file and not a copy that was written to.
_CLEAN, _STATE = 0b101, 61


def large_in_memory(model: torch.nn.Module) -> list[torch.Tensor]:
    """The large weights of a model that lie in memory and that nobody holds a second view of.

    A view would go on with the memory that the weight was in before, and what is written into it would be lost.
    """
    files, found = mapped_files(), {}
    for tensor in (*model.parameters(), *model.buffers()):
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"
        if not plain or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_inference():
            continue
        storage = tensor.untyped_storage()
        whole = tensor.is_contiguous() and tensor.nbytes == storage.nbytes() >= _LEAST
        # Its own use of the storage, and that of the name in the line above.
        if whole and torch._C._storage_Use_Count(storage._cdata) == 2 and not files.holds(tensor):
            found[id(tensor)] = tensor
    return list(found.values())


def move_to_file(tensors: list[torch.Tensor]) -> None:
    """Put tensors into a file without a name, which is gone with the last of them.

    Each keeps its place in its model: the object is the same, and so are its values. Raises `OSError` for a full disk,
    and where there is none that temporary files may be on.
    """
    folder = _on_disk((tempfile.gettempdir(), "/var/tmp"))
    page, places, at = mmap.PAGESIZE, [], 0
    for tensor in tensors:
        places.append(at)
        at += -(-tensor.nbytes // page) * page
    with tempfile.TemporaryFile(prefix="paritas-weights-", dir=folder) as file:
        for tensor, place in zip(tensors, places, strict=True):
            file.seek(place)
            file.write(_bytes_of(tensor).numpy().data)
        file.truncate(at)
        file.flush()
        memory = mmap.mmap(file.fileno(), at, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with torch.inference_mode(False):
        for tensor, place in zip(tensors, places, strict=True):
            raw = torch.frombuffer(memory, dtype=torch.uint8, count=tensor.nbytes, offset=place)
            tensor.data = raw.view(tensor.dtype).view(tensor.shape)


def _on_disk(folders: Sequence[str]) -> str:
    """The first folder that is not memory itself, as `/tmp` is on some systems: a file there would free nothing."""
    kinds = _file_systems()
    for folder in folders:
        if os.access(folder, os.W_OK) and kinds.get(os.stat(folder).st_dev) not in ("tmpfs", "ramfs"):
            return folder
    what = f"{' and '.join(folders)} are memory themselves, or cannot be written to: let TMPDIR name a folder on a disk"
    raise OSError(errno.ENODEV, what)


def _file_systems() -> dict[int, str]:
    """What is mounted, by the device that a file's status names; nothing where the system does not say."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            head, _, tail = line.partition(" - ")
            major, minor = head.split()[2].split(":")
            found[os.makedev(int(major), int(minor))] = tail.split()[0]
    return found


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def let_go(model: torch.nn.Module) -> None:
    """Free the memory of all pages of a model's weights that are in a file as they were.

    Nothing happens where the system does not say which these are.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            _let_go({id(t): t for t in (*model.parameters(), *model.buffers())}.values())


def _let_go(tensors: Iterable[torch.Tensor]) -> None:
    files, page, advise = mapped_files(), mmap.PAGESIZE, ctypes.CDLL(None).madvise
    plain = (tensor for tensor in tensors if type(tensor) in (torch.Tensor, torch.nn.Parameter))
    for first, states in states_of_pages([pages_of(tensor) for tensor in plain if files.holds(tensor)]):
        for start, stop in _runs((states >> np.uint64(_STATE)) & np.uint64(0b111) == _CLEAN):
            advise(ctypes.c_void_p((first + start) * page), ctypes.c_size_t((stop - start) * page), ctypes.c_int(4))


def pages_of(tensor: torch.Tensor) -> tuple[int, int]:
    """The first page of a tensor's memory, and how many it has."""
    first = tensor.data_ptr() // mmap.PAGESIZE
    return first, -(-(tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE) - first


def states_of_pages(stretches: Sequence[tuple[int, int]]) -> Iterator[tuple[int, np.ndarray]]:
    """(first page, what Linux says of each page) of each stretch. Raises `OSError` where it says nothing."""
    if not stretches:
        return
    with open("/proc/self/pagemap", "rb", buffering=0) as pages:
        for first, count in stretches:
            pages.seek(first * 8)
            yield first, np.frombuffer(pages.read(count * 8), np.uint64)


def trim() -> None:
    """Give back to the system what the allocator keeps of freed memory: a capture frees many small objects."""
    gc.collect()
    if sys.platform == "linux" and (give_back := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        give_back(0)


def _runs(chosen: np.ndarray) -> Iterable[tuple[int, int]]:
    """From where to where an array is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


class _Files:
    """Where files are mapped into this process."""

    def __init__(self, bounds: list[tuple[int, int]]) -> None:
        self._lows, self._highs = [low for low, _ in bounds], [high for _, high in bounds]

    def holds(self, tensor: torch.Tensor) -> bool:
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not tensor.nbytes:
            return False
        start = tensor.data_ptr()
        at = bisect.bisect_right(self._lows, start) - 1
        return at >= 0 and start + tensor.nbytes <= self._highs[at]


def mapped_files(*, private: bool = False) -> _Files:
    """Files on a disk, also those that have no name any more; neighbouring pieces of one are one.

    private: only those whose pages are copied when they are written to.
    """
    found: list[tuple[int, int]] = []
    if sys.platform == "linux":
        with open("/proc/self/maps") as maps:
            for line in maps:
                bounds, may, _, _, inode, *path = line.split(maxsplit=5)
                if (
                    (private and not may.endswith("p"))
                    or inode == "0"
                    or not path
                    or path[0].startswith(("/dev/", "/memfd:", "/SYSV"))
                ):
                    continue
                low, high = (int(number, 16) for number in bounds.split("-"))
                if found and found[-1][1] == low:
                    low = found.pop()[0]
                found.append((low, high))
    return _Files(found)


# --- one network at a time -----------------------------------------------------------------------------------


class _Session(Protocol):
    def close(self) -> None: ...


class Turns:
    """Whose networks have the memory: one holder at a time, the others are told to give it back."""

    def __init__(self) -> None:
        self._holder: Callable[[], None] | None = None
        self._lock = threading.RLock()  # what computes is not to be closed by another thread's turn

    @contextlib.contextmanager
    def take(self, rest: Callable[[], None]) -> Iterator[None]:
        """It is the caller's turn while this is open. rest: gives its memory back, called when it is another one's."""
        with self._lock:
            before, self._holder = self._holder, rest
            if before is not None and before != rest:
                before()
                trim()
            yield


class Resting:
    """A session that is opened when it is used, and opened again after it was closed."""

    def __init__(self, open_it: Callable[[], Any], session: _Session | None = None) -> None:
        self._open_it, self._session = open_it, session

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._opened(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._opened(), name, value)

    def _opened(self) -> Any:
        if self._session is None:
            self._session = self._open_it()
        return self._session

    @property
    def precision(self) -> str:
        found: str = self._opened().precision
        return found

    def run(self, feed: Any) -> list[np.ndarray]:
        found: list[np.ndarray] = self._opened().run(feed)
        return found

    def close(self) -> None:
        """Free the engine's memory until it is used again."""
        session, self._session = self._session, None
        if session is not None:
            session.close()
