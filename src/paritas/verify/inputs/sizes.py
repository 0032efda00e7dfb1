# SPDX-License-Identifier: Apache-2.0
"""Sizes that a port takes: near to those that are wanted, and at the edges of what it was made for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from paritas.guards import broken, names_in
from paritas.program import Guard, Manifest

#: How far from a wanted size another is looked for, how many for several dimensions at once, and where an edge is.
NEAR, TOGETHER, FAR = 512, 20000, 256

Limits = Mapping[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Ways:
    """The guards of a port, and sizes of which all of them hold: those of the example that it was made with."""

    guards: tuple[Guard, ...] = ()
    example: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def takes(self, sizes: Mapping[str, int]) -> bool:
        return not broken(self.guards, sizes)

    def nearest(self, wanted: Mapping[str, int], limits: Limits) -> dict[str, int]:
        """`wanted` where the guards hold of it, else sizes near to it, else the example's."""
        if self.takes(wanted):
            return dict(wanted)
        involved = self._involved(wanted)
        if any(symbol not in wanted for symbol in involved):
            return dict(wanted)  # a guard about sizes that nobody gives
        each = max(2, int(TOGETHER ** (1 / len(involved)))) if len(involved) > 1 else 2 * NEAR
        choices = [_around(wanted[s], self.example.get(s), limits.get(s), each) for s in involved]
        guards = [guard for guard in self.guards if names_in(guard) & set(involved)]
        far = [np.abs(np.array(sizes) - wanted[s]) for s, sizes in zip(involved, choices, strict=True)]
        total: np.ndarray = functools.reduce(np.add.outer, far)
        for place in np.argsort(total, axis=None, kind="stable"):
            where = np.unravel_index(place, total.shape)
            sizes = {**wanted, **{s: of[at] for s, of, at in zip(involved, choices, where, strict=True)}}
            if not broken(guards, sizes):
                return sizes
        return {**wanted, **{symbol: self.example[symbol] for symbol in involved if symbol in self.example}}

    def nearer(
        self, sizes: Mapping[str, int], apart: Collection[str], limits: Limits, first: str = ""
    ) -> list[dict[str, int]]:
        """`sizes`, nearer and nearer to the example's, where guards and limits hold of it; those of `apart` stay.

        First those are alike that are alike in the example, as large as the first of them. Then all but the first
        length are the example's. first: the one that the sizes are about: those that are alike are as large as it is,
        and that is all.
        """
        lengths = [symbol for symbol in sizes if symbol not in apart and symbol in self.example]
        groups: dict[int, list[str]] = {}
        for symbol in lengths:
            groups.setdefault(self.example[symbol], []).append(symbol)
        alike = dict(sizes)
        for members in groups.values():
            alike |= dict.fromkeys(members, sizes[first if first in members else members[0]])
        alone = {**sizes, **{symbol: self.example[symbol] for symbol in lengths[1:]}}
        found: list[dict[str, int]] = []
        for wanted in (alike,) if first else (alike, alone):
            within = all(low <= wanted[symbol] <= high for symbol, (low, high) in limits.items() if symbol in wanted)
            if wanted not in (dict(sizes), *found) and within and self.takes(wanted):
                found.append(wanted)
        return found

    def edges(self, symbols: Iterable[str], limits: Limits) -> list[tuple[str, str, dict[str, int]]]:
        """(which end, symbol, sizes) for each dimension's smallest size that is taken beside the example's others.

        And for its largest, if a guard ends it.
        """
        if any(symbol not in self.example for symbol in symbols):
            return []
        asked = set().union(*map(names_in, self.guards)) if self.guards else set()
        found = []
        for symbol in symbols:
            low, high = limits.get(symbol, (1, FAR))
            sizes = dict(self.example)
            taken = [n for n in range(low, min(high, FAR) + 1) if self.takes(sizes | {symbol: n})]
            if not taken:
                continue
            found.append(("smallest", symbol, sizes | {symbol: taken[0]}))
            if symbol in asked and taken[-1] < min(high, FAR) - FAR // 4:
                found.append(("largest", symbol, sizes | {symbol: taken[-1]}))
        return found

    def _involved(self, wanted: Mapping[str, int]) -> list[str]:
        """The sizes of the broken guards, and those that other guards tie to them."""
        names = set().union(*(names_in(guard) for guard in broken(self.guards, wanted)))
        while True:
            more = set().union(names, *(n for n in map(names_in, self.guards) if n & names))
            if more == names:
                return sorted(names)
            names = more


def size_ranges(largest: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Dynamic dimension -> (smallest, largest) for generated inputs."""
    return {symbol: (1, size) for symbol, size in largest.items()}


def ways(manifest: Manifest) -> Ways:
    """What generated inputs have to keep to besides: the guards, and the example's sizes."""
    return Ways(manifest.guards, manifest.sizes)


def _around(wanted: int, example: int | None, limit: tuple[int, int] | None, many: int) -> Sequence[int]:
    low, high = limit or (1, wanted + NEAR)
    near = sorted(range(max(low, wanted - many), min(high, wanted + many) + 1), key=lambda n: abs(n - wanted))
    found = near[: max(many - 1, 1)]
    return found if example is None or example in found else [*found, example]
