# SPDX-License-Identifier: Apache-2.0
"""Every lowering on the samples that PyTorch tests its own operators with, in every mode of an engine.

One for each operator, drawn with a fixed seed; with `-m slow` all of them, up to `MANY` of one operator and
dtype, once with the sizes of the sample and once with every size free. What does not pass must stand in the
engine's table of gaps, and what stands there must not pass.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from conforming import (
    FEW,
    SWEEPS,
    complaints,
    drawn,
    rate,
    sweep,
    targets,
    told,
    verdicts,
)
from gaps import FAILS, PASSES, REFUSED, WRONG, SampleGap
from making import Case, as_free_as_torch_keeps_it, case, matrix, tensor, values, vector
from samples import calls_of, case_of, sampled
from ties import judged
from under_test import ENGINES, MINDSPORE, OPENVINO, UnderTest

from paritas.errors import LoweringError
from paritas.lower import registry
from paritas.lower.registry import lowerings

pytest.importorskip("mindspore")

BAR = 0.99


@pytest.mark.slow
@pytest.mark.parametrize("engine", [MINDSPORE, OPENVINO], ids=str)
def test_a_few_samples_of_every_operator_conform(engine: UnderTest) -> None:
    cases = drawn(sampled(set(engine.lowerings) & targets(engine), (torch.float32, torch.int64), each=3), FEW)
    assert len({one.target for one in cases}) > 300
    assert complaints(verdicts(cases, engine), engine) == []


@pytest.mark.slow
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_the_samples_of_every_operator_conform(engine: UnderTest, name: str, free: bool) -> None:
    found = list(sweep(engine, name, free=free))
    print(f"\n{engine}, {'free' if free else 'fixed'} sizes: {told(name, found)}")
    assert complaints(found, engine) == []
    assert rate(found) >= BAR


@pytest.mark.parametrize("engine", ENGINES.values(), ids=str)
def test_every_sample_gap_has_an_operator_and_a_reason(engine: UnderTest) -> None:
    for gap in engine.sample_gaps:
        assert gap.target in engine.lowerings
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
    known = registry.LOWERINGS["mindspore"]
    right = known["aten.add.Tensor"]

    def wrong_for_three_rows(emit, self, other, *, alpha=1):
        return emit.infix("-", self, other) if other.shape[0] == 3 else right(emit, self, other, alpha=alpha)

    monkeypatch.setitem(known, "aten.add.Tensor", wrong_for_three_rows)
    found = list(verdicts(_add_cases(), MINDSPORE))
    assert [verdict.kind for verdict in found] == [PASSES, WRONG, PASSES]
    said = complaints(found, MINDSPORE)
    assert len(said) == 1
    assert said[0].startswith("wrong: aten.add.Tensor(float32[4], float32[3,4])")


def test_what_fails_while_it_runs_is_told_from_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")
    known = registry.LOWERINGS["mindspore"]
    right = known["aten.add.Tensor"]

    def unfit(emit, self, other, *, alpha=1):
        return emit.call("ops.matmul", other, self) if other.shape[0] == 3 else right(emit, self, other)

    monkeypatch.setitem(known, "aten.add.Tensor", unfit)
    cases = [dataclasses.replace(one, args=(matrix(1, 4), one.args[1])) for one in _add_cases()]
    assert [verdict.kind for verdict in verdicts(cases, MINDSPORE)] == [PASSES, FAILS, PASSES]


def test_a_refusal_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")

    def refused(emit, self, other, *, alpha=1):
        raise emit.refuse("it is Monday")

    monkeypatch.setitem(registry.LOWERINGS["mindspore"], "aten.add.Tensor", refused)
    assert {verdict.kind for verdict in verdicts(_add_cases(), MINDSPORE)} == {REFUSED}


def test_a_gap_that_passes_is_found() -> None:
    stale = SampleGap("aten.add.Tensor", WRONG, lambda one: True, "it was wrong once")
    stained = dataclasses.replace(MINDSPORE, sample_gaps=[stale])
    said = complaints(verdicts(_add_cases(), stained), stained)
    assert len(said) == 3
    assert all("gaps.py says wrong: it was wrong once" in line for line in said)


def test_a_refusal_that_names_no_operator_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    lowerings("mindspore")

    def refused(emit, self, other, *, alpha=1):
        raise LoweringError("it is Monday")

    monkeypatch.setitem(registry.LOWERINGS["mindspore"], "aten.add.Tensor", refused)
    # What names it is taken away.
    monkeypatch.setattr("paritas.lower.mindspore.write.method.placed", lambda engine, where: contextlib.nullcontext())
    assert {verdict.kind for verdict in verdicts(_add_cases(), MINDSPORE)} == {FAILS}


def test_any_of_several_equal_elements_may_be_meant_but_not_another() -> None:
    one = case("aten.topk.default", values([3.0, 1.0, 3.0, 3.0]), 2)
    tensors = one.tensors()
    want = [value.numpy() for value in one.eager(tensors)]
    for places, agrees in (([0, 3], True), ([2, 0], True), ([0, 0], False), ([0, 1], False), ([0, 9], False)):
        found = judged(one, tensors, want, [want[0], np.array(places)])
        assert np.array_equal(found[1], places) == agrees or places == want[1].tolist()


def test_a_size_is_free_where_torch_keeps_it_free() -> None:
    product = as_free_as_torch_keeps_it(case("aten.mm.default", matrix(2, 3), matrix(3, 4)))
    assert [given.free for given in product.args] == [(0, 1), (0, 1)]
    shaped = as_free_as_torch_keeps_it(case("aten.expand.default", tensor(1, 3), [2, 3]))
    assert shaped.args[0].free == ()
