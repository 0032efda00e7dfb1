# SPDX-License-Identifier: Apache-2.0
"""Among equal values any choice is right, and what follows from another one is no fault.

A sparse attention reads the tokens with the highest scores. Where scores are equal, as sums of what a ReLU has cut off
are, PyTorch itself does not say which it takes. So the original's graph is computed again with the port's choice, and
the port has to agree with that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from paritas.errors import ParitasError
from paritas.run.session import Cuts, Session
from paritas.verify.compare import compare
from paritas.verify.nodes import NodeInfo, See
from paritas.verify.tolerance import Tolerance

Feed = Mapping[str, np.ndarray]


class Follows(Protocol):
    """A graph that goes on with choices that it is given: `run.torch.session.TorchSession` does."""

    def locally(self, feed: Feed, given: Feed, see: See, names: Collection[str] = ()) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class Followed:
    """The graph's outputs with the port's choices. others: operator and line -> how many of how many are others."""

    outputs: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]
    others: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        return "; ".join(f"{at} in {count} of {of} places" for at, (count, of) in self.others.items())


class _Unequal(ParitasError):
    """A choice of another value."""


def followed(
    session: Session, reference: Follows, truth: Follows, feed: Feed, nodes: Sequence[NodeInfo], tolerance: Tolerance
) -> Followed | None:
    """The graph in fp32 and in float64, each time going on with what the port has chosen.

    None where the port shows none of its choices, where they are PyTorch's, or where one is of a value that is
    further from PyTorch's than `tolerance` allows: then it is no choice among equals.
    """
    ordering = {node.name: node for node in nodes if node.orders}
    if not ordering or not isinstance(session, Cuts):
        return None
    able = frozenset().union(*session.borders())
    try:
        chosen = dict(session.part(feed, {}, sorted(able & ordering.keys())))
    except Exception:  # noqa: BLE001 - whatever an engine does when taken apart, the outputs rule
        return None
    values: dict[str, np.ndarray] = {}
    others: dict[str, tuple[int, int]] = {}

    def see(name: str, value: np.ndarray) -> None:
        if name not in chosen:
            values[name] = value
            return
        node = ordering[name]
        if not equally_good(values[node.orders], value, chosen[name], node.dim, tolerance):
            raise _Unequal(name)
        count = int(np.count_nonzero(value != chosen[name]))
        if count:
            at = f"{node.target} ({node.origin})" if node.origin.file else node.target
            before = others.get(at, (0, 0))
            others[at] = (before[0] + count, before[1] + value.size)

    names = {node.orders for name, node in ordering.items() if name in chosen}
    try:
        outputs = reference.locally(feed, chosen, see, names)
        exact = truth.locally(feed, chosen, lambda name, value: None)
    except ParitasError:  # an unequal choice, or one that the graph cannot go on with
        return None
    return Followed(outputs, exact, others) if others else None


def equally_good(values: np.ndarray, want: np.ndarray, got: np.ndarray, dim: int, tolerance: Tolerance) -> bool:
    """Whether two choices of places along `dim` are of values that cannot be told apart."""
    if want.shape != got.shape or got.ndim == 0 or got.size == 0:
        return want.shape == got.shape
    got = got.astype(np.int64)
    if got.min() < 0 or got.max() >= values.shape[dim] or (np.diff(np.sort(got, axis=dim), axis=dim) == 0).any():
        return False
    ours, theirs = (np.sort(np.take_along_axis(values, places, dim), axis=dim) for places in (got, want))
    return compare(theirs, ours, tolerance).agrees


def remarks(chosen: Mapping[str, str]) -> list[str]:
    """What is said of cases, case -> where the port chose others: one note for each operator and line."""
    cases: dict[str, list[str]] = {}
    for case, where in chosen.items():
        cases.setdefault(where.partition(" in ")[0], []).append(case)
    return [
        f"verify: among equal values the port chose others than PyTorch did, which has no rule for it: {where}, in "
        f"{len(names)} of the cases ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}); there it is compared "
        "with what the original makes of the port's choice"
        for where, names in cases.items()
    ]
