# SPDX-License-Identifier: Apache-2.0
"""The documents' error formulas, and what a row of their tables holds here: also how far both are from float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from paritas.apps.published.models import Model
from paritas.run.engine import about
from paritas.verify import compare, whole_model
from paritas.verify.tolerance import AS_ACCURATE

#: What a float32 row must reach: max|got-want| / mean|want| of the worst output.
BAR = 1e-5

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class Column:
    """One engine in one mode and dtype: "mindspore graph float16"."""

    engine: str
    mode: str
    dtype: str

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.engine, self.mode, self.dtype)))

    @property
    def weights(self) -> str:
        """The dtype of what the engine is given."""
        return about(self.engine).capture_dtype(self.dtype) or self.dtype


@dataclasses.dataclass(frozen=True)
class Distance:
    """From one output to another. `fault`: why there is no number.

    error: max|got-want| / mean|want|. absolute: mean|got-want|. relative: mean(|got-want| / (|want| + 1e-6)).
    """

    error: float = math.inf
    absolute: float = math.inf
    relative: float = math.inf
    fault: str = ""


Distances = tuple[Distance, ...]


def distance(want: np.ndarray, got: np.ndarray) -> Distance:
    """By both documents' formulas. Other shapes, NaN or infinities in other places are faults, never small numbers."""
    found = compare(want, got, whole_model("float32"), dtype=got.dtype)
    if found.fault:
        return Distance(fault=found.fault)
    wide = want.astype(np.float64)
    keep = np.isfinite(wide)
    apart = np.abs(got.astype(np.float64)[keep] - wide[keep])
    relative = float(np.mean(apart / (np.abs(wide[keep]) + _EPSILON))) if apart.size else 0.0
    return Distance(found.error, found.mean_abs, relative)


def distances(wants: Sequence[np.ndarray], gots: Sequence[np.ndarray]) -> Distances:
    """Output by output."""
    if len(wants) != len(gots):
        return (Distance(fault=f"{len(wants)} outputs were expected, there are {len(gots)}"),)
    return tuple(distance(want, got) for want, got in zip(wants, gots, strict=True))


@dataclasses.dataclass(frozen=True)
class Row:
    """One model in one column. `failed`: why nothing was measured."""

    model: Model
    column: Column
    to_torch: Distances = ()  # to PyTorch eager in float32
    to_truth: Distances = ()  # to the graph in float64, of the weights that the engine was given
    torch_to_truth: Distances = ()  # PyTorch's own, in the column's dtype
    failed: str = ""

    @property
    def error(self) -> float:
        return worst(self.to_torch)

    @property
    def ratio(self) -> float:
        """The port's error against float64 over PyTorch's, the largest of all outputs; 0 if the bar judges them all."""
        exact = self.column.dtype == "float32"
        judged = [o for o in self.outputs if not (exact and o[0].error <= BAR)]
        return max((_ratio(own.error, torch.error) for _, own, torch in judged), default=0.0)

    @property
    def outputs(self) -> list[tuple[Distance, Distance, Distance]]:
        """Output by output: to PyTorch, to float64, PyTorch's own to float64. None where their numbers differ."""
        if len({len(self.to_torch), len(self.to_truth), len(self.torch_to_truth)}) > 1:
            return []
        return list(zip(self.to_torch, self.to_truth, self.torch_to_truth, strict=True))

    @property
    def fault(self) -> str:
        return self.failed or next((d.fault for d in (*self.to_torch, *self.to_truth) if d.fault), "")

    @property
    def verdict(self) -> str:
        """ "within": every output is, of the bar in float32; "accurate": those that are not have at most twice
        PyTorch's own error, and at half precision all; else "missed"."""
        if self.fault:
            return "failed"
        if self.column.dtype == "float32" and self.error <= BAR:
            return "within"
        return "accurate" if self.ratio <= AS_ACCURATE else "missed"


def worst(found: Distances) -> float:
    """The largest max|got-want| / mean|want|; infinite where nothing was compared."""
    return max((d.error for d in found), default=math.inf)


def _ratio(own: float, torch: float) -> float:
    if not torch < math.inf:  # PyTorch overflows where the truth does not: no yardstick
        return math.inf
    return own / torch if torch else (math.inf if own else 0.0)


def rows_of(
    model: Model, columns: Sequence[Column], answers: Mapping[str, Sequence[np.ndarray]], failed: Mapping[str, str]
) -> list[Row]:
    """The rows of one model. answers: outputs by column, "torch <dtype>" and "truth <dtype>" among them."""
    rows = []
    for column in columns:
        needed = ("torch float32", f"torch {column.dtype}", f"truth {column.weights}", column.name)
        reasons = [f"{name}: {failed[name]}" for name in dict.fromkeys(needed) if name in failed]
        if missing := [name for name in needed if name not in answers and name not in failed]:
            reasons.append(f"not computed: {', '.join(dict.fromkeys(missing))}")
        if reasons:
            rows.append(Row(model, column, failed=failed.get(column.name) or "; ".join(reasons)))
            continue
        eager, own, truth, got = (answers[name] for name in needed)
        rows.append(Row(model, column, distances(eager, got), distances(truth, got), distances(truth, own)))
    return rows
