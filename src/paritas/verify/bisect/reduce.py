# SPDX-License-Identifier: Apache-2.0
"""Bisection: of a port that is wrong as a whole, the smallest part that is still wrong by itself."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence

from paritas.verify.bisect.trial import Outcome

Attempt = Callable[[Sequence[str]], Outcome]


@dataclasses.dataclass(frozen=True)
class Reduction:
    """What a search found.

    whole: the outcome of all nodes together. nodes, outcome: the smallest part found that ends as the whole does.
    minimal: no node can be left out of it; False where the time was up before that was known. found: whether the whole
    ended in a way that can be searched for. tries: outcome -> how
    many parts ended so, the whole included.
    """

    whole: Outcome
    nodes: tuple[str, ...]
    outcome: Outcome
    minimal: bool
    found: bool
    tries: Counter[str] = dataclasses.field(default_factory=Counter)


class _OutOfTime(Exception):
    pass


def search(
    nodes: Sequence[str],
    attempt: Attempt,
    *,
    seconds: float = float("inf"),
    progress: Callable[[str], None] | None = None,
    wanted: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Reduction:
    """The smallest part of `nodes`, which are in the graph's order, that ends as all of them together do.

    A part that cannot be tried counts as one that agrees: the search goes another way. The whole is tried always,
    parts as long as `seconds` last. Where several parts are wrong, it finds the earliest that halving leads to.
    wanted: how the whole has to end for the search to begin ("diverges", "crashes"); in either way if "".
    """
    known: dict[tuple[str, ...], Outcome] = {}
    until = clock() + seconds
    best = tuple(nodes)

    def fails(part: Sequence[str]) -> bool:
        nonlocal best
        key = tuple(part)
        if key not in known:
            if clock() >= until:
                raise _OutOfTime
            if progress is not None:
                progress(f"try {len(known) + 1}: {len(key)} of {len(nodes)} nodes; smallest so far {len(best)}")
            known[key] = attempt(key)
        if known[key].kind != whole.kind:
            return False
        best = key
        return True

    if progress is not None:
        progress(f"try 1: all {len(nodes)} nodes")
    whole = known[best] = attempt(best)
    minimal = True
    begun = whole.kind == wanted or (not wanted and whole.kind in ("diverges", "crashes"))
    if begun:
        try:
            _thinned(_shortened(list(nodes), fails), fails)
        except _OutOfTime:
            minimal = False
    tries: Counter[str] = Counter(outcome.kind for outcome in known.values())
    return Reduction(whole, best, known[best], minimal, begun, tries)


def _shortened(nodes: list[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """An interval of `nodes` that fails, and does not with one node less at either end: halves, then quarters..."""
    step = len(nodes) // 2
    while step:
        for shorter in (nodes[:-step], nodes[step:]):
            if fails(shorter):
                nodes = shorter
                step = min(step, len(nodes) // 2)
                break
        else:
            step //= 2
    return nodes


def _thinned(nodes: list[str], fails: Callable[[Sequence[str]], bool]) -> list[str]:
    """Without the nodes between that have nothing to do with it: in the end none can be left out."""
    step = max(len(nodes) - 2, 1)
    while step and len(nodes) > 1:
        at, before = 0, len(nodes)
        while at < len(nodes) and len(nodes) > step:
            fewer = nodes[:at] + nodes[at + step :]
            if fewer and fails(fewer):
                nodes = fewer
            else:
                at += step if step == 1 or at else 1
        if step > 1 or len(nodes) == before:
            step //= 2
        else:
            step = 1
    return nodes
