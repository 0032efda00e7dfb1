# SPDX-License-Identifier: Apache-2.0
"""How good a search is: of an index, what its graph misses; of a model, how every engine ranks beside PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from paritas.apps.search import places, songs
from paritas.apps.search.embedding import Embedder
from paritas.apps.search.store import Place
from paritas.errors import EngineMissing, InputError, UnsupportedOps, first_line
from paritas.run.engine import about, engines

#: So much noise is on a passage's vector before it is asked for: a query is near something, and none of what is there.
NOISE = 0.35


def of_index(place: Place, queries: int = 200, *, seed: int = 0) -> dict[str, Any]:
    """recall@10 of an index against comparing everything, and how long a query takes without embedding it.

    Asked is for passages of the index that are drawn and moved a little.
    """
    rng = np.random.default_rng(seed)
    with places.opened(place) as index:
        numbers = index.numbers("passages")
        total = len(numbers)
        if not total:
            raise InputError(f"{index.shown} is empty: there is nothing to find.")
        drawn = np.sort(rng.choice(numbers, min(queries, total), replace=False))
        vectors = np.array(list(index.vectors(drawn.tolist()).values()))
        noise = rng.normal(size=vectors.shape).astype(np.float32)
        vectors = vectors + NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        count = min(10, total)
        want = index.exactly(vectors, count)
        index.nearest(vectors[:1], count)
        found, times = [], []
        for vector in vectors:
            began = time.perf_counter()
            found.append(index.nearest(vector, count)[0])
            times.append(1e3 * (time.perf_counter() - began))
    hits = [len({n for n, _ in a} & {n for n, _ in b}) / count for a, b in zip(found, want, strict=True)]
    return {
        "passages": total,
        "queries": len(vectors),
        "recall": float(np.mean(hits)),
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
    }


def of_model(
    model: str, wanted: Sequence[str] | None = None, *, progress: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Of every engine and precision: nDCG@10 and Spearman's correlation on what ships, and how far from PyTorch's.

    wanted: engines; None for all that are installed. What cannot run here is a row with the reason. agreement: the
    share of the ten texts that PyTorch finds first which are among the first ten here.
    """
    import scipy.stats

    labelled, pairs = searched(), sentence_pairs()
    texts: list[str] = [text for text, _ in labelled["texts"]]
    rows, reference = [], None
    for engine, precision in _ways(wanted):
        row: dict[str, Any] = {"engine": about(engine).label, "precision": precision}
        rows.append(row)
        progress(f"{row['engine']}, {precision}")
        try:
            embedder = Embedder(model, engine=engine, precision=precision)
            began = time.perf_counter()
            there = embedder.embed(texts)
            row["seconds"] = time.perf_counter() - began
            asked = embedder.embed([query for query, _ in labelled["queries"]], query=True)
            halves = [embedder.embed([a for a, _, _ in pairs]), embedder.embed([b for _, b, _ in pairs])]
        except (EngineMissing, UnsupportedOps, InputError) as error:
            row["why"] = first_line(error)
            continue
        scores = asked @ there.T
        ranks = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        row["ndcg"] = float(
            np.mean([_ndcg(rank, labelled, theme) for rank, (_, theme) in zip(ranks, labelled["queries"], strict=True)])
        )
        likeness = (halves[0] * halves[1]).sum(axis=1)
        row["spearman"] = float(scipy.stats.spearmanr(likeness, [pair[2] for pair in pairs]).statistic)
        if reference is None:
            reference = there, ranks
        row["largest"] = float(np.abs(there - reference[0]).max())
        same = [len(set(a) & set(b)) / len(a) for a, b in zip(ranks.tolist(), reference[1].tolist(), strict=True)]
        row["agreement"] = float(np.mean(same))
    return rows


def _ways(wanted: Sequence[str] | None) -> Iterable[tuple[str, str]]:
    """PyTorch in float32 first, with which the others are compared."""
    original = next(one for one in engines() if about(one).is_original)
    yield original, "fp32"
    for name in wanted or engines():
        if name != original:
            yield name, "fp32"
            if about(name).weight_formats:
                yield name, "bf16"
                yield name, "int8"


def _ndcg(rank: Iterable[int], labelled: dict[str, Any], theme: str) -> float:
    gains = [float(labelled["texts"][place][1] == theme) for place in rank]
    there = sum(subject == theme for _, subject in labelled["texts"])
    weights = 1 / np.log2(np.arange(2, len(gains) + 2))
    return float((np.array(gains) * weights).sum() / weights[: min(there, len(gains))].sum())


#: So many songs are searched, by their first verse: a verse is about one subject.
SEARCHED = 400


def searched() -> dict[str, Any]:
    """`texts`: verses, and the subject of each; `queries`, and the subject that each asks for."""
    return {
        "texts": [(song.lyrics.partition("\n\n")[0], song.subjects[0]) for song in songs.songs(SEARCHED)],
        "queries": songs.queries(),
    }


def sentence_pairs() -> list[tuple[str, str, float]]:
    """Pairs of sentences, and how alike they are: 0 to 5."""
    return [(a, b, float(score)) for a, b, score in songs.shipped("pairs.json")]


def table(model: str, rows: Sequence[dict[str, Any]]) -> Any:
    """The rows as a table for a terminal."""
    from rich.table import Table

    shown = Table(title=model, box=None, title_justify="left", pad_edge=False)
    for name in ("", "nDCG@10", "Spearman", "same ten", "largest difference"):
        shown.add_column(name, justify="left" if not name else "right")
    for row in rows:
        name = f"{row['engine']} {row['precision']}"
        if "why" in row:
            shown.add_row(name, row["why"])
        else:
            figures = (f"{row['ndcg']:.4f}", f"{row['spearman']:.4f}", f"{100 * row['agreement']:.1f} %")
            shown.add_row(name, *figures, f"{row['largest']:.1e}")
    return shown
