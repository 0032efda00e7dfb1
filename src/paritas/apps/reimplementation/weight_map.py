# SPDX-License-Identifier: Apache-2.0
"""The weights of one model in the places of another's: what goes where, and what does not fit."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paritas.apps.reimplementation.rules import Rules, WeightRule, excused

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Weights `sources` of the original become `targets` of the other model. how: "" for as they are."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    how: str = ""
    rule: WeightRule | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Misfit:
    """A weight whose shape, after its rule, is not the shape of its place. want: of the place; got: what comes."""

    source: str
    target: str
    want: Shape
    got: Shape
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.source} {list(self.got)} -> {self.target} {list(self.want)}{hint}"


@dataclasses.dataclass(frozen=True)
class WeightReport:
    """What the rules make of two sets of weights. `complete` is what a comparison of outputs needs.

    unmatched: weights of the original without a place -> why. missing: weights of the other model that nothing of
    the original fills -> why. skipped, kept: left out by the rules, with their reasons.
    """

    transfers: tuple[Transfer, ...] = ()
    unmatched: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    misfits: tuple[Misfit, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)
    suggestion: str = ""  # rules that would place what is unmatched, as TOML

    @property
    def complete(self) -> bool:
        return bool(self.transfers) and not (self.unmatched or self.missing or self.misfits)

    @property
    def filled(self) -> frozenset[str]:
        """The other model's weights that hold the original's."""
        return frozenset(name for transfer in self.transfers for name in transfer.targets)


def plan(
    original: Shapes,
    other: Shapes,
    rules: Rules,
    *,
    optional: Collection[str] = (),
    ties: Sequence[frozenset[str]] = (),
    other_ties: Sequence[frozenset[str]] = (),
) -> WeightReport:
    """Where each weight goes: the first rule that matches its whole name, else the place of the same name.

    optional: names, on either side, that may stay where they are (buffers that no checkpoint holds). ties: names
    that are one tensor; one of them placed places them all. The report has no suggestion yet.
    """
    placed, unmatched, skipped = _placed(original, other, rules)
    transfers: list[Transfer] = []
    misfits: list[Misfit] = []
    taken: dict[str, str] = {}
    for transfer in placed:
        wrong = list(_misfits(transfer, original, other))
        for name in transfer.targets:
            if name in taken:
                wrong.append(
                    Misfit(transfer.sources[0], name, other[name], other[name], f"{taken[name]} goes there too")
                )
            taken.setdefault(name, transfer.sources[0])
        misfits += wrong
        if not wrong:
            transfers.append(transfer)
    carried = {name for transfer in placed for name in transfer.sources}
    for name in list(unmatched):
        if name in optional or any(name in tie and tie & carried for tie in ties):
            del unmatched[name]
    kept, missing = {}, {}
    for name in other:
        if name in taken or any(name in tie and tie & set(taken) for tie in other_ties):
            continue
        if reason := excused(name, rules.keep):
            kept[name] = reason
        elif name not in optional:
            missing[name] = f"{list(other[name])}: no weight of the original comes here"
    return WeightReport(tuple(transfers), unmatched, missing, tuple(misfits), skipped, kept)


def _placed(original: Shapes, other: Shapes, rules: Rules) -> tuple[list[Transfer], dict[str, str], dict[str, str]]:
    transfers: list[Transfer] = []
    unmatched: dict[str, str] = {}
    skipped: dict[str, str] = {}
    parts: dict[tuple[int, str], dict[int, str]] = defaultdict(dict)
    for name, shape in original.items():
        if reason := excused(name, rules.skip):
            skipped[name] = reason
            continue
        number, rule, found = next(
            ((n, r, f) for n, r in enumerate(rules.weights) if (f := r.targets_of(name))), (-1, None, None)
        )
        position, targets = found or (0, (name,))
        absent = [target for target in targets if target not in other]
        if absent:
            sent = f"the rules send it to {absent[0]}, which is not there" if rule else "no rule matches it"
            unmatched[name] = f"{list(shape)}: {sent}"
        elif rule is not None and rule.concat is not None:
            parts[number, targets[0]][position] = name
        else:
            transfers.append(Transfer((name,), targets, str(rule or ""), rule))
    for (number, target), named in parts.items():
        rule = rules.weights[number]
        if len(named) == len(rule.sources):
            sources = tuple(named[position] for position in range(len(rule.sources)))
            transfers.append(Transfer(sources, (target,), str(rule), rule))
        else:
            for name in named.values():
                unmatched[name] = (
                    f"{list(original[name])}: one of {len(rule.sources)} parts of {target}, {len(named)} are there"
                )
    return transfers, unmatched, skipped


def _misfits(transfer: Transfer, original: Shapes, other: Shapes) -> Iterable[Misfit]:
    rule = transfer.rule
    shapes = [_transposed(original[name]) if rule and rule.transpose else original[name] for name in transfer.sources]
    source = ", ".join(transfer.sources)
    got: Shape | None = shapes[0]
    if rule is not None and rule.concat is not None:
        got = _joined(shapes, rule.concat)
        if rule.heads and any(_cut(shape, rule.concat, rule.heads) is None for shape in shapes):
            got = None
    elif rule is not None and rule.split is not None:
        got = _cut(shapes[0], rule.split, len(transfer.targets))
        if rule.heads and (got is None or _cut(got, rule.split, rule.heads) is None):
            got = None
    if got is None:
        hint = "they cannot be joined" if rule and rule.concat is not None else "it cannot be cut evenly"
        yield Misfit(source, transfer.targets[0], other[transfer.targets[0]], shapes[0], hint)
        return
    for target in transfer.targets:
        if got != other[target]:
            yield Misfit(source, target, other[target], got, hint_for(got, other[target]))


def hint_for(got: Shape, want: Shape) -> str:
    """What would make one shape of the other, as a rule spells it; "" if nothing simple does."""
    if len(got) == 2 and got == want[::-1] and got != want:
        return "transpose = true fits"
    for turned in (False, True):
        shape = _transposed(got) if turned else got
        for dim in range(len(shape)):
            for count in (2, 3):
                also = "transpose = true and " if turned else ""
                if _cut(shape, dim, count) == want:
                    return f"{also}split = {dim} into {count} fits"
                if _cut(want, dim, count) == shape:
                    return f"{also}concat = {dim} of {count} fits"
        if len(shape) < 2:
            break
    return ""


def _transposed(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) >= 2 else shape


def _cut(shape: Shape, dim: int, count: int) -> Shape | None:
    if not -len(shape) <= dim < len(shape) or shape[dim] % count:
        return None
    sizes = list(shape)
    sizes[dim] //= count
    return tuple(sizes)


def _joined(shapes: Sequence[Shape], dim: int) -> Shape | None:
    first = shapes[0]
    if not -len(first) <= dim < len(first):
        return None
    sizes = list(first)
    for shape in shapes[1:]:
        if len(shape) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(first, shape, strict=True)) if i != dim % len(first)
        ):
            return None
        sizes[dim] += shape[dim]
    return tuple(sizes)


# --- tensors -----------------------------------------------------------------------------------


def state_of(model: torch.nn.Module) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """Every parameter and buffer by name, and the names of those that no checkpoint holds."""
    state = {n: v.detach() for n, v in model.state_dict(keep_vars=True).items() if hasattr(v, "detach")}
    unsaved = {n: v.detach() for n, v in model.named_buffers() if n not in state}
    return {**state, **unsaved}, frozenset(unsaved)


def ties_of(state: Mapping[str, torch.Tensor]) -> list[frozenset[str]]:
    """The sets of names that are one and the same tensor."""
    places: dict[Any, set[str]] = defaultdict(set)
    for name, value in state.items():
        if value.numel():
            places[value.data_ptr(), tuple(value.shape), value.stride()].add(name)
    return [frozenset(names) for names in places.values() if len(names) > 1]


def carry(
    transfers: Iterable[Transfer], original: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
) -> list[Misfit]:
    """Write the original's values into the other model's tensors, in their dtype.

    Returns what did not stay: places that are one tensor in the other model, and got two values.
    """
    import torch

    written: dict[str, tuple[str, torch.Tensor]] = {}
    with torch.no_grad():
        for transfer in transfers:
            for target, value in zip(transfer.targets, _pieces(transfer, original), strict=True):
                other[target].copy_(value)
                written[target] = (", ".join(transfer.sources), value)
        return [
            Misfit(source, target, tuple(other[target].shape), tuple(value.shape), "tied to another weight there")
            for target, (source, value) in written.items()
            if not torch.equal(other[target], value.to(other[target].dtype))
        ]


def _pieces(transfer: Transfer, original: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
    import torch

    rule = transfer.rule
    values = [original[name] for name in transfer.sources]
    if rule is None:
        return values
    if rule.transpose:
        values = [value.transpose(-1, -2) if value.dim() >= 2 else value for value in values]
    if rule.concat is not None:
        dim = rule.concat % values[0].dim()
        if not rule.heads:
            return [torch.cat(values, dim)]
        by_head = [value.unflatten(dim, (rule.heads, -1)) for value in values]
        return [torch.cat(by_head, dim + 1).flatten(dim, dim + 1)]
    if rule.split is not None:
        dim, count = rule.split % values[0].dim(), len(transfer.targets)
        if not rule.heads:
            return values[0].chunk(count, dim)
        wide = values[0].unflatten(dim, (rule.heads, count, -1))
        return [wide.select(dim + 1, number).flatten(dim, dim + 1) for number in range(count)]
    return values * len(transfer.targets)
