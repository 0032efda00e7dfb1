# SPDX-License-Identifier: Apache-2.0
"""Weights that stay in the checkpoint's files: a model is captured without them, and engines read them one by one.

The checkpoint of a large model is in half precision, and the model is captured in float32: in memory it would be twice
its files. What a graph is does not depend on the numbers in a matrix, so that for a capture, which runs the model on a
few tokens, such a matrix is a stretch of random numbers which all of them share. The matrices themselves are views of
the files, mapped into memory, whose pages the system takes back. `restore` puts them in their place where values
matter.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from paritas.program import Program

#: Bytes of a checkpoint from which on its weights stay in its files.
LARGE = 1 << 28
#: Elements of a weight that does.
_MATRIX = 1 << 16

#: What `mmap` says to put a file in the place of memory, for which Python has no name: Linux's, and macOS's.
_FIXED = 0x10

HALF = (torch.bfloat16, torch.float16)

#: Bytes of random numbers that repeat: pages, by a prime so that no two neighbouring rows are alike, which fit into a
#: processor's cache.
_TILE = 2039 * mmap.PAGESIZE
#: As large as weights are when a training begins.
_SPREAD = 0.02


class _Shared:
    """What stands in for the matrices of one model: the pages of one tile, again and again.

    held: the address of a stand-in -> what the checkpoint has. The memory lives as long as a tensor that is a view of
    it, and so does this.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self.held: dict[int, torch.Tensor] = {}
        self._memory = weakref.ref(memory)
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        with tempfile.TemporaryFile() as file:
            numbers = torch.empty(_TILE // 4).normal_(0, _SPREAD, generator=torch.Generator().manual_seed(0))
            file.write(numbers.numpy().tobytes())
            file.flush()
            for start in range(0, len(memory), _TILE):
                _map(whole.data_ptr() + start, min(_TILE, len(memory) - start), file.fileno())

    def tensor(self) -> torch.Tensor:
        memory = self._memory()
        assert memory is not None
        return torch.frombuffer(memory, dtype=torch.float32)

    def release(self) -> None:
        memory = self._memory()
        if memory is not None and hasattr(mmap, "MADV_DONTNEED"):
            memory.madvise(mmap.MADV_DONTNEED)


def _map(address: int, size: int, file: int) -> None:
    """Put the first bytes of a file in the place of memory that is there already."""
    own = ctypes.CDLL(None, use_errno=True).mmap
    own.restype = ctypes.c_void_p
    own.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
    how = mmap.MAP_PRIVATE | _FIXED
    if own(address, size, mmap.PROT_READ | mmap.PROT_WRITE, how, file, 0) != address:
        raise OSError(ctypes.get_errno(), "mmap")


#: Of every model in this process that has stand-ins, or had: by the memory that these share.
_all: weakref.WeakKeyDictionary[mmap.mmap, _Shared] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def kept_in_files(directory: Path, wanted: torch.dtype | None) -> Iterator[Callable[[torch.nn.Module], None]]:
    """While a checkpoint is loaded inside, its large half-precision matrices keep the dtype and the pages of its files.

    What this yields is called with the loaded model: it puts float32 stand-ins in their place.
    """
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if wanted != torch.float32 or size < LARGE or sys.platform == "win32":
        yield lambda model: None
        return
    from transformers import core_model_loading as loading

    own, kept = getattr(loading, "_materialize_copy", None), set[int]()
    if own is None:  # a transformers that loads otherwise: then all of it is read into memory
        yield lambda model: None
        return

    def materialize(tensor: Any, device: Any = None, dtype: Any = None) -> torch.Tensor:
        found = tensor[...]
        if dtype is torch.float32 and found.dtype in HALF and found.ndim > 1 and found.numel() >= _MATRIX:
            dtype = found.dtype
            kept.add(found.data_ptr())
        return found.to(device=device, dtype=dtype)

    loading._materialize_copy = materialize
    try:
        yield lambda model: _stand_in(model, kept)
    finally:
        loading._materialize_copy = own


def _stand_in(model: torch.nn.Module, kept: set[int]) -> None:
    large: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.dtype in HALF and parameter.numel() >= _MATRIX and parameter.is_contiguous():
            large.append(parameter)
        elif parameter.dtype in HALF:
            parameter.data = parameter.data.float()
    for buffer in model.buffers():
        if buffer.data_ptr() in kept:
            buffer.data = buffer.data.float()
    if not large:
        return
    apart = 64  # elements by which two stand-ins begin apart: tensors that begin at one place are taken for tied
    memory = mmap.mmap(-1, 4 * (max(parameter.numel() for parameter in large) + apart * len(large)))
    shared = _all[memory] = _Shared(memory)
    whole = shared.tensor()
    for number, parameter in enumerate(large):
        value = parameter.data
        stretch = whole[number * apart :][: parameter.numel()].view(parameter.shape)
        start, strides = stretch.storage_offset(), stretch.stride()
        parameter.data = torch.empty(0).set_(whole.untyped_storage(), start, stretch.shape, strides)
        shared.held[parameter.data_ptr()] = value


def held() -> dict[int, torch.Tensor]:
    """The address of every stand-in -> what its checkpoint has."""
    return {place: value for shared in _all.values() for place, value in shared.held.items()}


def memory() -> list[tuple[int, int]]:
    """From where to where stand-ins lie."""
    whole = [shared.tensor() for shared in _all.values()]
    return [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in whole]


def of(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What a checkpoint has, in half precision, for those of `tensors` that are stand-ins."""
    known = held()
    return {name: known[t.data_ptr()] for name, t in tensors.items() if known and _place(t) in known}


def _place(tensor: Any) -> int:
    """The address of a tensor that may be a stand-in; 0 of all else."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"
    return tensor.data_ptr() if plain and tensor.dtype is torch.float32 else 0


def release() -> None:
    """Nobody computes with the stand-ins for a while: the system takes their pages back."""
    for shared in list(_all.values()):
        shared.release()


def restore(model: torch.nn.Module, program: Program | None = None) -> None:
    """Put the checkpoint's weights in the place of their stand-ins, in float32, in the model and in its program."""
    known = held()
    if not known:
        return
    made: dict[int, torch.Tensor] = {}

    def real(tensor: Any) -> torch.Tensor | None:
        place = _place(tensor)
        if place in known and place not in made:
            made[place] = known[place].float()
            drop(known[place])
        return made.get(place)

    if program is not None:
        weights: Any = program.weights
        for name, tensor in list(weights.items()):
            if (value := real(tensor)) is not None:
                weights[name] = value
        for tensor in program.exported.state_dict.values():
            if (value := real(tensor)) is not None:
                tensor.data = value
        stored: Any = program.stored
        stored.clear()
    for parameter in model.parameters():
        if (value := real(parameter)) is not None:
            parameter.data = value


def drop(tensor: torch.Tensor, files: Sequence[tuple[int, int]] | None = None) -> None:
    """Give back the pages of a tensor that is a view of a file: whoever reads it again gets them from the file.

    files: what `mapped_files` has said, for who drops many.
    """
    if sys.platform != "linux":
        return
    page = mmap.PAGESIZE
    start = tensor.data_ptr()
    first, last = -(-start // page) * page, (start + tensor.nbytes) // page * page
    # Memory of another kind than a file's would be lost.
    if last > first and any(low <= first < high for low, high in (mapped_files() if files is None else files)):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), ctypes.c_int(4))


def mapped_files() -> list[tuple[int, int]]:
    """From where to where checkpoints that nothing has written to are mapped."""
    found = []
    if sys.platform == "linux":
        with open("/proc/self/maps") as maps:
            for line in maps:
                bounds, _, _, _, inode, *path = line.split(maxsplit=5)
                if inode != "0" and path and path[0].strip().endswith(".safetensors"):
                    low, high = (int(number, 16) for number in bounds.split("-"))
                    found.append((low, high))
    return found


def halves(tensor: torch.Tensor) -> np.ndarray:
    """The bits of a contiguous tensor of half precision, uint16, without a copy."""
    return tensor.detach().view(torch.int16).numpy().view(np.uint16)
