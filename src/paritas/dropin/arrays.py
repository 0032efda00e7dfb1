# SPDX-License-Identifier: Apache-2.0
"""Writing into a weight through NumPy, which leaves no version: `weight.detach().numpy()[:] = 0`.

Whoever calls `.numpy()` on memory that is watched may write into it for as long as the array lives. So a checksum is
taken when it is handed out, and taken again before each call of the model, until the array is gone. Of weights that
nobody took as arrays nothing is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

#: Where watched memory begins.
_watched: set[int] = set()

#: Watched memory that was handed out, by where it begins.
_handed: dict[int, _Handed] = {}

#: Memory that was found written, and how often.
_written: dict[int, int] = {}

_local = threading.local()
_own: Any = torch.Tensor.numpy


@dataclasses.dataclass
class _Handed:
    checksum: int
    arrays: list[Any]


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Arrays that are made while it is open, in this thread, are only read."""
    before = getattr(_local, "ours", False)
    _local.ours = True
    try:
        yield
    finally:
        _local.ours = before


def watch_arrays(storages: Mapping[int, torch.Tensor]) -> None:
    """From now on arrays of this memory are noted."""
    _watched.update(storages)
    if torch.Tensor.numpy is _own:
        torch.Tensor.numpy = _numpy  # type: ignore[method-assign, assignment]


def storages_of(tensors: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """The memory of these tensors, by where it begins."""
    return {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors if tensor.device.type == "cpu"}


def written(storages: Mapping[int, torch.Tensor]) -> tuple[tuple[int, int], ...]:
    """How often each of these was found written through arrays; looks at those that are handed out."""
    for place in _handed.keys() & storages.keys():
        handed = _handed[place]
        found = _checksum(storages[place])
        if found != handed.checksum:
            handed.checksum = found
            _written[place] = _written.get(place, 0) + 1
        if not any(array() is not None for array in handed.arrays):
            del _handed[place]
    return tuple((place, _written[place]) for place in storages.keys() & _written.keys()) if _written else ()


def _numpy(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    array = _own(self, *args, **kwargs)
    if _watched and not getattr(_local, "ours", False) and type(self) in (torch.Tensor, torch.nn.Parameter):
        place = self.untyped_storage().data_ptr()
        if place in _watched and array.nbytes:
            known = _handed.get(place)
            if known is None:
                known = _handed[place] = _Handed(_checksum(self), [])
            known.arrays = [one for one in known.arrays if one() is not None]
            known.arrays.append(weakref.ref(array))
    return array


def _checksum(tensor: torch.Tensor) -> int:
    memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    return zlib.crc32(_own(memory))
