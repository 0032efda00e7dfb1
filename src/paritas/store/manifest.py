# SPDX-License-Identifier: Apache-2.0
"""`port.json`: a `Manifest` as JSON and back, exactly. Reading is strict: the file may be anyone's."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from paritas.errors import PortError
from paritas.formulas import MOST_CHARACTERS, NoFormula, parsed
from paritas.guards import MOST_GUARDS
from paritas.program import FORMAT_VERSION, ComponentsManifest, Manifest, entries
from paritas.pytree import described

#: What JSON cannot say, as an object with this one key: a tuple, a float that is not finite.
_TUPLE, _FLOAT = "$tuple", "$float"

_Reader = Callable[[Any, str], Any]

_SHA256 = frozenset("0123456789abcdef")


class Wrong(Exception):
    """What is wrong with a record; the caller knows in which file."""


def manifest_to_json(manifest: Manifest | ComponentsManifest) -> str:
    """The text of `port.json`: keys in a fixed order, two spaces, a final newline. Raises `PortError`."""
    fields = {field.name: getattr(manifest, field.name) for field in dataclasses.fields(manifest)}
    first = [name for name in ("format_version", "engine", "entry", "task") if name in fields]
    ordered = {name: fields[name] for name in (*first, *(name for name in fields if name not in first))}
    plain = {name: _plain(value, name) for name, value in ordered.items()}
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def _plain(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _field(getattr(value, name), f"{where}.{name}") for name in names}
    return _field(value, where) if where in _TUPLES else _encode(value, where)


def _field(value: Any, where: str) -> Any:
    """A dataclass's own tuples are plain JSON lists: the reader knows that they are tuples."""
    if isinstance(value, tuple):
        return [_plain(item, where) for item in value]
    return _encode(value, where)


def _encode(value: Any, where: str) -> Any:
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if type(value) is tuple:
        return {_TUPLE: [_encode(item, where) for item in value]}
    if isinstance(value, list):
        return [_encode(item, where) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise PortError(f"{where} has the key {key!r}; a port can only keep strings as keys.")
        if value.keys() in ({_TUPLE}, {_FLOAT}):
            raise PortError(f"{where} has the key {next(iter(value))!r}, which a port keeps for itself.")
        return {key: _encode(item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(value, where)
    raise PortError(f"{where} is a {type(value).__name__}; a port can only keep what JSON can say.")


def manifest_from_json(text: str, where: str = "port.json") -> Manifest | ComponentsManifest:
    """The manifest that `manifest_to_json` wrote. Raises `PortError` naming `where` and what is wrong."""
    try:
        raw = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if not isinstance(raw, dict):
            raise Wrong("it is not a JSON object")
        version = raw.get("format_version")
        if type(version) is not int:
            raise Wrong("it has no format_version, so Paritas did not write it")
        if version != FORMAT_VERSION:
            advice = "Make the port again with this Paritas."
            if version > FORMAT_VERSION:
                advice = "Update Paritas:   pip install -U paritas"
            raise PortError(f"{where} has format {version}; this Paritas reads format {FORMAT_VERSION}. {advice}")
        if "components" in raw:
            return _check_components(record(ComponentsManifest, raw, "port.json"))
        return _check_guards(_check_meaning(_check_files(record(Manifest, raw, "port.json"))))
    except (ValueError, RecursionError) as error:  # JSONDecodeError among them, and numbers of too many digits
        reason = f"it is not whole JSON ({error})" if str(error) else "it is nested too deeply"
        raise PortError(f"{where} is damaged: {reason}. Make the port again.") from None
    except Wrong as wrong:
        raise PortError(f"{where} is damaged: {wrong}. Make the port again.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers that pick different ones of two equal keys would check one file and run another.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Wrong("it has the same key twice")
    return result


def _no_constant(name: str) -> Any:
    raise Wrong(f"it holds {name}, which is not JSON")


def _reader(hint: Any) -> _Reader:
    """The function that reads a value of that type, and refuses every other."""
    if dataclasses.is_dataclass(hint):
        return lambda value, where: record(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return _many(_reader(arguments[0]))
    if origin is Mapping:
        return _mapping(_reader(arguments[1]))
    if type(None) in arguments and any(map(dataclasses.is_dataclass, arguments)):
        present = _reader(next(filter(dataclasses.is_dataclass, arguments)))
        return lambda value, where: None if value is None else present(value, where)
    if hint is Any:
        return _decode
    if hint is float:
        return _float
    return _typed(*(arguments or (hint,)))


def record(cls: Any, raw: Any, where: str) -> Any:
    """A dataclass of what JSON says of it: its fields, of the types that it declares, and no others.

    Lists are tuples; floats that are not finite may be strings. Raises `Wrong`.
    """
    if not isinstance(raw, dict):
        raise Wrong(f"{where} is not an object")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if unknown := sorted(set(raw) - set(fields)):
        raise Wrong(f"{where} has unknown fields: {', '.join(unknown)}")
    missing = dataclasses.MISSING
    required = {f.name for f in fields.values() if f.default is missing and f.default_factory is missing}
    if lacking := sorted(required - set(raw)):
        raise Wrong(f"{where} lacks: {', '.join(lacking)}")
    hints = _hints(cls)
    return cls(**{name: _reader(hints[name])(value, f"{where}: {name}") for name, value in raw.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(*types: type) -> _Reader:
    def reader(value: Any, where: str) -> Any:
        if type(value) not in types:  # not isinstance: True is an int
            raise Wrong(f"{where} is {type(value).__name__}, not {' or '.join(t.__name__ for t in types)}")
        return _small(value, where)

    return reader


def _float(value: Any, where: str) -> float:
    if type(value) in (int, float) or value in ("nan", "inf", "-inf"):
        return float(value)
    raise Wrong(f"{where} is {type(value).__name__}, not a number")


def _many(reader: _Reader) -> _Reader:
    def many(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"{where} is {type(value).__name__}, not a list")
        return tuple(reader(item, f"{where}[{index}]") for index, item in enumerate(value))

    return many


def _mapping(reader: _Reader) -> _Reader:
    def mapping(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Wrong(f"{where} is {type(value).__name__}, not an object")
        return {key: reader(item, f"{where}.{key}") for key, item in value.items()}

    return mapping


def _decode(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_decode(item, where) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE} and isinstance(value[_TUPLE], list):
            return tuple(_decode(item, where) for item in value[_TUPLE])
        if value.keys() == {_FLOAT} and value[_FLOAT] in ("nan", "inf", "-inf"):
            return float(value[_FLOAT])
        return {key: _decode(item, where) for key, item in value.items()}
    return _small(value, where)


def _small(value: Any, where: str) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise Wrong(f"{where} is a number of {value.bit_length()} bits")
    return value


#: As a folder may be called, and a part of a file's name.
COMPONENT = re.compile(r"[a-z][a-z0-9_]{0,40}")

#: Of a port; the largest pipelines have about ten.
_MOST_COMPONENTS = 32


def _check_components(manifest: ComponentsManifest) -> ComponentsManifest:
    if not 0 < len(manifest.components) <= _MOST_COMPONENTS:
        raise Wrong(f"components: there are {len(manifest.components)}, and no port has none or more than 32")
    for name, one in manifest.components.items():
        if not COMPONENT.fullmatch(name):
            raise Wrong(f"components: {name[:60]!r} is no name of one")
        if one.files or one.format_version != manifest.format_version:
            raise Wrong(f"components: {name!r} has files or a format of its own")
        if one.entry.rpartition("/")[0] not in ("", name):
            raise Wrong(f"components: {name!r} has its main file in another's folder: {one.entry[:60]!r}")
        try:
            _check_guards(_check_meaning(one))
        except Wrong as wrong:
            raise Wrong(f"components: {name}: {wrong}") from None
    if len(set(entries(manifest))) < len(manifest.components):
        raise Wrong("components: two have the same main file")
    _check_files(manifest)
    return manifest


M = TypeVar("M", Manifest, ComponentsManifest)


def _check_files(manifest: M) -> M:
    for name, entry in manifest.files.items():
        digest, size = entry.get("sha256"), entry.get("bytes")
        if entry.keys() != {"sha256", "bytes"} or type(digest) is not str or type(size) is not int:
            raise Wrong(f"files: {name!r} needs sha256 and bytes")
        if len(digest) != 64 or set(digest) - _SHA256:
            raise Wrong(f"files: {name!r} has no valid sha256")
    return manifest


def _check_meaning(manifest: Manifest) -> Manifest:
    """What is of the right type, and yet nothing that a capture says."""
    known = {name for spec in manifest.inputs for dim in spec.dims for name in sizes_in(str(dim), of_dimension=True)}
    for field in ("inputs", "outputs"):
        names = [spec.name for spec in getattr(manifest, field)]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise Wrong(f"{field}: the name {twice[0]!r} is there twice")
        for spec in getattr(manifest, field):
            if spec.dtype not in DTYPES:
                raise Wrong(f"{field}: {spec.name!r} has the dtype {spec.dtype[:40]!r}")
            if spec.counts and not set(sizes_in(spec.counted)) <= known:
                raise Wrong(f"{field}: {spec.name!r} counts {spec.counts[:60]!r}")
            if spec.forgets and spec.forgets not in known:
                raise Wrong(f"{field}: {spec.name!r} forgets {spec.forgets[:60]!r}")
            for dim in spec.dims:
                if dim < 0 if isinstance(dim, int) else not is_dimension(dim):
                    raise Wrong(f"{field}: {spec.name!r} has the dimension {str(dim)[:60]!r}")
    if wrong := [name for name, most in manifest.limits.items() if most < 1]:
        raise Wrong(f"limits: {wrong[0]!r} is {manifest.limits[wrong[0]]}")
    if not described(manifest.structure, len(manifest.outputs)):
        raise Wrong("structure does not say how the outputs make what the original returns")
    for name, structure in manifest.nesting.items():
        if not described(structure):
            raise Wrong(f"nesting: {name!r} does not say how inputs make it")
    return manifest


#: As NumPy spells them.
DTYPES = frozenset(
    (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    )
)

#: A dimension as sympy prints one: numbers of a size that a dimension can have, names, + - * / and functions of them.
_DIMENSION = re.compile(r"(?:\d{1,18}(?!\d)|[A-Za-z_]\w{0,80}|\*\*|//|[-+*/%(), ])+")
_POWER = re.compile(r"\*\*(?! ?\d\b(?! ?\*\*))")


def is_dimension(text: str) -> bool:
    """Whether it is an expression of sizes that takes no time to compute: no large powers, not nested deeply."""
    plain = len(text) <= 4000 and _DIMENSION.fullmatch(text) and not _POWER.search(text)
    return bool(plain) and text.count("(") <= 200 and text.count("**") <= 8


def sizes_in(text: str, *, of_dimension: bool = False) -> tuple[str, ...]:
    """The sizes that a formula is made of. of_dimension: where it may be none that anybody can compute."""
    try:
        return parsed(text)[0]
    except NoFormula as wrong:
        if of_dimension:
            return ()
        raise Wrong(f"{text[:60]!r} is no size: {wrong}") from None


def _check_guards(manifest: Manifest) -> Manifest:
    if len(manifest.guards) > MOST_GUARDS:
        raise Wrong(f"guards: there are {len(manifest.guards)}, and no model has more than {MOST_GUARDS}")
    for number, guard in enumerate(manifest.guards):
        try:
            parsed(guard.holds)
        except NoFormula as wrong:
            raise Wrong(f"guards[{number}] is not a guard: {wrong}") from None
        if len(guard.where) > MOST_CHARACTERS or not guard.where.isprintable():
            raise Wrong(f"guards[{number}] names no source line")
    return manifest


#: The manifest's own fields that are tuples.
_TUPLES = frozenset(("inputs", "outputs", "modules", "notes", "prepared", "guards"))
