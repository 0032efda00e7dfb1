# SPDX-License-Identifier: Apache-2.0
"""The verdict on many cases at once: one module computes dozens of them, as compiling takes the time."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from cases import CASES
from making import Case, Given, program_of
from running import MODES, tolerance_of

from paritas.errors import EngineError, LoweringError
from paritas.lower.mindspore.lower import lower
from paritas.program import Artifact, Manifest
from paritas.run.mindspore import MindSpore
from paritas.verify.compare import compare
from paritas.verify.tolerance import Tolerance

PACK = 30

PASSES, REFUSED, FAILS, WRONG = "passes", "refused", "fails", "wrong"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a case: it passes; is refused by its lowering; fails, loudly, while it runs; or is wrong."""

    case: Case
    kind: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.case}: {self.words}"


def verdicts(cases: Iterable[Case]) -> Iterator[Verdict]:
    """One for each case."""
    families: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        early = _before_running(case)
        if early is not None:
            yield early
        else:
            families[case.target].append(case)
    # Small families share a pack.
    queue = [case for target in sorted(families) for case in families[target]]
    for start in range(0, len(queue), PACK):
        yield from _judged(queue[start : start + PACK])


def _before_running(case: Case) -> Verdict | None:
    """The verdict if the lowering refuses or fails, or torch itself: the size of a result may depend on values."""
    try:
        program = program_of(case)
    except Exception as error:  # noqa: BLE001 - torch has a dozen classes for this
        return Verdict(case, REFUSED, f"torch makes no graph of it: {type(error).__name__}")
    try:
        with tempfile.TemporaryDirectory() as directory:
            lower(program, Path(directory))
    except LoweringError as error:
        kind = FAILS if "a bug of Paritas" in str(error) else REFUSED
        return Verdict(case, kind, str(error))
    except Exception as error:  # noqa: BLE001 - whatever a lowering does wrong is to be counted
        return Verdict(case, FAILS, f"the lowering raises {type(error).__name__}: {error}")
    return None


def _judged(cases: Sequence[Case]) -> Iterator[Verdict]:
    try:
        found = _compared(cases)
    except EngineError as error:
        if len(cases) == 1:
            yield Verdict(cases[0], FAILS, str(error))
            return
        # Halves find the one that fails.
        middle = len(cases) // 2
        yield from _judged(cases[:middle])
        yield from _judged(cases[middle:])
        return
    for case, wrong in zip(cases, found, strict=True):
        yield Verdict(case, WRONG if wrong else PASSES, "; ".join(wrong))


def _compared(cases: Sequence[Case]) -> list[list[str]]:
    """For each case, what differs, in words."""
    tensors = [case.tensors() for case in cases]
    wants = [case.eager(given) for case, given in zip(cases, tensors, strict=True)]
    feed = {f"x{i}": value.numpy() for i, value in enumerate(t for given in tensors for t in given)}
    program = program_of(*cases)
    wrong: list[list[str]] = [[] for _ in cases]
    with tempfile.TemporaryDirectory() as directory:
        lowered = lower(program, Path(directory))
        manifest = Manifest(
            engine="mindspore", dtype="float32", inputs=program.inputs, outputs=program.outputs, structure={},
            source=program.source, entry=lowered.entry, settings=lowered.settings,
        )  # fmt: skip
        session = MindSpore().load(Artifact(Path(directory), manifest), mode="graph")
        try:
            for mode in MODES:
                session.mode = mode
                gots = iter(session.run(feed))
                for case, want, differs in zip(cases, wants, wrong, strict=True):
                    for value in want:
                        array = _array(value)
                        found = compare(array, next(gots), tolerance_of(case, str(array.dtype)))
                        if not found.agrees:
                            differs.append(f"{mode}: {found}")
                assert next(gots, None) is None
        finally:
            session.close()
    return wrong


def _array(value: torch.Tensor) -> np.ndarray:
    """As a session gives it back: NumPy has no bfloat16."""
    whole = value.resolve_conj().resolve_neg()
    return (whole.float() if whole.dtype is torch.bfloat16 else whole).numpy()


@functools.cache
def _stated() -> dict[tuple[str, bool], Tolerance]:
    """(operator, whether at half precision) -> the widest tolerance that one of its hand-written cases states."""
    widest: dict[tuple[str, bool], Tolerance] = {}
    for case in CASES:
        if case.within is not None:
            half = any(isinstance(leaf, Given) and leaf.dtype == "float16" for leaf in case.leaves)
            known = widest.get((case.target, half))
            if known is None or known.rtol + known.atol < case.within.rtol + case.within.atol:
                widest[case.target, half] = case.within
    return widest


def toleranced(case: Case) -> Case:
    """The case with its operator's tolerance."""
    half = any(isinstance(leaf, Given) and leaf.dtype == "float16" for leaf in case.leaves)
    return dataclasses.replace(case, within=_stated().get((case.target, half)))
