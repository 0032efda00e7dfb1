# SPDX-License-Identifier: Apache-2.0
"""Which module of one model is which of another: those that hold the same weights."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from paritas.apps.reimplementation.rules import Rules, excused
from paritas.apps.reimplementation.weight_map import Transfer


@dataclasses.dataclass(frozen=True)
class Twins:
    """Paths of modules that are each other's twin, the model itself ("" and "") first, in the original's order.

    apart: modules of the original without a twin; other_apart: of the other model. Both are parts of a twin.
    """

    pairs: tuple[tuple[str, str], ...]
    apart: tuple[str, ...] = ()
    other_apart: tuple[str, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def twins(original: Sequence[str], other: Sequence[str], transfers: Iterable[Transfer], rules: Rules) -> Twins:
    """Pair the modules at the paths `original` and `other`, "" included, each list in the order of its model.

    What the rules name comes first. Then modules pair whose weights are the same transfers, whole ones: the
    outermost with the outermost where one wraps another. A module that holds its weights itself, as Linear does, is
    no twin of one whose parts hold them, which does more. Modules without weights pair by their own name inside a
    pair.
    """
    found = {"": "", **_named(original, other, rules)}
    transfers = tuple(transfers)
    ours = _by_weights(original, [t.sources for t in transfers])
    theirs = _by_weights(other, [t.targets for t in transfers])
    for key, paths in ours.items():
        free = [p for p in paths if p and p not in found and not excused(p, rules.apart)]
        open_ = [p for p in theirs.get(key, []) if p and p not in found.values()]
        for holds in (True, False):
            mine = [p for p in free if _holds(p, key, [t.sources for t in transfers]) is holds]
            its = [p for p in open_ if _holds(p, key, [t.targets for t in transfers]) is holds]
            found |= _chained(mine, its)
    _by_name(found, original, other)
    left_out = {path: why for path in original if (why := excused(path, rules.apart))}
    for path in left_out:
        found.pop(path, None)
    return Twins(
        tuple((path, found[path]) for path in original if path in found),
        tuple(path for path in original if path not in found and path not in left_out),
        tuple(path for path in other if path not in found.values()),
        left_out,
    )


def _named(original: Sequence[str], other: Collection[str], rules: Rules) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in original:
        for pattern, to in rules.modules:
            if match := re.fullmatch(pattern, path):
                target = match.expand(to)
                if target in other and target not in found.values():
                    found[path] = target
                break
    return found


def _by_weights(paths: Sequence[str], ends: Sequence[Sequence[str]]) -> dict[frozenset[int], list[str]]:
    """Numbers of transfers -> the modules that hold all of their weights on one side, outermost first."""
    inside: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for number, names in enumerate(ends):
        for name in names:
            parts = name.split(".")[:-1]
            for depth in range(len(parts) + 1):
                inside[".".join(parts[:depth])][number] += 1
    found: dict[frozenset[int], list[str]] = defaultdict(list)
    for path in paths:
        counts = inside.get(path, {})
        if counts and all(count == len(ends[number]) for number, count in counts.items()):
            found[frozenset(counts)].append(path)
    return found


def _holds(path: str, key: Collection[int], ends: Sequence[Sequence[str]]) -> bool:
    """Whether the weights are the module's own, not those of its parts."""
    return all(name.rpartition(".")[0] == path for number in key for name in ends[number])


def _chained(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str]:
    """Modules around one another, with the same weights: in order where there are as many on both sides."""
    if len(ours) == len(theirs):
        return dict(zip(ours, theirs, strict=True))
    pairs: dict[str, str] = {}
    for one in ours:
        same = [two for two in theirs if two.rpartition(".")[2] == one.rpartition(".")[2]]
        if len(same) == 1:
            pairs[one] = same[0]
    mine, its = [p for p in ours if p not in pairs], [p for p in theirs if p not in pairs.values()]
    return {**pairs, mine[0]: its[0]} if mine and its else pairs


def _by_name(found: dict[str, str], original: Sequence[str], other: Collection[str]) -> None:
    """Modules without weights, inside a pair, under the same name: a parent comes before its children."""
    for path in original:
        parent, _, name = path.rpartition(".")
        if path and path not in found and parent in found:
            target = f"{found[parent]}.{name}".lstrip(".")
            if target in other and target not in found.values():
                found[path] = target
