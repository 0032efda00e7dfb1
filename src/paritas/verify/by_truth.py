# SPDX-License-Identifier: Apache-2.0
"""The rule of half precision: a port may be twice as far from float64 as PyTorch is at that dtype."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from paritas.verify.report.rows import OutputParity
from paritas.verify.tolerance import AS_ACCURATE, AS_ACCURATE_SEARCHED, EPSILON


def usual_errors(rows: Sequence[OutputParity]) -> dict[str, list[float]]:
    """PyTorch's own errors in the ordinary cases, by output."""
    usual: dict[str, list[float]] = {}
    for row in rows:
        if not row.edge and not row.unjudged and math.isfinite(row.torch_error):
            usual.setdefault(row.output, []).append(row.torch_error)
    return usual


def judge_by_truth(
    rows: Sequence[OutputParity], precision: str, usual: Mapping[str, Sequence[float]], searched: Collection[str] = ()
) -> list[OutputParity]:
    """fp16 and bf16: the excess is the port's distance from float64 over twice PyTorch's own.

    An output of few elements may be exact in PyTorch by luck, so that the yardstick of a row is never below
    the median of the ordinary cases' own errors, nor the bound below one rounding of the dtype. searched: the cases
    that a search has picked, which get more: see `AS_ACCURATE_SEARCHED`.
    """
    judged = []
    for row in rows:
        if row.fault or row.unjudged or math.isnan(row.torch_error):
            judged.append(row)
            continue
        typical = statistics.median(usual[row.output]) if row.output in usual else 0.0
        times = AS_ACCURATE_SEARCHED if row.case in searched else AS_ACCURATE
        limit = max(times * max(row.torch_error, typical), EPSILON[precision])
        rule = f"port/f64 <= {limit:.3g} = max({times:g} * PyTorch/f64, one rounding)"
        judged.append(dataclasses.replace(row, excess=row.port_error / limit, rule=rule))
    return judged
