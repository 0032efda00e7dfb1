# SPDX-License-Identifier: Apache-2.0
"""A safetensors file that may be anyone's, in memory: every tensor where its header says, and no byte besides."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from paritas.errors import PortError
from paritas.files import Buffer

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip

#: The format's own limit of a header.
_LARGEST_HEADER = 100_000_000


def tensors(data: Buffer, where: str) -> dict[str, np.ndarray]:
    """Name -> array, which shares the memory of `data` where that is aligned. Raises `PortError` naming `where`.

    Stricter than the format: no name twice, which two readers could take for two things, no gap and no overlap.
    """
    try:
        return _tensors(data)
    except _Wrong as wrong:
        raise PortError(f"{where} is damaged: {wrong}. Get the port again from where it was made.") from None


class _Wrong(Exception):
    """What is wrong with the file."""


def _tensors(data: Buffer) -> dict[str, np.ndarray]:
    if len(data) < 8:
        raise _Wrong("it is too short to be a safetensors file")
    size = int.from_bytes(data[:8], "little")
    if size > min(len(data) - 8, _LARGEST_HEADER):
        raise _Wrong(f"its header of {size} bytes does not fit into it")
    try:
        header = json.loads(bytes(data[8 : 8 + size]).decode(), object_pairs_hook=_unique)
    except RecursionError:
        raise _Wrong("its header is nested too deeply") from None
    except ValueError as error:
        raise _Wrong(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise _Wrong("its header is no JSON object")
    header.pop("__metadata__", None)
    body = data[8 + size :]
    places = sorted((_place(name, entry) for name, entry in header.items()), key=lambda place: place[3:])
    found, at = {}, 0
    for name, dtype, shape, begin, end in places:
        count = math.prod(shape)
        if begin != at:
            raise _Wrong(f"{name} begins at byte {begin}, where {at} is the next")
        if end - begin != count * dtype.itemsize:
            raise _Wrong(f"{name} has {end - begin} bytes, which are no {dtype.name}{list(shape)}")
        if end > len(body):
            raise _Wrong(f"{name} ends at byte {end} of {len(body)}")
        found[name] = _array(body, dtype, shape, begin, count)
        at = end
    if at != len(body):
        raise _Wrong(f"{len(body) - at} bytes behind its last tensor belong to none")
    return {name: found[name] for name in header}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Wrong("its header has the same name twice")
    return result


def _place(name: str, entry: Any) -> tuple[str, np.dtype, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Wrong(f"{name} needs dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 32:
        raise _Wrong(f"{name} has no shape or no offsets")
    return name, _dtype(name, entry["dtype"]), tuple(shape), offsets[0], offsets[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _dtype(name: str, code: Any) -> np.dtype:
    if code == "BF16":
        try:
            import ml_dtypes
        except ImportError:
            raise _Wrong(f"{name} is bfloat16, which needs the package ml_dtypes") from None
        return np.dtype(ml_dtypes.bfloat16)
    if not isinstance(code, str) or code not in _DTYPES:
        raise _Wrong(f"{name} has the dtype {str(code)[:20]!r}, which is none of {', '.join(_DTYPES)}")
    return np.dtype(_DTYPES[code])


def _array(body: Buffer, dtype: np.dtype, shape: tuple[int, ...], begin: int, count: int) -> np.ndarray:
    if not count:
        return np.empty(shape, dtype)
    raw = np.frombuffer(body, np.uint8, count * dtype.itemsize, begin)
    if dtype.kind == "b" and raw.max() > 1:
        raise _Wrong("a bool is neither 0 nor 1")
    if raw.ctypes.data % dtype.alignment:
        raw = raw.copy()
    return raw.view(dtype).reshape(shape)
