# SPDX-License-Identifier: Apache-2.0
"""Rules for weights that have no place yet, guessed from shapes, names and order: to begin with, and to be read."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from paritas.apps.reimplementation.weight_map import Shape, Shapes, WeightReport

#: Below this likeness, equal shapes alone do not make a suggestion.
LIKENESS = 0.4

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")


@dataclasses.dataclass(frozen=True, eq=False)
class _Family:
    """The weights of modules whose names differ in their numbers only.

    stem: "h.#.ln_1". shapes: by the numbers and the last part of the name, (("0",), "weight"). place: where the first
    of them stands among its neighbours, from 0 to 1.
    """

    stem: str
    shapes: Mapping[tuple[tuple[str, ...], str], Shape]
    place: float


@dataclasses.dataclass(frozen=True)
class _Rule:
    likeness: float
    sources: tuple[_Family, ...]
    targets: tuple[_Family, ...]
    how: Mapping[str, str]
    square: bool = False  # its matrices fit as they are, and transposed


def with_suggestion(report: WeightReport, original: Shapes, other: Shapes) -> WeightReport:
    """The report with rules, as TOML, for as many of its unmatched weights as shapes, names and order allow."""
    sources = _families(original, report.unmatched)
    targets = _families(other, report.missing)
    candidates = sorted(_candidates(sources, targets), key=lambda rule: -rule.likeness)
    chosen: list[_Rule] = []
    for rule in candidates:
        if rule.likeness >= LIKENESS and not _touches(rule, chosen):
            chosen.append(rule)
    left = [rule for rule in candidates if not _touches(rule, chosen)]
    for rule in left:  # the only one that fits may be called anything
        if sum(_touches(rule, [another]) for another in left) == 1:
            chosen.append(rule)
    rows = [_row(_turned_as_its_neighbours(rule, chosen)) for rule in chosen]
    return dataclasses.replace(report, suggestion="\n".join(rows))


def _touches(rule: _Rule, others: Iterable[_Rule]) -> bool:
    mine = {*rule.sources, *rule.targets}
    return any(mine & {*other.sources, *other.targets} for other in others)


def _turned_as_its_neighbours(rule: _Rule, chosen: Sequence[_Rule]) -> _Rule:
    """Square matrices are transposed where all others of their numbered block are: GPT-2 has Conv1D throughout."""
    block = rule.sources[0].stem.rpartition("#")[0]
    near = [
        "transpose" in other.how
        for other in chosen
        if not other.square
        and other.sources[0].stem.rpartition("#")[0] == block
        and any(len(shape) == 2 for shape in other.sources[0].shapes.values())
    ]
    if not (rule.square and near and all(near)):
        return rule
    return dataclasses.replace(rule, how={**rule.how, "transpose": "true"})


def _families(shapes: Shapes, wanted: Iterable[str]) -> list[_Family]:
    """The wanted names by their stems. How many elements stand before one does not change when others are joined."""
    members: dict[str, dict[tuple[tuple[str, ...], str], Shape]] = defaultdict(dict)
    first: dict[str, str] = {}
    for name in wanted:
        stem, _, last = _NUMBER.sub("#", name).rpartition(".")
        members[stem][tuple(_NUMBER.findall(name)), last] = shapes[name]
        first.setdefault(stem, name)
    return [_Family(stem, shaped, _place(first[stem], shapes)) for stem, shaped in members.items()]


def _place(name: str, shapes: Shapes) -> float:
    """Of all elements around this name, within its own numbered block if it is in one, the part before it."""
    numbers = list(_NUMBER.finditer(name))
    block = name[: numbers[-1].end() + 1] if numbers else ""
    sizes = {n: math.prod(shape) for n, shape in shapes.items() if n.startswith(block)}
    before = sum(sizes[n] for n in list(sizes)[: list(sizes).index(name)])
    return before / max(sum(sizes.values()), 1)


def _candidates(sources: Sequence[_Family], targets: Sequence[_Family]) -> Iterator[_Rule]:
    for source in sources:
        for target in targets:
            if how := _one_to_one(source, target):
                matrices = any(len(shape) == 2 for shape in source.shapes.values())
                square = len(how) == 2 and matrices
                yield _Rule(_likeness(source, target), (source,), (target,), how[0], square)
        for triple in _triples(targets):
            if how := _one_to_three(source, triple):
                likeness = sum(_likeness(source, target) for target in triple) / 3
                yield _Rule(likeness + 0.2, (source,), triple, {**how[0], "split": "0"})
    for triple in _triples(sources):
        for target in targets:
            if how := _one_to_three(target, triple):
                likeness = sum(_likeness(source, target) for source in triple) / 3
                yield _Rule(likeness + 0.2, triple, (target,), {**how[0], "concat": "0"})


def _one_to_one(source: _Family, target: _Family) -> list[dict[str, str]]:
    """How the one becomes the other: as it is, or transposed; empty if neither fits all of its weights."""
    if set(source.shapes) != set(target.shapes):
        return []
    pairs = [(shape, target.shapes[key]) for key, shape in source.shapes.items()]
    found: list[dict[str, str]] = [{}] if all(one == two for one, two in pairs) else []
    return found + ([{"transpose": "true"}] if all(_turned(one) == two for one, two in pairs) else [])


def _one_to_three(whole: _Family, parts: Sequence[_Family]) -> list[dict[str, str]]:
    if any(set(part.shapes) != set(whole.shapes) for part in parts):
        return []
    pairs = [(shape, parts[0].shapes[key]) for key, shape in whole.shapes.items()]
    found: list[dict[str, str]] = [{}] if all(one == _thrice(two) for one, two in pairs) else []
    turned = all(_turned(one) == _thrice(two) for one, two in pairs)
    return found + ([{"transpose": "true"}] if turned else [])


def _turned(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else shape


def _thrice(shape: Shape) -> Shape:
    return (3 * shape[0], *shape[1:]) if shape else shape


def _triples(families: Sequence[_Family]) -> Iterator[tuple[_Family, ...]]:
    """Queries, keys and values of one attention, in that order, of equal shapes."""
    siblings: dict[str, dict[str, _Family]] = defaultdict(dict)
    for family in families:
        if found := re.search(r"(?<![a-z])(query|key|value|[qkv])(_?proj|_lin)?$", family.stem):
            siblings[family.stem[: found.start()]][found[1][0]] = family
    for letters in siblings.values():
        if set(letters) == set("qkv"):
            triple = tuple(letters[letter] for letter in "qkv")
            if all(part.shapes == triple[0].shapes for part in triple):
                yield triple


def _likeness(one: _Family, other: _Family) -> float:
    """Of names, whose ends say most, and of places in the order."""
    whole = difflib.SequenceMatcher(None, one.stem, other.stem).ratio()
    end, other_end = (".".join(family.stem.split(".")[-2:]) for family in (one, other))
    names = (whole + difflib.SequenceMatcher(None, end, other_end).ratio()) / 2
    return 0.4 * names + 0.6 * max(0.0, 1 - 2 * abs(one.place - other.place))


def _row(rule: _Rule) -> str:
    lasts = list(dict.fromkeys(last for _, last in rule.sources[0].shapes))
    last = f"({'|'.join(map(re.escape, lasts))})"
    sources = [f"'{_pattern(family.stem)}{last}'" for family in rule.sources]
    targets = [f"'{_replacement(family.stem)}'" for family in rule.targets]
    lines = ["[[weight]]", f"from = {_listed(sources)}", f"to = {_listed(targets)}"]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in rule.how.items()), ""])


def _listed(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else "[\n" + "".join(f"    {value},\n" for value in values) + "]"


def _pattern(stem: str) -> str:
    return re.escape(stem).replace(r"\#", "#").replace("#", r"(\d+)") + (r"\." if stem else "")


def _replacement(stem: str) -> str:
    """The name, with the groups for its numbers, and the last one for what comes behind."""
    parts = stem.split("#")
    numbered = "".join(f"{part}\\{number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
    return f"{numbered}.\\{len(parts)}".lstrip(".")
