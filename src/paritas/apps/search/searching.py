# SPDX-License-Identifier: Apache-2.0
"""A query is embedded and answered: by meaning, by words too where that is asked for, each text once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paritas.apps.search import places, store
from paritas.apps.search.embedding import Embedder
from paritas.apps.search.filters import Filter
from paritas.apps.search.store import Nearest, Place, checked
from paritas.errors import InputError

#: So many passages that a filter leaves are compared one by one; of more, the graph is asked for more than is wanted.
FEW = 20_000

#: In reciprocal rank fusion: how little the first places count more than those behind (Cormack et al., 2009).
FUSED = 60

#: What a word is, for BM25.
_WORD = re.compile(r"[^\W_]+")


@dataclasses.dataclass(frozen=True)
class Hit:
    """A text that was found. start, stop: its best passage. score: cosine with the query, or what a reranker says.

    passages: all of its passages that were among the nearest, (start, stop, score), the best first.
    """

    document: int
    key: str
    text: str
    columns: dict[str, Any]
    start: int
    stop: int
    score: float
    passages: tuple[tuple[int, int, float], ...]

    @property
    def passage(self) -> str:
        return self.text[self.start : self.stop]

    @property
    def title(self) -> str:
        """What the text is called: its column `title`, `song` or `name`, or its first line."""
        for name in ("title", "song", "name", "track"):
            for column, value in self.columns.items():
                if column.lower() == name and value not in (None, ""):
                    return str(value)
        return next((line.strip() for line in self.text.splitlines() if line.strip()), "")[:80]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "score": round(self.score, 6),
            "passage": self.passage,
            "start": self.start,
            "stop": self.stop,
            "columns": self.columns,
            "key": self.key,
        }


class Searcher:
    """An index that is asked. It may be written to meanwhile.

    Args:
        place: where it is, see `store`.
        embedder: the model that it was made by; loaded by what the index says of it, if not given.
        engine: for a model that is loaded so.

    Raises:
        InputError: there is no index, or it is of another model.
    """

    def __init__(
        self,
        place: Place,
        embedder: Embedder | None = None,
        *,
        model: str = "",
        engine: str | None = None,
        reranker: Callable[[list[tuple[str, str]]], np.ndarray] | None = None,
    ) -> None:
        self.index = places.opened(place)
        had = self.index.identity
        self.embedder = embedder or Embedder(model or had.name, engine=engine, precision=had.precision)
        store.refuse_other(self.index.shown, had, self.embedder.identity)
        self.reranker = reranker

    def close(self) -> None:
        self.index.close()

    def search(
        self,
        query: str,
        top: int = 9,
        *,
        filters: Sequence[Filter] = (),
        hybrid: bool = False,
        rerank: int = 0,
    ) -> list[Hit]:
        """The texts that fit a query best, each once.

        filters: all of them hold for what is found. hybrid: BM25's ranks count as much as those of the vectors.
        rerank: so many texts are read by the reranker, pair by pair, and are in its order. Raises `InputError`.
        """
        check(query, top)
        if rerank and self.reranker is None:
            raise InputError("There is no reranker: --rerank MODEL names one.")
        return self.found_by(self.embedder.embed([query], query=True)[0], query, top, filters, hybrid, rerank)

    def found_by(
        self, vector: np.ndarray, query: str, top: int, filters: Sequence[Filter], hybrid: bool, rerank: int
    ) -> list[Hit]:
        checked(filters, self.index)
        wanted = max(top, rerank)
        total = self.index.count("passages")
        left = self.index.left(filters, FEW + 1) if filters else total
        if not left:
            return []
        count = max(4 * wanted, 50)
        while True:  # until so many different texts are among the passages
            if filters and left <= FEW:
                (pairs,) = self.index.exactly(vector, left if count >= left else count, filters)
            else:
                (pairs,) = self.index.nearest(vector, count)
            words = self.index.by_words(words_of(query), count, filters) if hybrid else []
            hits = self._grouped(vector, pairs, words, filters)
            if len(hits) >= wanted or count >= total:
                break
            count *= 4
            if count >= FEW and filters and left > FEW:  # a filter that what is near seldom passes
                (pairs,) = self.index.exactly(vector, count, filters)
                hits = self._grouped(vector, pairs, words, filters)
                break
        hits = hits[:wanted]
        if rerank and self.reranker is not None:
            hits = self._reranked(query, hits)
        return hits[:top]

    def _grouped(
        self,
        vector: np.ndarray,
        pairs: Nearest,
        words: list[int],
        filters: Sequence[Filter],
    ) -> list[Hit]:
        """Passages as texts, in the order of their best one."""
        scores = dict(pairs)
        if missing := [number for number in words if number not in scores]:
            scores |= {number: float(one @ vector) for number, one in self.index.vectors(missing).items()}
        ranks = {number: 1 / (FUSED + place) for place, (number, _) in enumerate(pairs, 1)}
        if words:
            for place, number in enumerate(words, 1):
                ranks[number] = ranks.get(number, 0.0) + 1 / (FUSED + place)
        order = sorted(scores, key=lambda number: (-ranks.get(number, 0.0), -scores[number]))
        places = self.index.places(order, filters)
        found: dict[int, list[int]] = {}
        for number in order:
            if number in places:
                found.setdefault(places[number][0], []).append(number)
        documents = self.index.documents(list(found))
        hits = []
        for document, numbers in found.items():
            if document not in documents:  # deleted a moment ago
                continue
            kept = documents[document]
            passages = tuple((*places[number][1:], scores[number]) for number in numbers)
            hits.append(Hit(document, kept.key, kept.text, kept.columns, *passages[0], passages))
        return hits

    def _reranked(self, query: str, hits: list[Hit]) -> list[Hit]:
        assert self.reranker is not None
        scores = np.asarray(self.reranker([(query, hit.passage) for hit in hits])).reshape(len(hits), -1)[:, 0]
        order = np.argsort(-scores, kind="stable")
        return [dataclasses.replace(hits[place], score=float(scores[place])) for place in order]


def check(query: str, top: int) -> None:
    """Raise `InputError` for what cannot be asked, whatever the index."""
    if not query.strip():
        raise InputError("The query is empty.")
    if top < 1:
        raise InputError(f"top={top}: it has to be 1 at least.")


def words_of(query: str) -> list[str]:
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(query)))


def cross_encoder(name: str, engine: str | None = None) -> Callable[[list[tuple[str, str]]], np.ndarray]:
    """A reranker: a CrossEncoder on an engine."""
    from paritas.apps.search.embedding import directory_of
    from paritas.sentence_transformers import CrossEncoder

    ours: dict[str, Any] = {"engine": engine}
    model = CrossEncoder(str(directory_of(name)), device="cpu", **ours)

    def scores(pairs: list[tuple[str, str]]) -> np.ndarray:
        found: np.ndarray = model.predict(pairs, show_progress_bar=False)
        return found

    return scores
