# SPDX-License-Identifier: Apache-2.0
"""Vectors and words in the form in which PostgreSQL is sent them."""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

#: A word, of texts whose letters have lost their marks: as SQLite's tokenizer sees it.
_WORD = re.compile(r"[^\W_]+")

#: No word is longer in what PostgreSQL keeps.
_LONGEST_WORD = 500


def tokens(text: str) -> list[str]:
    """The words of a text for BM25, in small letters without marks: what SQLite's unicode61 makes of it."""
    plain = "".join(one for one in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(one) != "Mn")
    return [word[:_LONGEST_WORD] for word in _WORD.findall(plain)]


class Half:
    """A vector for the server, in float16."""

    def __init__(self, vector: np.ndarray) -> None:
        self.vector = np.asarray(vector, np.float32)


class Lexemes:
    """The words of a passage for the server, with their places."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words


def learn(connection: Any, schema: str) -> None:
    """Teach a connection to write `Half` and `Lexemes`, in the form that the server keeps."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format
    from psycopg.types import TypeInfo

    info = TypeInfo.fetch(connection, f'"{schema}".halfvec')
    assert info is not None
    info.register(connection)

    class Halves(Dumper):
        format, oid = Format.BINARY, info.oid

        def dump(self, obj: Half) -> bytes:
            return struct.pack(">HH", len(obj.vector), 0) + obj.vector.astype(">f2").tobytes()

    class Words(Dumper):
        """Of each word, in order: itself, how many places, and these (up to 255 of them, of up to 16383)."""

        format, oid = Format.BINARY, 3614

        def dump(self, obj: Lexemes) -> bytes:
            places: dict[bytes, list[int]] = {}
            for place, word in enumerate(obj.words, 1):
                places.setdefault(word.encode(), []).append(min(place, 16383))
            parts = [struct.pack(">I", len(places))]
            for one, found in sorted(places.items(), key=lambda pair: (len(pair[0]), pair[0])):
                some = sorted(set(found))[:255]
                parts.append(one + b"\0" + struct.pack(f">H{len(some)}H", len(some), *some))
            return b"".join(parts)

    connection.adapters.register_dumper(Half, Halves)
    connection.adapters.register_dumper(Lexemes, Words)
