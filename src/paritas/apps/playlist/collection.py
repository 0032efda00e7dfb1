# SPDX-License-Identifier: Apache-2.0
"""The songs of the page: an index, made in the background if there is none, and a map of what is in it."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas import leftovers
from paritas.apps.search import places
from paritas.apps.search.embedding import MODEL, Embedder
from paritas.apps.search.filters import Filter
from paritas.apps.search.indexing import Progress, add_rows
from paritas.apps.search.reading import Row
from paritas.apps.search.searching import Hit, Searcher
from paritas.apps.search.songs import SONGS, songs
from paritas.apps.search.store import Index, Place
from paritas.dropin import kept
from paritas.errors import InputError

#: So many songs of a playlist are distinct.
TOP = 9

#: So many songs are points of the map.
POINTS = 700

#: So many artists can be chosen from.
ARTISTS = 5000

#: What the index of the songs that ship is made with.
_SETTINGS = {"text": "lyrics", "split": "verses", "key": ""}

#: How long a first query waits for the first songs.
_PATIENCE = 120.0


class Collection:
    """The songs, and the model that knows them.

    Args:
        place: an index of one's own, see `store`; without it, of the songs that ship, in the folder of what is kept.
        engine: what computes the model.

    Raises:
        InputError: there is no index at `place`.
    """

    def __init__(self, place: Place | None = None, engine: str | None = None) -> None:
        self.is_own = place is not None
        self.place: Place = place or _shipped_place()
        self.asked_engine = engine
        if place is not None:
            places.opened(place).close()
        self.songs = 0
        self._searcher: Searcher | None = None
        self._failed: Exception | None = None
        self._first, self._done = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._map: tuple[int, Any] | None = None

    @property
    def name(self) -> str:
        """What the page calls the index: the end of its path, or of its URL."""
        return Path(places.shown(self.place)).name

    def start(self) -> None:
        """Load the model, and read the songs if they are not in the index, in a thread."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            name = MODEL
            if places.exists(self.place):
                with places.opened(self.place) as index:
                    name, precision = index.identity.name, index.identity.precision
                    self.songs = index.count("documents")
            else:
                precision = "fp32"
            embedder = Embedder(name, engine=self.asked_engine, precision=precision)
            embedder.embed(["a"], query=True)  # so that the port is there when somebody asks
            self._embedder = embedder
            if not self.is_own and self.songs < SONGS:
                self._read(embedder)
            self._opened()
        except Exception as error:  # noqa: BLE001 - shown by who waits for it
            self._failed = error
        finally:
            self._first.set()
            self._done.set()

    def _read(self, embedder: Embedder) -> None:
        rows = (Row(str(number), song.lyrics, song.columns()) for number, song in enumerate(songs()))
        had = self.songs

        def told(progress: Progress) -> None:
            self.songs = had + progress.documents
            self._opened()

        try:
            add_rows(self.place, rows, embedder, _SETTINGS, told)
        except InputError:
            if not places.exists(self.place):  # else another page reads the songs into it, and this one looks on
                raise

    def _opened(self) -> None:
        if self._searcher is None:
            self._searcher = Searcher(self.place, self._embedder)
        self._first.set()

    @property
    def state(self) -> str:
        """What is being done, ending in "…"; "" once all is there."""
        if self._done.is_set():
            return ""
        return f"Reading songs: {self.songs} of {SONGS}…" if self.songs and not self.is_own else "Loading the model…"

    def searcher(self) -> Searcher:
        """What is asked, once there are songs. Raises what went wrong before."""
        self._first.wait(_PATIENCE)
        if self._failed is not None:
            raise self._failed
        if self._searcher is None:
            raise InputError("The model is still being loaded. Try again in a moment.")
        return self._searcher

    def search(self, prompt: str, years: tuple[float | None, float | None], artists: Sequence[str]) -> list[Hit]:
        """The songs that fit a prompt best."""
        filters = []
        first, last = years
        if first is not None:
            filters.append(Filter("year", ">=", first))
        if last is not None:
            filters.append(Filter("year", "<=", last))
        with self._lock:
            searcher = self.searcher()
            if not artists:
                return searcher.search(prompt, TOP, filters=filters)
            found: dict[int, Hit] = {}
            for artist in artists:  # any of them, where filters are all of them
                for hit in searcher.search(prompt, TOP, filters=[*filters, Filter("artist", "=", artist)]):
                    found[hit.document] = hit
            return sorted(found.values(), key=lambda hit: -hit.score)[:TOP]

    def song(self, number: int) -> Hit | None:
        """A song by its number, as a link names it."""
        with self._lock:
            index = self.searcher().index
            kept = index.documents([number]).get(number)
        return None if kept is None else Hit(number, kept.key, kept.text, kept.columns, 0, 0, 0.0, ())

    def artists(self) -> list[str]:
        """Who sings, in order; those of the songs that ship are known before they are read."""
        if not self.is_own:
            return sorted({song.artist for song in songs()})
        with places.opened(self.place) as index:
            return sorted(map(str, index.values("artist", ARTISTS)))

    def years(self) -> tuple[int, int] | None:
        """The first and the last year; None where no song has one."""
        if not self.is_own:
            return 1962, 2024
        with places.opened(self.place) as index:
            return index.span("year")

    def embedded(self, prompt: str) -> np.ndarray:
        return self._embedder.embed([prompt], query=True)[0]

    def map(self, prompt: str, hits: Sequence[Hit]) -> dict[str, Any]:
        """Where songs are on the plane on which they differ most, the prompt among them.

        Returns `others` float32 [points, 2], `found`, one for each hit, and `prompt`, from 0 to 1, and `share`, how
        much of what differs the plane shows.
        """
        with self._lock:
            index = self.searcher().index
            plane = self._plane(index)
            numbers = [hit.document for hit in hits]
            vectors = _means(index, numbers)
        found = np.array([vectors[number] for number in numbers]) if numbers else np.empty((0, plane["mean"].size))
        asked_for = self.embedded(prompt)[None]
        places = [plane["others"], *((one - plane["mean"]) @ plane["axes"].T for one in (found, asked_for))]
        every = np.concatenate(places)
        low, high = every.min(axis=0), every.max(axis=0)
        others, hit_places, (asked,) = ((one - low) / np.maximum(high - low, 1e-9) for one in places)
        return {"others": others, "found": hit_places, "prompt": asked, "share": plane["share"]}

    def _plane(self, index: Index) -> dict[str, Any]:
        """The plane of the two largest principal components, made again when there are many more songs."""
        count = index.count("documents")
        if self._map is None or count > 1.5 * self._map[0]:
            drawn = np.random.default_rng(0).permutation(index.numbers("documents"))[:POINTS]
            vectors = _means(index, drawn.tolist())
            matrix = np.array(list(vectors.values()))
            mean = matrix.mean(axis=0)
            _, sizes, axes = np.linalg.svd(matrix - mean, full_matrices=False)
            share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12))
            plane = {"mean": mean, "axes": axes[:2], "others": (matrix - mean) @ axes[:2].T, "share": share}
            self._map = count, plane
        return self._map[1]


def _means(index: Index, numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """The mean vector of each song's passages."""
    return {number: vectors.mean(axis=0) for number, vectors in index.vectors_of(numbers).items()}


def as_m3u(hits: Sequence[Hit], link: Callable[[Hit], str]) -> str:
    """A playlist that players open."""
    lines = ["#EXTM3U"]
    for hit in hits:
        artist = hit.columns.get("artist")
        name = f"{artist} - {hit.title}" if artist else hit.title
        lines += [f"#EXTINF:-1,{' '.join(name.split())}", link(hit)]
    return "\n".join(lines) + "\n"


def as_csv(hits: Sequence[Hit], link: Callable[[Hit], str]) -> str:
    """The playlist as a table: place, score, the songs' columns, the passage and a link."""
    names = list(dict.fromkeys(name for hit in hits for name in hit.columns))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["place", "score", *names, "passage", "link"])
    for place, hit in enumerate(hits, 1):
        cells = (hit.columns.get(name) for name in names)
        writer.writerow([place, f"{hit.score:.4f}", *map(_harmless, cells), _harmless(hit.passage), link(hit)])
    return file.getvalue()


def _harmless(value: Any) -> Any:
    """A cell that no table program takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t" else value


def _shipped_place() -> Path:
    root = kept.directory()
    if root is None:
        return leftovers.make("playlist") / "songs.idx"
    return root.parent / f"{root.name}-playlist" / "songs.idx"


def written(folder: Path, name: str, text: str) -> str:
    """A file to be downloaded."""
    path = folder / f"{time.time_ns()}" / name
    os.makedirs(path.parent)
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)
