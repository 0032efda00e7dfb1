# SPDX-License-Identifier: Apache-2.0
"""How alike two answers are by other measures than the one that rules: their angle, and the choice that logits make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paritas.verify.compare import CHUNK


def alike(name: str, want: np.ndarray | None, got: np.ndarray | None) -> dict[str, Any]:
    """`cosine`, and for an output that is called logits `places` and `same_places`, as `OutputParity` has them.

    {} for what is no float of one shape on both sides.
    """
    if want is None or got is None or want.shape != got.shape or want.dtype.kind != "f":
        return {}
    found: dict[str, Any] = {"cosine": cosine(want, got)}
    if name.endswith("logits") and want.ndim > 1 and want.shape[-1] > 1:
        found["places"], found["same_places"] = choices(want, got)
    return found


def cosine(want: np.ndarray, got: np.ndarray) -> float:
    """Of the angle between two arrays of one shape, over what is finite in both; NaN where either is nothing but 0."""
    both, one, other = 0.0, 0.0, 0.0
    flat_want, flat_got = want.reshape(-1), got.reshape(-1)
    for start in range(0, flat_want.size, CHUNK):
        w = flat_want[start : start + CHUNK].astype(np.float64)
        g = flat_got[start : start + CHUNK].astype(np.float64)
        finite = np.isfinite(w) & np.isfinite(g)
        w, g = w[finite], g[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            both, one, other = both + float(w @ g), one + float(w @ w), other + float(g @ g)
    size = math.sqrt(one) * math.sqrt(other)
    return both / size if 0 < size < math.inf and math.isfinite(both) else math.nan


def choices(want: np.ndarray, got: np.ndarray) -> tuple[int, int]:
    """How many rows there are, and in how many the highest of `got` is one of the highest of `want`."""
    rows, others = want.reshape(-1, want.shape[-1]), got.reshape(-1, want.shape[-1])
    same = 0
    for start in range(0, len(rows), max(1, CHUNK // rows.shape[-1])):
        w = rows[start : start + max(1, CHUNK // rows.shape[-1])]
        chosen = others[start : start + len(w)].argmax(-1)
        # Among equals, any choice is the original's.
        same += int(np.count_nonzero(w[np.arange(len(w)), chosen] == w.max(-1)))
    return len(rows), same
