# SPDX-License-Identifier: Apache-2.0
"""The body of every case: lower, run in every mode of an engine, compare with eager torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from making import Case, program_of
from ties import judged
from under_test import UnderTest

from paritas.verify.compare import Comparison, compare
from paritas.verify.tolerance import EXACT, Tolerance

#: |got - want| of one operator on the same inputs, where both compute in that dtype.
TOLERANCES = {
    "float64": Tolerance(1e-14, 0.0, "45 roundings of 2e-16: reductions in another order", scaled=1e-14),
    "float32": Tolerance(
        2e-6,
        0.0,
        "16 roundings of 1.2e-7: vectorised exp, log and pow are polynomials on both sides",
        scaled=1e-6,
    ),
    "float16": Tolerance(2e-3, 0.0, "two roundings of 1e-3: torch computes in fp32 and rounds once", scaled=1e-3),
}
TOLERANCES["complex64"] = TOLERANCES["float32"]


def tolerance_of(case: Case, want: torch.Tensor, engine: UnderTest) -> Tolerance:
    """Of the dtype in which torch computes, unless the engine computes in float32 what torch does in float64."""
    dtype = str(want.dtype).removeprefix("torch.").replace("complex128", "float64")
    if engine.widens and dtype == "float64":
        dtype = "float32"
    return case.within or TOLERANCES.get(dtype, EXACT)


def compared(
    case: Case, engine: UnderTest, tensors: Sequence[torch.Tensor], gots: Sequence[np.ndarray]
) -> Iterator[Comparison]:
    """One comparison for each output."""
    wants = case.eager(list(tensors))
    arrays = judged(case, tensors, [engine.array(value) for value in wants], gots)
    for want, array, got in zip(wants, arrays, gots, strict=True):
        yield compare(array, got, tolerance_of(case, want, engine))


def results(case: Case, engine: UnderTest) -> Iterator[tuple[str, Comparison]]:
    """What compares how: "graph, output 0", .. in every mode, at the captured and at the grown sizes."""
    with engine.running(program_of(case)) as session:
        feeds = [case.tensors(grown) for grown in ([False, True] if case.is_dynamic else [False])]
        for mode in engine.modes:
            for tensors in feeds:
                feed = {f"x{i}": engine.array(value) for i, value in enumerate(tensors)}
                gots = engine.run(session, mode, feed)
                for position, found in enumerate(compared(case, engine, tensors, gots)):
                    yield f"{mode or engine.name}, output {position}", found


def failures(case: Case, engine: UnderTest) -> list[str]:
    """What is wrong with this case, in words; nothing if all agrees."""
    seen = list(results(case, engine))
    assert seen, f"{case} compared nothing"
    return [f"{where}: {found}" for where, found in seen if not found.agrees]
