# SPDX-License-Identifier: Apache-2.0
"""Every lowering on the samples that PyTorch tests its own operators with, in both of MindSpore's modes.

One for each operator, drawn with a fixed seed; with `-m slow` all of them, up to `MANY` of one operator and
dtype. What does not pass must stand in gaps.py, and what stands there must not pass.
"""

from __future__ import annotations

import dataclasses
import gc
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
import torch
from conforming import FAILS, PASSES, REFUSED, WRONG, Verdict, toleranced, verdicts
from gaps import SAMPLE_GAPS, SampleGap, sample_gap_of
from making import Case, case, matrix, vector
from samples import calls_of, case_of, sampled

from paritas.lower import registry
from paritas.lower.registry import lowerings

pytest.importorskip("mindspore")

#: Kernels whose samples number in the hundreds and differ in window sizes: their hand-written cases have these.
WINDOWS = ("aten.max_pool", "aten.avg_pool", "aten.im2col", "aten.col2im")

#: What torch leaves unwritten, or draws, has no value to compare.
UNWRITTEN = (
    "aten.empty",
    "aten.new_empty",
    "aten.normal.",
    "aten.rand",
    "aten.bernoulli",
    "aten.multinomial",
)

FEW, MANY = 1, 24
BAR = 0.99


@pytest.fixture(autouse=True)
def _quick_garbage_collection() -> None:
    gc.freeze()


def _targets() -> set[str]:
    return {name for name in lowerings("mindspore") if not name.startswith(UNWRITTEN + WINDOWS)}


def _drawn(cases: Iterable[Case], count: int) -> list[Case]:
    """At most `count` of each operator."""
    families: dict[str, list[Case]] = defaultdict(list)
    for one in cases:
        families[one.target].append(one)
    rng = random.Random(0)
    return [
        toleranced(one)
        for target, family in sorted(families.items())
        for one in (family if len(family) <= count else rng.sample(family, count))
    ]


def _complaints(found: Iterable[Verdict]) -> list[str]:
    """What gaps.py does not know, and what it knows no longer."""
    told = []
    for verdict in found:
        gap = sample_gap_of(verdict.case)
        if gap is None and verdict.kind != PASSES:
            told.append(str(verdict))
        elif gap is not None and verdict.kind != gap.kind:
            told.append(f"{verdict}; gaps.py says {gap.kind}: {gap.reason}")
    return told


def test_a_few_samples_of_every_operator_conform() -> None:
    cases = _drawn(sampled(_targets(), (torch.float32, torch.int64), each=3), FEW)
    assert len({one.target for one in cases}) > 300
    assert _complaints(verdicts(cases)) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
def test_the_samples_of_every_operator_conform(dtype: str) -> None:
    cases = _drawn(sampled(_targets(), (getattr(torch, dtype),)), MANY)
    found = list(verdicts(cases))
    kinds = Counter(verdict.kind for verdict in found)
    rate = kinds[PASSES] / len(found)
    print(
        f"\n{dtype}: {kinds[PASSES]} of {len(found)} samples pass ({rate:.2%}), of "
        f"{len({v.case.target for v in found})} operators; {kinds[REFUSED]} refused, {kinds[FAILS]} fail, "
        f"{kinds[WRONG]} wrong"
    )
    assert _complaints(found) == []
    assert rate >= BAR


def test_every_sample_gap_has_an_operator_and_a_reason() -> None:
    for gap in SAMPLE_GAPS:
        assert gap.target in lowerings("mindspore")
        assert gap.reason.strip()


# --- the harness can fail ---


def _add_cases() -> list[Case]:
    return [case("aten.add.Tensor", vector(4), matrix(n, 4)) for n in (2, 3, 5)]


def test_calls_are_seen_whole() -> None:
    x = torch.rand(3, 4)
    assert [c[0] for c in calls_of(torch.special.logit, x)] == ["aten.special_logit.default"]
    assert [c[0] for c in calls_of(lambda: x.T @ x)] == ["aten.numpy_T.default", "aten.matmul.default"]


def test_an_argument_is_kept_as_it_was_when_it_is_overwritten_later() -> None:
    def doubled() -> None:
        x = torch.ones(3)
        torch.relu(x)
        x.mul_(2)

    made = [case_of(*call) for call in calls_of(doubled) if call[0] == "aten.relu.default"]
    assert made[0] is not None
    assert made[0].tensors()[0].tolist() == [1.0, 1.0, 1.0]


def test_a_wrong_lowering_is_found_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry._LOWERINGS["mindspore"]
    right = known["aten.add.Tensor"]

    def wrong_for_three_rows(emit, self, other, *, alpha=1):
        return emit.infix("-", self, other) if other.shape[0] == 3 else right(emit, self, other, alpha=alpha)

    monkeypatch.setitem(known, "aten.add.Tensor", wrong_for_three_rows)
    found = list(verdicts(_add_cases()))
    assert [verdict.kind for verdict in found] == [PASSES, WRONG, PASSES]
    told = _complaints(found)
    assert len(told) == 1
    assert told[0].startswith("wrong: aten.add.Tensor(float32[4], float32[3,4])")


def test_what_fails_while_it_runs_is_told_from_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry._LOWERINGS["mindspore"]
    right = known["aten.add.Tensor"]

    def unfit(emit, self, other, *, alpha=1):
        return emit.call("ops.matmul", other, self) if other.shape[0] == 3 else right(emit, self, other)

    monkeypatch.setitem(known, "aten.add.Tensor", unfit)
    cases = [dataclasses.replace(one, args=(matrix(1, 4), one.args[1])) for one in _add_cases()]
    assert [verdict.kind for verdict in verdicts(cases)] == [PASSES, FAILS, PASSES]


def test_a_refusal_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")

    def refused(emit, self, other, *, alpha=1):
        raise emit.refuse("it is Monday")

    monkeypatch.setitem(registry._LOWERINGS["mindspore"], "aten.add.Tensor", refused)
    assert {verdict.kind for verdict in verdicts(_add_cases())} == {REFUSED}


def test_a_gap_that_passes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = SampleGap("aten.add.Tensor", WRONG, lambda one: True, "it was wrong once")
    monkeypatch.setattr("gaps.SAMPLE_GAPS", [stale])
    told = _complaints(verdicts(_add_cases()))
    assert len(told) == 3
    assert all("gaps.py says wrong: it was wrong once" in line for line in told)
