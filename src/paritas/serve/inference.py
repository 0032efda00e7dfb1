# SPDX-License-Identifier: Apache-2.0
"""What both doors of the Open Inference Protocol share: datatypes, raw tensors, and which signature is meant."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from paritas.serve.bodies import as_bytes, refuse
from paritas.serve.model import DEFAULT, Servable, Signature, TensorInfo
from paritas.serve.refusals import Refused
from paritas.serve.settings import Limits

Arrays = dict[str, np.ndarray]

#: NumPy's name -> the protocol's.
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bytes": "BYTES",
}  # fmt: skip
_NUMPY = {name: np.dtype(numpy) for numpy, name in DATATYPES.items() if numpy != "bytes"}


def datatype_of(array: np.ndarray) -> str:
    return "BYTES" if array.dtype.kind == "O" else DATATYPES[array.dtype.name]


def checked_shape(name: str, shape: Any, limits: Limits) -> tuple[int, ...]:
    """A shape that somebody sent. Raises `Refused` before anything of its size is made."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        refuse(f"The input {name!r} has no shape.")
    if len(shape) > 32 or any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in shape):
        refuse(f"The input {name!r} has the shape {str(list(shape))[:128]}, which is none.")
    if math.prod(shape) > limits.elements:
        refuse(f"The input {name!r} has {math.prod(shape):,} values, more than the {limits.elements:,} of this server.")
    return tuple(shape)


def from_raw(name: str, raw: bytes | memoryview, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Little-endian values, or strings with their lengths in front, as an array. No copy of numbers."""
    if datatype == "BYTES":
        return _strings(name, raw, shape)
    dtype = _numpy(name, datatype)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        refuse(
            f"The input {name!r} has {len(raw)} bytes, and {datatype} of the shape {list(shape)} has "
            f"{math.prod(shape) * dtype.itemsize}."
        )
    array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
    if datatype == "BOOL":  # a byte other than 0 and 1 is no value that NumPy has
        return array.view(np.uint8) != 0
    return array


def _strings(name: str, raw: bytes | memoryview, shape: tuple[int, ...]) -> np.ndarray:
    count, at, found = math.prod(shape), 0, []
    if count * 4 > len(raw):
        refuse(f"The input {name!r} has {len(raw)} bytes, too few for {count} strings.")
    for _ in range(count):
        if at + 4 > len(raw):
            refuse(f"The input {name!r} ends in the middle of a string.")
        (size,) = struct.unpack_from("<I", raw, at)
        if at + 4 + size > len(raw):
            refuse(f"The input {name!r} ends in the middle of a string.")
        found.append(bytes(raw[at + 4 : at + 4 + size]))
        at += 4 + size
    if at != len(raw):
        refuse(f"The input {name!r} has {len(raw) - at} bytes behind its last string.")
    array = np.empty(count, dtype=object)
    array[:] = found
    return array.reshape(shape)


def to_raw(array: np.ndarray) -> bytes:
    """The reverse of `from_raw`."""
    if array.dtype.kind != "O":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parts = []
    for one in array.ravel().tolist():
        text = as_bytes(one)
        parts += [struct.pack("<I", len(text)), text]
    return b"".join(parts)


def from_values(name: str, values: Any, datatype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers or strings in a list, flat or nested, as an array."""
    count = math.prod(shape)
    if datatype == "BYTES":
        flat = _flat(values)
        if len(flat) != count:
            refuse(f"The input {name!r} has {len(flat)} values, and its shape {list(shape)} has {count}.")
        if bad := next((one for one in flat if not isinstance(one, str | bytes)), None):
            refuse(f"The input {name!r} of BYTES holds {str(bad)[:64]}, which is no string.")
        array = np.empty(count, dtype=object)
        array[:] = flat
        return array.reshape(shape)
    dtype = _numpy(name, datatype)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        array = np.empty(0, dtype=object)
    if array.size == 0 and count == 0:
        return np.empty(shape, dtype)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in allowed:
        refuse(f"The input {name!r} holds what is no {datatype}.")
    if array.size != count:
        refuse(f"The input {name!r} has {array.size} values, and its shape {list(shape)} has {count}.")
    if dtype.kind in "iu":
        about = np.iinfo(dtype)
        if int(array.min()) < about.min or int(array.max()) > about.max:
            refuse(f"The input {name!r} holds a number outside {datatype}.")
    return array.astype(dtype, copy=False).reshape(shape)


def _flat(values: Any) -> list[Any]:
    found: list[Any] = []
    waiting = [values]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        else:
            found.append(one)
    return found


def _numpy(name: str, datatype: str) -> np.dtype[Any]:
    found = _NUMPY.get(datatype)
    if found is None:
        known = ", ".join(DATATYPES.values())
        refuse(f"The input {name!r} has the datatype {str(datatype)[:32]!r}; known are {known}.")
    return found


def meant(servable: Servable, named: str, inputs: Sequence[str], outputs: Sequence[str]) -> Signature:
    """The signature of a request: the one that it names, else the first that has its inputs and outputs.

    named: its parameter `signature_name`. The protocol itself knows one signature a model.
    """
    if named:
        return servable.signature(named)
    order = [DEFAULT, *(name for name in servable.signatures if name != DEFAULT)]
    given = set(inputs)
    with_inputs = [
        one
        for one in map(servable.signatures.__getitem__, order)
        if given <= one.inputs.keys() and all(info.optional or info.name in given for info in one.inputs.values())
    ]
    for one in with_inputs:
        if set(outputs) <= one.outputs.keys():
            return one
    if with_inputs:
        known = list(dict.fromkeys(name for one in with_inputs for name in one.outputs))
        odd = [name for name in outputs if name not in known]
        refuse(f"{servable.name} has no output {', '.join(odd or outputs)}; it has: {', '.join(known)}.")
    raise _no_such(servable, inputs)


def _no_such(servable: Servable, inputs: Sequence[str]) -> Refused:
    ways = " or ".join(dict.fromkeys(f"[{', '.join(one.inputs)}]" for one in servable.signatures.values()))
    return Refused("INVALID_ARGUMENT", f"{servable.name} takes {ways}; the request has [{', '.join(inputs)[:256]}].")


def fitting(array: np.ndarray, info: TensorInfo) -> np.ndarray:
    """An array as the signature has it: a batch of one column of strings may come as [batch, 1]."""
    if info.dtype == "bytes" and array.ndim == 2 and len(info.shape) == 1 and array.shape[1] == 1:
        return array[:, 0]
    return array


def about(info: TensorInfo) -> dict[str, Any]:
    """A tensor in a model's metadata."""
    return {
        "name": info.name,
        "datatype": DATATYPES.get(info.dtype, info.dtype.upper()),
        "shape": [-1 if dim is None else dim for dim in info.shape],
    }


def signatures_said(servable: Servable) -> dict[str, str]:
    """The other signatures, for the metadata's properties: name -> "inputs -> outputs"."""
    return {
        f"signature.{one.name}": f"{', '.join(one.inputs)} -> {', '.join(one.outputs)}"
        for one in servable.signatures.values()
    }
