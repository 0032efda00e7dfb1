# SPDX-License-Identifier: Apache-2.0
"""The verdict on many cases at once: one program computes dozens of them, as compiling takes the time."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from cases import CASES
from gaps import FAILS, MISSING, NOTED, PASSES, REFUSED, WRONG
from integers import integer_cases
from making import FILE, Case, Given, as_free_as_torch_keeps_it, program_of
from running import in_halves
from samples import sampled
from under_test import ENGINES, UnderTest

from paritas.errors import EngineError, ParitasError, UnsupportedOps
from paritas.verify.tolerance import Tolerance

PACK = 30


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a case: it passes; is refused; fails, loudly, while it runs; or is wrong.

    Missing: refused too, since the engine has no rule for the operator at all.
    Noted: it is another number, and every port with this operator says so in a note that names its line.
    """

    case: Case
    kind: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.case}: {self.words}"


def verdicts(cases: Iterable[Case], engine: UnderTest) -> Iterator[Verdict]:
    """One for each case of which torch makes a graph."""
    families: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        early = _before_running(case, engine)
        if early is not None:
            yield early
        else:
            families[case.target].append(case)
    # Small families share a pack.
    queue = [case for target in sorted(families) for case in families[target]]
    for start in range(0, len(queue), PACK):
        yield from _judged(queue[start : start + PACK], engine)


def _before_running(case: Case, engine: UnderTest) -> Verdict | None:
    """The verdict if the lowering refuses or fails, or torch itself: the size of a result may depend on values."""
    try:
        program = program_of(case)
    except Exception as error:  # noqa: BLE001 - torch has a dozen classes for this
        return Verdict(case, REFUSED, f"torch makes no graph of it: {type(error).__name__}")
    try:
        engine.lower(program)
    except ParitasError as error:
        said = str(error)
        if isinstance(error, UnsupportedOps) and case.target in said and FILE in said:
            return Verdict(case, MISSING, said)
        # A refusal says which operator it is, and where.
        clear = case.target in said and FILE in said and "a bug of Paritas" not in said
        return Verdict(case, REFUSED if clear else FAILS, said)
    except Exception as error:  # noqa: BLE001 - whatever a lowering does wrong is to be counted
        return Verdict(case, FAILS, f"the lowering raises {type(error).__name__}: {error}")
    return None


def _judged(cases: Sequence[Case], engine: UnderTest) -> Iterator[Verdict]:
    for case, found in in_halves(cases, engine, ParitasError):
        if isinstance(found, Exception):
            yield Verdict(case, FAILS if isinstance(found, EngineError) else REFUSED, str(found))
            continue
        wrong = [f"{mode}: {one}" for mode, one in found if not one.agrees]
        kind = PASSES if not wrong else NOTED if _is_noted(case, engine) else WRONG
        yield Verdict(case, kind, "; ".join(wrong))


def _is_noted(case: Case, engine: UnderTest) -> bool:
    notes = engine.lower(program_of(case))
    return any(case.target in note.text and FILE in note.text for note in notes)


def _is_half(case: Case) -> bool:
    return any(isinstance(leaf, Given) and leaf.dtype == "float16" for leaf in case.leaves)


@functools.cache
def _stated() -> dict[tuple[str, bool], Tolerance]:
    """(operator, whether at half precision) -> the widest tolerance that one of its hand-written cases states."""
    widest: dict[tuple[str, bool], Tolerance] = {}
    for case in CASES:
        if case.within is not None:
            known = widest.get((case.target, _is_half(case)))
            if known is None or known.rtol + known.atol < case.within.rtol + case.within.atol:
                widest[case.target, _is_half(case)] = case.within
    return widest


def toleranced(case: Case) -> Case:
    """The case with its operator's tolerance."""
    return dataclasses.replace(case, within=_stated().get((case.target, _is_half(case))))


# --- which cases -------------------------------------------------------------------------------

#: Kernels whose samples number in the hundreds and differ in window sizes: their hand-written cases have these.
WINDOWS = ("aten.max_pool", "aten.avg_pool", "aten.im2col", "aten.col2im")

#: What torch leaves unwritten, or draws, has no value to compare; what is no tensor stands in no graph.
UNWRITTEN = (
    "aten.equal.",
    "aten.empty",
    "aten.new_empty",
    "aten.normal.",
    "aten.rand",
    "aten.bernoulli",
    "aten.multinomial",
)

FEW, MANY = 1, 24


def targets(engine: UnderTest) -> set[str]:
    """The operators whose samples are run: those that an engine has a lowering of."""
    known = {name for one in (engine, *ENGINES.values()) for name in one.lowerings}
    return {name for name in known if not name.startswith(UNWRITTEN + WINDOWS)}


def drawn(cases: Iterable[Case], count: int) -> list[Case]:
    """At most `count` of each operator, always the same."""
    families: dict[str, list[Case]] = defaultdict(list)
    for one in cases:
        families[one.target].append(one)
    rng = random.Random(0)
    return [
        toleranced(one)
        for target, family in sorted(families.items())
        for one in (family if len(family) <= count else rng.sample(family, count))
    ]


def freed(cases: Iterable[Case]) -> Iterator[Case]:
    """Each case with the sizes of its tensors free, where torch keeps one free."""
    for one in cases:
        try:
            opened = as_free_as_torch_keeps_it(one)
        except Exception:  # noqa: BLE001 - torch makes no graph of it, and has a dozen classes to say so
            continue
        if opened.is_dynamic:
            yield opened


#: What a sweep is called, and the dtype of its samples.
SWEEPS = ("float32", "int64", "bool", "float16", "integers")


def sweep(engine: UnderTest, name: str, *, free: bool = False, count: int = MANY) -> Iterator[Verdict]:
    """Every sample of one dtype, at most `count` of an operator; "integers": of every width, negative and large."""
    if name == "integers":
        found = list(integer_cases(targets(engine)))
    else:
        each = None if count >= MANY else 2 * count
        found = drawn(sampled(targets(engine), (getattr(torch, name),), each=each), count)
    yield from verdicts(freed(found) if free else found, engine)


def complaints(found: Iterable[Verdict], engine: UnderTest) -> list[str]:
    """What the tables of gaps do not know, and what they know no longer."""
    told = []
    for verdict in found:
        gap = engine.sample_gap_of(verdict.case)
        if gap is None and verdict.kind not in (PASSES, MISSING, NOTED):
            told.append(str(verdict))
        elif gap is not None and verdict.kind != gap.kind:
            told.append(f"{verdict}; gaps.py says {gap.kind}: {gap.reason}")
    return told


def rate(found: Sequence[Verdict]) -> float:
    """How many pass, of those whose operator the engine has."""
    kinds = Counter(verdict.kind for verdict in found)
    return kinds[PASSES] / max(len(found) - kinds[MISSING], 1)


def told(name: str, found: Sequence[Verdict]) -> str:
    """A sweep in a line."""
    kinds = Counter(verdict.kind for verdict in found)
    others = ", ".join(f"{kinds[kind]} {kind}" for kind in (MISSING, REFUSED, NOTED, FAILS, WRONG))
    return (
        f"{name}: {kinds[PASSES]} of {len(found)} samples pass ({rate(found):.2%} of those not missing), of "
        f"{len({v.case.target for v in found})} operators; {others}"
    )
