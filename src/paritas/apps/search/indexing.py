# SPDX-License-Identifier: Apache-2.0
"""Texts of files become an index: cut, embedded in batches, and kept batch by batch, so that it can be gone on with."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.apps.search import places, store
from paritas.apps.search.embedding import Embedder
from paritas.apps.search.filters import Filter
from paritas.apps.search.reading import Row, rows
from paritas.apps.search.splitting import WAYS, Span, splitter
from paritas.apps.search.store import Document, Kept, Place, Writer, checked
from paritas.errors import InputError

#: So many passages are embedded at once: the model sorts them by length, and pads little.
TOGETHER = 512

#: While much is added, the file of vectors is made again whenever it has grown by this share.
GROWN = 0.5

#: A text that is longer is not read: it would be in memory as a whole, with all of its vectors.
LONGEST = 100_000_000

Told = Callable[["Progress"], None]

#: Rows with their passages, and what embeds such batches one after another: of each its vectors, in any order.
Batch = list[tuple[Row, list[Span]]]
Embeds = Callable[[Iterator[Batch]], Iterator[tuple[Batch, np.ndarray]]]


@dataclasses.dataclass
class Progress:
    """What was done so far: texts that were read, and of them those that were known, had no words, or were too long.

    documents, passages: what was added and is on disk.
    """

    read: int = 0
    known: int = 0
    empty: int = 0
    too_long: int = 0
    documents: int = 0
    passages: int = 0
    seconds: float = 0.0


def index(
    place: Place,
    files: Sequence[str | Path],
    embedder: Embedder | Callable[[], Embedder],
    *,
    text: str = "text",
    split: str = "verses",
    key: str = "",
    encoding: str = "utf-8",
    told: Told = lambda progress: None,
    embeds: Callable[[Embedder], Embeds] | None = None,
) -> Progress:
    """Put files into an index, which is made if it is not there. What is in it already is passed over.

    Args:
        place: a directory, or the URL of a database: see `store`.
        files: tables and folders, see `reading`.
        embedder: the model, or what loads it, once the files have been found to be readable.
        text: the column that is embedded.
        split: "verses", which empty lines part, "sentences", or "tokens", windows of 128.
        key: a column by which a row is known again: a row with a known key and another text takes the old one's place.
            Without it, a row is known by all that is in it.
        encoding: of files that do not say it themselves.
        told: called after every batch that is on disk.
        embeds: what embeds in place of the model, by the same one: see `on_ray`.

    Raises:
        InputError: a file cannot be read, another process writes, the disk is full, or the index is of another model or
            cut in another way.
    """
    if split not in WAYS:
        raise InputError(f"{split!r} is none of {', '.join(WAYS)}.")
    given = rows(files, text, key=key, encoding=encoding)
    try:
        first = [next(given)]
    except StopIteration:
        raise InputError(f"There are no rows in {', '.join(map(str, files))}.") from None
    settings = {"text": text, "split": split, "key": key}
    return add_rows(place, _chained(first, given), embedder, settings, told, embeds)


def add_rows(
    place: Place,
    given: Iterable[Row],
    embedder: Embedder | Callable[[], Embedder],
    settings: dict[str, Any],
    told: Told = lambda progress: None,
    embeds: Callable[[Embedder], Embeds] | None = None,
) -> Progress:
    """The same for rows from anywhere. settings: `text`, `split` and `key`, which the index keeps."""
    model = embedder if isinstance(embedder, Embedder) else embedder()
    is_new = not places.exists(place)
    if is_new:
        places.create(place, model.identity, settings)
    progress, began = Progress(), time.perf_counter()
    with places.writing(place) as writer:
        try:
            _add(writer, given, model, settings, progress, told, embeds(model) if embeds else _here(model))
        except BaseException:
            if is_new and not progress.documents:
                writer.discard()
            raise
    progress.seconds = time.perf_counter() - began
    return progress


def _here(model: Embedder) -> Embeds:
    def embedded(batches: Iterator[Batch]) -> Iterator[tuple[Batch, np.ndarray]]:
        for batch in batches:
            yield batch, model.embed(texts_of(batch))

    return embedded


def texts_of(batch: Batch) -> list[str]:
    """The passages of a batch, in order."""
    return [row.text[start:stop] for row, spans in batch for start, stop in spans]


def _add(
    writer: Writer,
    given: Iterable[Row],
    model: Embedder,
    settings: dict[str, Any],
    progress: Progress,
    told: Told,
    embeds: Embeds,
) -> None:
    began = time.perf_counter()
    store.refuse_other(writer.shown, writer.identity, model.identity)
    had = writer.settings
    if had["split"] != settings["split"] or had["key"] != settings["key"]:
        raise InputError(
            f"{writer.shown} has {had['split']} and is keyed by {had['key'] or 'whole rows'}; what is added to it "
            "has to be cut and known in the same way."
        )
    cut = splitter(settings["split"], model.model.tokenizer, model.model.max_seq_length)
    for batch, vectors in embeds(_batches(_new(given, writer, settings["key"], progress), cut, progress)):
        if not np.isfinite(vectors).all():
            raise InputError(f"{model.identity.name} embeds a text as numbers that are not finite.")
        documents, first = [], 0
        for row, spans in batch:
            one = vectors[first : first + len(spans)]
            documents.append(Document(row.key, row.text, row.columns, spans, one))
            first += len(spans)
        progress.passages += writer.add(documents)
        progress.documents += len(documents)
        progress.seconds = time.perf_counter() - began
        told(progress)
        writer.fold(share=GROWN)
    writer.fold()


def delete(place: Place, filters: Sequence[Filter]) -> int:
    """Remove the texts for which all filters hold. How many. Raises `InputError` where there is no filter."""
    if not filters:
        raise InputError("Say which texts are to be deleted: --where 'artist = Nobody'.")
    with places.writing(place) as writer:
        removed = writer.delete(checked(filters, writer))
        writer.fold()
    return removed


def _chained(first: list[Row], rest: Iterator[Row]) -> Iterator[Row]:
    yield from first
    yield from rest


def _new(given: Iterable[Row], writer: Writer, key: str, progress: Progress) -> Iterator[Row]:
    """The rows that are not in the index, or are with another text. Of one key the last counts, within a batch too."""
    batch: dict[str, Row] = {}

    def left() -> Iterator[Row]:
        known = writer.known(list(batch))
        for row in batch.values():
            if row.key in known and (not key or _same(writer, row)):
                progress.known += 1
            else:
                yield row
        batch.clear()

    for row in given:
        progress.read += 1
        if len(row.text) > LONGEST:
            progress.too_long += 1
            continue
        if not row.text.strip():
            progress.empty += 1
            continue
        progress.known += row.key in batch
        batch[row.key] = row
        if len(batch) >= TOGETHER:
            yield from left()
    yield from left()


def _same(writer: Writer, row: Row) -> bool:
    return writer.keyed(row.key) == Kept(row.key, row.text, row.columns)


def _batches(given: Iterable[Row], cut: Callable[[str], list[Span]], progress: Progress) -> Iterator[Batch]:
    """Rows with their passages, about `TOGETHER` passages at once: a text is never in two batches."""
    batch: dict[str, tuple[Row, list[Span]]] = {}
    count = 0
    for row in given:
        spans = cut(row.text)
        if not spans:
            progress.empty += 1
            continue
        if row.key in batch:  # it was not in the index when it was looked for: the row before is not there yet
            progress.known += 1
            count -= len(batch[row.key][1])
        batch[row.key] = row, spans
        count += len(spans)
        if count >= TOGETHER:
            yield list(batch.values())
            batch, count = {}, 0
    if batch:
        yield list(batch.values())
