# SPDX-License-Identifier: Apache-2.0
"""Where torch's documents leave open which of several equal elements is meant: any of them is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from making import Case


class Chooser(NamedTuple):
    """An operator that answers with places along a dimension."""

    dim: int  # the position of its argument `dim`
    otherwise: int | None  # the dimension if none is given; None: the flat tensor
    places: int  # which output holds the places
    several: bool = False  # places of one row differ from each other


#: "sort: If stable is False, the order of equal elements is not preserved"; "topk", "kthvalue", "median" and "mode" say
#: of several equal elements no more than that the index is one of theirs. `max`, `argmax` and `cummax` say which.
CHOOSERS = {
    "aten.sort.default": Chooser(1, -1, 1, True),
    "aten.sort.stable": Chooser(2, -1, 1, True),
    "aten.argsort.default": Chooser(1, -1, 0, True),
    "aten.topk.default": Chooser(2, -1, 1, True),
    "aten.kthvalue.default": Chooser(2, -1, 1),
    "aten.median.dim": Chooser(1, -1, 1),
    "aten.nanmedian.dim": Chooser(1, -1, 1),
    "aten.mode.default": Chooser(1, -1, 1),
}


def judged(
    case: Case, tensors: Sequence[torch.Tensor], wants: list[np.ndarray], gots: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """What is wanted, with the engine's choice among equal elements where torch leaves it open."""
    chooser = CHOOSERS.get(case.target)
    if chooser is None or _is_stable(case):
        return wants
    at = chooser.places
    if at >= len(gots):
        return wants
    want, got = wants[at], gots[at]
    source = tensors[0].numpy()
    if got.shape != want.shape or got.dtype != want.dtype or not got.size or not source.ndim:
        return wants
    dim = _dim(case, chooser)
    keeps = want.ndim == source.ndim
    if not keeps:
        want, got = np.expand_dims(want, dim), np.expand_dims(got, dim)
    if ((got < 0) | (got >= source.shape[dim])).any():
        return wants
    if chooser.several and (np.diff(np.sort(got, dim), axis=dim) == 0).any():
        return wants
    there, here = np.take_along_axis(source, want, dim), np.take_along_axis(source, got, dim)
    unordered = case.target == "aten.topk.default" and (False in case.args[4:5] or case.kwargs.get("sorted") is False)
    if unordered:
        there, here = np.sort(there, dim), np.sort(here, dim)
    if not np.array_equal(there, here, equal_nan=source.dtype.kind == "f"):
        return wants
    if unordered:
        return list(gots) if np.array_equal(np.take_along_axis(source, got, dim), gots[0]) else wants
    return [*wants[:at], gots[at], *wants[at + 1 :]]


def _is_stable(case: Case) -> bool:
    return case.target == "aten.sort.stable" and (case.kwargs.get("stable") is True or True in case.args[1:2])


def _dim(case: Case, chooser: Chooser) -> int:
    given: Any = case.kwargs.get("dim", chooser.otherwise)
    return int(case.args[chooser.dim]) if len(case.args) > chooser.dim else int(given)
