# SPDX-License-Identifier: Apache-2.0
"""The two formats of TensorFlow Serving's JSON, `instances` and `inputs`, to arrays and back, with its words for
errors.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import numpy as np

from paritas.serve.model import Signature, TensorInfo
from paritas.serve.refusals import Refused
from paritas.serve.settings import Limits

Arrays = dict[str, np.ndarray]

#: NumPy's name -> that of TensorFlow's.
TF_NAMES = {
    "float16": "half", "float32": "float", "float64": "double", "int8": "int8", "int16": "int16", "int32": "int32",
    "int64": "int64", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
    "bytes": "string",
}  # fmt: skip

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def refuse(message: str) -> NoReturn:
    raise Refused("INVALID_ARGUMENT", message)


# --- what came ---------------------------------------------------------------------------------


def parsed(body: bytes) -> dict[str, Any]:
    """The object that a body is. Raises `Refused` for anything else."""
    if not body:
        refuse("JSON Parse error: The document is empty")
    try:
        found = _decoder.decode(body)
    except RecursionError:
        refuse("JSON Parse error: The document is nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if b"NaN" not in body and b"Infinity" not in body:
            refuse(f"JSON Parse error: {error}")
        try:  # numbers that TensorFlow Serving takes, and JSON does not know
            found = json.loads(body)
        except (ValueError, RecursionError):
            refuse(f"JSON Parse error: {error}")
    if not isinstance(found, dict):
        refuse(f"JSON Value: {shown(found)} Is not object")
    return found


def shown(value: Any) -> str:
    """A value as errors show it: its beginning."""
    try:
        text = json.dumps(value if not isinstance(value, list | dict) or len(value) < 64 else _begun(value))
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 256 else f"{text[:256]}..."


def _begun(value: Any) -> Any:
    return value[:64] if isinstance(value, list) else dict(list(value.items())[:64])


def signature_name(doc: Mapping[str, Any]) -> str:
    """The signature that a request asks for; "" for none."""
    name = doc.get("signature_name", "")
    if not isinstance(name, str):
        refuse(f"JSON Value: {shown(doc)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def inputs_of(doc: Mapping[str, Any], signature: Signature, limits: Limits) -> tuple[Arrays, bool]:
    """The arrays of a request by the signature's names, and whether they came as rows (`instances`)."""
    rows = "instances" in doc
    if rows and "inputs" in doc:
        refuse(
            f"JSON Value: {shown(doc)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to "
            "exist "
        )
    if rows:
        found = _of_rows(doc["instances"], doc, signature, limits)
    elif "inputs" in doc:
        found = _of_columns(doc["inputs"], signature)
    else:
        refuse("Missing 'inputs' or 'instances' key")
    elements = sum(array.size for array in found.values())
    if elements > limits.elements:
        refuse(f"The request has {elements:,} values, more than the {limits.elements:,} that this server takes.")
    return found, rows


def _of_rows(instances: Any, doc: Mapping[str, Any], signature: Signature, limits: Limits) -> Arrays:
    if not isinstance(instances, list):
        refuse(f"JSON Value: {shown(doc)} Expecting 'instances' to be an list/array")
    if not instances:
        refuse(f"JSON Value: {shown(doc)} No values in 'instances' array")
    if len(instances) > limits.rows:
        refuse(f"'instances' has {len(instances)} rows, more than the {limits.rows} that this server takes.")
    required = [info.name for info in signature.inputs.values() if not info.optional]
    first = instances[0]
    named = isinstance(first, dict) and not _is_base64(first)
    if not named:
        if len(required) > 1:
            refuse(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        name = required[0] if required else next(iter(signature.inputs))
        for number, row in enumerate(instances):
            if isinstance(row, dict) and not _is_base64(row):
                refuse(f"Expecting value/list but got object at item {number} of input list")
        return {name: array_of(instances, signature.inputs[name])}
    columns: dict[str, list[Any]] = {name: [] for name in first}
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or _is_base64(row):
            refuse(f"Expecting object but got list at item {number} of input list")
        for name in row:
            if name not in signature.inputs:
                refuse(
                    f"Failed to process element: {number} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: "
                    f"JSON object: does not have named input: {name}"
                )
        if row.keys() != columns.keys() or any(name not in row for name in required):
            refuse(
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(row)} keys must be "
                f"equal to: {','.join(sorted(required))}"
            )
        for name, value in row.items():
            columns[name].append(value)
    return {name: array_of(values, signature.inputs[name]) for name, values in columns.items()}


def _of_columns(inputs: Any, signature: Signature) -> Arrays:
    required = [info.name for info in signature.inputs.values() if not info.optional]
    if not isinstance(inputs, dict) or _is_base64(inputs):
        if len(required) > 1:
            refuse(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        name = required[0] if required else next(iter(signature.inputs))
        return {name: array_of(inputs, signature.inputs[name])}
    for name in required:
        if name not in inputs:
            refuse(f"Missing named input: {name} in 'inputs' object.")
    return {name: array_of(value, signature.inputs[name]) for name, value in inputs.items() if name in signature.inputs}


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def array_of(value: Any, info: TensorInfo) -> np.ndarray:
    """Nested lists as an array of an input's dtype. Raises `Refused` with TensorFlow Serving's words."""
    if info.dtype == "bytes":
        shape = _shape(value)
        flat: list[Any] = []
        _walk(value, 0, shape, info, flat)
        found = np.empty(len(flat), dtype=object)
        found[:] = flat
        return found.reshape(shape)
    wanted = np.dtype(info.dtype)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, dtype=object)
    # `true` among numbers becomes 1.0 without a word, so arrays of which some may be it are looked through.
    if _fits(array, wanted) and not (wanted.kind != "b" and _has_bools(value)):
        return array.astype(wanted, copy=False)
    shape = _shape(value)
    flat = []
    _walk(value, 0, shape, info, flat)
    try:
        return np.asarray(flat, wanted).reshape(shape)
    except (OverflowError, ValueError):
        refuse(f"JSON Value: {shown(value)} Type: Number is not of expected type: {TF_NAMES[info.dtype]}")


def _fits(array: np.ndarray, wanted: np.dtype[Any]) -> bool:
    if wanted.kind == "b":
        return array.dtype.kind == "b"
    if wanted.kind == "f":
        return array.dtype.kind in "fi" and bool(array.size)
    if wanted.kind in "iu" and array.dtype.kind == "i" and array.size:
        about = np.iinfo(wanted)
        return bool(array.min() >= about.min and array.max() <= about.max)
    return False


def _has_bools(value: Any) -> bool:
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return any(map(_has_bools, value))
        return bool in set(map(type, value))
    return isinstance(value, bool)


def _shape(value: Any) -> tuple[int, ...]:
    found: list[int] = []
    while isinstance(value, list):
        found.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(found)


def _walk(value: Any, level: int, shape: tuple[int, ...], info: TensorInfo, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            refuse(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
                f"{len(shape)}"
            )
        flat.append(_leaf(value, info))
        return
    if level >= len(shape):
        refuse(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        refuse(f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}")
    for one in value:
        _walk(one, level + 1, shape, info, flat)


_TYPES = {dict: "Object", list: "Array", str: "String", bool: "Boolean", int: "Number", float: "Number"}


def _leaf(value: Any, info: TensorInfo) -> Any:
    kind = np.dtype(info.dtype).kind if info.dtype != "bytes" else "S"
    if kind == "S":
        if isinstance(value, str):
            return value
        if _is_base64(value):
            return from_base64(value["b64"])
        if isinstance(value, dict):
            refuse(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    elif (kind == "b" and isinstance(value, bool)) or (
        kind == "f" and isinstance(value, int | float) and not isinstance(value, bool)
    ):
        return value
    elif kind in "iu" and isinstance(value, int) and not isinstance(value, bool):
        about = np.iinfo(info.dtype)
        if about.min <= value <= about.max:
            return value
    said = "True" if value is True else "False" if value is False else _TYPES.get(type(value), "Null")
    refuse(f"JSON Value: {shown(value)} Type: {said} is not of expected type: {TF_NAMES.get(info.dtype, info.dtype)}")


def from_base64(text: str) -> bytes:
    """What `{"b64": text}` holds, of either alphabet. Raises `Refused`."""
    try:
        raw = text.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"), b"\r\n").rstrip(b"=")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        refuse("Unable to base64 decode")


def examples_of(doc: Mapping[str, Any], signature: Signature, limits: Limits) -> Arrays:
    """The arrays of a request to `:classify` or `:regress`, whose rows are `examples`."""
    if "examples" not in doc:
        refuse(f"JSON Value: {shown(doc)} When method is classify, key 'examples' is expected and was not found")
    rows = doc["examples"]
    if not isinstance(rows, list):
        refuse(f"JSON Value: {shown(doc)} Expecting 'examples' value to be an list/array")
    if not rows:
        refuse(f"JSON Value: {shown(doc)} 'examples' value is an empty array")
    if len(rows) > limits.rows:
        refuse(f"'examples' has {len(rows)} rows, more than the {limits.rows} that this server takes.")
    shared = doc.get("context", {})
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for part in (row, shared):
            if not isinstance(part, dict):
                refuse(f"Example must be JSON object but got JSON {_TYPES.get(type(part), 'Null')}")
        for name, value in {**shared, **row}.items():
            if name in signature.inputs:
                columns.setdefault(name, []).append(value)
    found = {}
    for name, info in signature.inputs.items():
        if name not in columns:
            if info.optional:
                continue
            refuse(f"Missing named input: {name} in 'examples'.")
        if len(columns[name]) != len(rows):
            refuse(f"Some of the 'examples' have no {name}.")
        found[name] = feature(name, columns[name], info)
    return found


def feature(name: str, rows: list[Any], info: TensorInfo) -> np.ndarray:
    """A feature of each example as an array: features are flat, and get the shape that the model wants."""
    if info.dtype == "bytes":
        rows = [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
        return array_of(rows, info)
    array = array_of([row if isinstance(row, list) else [row] for row in rows], info)
    free = [dim for dim in info.shape[1:] if dim is None]
    if array.ndim == 2 and len(info.shape) != 2 and len(free) <= 1:
        wanted = [-1 if dim is None else dim for dim in info.shape[1:]]
        try:
            return array.reshape(len(rows), *wanted)
        except ValueError:
            refuse(f"{name} has {array.shape[1]} values a row, which are no {list(info.shape[1:])}")
    return array


# --- what is answered --------------------------------------------------------------------------


def predictions(outputs: Arrays, *, rows: bool) -> bytes:
    """`{"predictions": [...]}` or `{"outputs": ...}`, as the request came."""
    if not rows:
        columns = {name: listed(name, array) for name, array in outputs.items()}
        return encoded({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    sizes = {name: array.shape[0] if array.ndim else -1 for name, array in outputs.items()}
    for name, size in sizes.items():
        if size < 0:
            refuse(f"Tensor name: {name} has no shape information ")
        if size != next(iter(sizes.values())):
            refuse(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {next(iter(sizes.values()))}. "
                "Ask with 'inputs' instead of 'instances'."
            )
    columns = {name: listed(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        return encoded({"predictions": next(iter(columns.values()))})
    names = tuple(columns)
    return encoded({"predictions": [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]})


def classified(outputs: Arrays) -> bytes:
    """`{"results": [[[label, score], ...], ...]}`."""
    pairs = zip(outputs["classes"].tolist(), outputs["scores"].tolist(), strict=True)
    return encoded({"results": [list(map(list, zip(*row, strict=True))) for row in pairs]})


def regressed(outputs: Arrays) -> bytes:
    """`{"results": [value, ...]}`."""
    return encoded({"results": next(iter(outputs.values())).tolist()})


def listed(name: str, array: np.ndarray) -> Any:
    """An array as nested lists; bytes as base64 where their name says that they are none of text."""
    if array.dtype.kind != "O":
        return array.tolist()
    if name.endswith("_bytes"):
        flat = [{"b64": base64.b64encode(as_bytes(one)).decode()} for one in array.ravel().tolist()]
        found = np.empty(len(flat), dtype=object)
        found[:] = flat
        return found.reshape(array.shape).tolist()
    return array.tolist()


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def encoded(value: Any) -> bytes:
    """As JSON. NaN and infinities are written as TensorFlow Serving does: JSON has none."""
    text = _encoder.encode(value)
    if b"null" in text and not _finite(value):
        return json.dumps(value, ensure_ascii=False).encode()
    return text


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True
