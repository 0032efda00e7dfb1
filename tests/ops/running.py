# SPDX-License-Identifier: Apache-2.0
"""The body of every case: lower, run in every mode of an engine, compare with eager torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from making import Case, program_of
from ties import judged
from under_test import UnderTest

from paritas.errors import UnsupportedOps
from paritas.lower.decompose import decomposed
from paritas.lower.registry import preflight
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


_missing: dict[tuple[str, str], bool] = {}


def is_missing(case: Case, engine: UnderTest) -> bool:
    """Whether the engine has no rule for it, nor for what torch makes of it: then it is refused."""
    key = (engine.name, str(case))
    if case.target in engine.lowerings:
        return False
    if key not in _missing:
        try:
            preflight(decomposed(program_of(case), engine.lowerings, engine.compositions), engine.name)
            _missing[key] = False
        except UnsupportedOps:
            _missing[key] = True
    return _missing[key]


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


def together(cases: Sequence[Case], engine: UnderTest, grows: bool = False) -> list[list[tuple[str, Comparison]]]:
    """For each case the mode and the comparison of every output, all of them computed by one program.

    grows: at the grown sizes too, where any are free. Raises what lowering or running it raises.
    """
    found: list[list[tuple[str, Comparison]]] = [[] for _ in cases]
    with engine.running(program_of(*cases)) as session:
        for mode, grown in itertools.product(engine.modes, _growths(*cases) if grows else [False]):
            tensors = [case.tensors(grown) for case in cases]
            feed = {f"x{i}": engine.array(value) for i, value in enumerate(t for given in tensors for t in given)}
            outputs = iter(engine.run(session, mode, feed))
            for case, given, rows in zip(cases, tensors, found, strict=True):
                gots = [next(outputs) for _ in case.eager(given)]
                rows += [(mode or engine.name, one) for one in compared(case, engine, given, gots)]
            assert next(outputs, None) is None
    return found


def _growths(*cases: Case) -> list[bool]:
    """Whether sizes are grown, once for each run."""
    return [False, True] if any(case.is_dynamic for case in cases) else [False]


def in_halves(
    cases: Sequence[Case], engine: UnderTest, errors: type[Exception], grows: bool = False
) -> Iterator[tuple[Case, list[tuple[str, Comparison]] | Exception]]:
    """As `together`; where that raises one of `errors`, halves find the cases that do, with what they raise."""
    try:
        found = together(cases, engine, grows)
    except errors as error:
        if len(cases) == 1:
            yield cases[0], error
            return
        middle = len(cases) // 2
        yield from in_halves(cases[:middle], engine, errors, grows)
        yield from in_halves(cases[middle:], engine, errors, grows)
        return
    yield from zip(cases, found, strict=True)


def results(case: Case, engine: UnderTest) -> Iterator[tuple[str, Comparison]]:
    """What compares how: "graph, output 0", .. in every mode, at the captured and at the grown sizes."""
    with engine.running(program_of(case)) as session:
        feeds = [case.tensors(grown) for grown in _growths(case)]
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
