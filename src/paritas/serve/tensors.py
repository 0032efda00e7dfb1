# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's TensorProto to arrays and back, and its examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paritas.serve.bodies import as_bytes, feature, refuse
from paritas.serve.inference import checked_shape
from paritas.serve.model import Signature
from paritas.serve.rest import DT
from paritas.serve.settings import Limits

#: TensorFlow's number -> NumPy's name and the field of a TensorProto that holds such values.
_FIELDS = {
    1: ("float32", "float_val"), 2: ("float64", "double_val"), 3: ("int32", "int_val"), 4: ("uint8", "int_val"),
    5: ("int16", "int_val"), 6: ("int8", "int_val"), 7: ("bytes", "string_val"), 9: ("int64", "int64_val"),
    10: ("bool", "bool_val"), 17: ("uint16", "int_val"), 19: ("float16", "half_val"), 22: ("uint32", "uint32_val"),
    23: ("uint64", "uint64_val"),
}  # fmt: skip


def from_proto(name: str, tensor: Any, limits: Limits) -> np.ndarray:
    """The array of a TensorProto. Raises `Refused` for what it does not hold."""
    if tensor.dtype not in _FIELDS:
        refuse(f"The input {name!r} has the dtype {tensor.dtype}, which is not known here.")
    if tensor.tensor_shape.unknown_rank:
        refuse(f"The input {name!r} has no shape.")
    shape = checked_shape(name, [dim.size for dim in tensor.tensor_shape.dim], limits)
    numpy, field = _FIELDS[tensor.dtype]
    count = math.prod(shape)
    if numpy == "bytes":
        values = list(tensor.string_val)
        if len(values) != count:
            refuse(f"The input {name!r} has {len(values)} strings, and its shape {list(shape)} has {count}.")
        found = np.empty(count, dtype=object)
        found[:] = values
        return found.reshape(shape)
    dtype = np.dtype(numpy)
    if raw := tensor.tensor_content:
        if len(raw) != count * dtype.itemsize:
            refuse(f"The input {name!r} has {len(raw)} bytes, and {numpy}{list(shape)} has {count * dtype.itemsize}.")
        array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
        return array.view(np.uint8) != 0 if numpy == "bool" else array
    values = getattr(tensor, field)
    given = np.asarray(values, _held(numpy)) if values else np.empty(0, _held(numpy))
    if dtype.kind in "iu" and given.size and dtype.itemsize < 4:
        about = np.iinfo(dtype)
        if int(given.min()) < about.min or int(given.max()) > about.max:
            refuse(f"The input {name!r} holds a number outside {numpy}.")
    if numpy == "float16":  # its bits, in whole numbers
        given = given.astype(np.uint16).view(np.float16)
    if given.size < count and given.size:  # the last one stands for all that follow
        given = np.concatenate([given, np.repeat(given[-1:], count - given.size)])
    elif not given.size and count:
        given = np.zeros(count, dtype)
    if given.size != count:
        refuse(f"The input {name!r} has {given.size} values, and its shape {list(shape)} has {count}.")
    return given.astype(dtype, copy=False).reshape(shape)


def _held(numpy: str) -> str:
    """In what a field of protobuf's holds such values."""
    return "int32" if numpy in ("int8", "int16", "uint8", "uint16", "float16") else numpy


def into_proto(array: np.ndarray, tensor: Any) -> None:
    """Write an array into a TensorProto, as TensorFlow Serving does: into the field of its dtype."""
    number = DT["bytes" if array.dtype.kind == "O" else array.dtype.name][0]
    tensor.dtype = number
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    flat = array.ravel()
    if array.dtype.kind == "O":
        tensor.string_val.extend(map(as_bytes, flat.tolist()))
        return
    if array.dtype == np.float16:
        flat = flat.view(np.uint16)
    getattr(tensor, _FIELDS[number][1]).extend(flat.tolist())


def of_examples(given: Any, signature: Signature, limits: Limits) -> dict[str, np.ndarray]:
    """The arrays of a request whose rows are examples. given: an Input."""
    kind = given.WhichOneof("kind")
    if kind is None:
        refuse("Input is empty.")
    listed = getattr(given, kind)
    examples = list(listed.examples)
    if not examples:
        refuse("Input is empty.")
    if len(examples) > limits.rows:
        refuse(f"The request has {len(examples)} examples, more than the {limits.rows} that this server takes.")
    shared = _features(listed.context) if kind == "example_list_with_context" else {}
    rows = [{**shared, **_features(one)} for one in examples]
    found = {}
    for name, info in signature.inputs.items():
        if any(name not in row for row in rows):
            if info.optional and not any(name in row for row in rows):
                continue
            refuse(f"Missing named input: {name} in an example.")
        found[name] = feature(name, [row[name] for row in rows], info)
    if sum(array.size for array in found.values()) > limits.elements:
        refuse(f"The request has more than the {limits.elements:,} values that this server takes.")
    return found


def _features(example: Any) -> Mapping[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {}
    for name, one in example.features.feature.items():
        kind = one.WhichOneof("kind")
        if kind is None:
            continue
        values = list(getattr(one, kind).value)
        if kind == "bytes_list":
            found[name] = [_text(name, value) for value in values]
        else:
            found[name] = values
    return found


def _text(name: str, value: bytes) -> Any:
    """Bytes in a list of JSON's kinds, as `bodies.feature` takes them."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64

        return {"b64": base64.b64encode(value).decode()}
