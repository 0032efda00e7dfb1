# SPDX-License-Identifier: Apache-2.0
"""The messages of both protocols, made of the files in `protos/` when they are first needed.

They live in a pool of their own: a process that imports TensorFlow, or a client of Triton's, has messages of the same
names. What is read is the part of protobuf's language that these files use.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

PROTOS = Path(__file__).parent / "protos"
#: In the order in which they need each other.
FILES = ("tensorflow.proto", "error_codes.proto", "tensorflow_serving.proto", "inference.proto")

_TOKEN = re.compile(r'//[^\n]*|"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}=;<>,()]')
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name.removeprefix("TYPE_").lower(): number
    for name, number in _Field.Type.items()
    if name not in ("TYPE_GROUP", "TYPE_MESSAGE", "TYPE_ENUM")
}


class _Reader:
    """Reads one file."""

    def __init__(self, text: str, name: str) -> None:
        self._tokens = [token for token in _TOKEN.findall(text) if not token.startswith("//")]
        self._at = 0
        self.file = descriptor_pb2.FileDescriptorProto(name=name)

    def next(self, wanted: str = "") -> str:
        token = self._tokens[self._at]
        if wanted and token != wanted:
            raise ValueError(f"{self.file.name}: {wanted!r} is to follow, and {token!r} does")
        self._at += 1
        return token

    def read(self) -> descriptor_pb2.FileDescriptorProto:
        while self._at < len(self._tokens):
            kind = self.next()
            if kind == "syntax":
                self.next("=")
                self.file.syntax = self.next().strip('"')
            elif kind == "package":
                self.file.package = self.next()
            elif kind == "import":
                self.file.dependency.append(self.next().strip('"'))
            elif kind == "message":
                self._message(self.file.message_type.add(name=self.next()))
                continue
            elif kind == "enum":
                self._enum(self.file.enum_type.add(name=self.next()))
                continue
            elif kind == "service":
                self._service(self.file.service.add(name=self.next()))
                continue
            self.next(";")
        return self.file

    def _inside(self) -> Iterator[str]:
        """The first token of each statement between braces."""
        self.next("{")
        while (token := self.next()) != "}":
            yield token

    def _message(self, message: Any) -> None:
        for kind in self._inside():
            if kind == "message":
                self._message(message.nested_type.add(name=self.next()))
            elif kind == "enum":
                self._enum(message.enum_type.add(name=self.next()))
            elif kind == "oneof":
                message.oneof_decl.add(name=self.next())
                for inner in self._inside():
                    self._field(message, inner).oneof_index = len(message.oneof_decl) - 1
            else:
                self._field(message, kind)

    def _field(self, message: Any, kind: str) -> Any:
        repeated = kind in ("repeated", "map")
        pair: tuple[str, str] | None = None
        if kind == "repeated":
            kind = self.next()
        elif kind == "map":
            self.next("<")
            key = self.next()
            self.next(",")
            pair = key, self.next()
            self.next(">")
        name = self.next()
        self.next("=")
        field = message.field.add(name=name, number=int(self.next()))
        self.next(";")
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        if pair is None:
            _typed(field, kind)
            return field
        entry = message.nested_type.add(name=f"{''.join(part.capitalize() for part in name.split('_'))}Entry")
        entry.options.map_entry = True
        for number, (part, of) in enumerate(zip(("key", "value"), pair, strict=True), 1):
            _typed(entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL), of)
        field.type_name, field.type = entry.name, _Field.TYPE_MESSAGE
        return field

    def _enum(self, enum: Any) -> None:
        for name in self._inside():
            self.next("=")
            enum.value.add(name=name, number=int(self.next()))
            self.next(";")

    def _service(self, service: Any) -> None:
        for _ in self._inside():
            method = service.method.add(name=self.next())
            self.next("(")
            method.input_type = self.next()
            self.next(")")
            self.next("returns")
            self.next("(")
            method.output_type = self.next()
            self.next(")")
            self.next(";")


def _typed(field: Any, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind  # message or enum: the pool finds out


@functools.cache
def pool() -> Any:
    """All files of both protocols."""
    found = descriptor_pool.DescriptorPool()
    for known in (any_pb2, wrappers_pb2):
        found.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for name in FILES:
        made = _Reader((PROTOS / name).read_text(), name).read()
        found.AddSerializedFile(made.SerializeToString())
    return found


@functools.cache
def message(name: str) -> Any:
    """The class of a message by its whole name: "tensorflow.serving.PredictRequest"."""
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def serving(name: str) -> Any:
    """The class of a message of TensorFlow Serving's."""
    return message(f"tensorflow.serving.{name}")
