# SPDX-License-Identifier: Apache-2.0
"""How the errors of an output's elements are distributed: a worst element alone does not say whether it is alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

CHUNK = 1 << 18  # elements looked at in one go

#: Bounds of the bins of |got-want| / mean|want|: two to a decade, the same in every report, so that any two compare.
EDGES = tuple(10.0 ** (half / 2) for half in range(-18, 3))

#: What a histogram holds: exact, below `EDGES`, the bins between them, above, and not finite on either side.
SIZE = len(EDGES) + 3


@dataclasses.dataclass(frozen=True)
class Bin:
    """One bar: what it counts, in words, and how many elements that is."""

    label: str
    count: int


def count_errors(want: np.ndarray | None, got: np.ndarray | None) -> tuple[int, ...]:
    """How many elements have which |got-want| / mean|want|: `SIZE` counts, which `bins` names.

    Bools, integers and floats of any shape; the two parts of a complex number are two elements. The mean is over
    the finite elements of `want`; where it is 0, whatever differs is above every bin. () where the two cannot be
    compared element by element: one is missing, the shapes differ, or there is no arithmetic on them.
    """
    if want is None or got is None or want.shape != got.shape:
        return ()
    if not {want.dtype.kind, got.dtype.kind} <= set("biufc"):
        return ()
    flat_want, flat_got = _reals(want), _reals(got)
    counts = np.zeros(SIZE, np.int64)
    scale = _mean(flat_want)
    for start in range(0, flat_want.size, CHUNK):
        w, g = flat_want[start : start + CHUNK], flat_got[start : start + CHUNK]
        finite = np.isfinite(w) & np.isfinite(g)
        w, g = w[finite], g[finite]
        unequal = w != g  # of integers beyond 2**53, float64 would say that they are equal
        with np.errstate(over="ignore", divide="ignore"):
            distance = np.abs(g[unequal].astype(np.float64) - w[unequal].astype(np.float64))
            errors = np.where(distance > 0, distance, 1.0) / scale
        counts[0] += w.size - errors.size
        counts[1:-1] += np.bincount(np.searchsorted(EDGES, errors, side="right"), minlength=SIZE - 2)
        counts[-1] += finite.size - w.size
    return tuple(int(count) for count in counts)


def add(histograms: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """One histogram of several; those that are empty are left out, () if all are."""
    counted = [histogram for histogram in histograms if histogram]
    return tuple(map(sum, zip(*counted, strict=True)))


def bins(histogram: Sequence[int]) -> tuple[Bin, ...]:
    """The bars of a histogram with their names, from exact to not finite."""
    bounds = [f"{edge:.1e}".replace("e-0", "e-").replace("e+0", "e") for edge in EDGES]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    labels = ["exact", f"below {bounds[0]}", *between, f"{bounds[-1]} and above", "NaN or infinite"]
    return tuple(Bin(label, count) for label, count in zip(labels, histogram, strict=True))


def _reals(values: np.ndarray) -> np.ndarray:
    """Flat, and complex numbers as their two parts."""
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
    return values.reshape(-1)


def _mean(flat: np.ndarray) -> float:
    total, count = 0.0, 0
    for start in range(0, flat.size, CHUNK):
        magnitude = np.abs(flat[start : start + CHUNK].astype(np.float64))
        finite = magnitude[np.isfinite(magnitude)]
        with np.errstate(over="ignore"):
            total += float(finite.sum())
        count += finite.size
    return total / count if count else 0.0
