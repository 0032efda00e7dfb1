# SPDX-License-Identifier: Apache-2.0
"""What keeps an index: a directory, or a schema in PostgreSQL. Whoever searches or adds knows this file alone.

A place is a directory, or a URL: `postgresql://user@host/database?schema=songs`. See `directory` and `postgres`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from paritas.apps.search.embedding import Identity
from paritas.apps.search.filters import Filter
from paritas.errors import InputError, did_you_mean

Place = str | Path

#: Of each passage that was found its number, and the cosine of its vector with the query's: the nearest first.
Nearest = list[tuple[int, float]]

#: How URLs of PostgreSQL begin.
_URLS = ("postgresql:", "postgres:")


@dataclasses.dataclass(frozen=True)
class Document:
    """A text to keep. passages: where they are in it; vectors: theirs, float32 [passages, dimensions], of length 1."""

    key: str
    text: str
    columns: dict[str, Any]
    passages: Sequence[tuple[int, int]]
    vectors: np.ndarray


@dataclasses.dataclass(frozen=True)
class Kept:
    """A text as it is in an index."""

    key: str
    text: str
    columns: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Passage:
    """A passage as it is in an index. key, columns: of its text; text: its own; vector: float32 [dimensions]."""

    number: int
    key: str
    columns: dict[str, Any]
    text: str
    vector: np.ndarray


class Index(Protocol):
    """An index that is read. Another process may write meanwhile: what it has confirmed is seen by the next search.

    Documents and passages have numbers, which stay theirs. Filters are ones that `filters.checked` has let through, and
    all of them hold for the documents that are asked for.
    """

    #: How messages name it; a URL without its password.
    shown: str

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def identity(self) -> Identity:
        """The model that embedded."""

    @property
    def settings(self) -> dict[str, Any]:
        """`text`, `split` and `key`: how texts are cut and known again."""

    def count(self, what: str) -> int:
        """How many "documents", or "passages"."""

    def numbers(self, what: str) -> np.ndarray:
        """Of all "documents", or "passages": int64, in order."""

    def sizes(self) -> tuple[int, int]:
        """How many bytes it takes, and how many of its passages are in a graph of neighbours."""

    def columns(self) -> list[str]:
        """The columns of the texts: of the first ones, which have them all in a table."""

    def has_column(self, name: str) -> bool: ...

    def values(self, column: str, most: int) -> list[Any]:
        """The distinct values of a column, up to so many."""

    def span(self, column: str) -> tuple[int, int] | None:
        """The smallest and the largest of a column's whole numbers; None where it has none."""

    def check(self) -> None:
        """Read everything. Raises `IndexDamaged`."""

    def nearest(self, vectors: np.ndarray, count: int) -> list[Nearest]:
        """For each vector so many passages by the graph, which may miss some.

        vectors: float32 [queries, dimensions], of length 1.
        """

    def exactly(self, vectors: np.ndarray, count: int, filters: Sequence[Filter] = ()) -> list[Nearest]:
        """The same of the passages that filters leave, every one compared."""

    def by_words(self, words: Sequence[str], count: int, filters: Sequence[Filter] = ()) -> list[int]:
        """Passages with any of these words, by BM25, the best first."""

    def left(self, filters: Sequence[Filter], most: int) -> int:
        """How many passages filters leave, counted up to `most`."""

    def places(self, passages: Sequence[int], filters: Sequence[Filter] = ()) -> dict[int, tuple[int, int, int]]:
        """For each passage its document, start and stop, if its document passes the filters."""

    def documents(self, numbers: Sequence[int]) -> dict[int, Kept]:
        """Those that are still there."""

    def keyed(self, key: str) -> Kept | None:
        """The document with this key."""

    def vectors(self, passages: Sequence[int]) -> dict[int, np.ndarray]:
        """Those that are still there, float32 [dimensions] each."""

    def vectors_of(self, documents: Sequence[int]) -> dict[int, np.ndarray]:
        """Of each document those of its passages, float32 [passages, dimensions]."""

    def matrices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Everything in parts: numbers, int64 [passages], in order, and vectors, float32 [passages, dimensions]."""

    def passages(self) -> Iterator[Passage]:
        """Everything, one by one."""


class Writer(Index, Protocol):
    """An index that is written to. What `add` and `delete` have returned from is on disk."""

    def add(self, documents: Sequence[Document]) -> int:
        """Keep documents, all of them or none; one with the key of another takes its place. How many passages."""

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which of these keys are those of documents."""

    def delete(self, filters: Sequence[Filter]) -> int:
        """Remove documents. How many."""

    def fold(self, *, share: float | None = None, now: bool = False, again: bool = False) -> None:
        """Make the graph of neighbours, if there is enough for it; where it is a file, if that has grown by `share`.

        now: in any case. again: all of it anew.
        """

    def discard(self) -> None:
        """Remove the index: it was made, and nothing came into it."""


def is_url(place: Place) -> bool:
    return str(place).startswith(_URLS)


def no_index(shown: str) -> InputError:
    return InputError(f"There is no index in {shown}: paritas search index FILE --text COLUMN --out {shown}")


def checked(filters: Sequence[Filter], index: Index) -> Sequence[Filter]:
    """The filters. Raises `InputError` for a column that no text has."""
    if filters:
        known = index.columns()
        for one in filters:
            if one.column not in known and not index.has_column(one.column):
                close = did_you_mean(difflib.get_close_matches(one.column, known, 1))
                raise InputError(f"No text has a column {one.column!r}.{close} There are {', '.join(known) or 'none'}.")
    return filters


def refuse_other(shown: str, had: Identity, has: Identity) -> None:
    """Raise `InputError` where vectors of a model would be compared with those of another."""
    if had.dimensions != has.dimensions or had.digest != has.digest:
        raise InputError(
            f"{shown} was made by {had.name} ({had.dimensions} dimensions, {had.digest[:12]}), and this is {has.name} "
            f"({has.dimensions}, {has.digest[:12]}). Vectors of different models cannot be compared."
        )
    if had.precision != has.precision:
        raise InputError(
            f"{shown} was made in {had.precision}, and this model computes in {has.precision}: "
            f"--precision {had.precision}"
        )


def halves(blobs: Iterable[bytes], width: int, kind: str = "<f2") -> np.ndarray:
    """Vectors as they are kept, in float16, one after another: float32 [vectors, width]. Raises `ValueError`."""
    found = np.frombuffer(b"".join(blobs), kind)
    if found.size % width:
        raise ValueError(f"a vector has not {width} numbers")
    return found.reshape(-1, width).astype(np.float32)


def compared(parts: Iterable[tuple[np.ndarray, np.ndarray]], wanted: np.ndarray, count: int) -> list[Nearest]:
    """For each of the wanted vectors the nearest of all in some parts, (numbers, matrix), compared one by one."""
    best: list[Nearest] = [[] for _ in wanted]
    for numbers, matrix in parts:
        for place, row in enumerate(wanted @ matrix.T):
            top = largest(row, count)
            merged = [*best[place], *zip(numbers[top].tolist(), row[top].tolist(), strict=True)]
            best[place] = in_order(merged)[:count]
    return best


def in_order(pairs: Iterable[tuple[int, float]]) -> Nearest:
    """The nearest first; of equal ones, that with the smaller number."""
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def largest(row: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest numbers, in no order."""
    return np.argpartition(row, -count)[-count:] if count < len(row) else np.arange(len(row))


def grouped(pairs: Iterable[tuple[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Vectors of documents, (document, vector), by document."""
    found: dict[int, list[np.ndarray]] = {}
    for number, vector in pairs:
        found.setdefault(number, []).append(vector)
    return {number: np.array(vectors) for number, vectors in found.items()}
