# SPDX-License-Identifier: Apache-2.0
"""A search finds rare faults that the cases miss, within the limits of the inputs, and the same again."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import Mlp, eager

from paritas.errors import ParitasError
from paritas.program import TensorSpec
from paritas.run.torch.session import TorchSession
from paritas.run.values import check_feed
from paritas.verify import (
    Budget,
    Case,
    Environment,
    Found,
    ParityReport,
    Score,
    Space,
    generate,
    search,
    verify,
)
from paritas.verify.inputs.search import HOPELESS, Refused, Sought

TOKENS = (
    TensorSpec("input_ids", "int64", ("s0", "s1"), high=60),
    TensorSpec("attention_mask", "int64", ("s0", "s1")),
)
FLOATS = (TensorSpec("x", "float32", ("s0", "s1", 4)),)


def space(specs, *, limits=None, **kwargs):
    cases = [case for case in generate(specs, limits=limits) if not case.edge]
    return Space(specs, limits or {}, kwargs.pop("starts", cases), **kwargs)


def wrong_where(rule):
    """A judge of a port that is right to the rounding, and wrong where the rule says."""
    return lambda case: Score(5.0 if rule(case.feed) else 0.01, "y")


def seventeen_behind_five(feed):
    ids = feed["input_ids"]
    return bool(((ids[:, :-1] == 5) & (ids[:, 1:] == 17)).any())


PLANTED = {
    "token 17 behind token 5": (TOKENS, seventeen_behind_five),
    "a float below -6": (FLOATS, lambda feed: feed["x"].min() < -6),
    "large floats of both signs side by side": (
        FLOATS, lambda feed: ((feed["x"].max(-1) > 4) & (feed["x"].min(-1) < -4)).any()
    ),
    "an odd length of 13 to 31": (FLOATS, lambda feed: feed["x"].shape[1] % 2 and 13 <= feed["x"].shape[1] < 32),
    "three padded to two tokens": (TOKENS, lambda feed: (feed["attention_mask"].sum(1) == 2).sum() == 3),
    "a batch of one, longer than 30": (TOKENS, lambda f: len(f["input_ids"]) == 1 and f["input_ids"].size > 30),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_rare_fault_that_all_cases_miss_is_found(name):
    specs, rule = PLANTED[name]
    assert not any(rule(case.feed) for case in generate(specs))
    found = search(wrong_where(rule), space(specs), Budget(tries=4000))
    assert found.case is not None and rule(found.case.feed) and found.sought.excess == 5.0
    assert found.case.name == "search: worst of 4000 tries" == found.sought.case
    assert f"the worst it found: 5x tolerance in y, {found.case.shapes}" in found.sought.lines()


def test_it_climbs_where_the_score_tells_the_way():
    target = np.linspace(-5, 5, 24).reshape(2, 3, 4)

    def judge(case):
        return Score(1 / (0.01 + np.abs(np.clip(case.feed["x"], -9, 9) - target).max()), "y")

    start = [Case("given", {"x": np.zeros((2, 3, 4), np.float32)})]
    here = space(FLOATS, starts=start, resize=False)
    few, many = (search(judge, here, Budget(tries=n)).sought.excess for n in (5, 1500))
    assert many > 1.2 * few


def test_a_fault_ends_the_search():
    def judge(case):
        return Score(math.inf, "y", "NaN: everywhere") if case.feed["x"].max() > 3 else Score(0.1, "y")

    found = search(judge, space(FLOATS), Budget(tries=4000)).sought
    assert found.tries < 4000 and found.fault == "NaN: everywhere" and found.excess == math.inf
    assert found.ended == "nothing is worse" and "ended early: nothing is worse" in found.lines()[0]


def tried(specs, budget, seed=0, judge=None, **kwargs):
    seen = []

    def watched(case):
        seen.append(case.feed)
        return judge(case) if judge else Score(float(sum(np.abs(v).sum() for v in case.feed.values())), "y")

    found = search(watched, space(specs, **kwargs), budget, seed=seed)
    assert found.sought.tries == len(seen)
    return seen, found


def equal(one, other):
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a) for a, b in zip(one, other, strict=True)
    )


def test_the_same_seed_tries_the_same_inputs_and_the_budget_says_how_many():
    for specs in (TOKENS, FLOATS):
        many, found = tried(specs, Budget(tries=120))
        again, same = tried(specs, Budget(tries=120))
        few, _ = tried(specs, Budget(tries=50))
        other, _ = tried(specs, Budget(tries=50), seed=1)
        assert equal(many, again) and found.sought.excess == same.sought.excess
        assert equal(few, many[:50]) and not equal(few, other)


def test_seconds_end_it_too():
    ticks = iter(range(10_000))
    found = search(lambda case: Score(0.5, "y"), space(FLOATS), Budget(seconds=100), clock=lambda: float(next(ticks)))
    assert 0 < found.sought.tries < 100 <= found.sought.seconds


@pytest.mark.parametrize("wrong", [{}, {"seconds": 0}, {"seconds": -1}, {"seconds": math.nan}, {"tries": 0}])
def test_what_is_no_budget_is_refused(wrong):
    with pytest.raises(ParitasError, match="A search"):
        Budget(**wrong)


def test_inputs_that_the_original_refuses_are_counted():
    def judge(case):
        if case.feed["x"].shape[1] > 10:
            raise Refused("too long")
        return Score(0.5, "y")

    seen, found = tried(FLOATS, Budget(tries=300), judge=judge)
    refused = sum(feed["x"].shape[1] > 10 for feed in seen)
    assert 0 < refused == found.sought.refused < 300
    assert found.case is not None and found.case.feed["x"].shape[1] <= 10
    assert f"{refused} refused by the original" in found.sought.lines()[0]


def test_where_the_original_takes_nothing_it_gives_up():
    def judge(case):
        raise Refused("no")

    _, found = tried(FLOATS, Budget(tries=10 * HOPELESS), judge=judge)
    assert found.sought.tries == HOPELESS == found.sought.refused and found.case is None
    assert math.isnan(found.sought.excess) and "refuses all of" in found.sought.ended


def test_inputs_that_prove_nothing_are_counted_and_never_the_worst():
    def judge(case):
        lost = case.feed["x"].max() > 3
        return Score(9.0 if lost else 0.5, "y", unjudged="PyTorch itself overflows" if lost else "")

    _, found = tried(FLOATS, Budget(tries=300), judge=judge)
    assert found.sought.unjudged > 0 and found.sought.excess == 0.5
    assert f"{found.sought.unjudged} not judged" in found.sought.lines()[0]


def test_a_port_that_is_right_to_the_bit_leaves_nothing_to_keep():
    _, found = tried(FLOATS, Budget(tries=30), judge=lambda case: Score(0.0, "y"))
    assert found.case is None and found.sought.excess == 0 and "no inputs" in found.sought.lines()[1]


# --- limits -------------------------------------------------------------------------------------

DTYPES = ("float32", "float16", "bfloat16", "int64", "int32", "bool")


@st.composite
def signatures(draw):
    dims = st.sampled_from(["s0", "s1", "2*s1 + 1", 3])
    specs = [
        TensorSpec(
            f"x{i}",
            dtype,
            ("s0", *draw(st.lists(dims, max_size=2))),
            high=draw(st.sampled_from([None, 1, 7, 300])),
        )
        for i, dtype in enumerate(draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3)))
    ]
    specs += draw(st.sampled_from([[], [TensorSpec("attention_mask", "int64", ("s0", "s1"))]]))
    specs += draw(st.sampled_from([[], [TensorSpec("grid", "int64", (1, 2), value=[[2, 3]])]]))
    specs += draw(st.sampled_from([[], [TensorSpec("position_ids", "int64", ("s0", "s1"), high=12)]]))
    largest = draw(st.dictionaries(st.sampled_from(["s0", "s1"]), st.integers(1, 20)))
    return tuple(specs), largest


@settings(max_examples=40, deadline=None)
@given(signatures(), st.integers(0, 1000))
def test_every_input_that_is_tried_is_one_that_a_port_takes(signature, seed):
    specs, largest = signature
    limits = {symbol: (1, size) for symbol, size in largest.items()}
    seen, _ = tried(specs, Budget(tries=40), seed=seed, limits=limits)
    for feed in seen:
        checked = check_feed(feed, specs, {}, largest)
        for name, value in checked.items():
            assert value.dtype == feed[name].dtype and np.array_equal(value, feed[name])
            if value.dtype.kind == "f":
                assert np.isfinite(value).all() and np.abs(value).max() <= 255
        if "attention_mask" in feed:
            assert feed["attention_mask"].sum(1).min() >= 1, "a row without a token is an edge"


def test_what_is_fixed_stays_and_shapes_too_where_they_have_to():
    start = Case("as captured", {**generate(TOKENS)[0].feed, "x": np.ones((1, 2, 4), np.float32)})
    specs = (*TOKENS, *FLOATS)
    seen, _ = tried(
        specs,
        Budget(tries=200),
        starts=[start],
        fixed=frozenset({"input_ids", "attention_mask"}),
        resize=False,
    )
    assert all(np.array_equal(feed["input_ids"], start.feed["input_ids"]) for feed in seen)
    assert {feed["x"].shape for feed in seen} == {(1, 2, 4)} and len({feed["x"].tobytes() for feed in seen}) > 50
    for starts, fixed, why in (
        ([start], specs, "no input may be changed"),
        ([], (), "no input to begin with"),
    ):
        names = frozenset(spec.name for spec in fixed)
        seen, found = tried(specs, Budget(tries=9), starts=starts, fixed=names, resize=False)
        assert not seen and why in found.sought.lines()[0]


# --- as verify judges ---------------------------------------------------------------------------


class Off(TorchSession):
    """PyTorch, off by a half where an input is below -5."""

    def run(self, feed):
        first, second = super().run(feed)
        return [first * np.float32(1.5 if feed["x"].min() < -5 else 1), second]


def report_of(mlp: Mlp, program, seek, precision="float32", session=Off) -> ParityReport:
    half = precision != "float32"
    return verify(
        session(program, precision),
        eager(mlp),
        generate(program.inputs, limits={str(d): (1, 9) for s in program.inputs for d in s.dims[:2]})[:3],
        outputs=program.outputs,
        environment=Environment("stub"),
        truth=TorchSession(program, "float64"),
        reference=TorchSession(program),
        yardstick=TorchSession(program, precision).run if half else None,
        seek=seek,
    )


@pytest.mark.parametrize("low", [-1.0, -9.0])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_score_of_an_input_is_the_excess_of_its_row(mlp, mlp_program, precision, low):
    x = np.linspace(low, 2, 2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8)
    scores = []

    def seek(judge):
        case = Case("search: this one", {"x": x}, optional=True)
        scores.append(judge(case))
        return Found(Sought("1 tries", 0, 1.0, 1, 1, 0, 0), case)

    report = report_of(mlp, mlp_program, seek, precision)
    rows = [row for row in report.outputs if row.case == "search: this one"]
    assert max(row.excess for row in rows) == pytest.approx(scores[0].excess)
    assert report.verdict == ("agrees" if low == -1.0 else "diverges") and (scores[0].excess > 1) == (low < -1)


def test_a_report_with_a_search_says_so_and_survives_json(mlp, mlp_program):
    limits = {str(d): (1, 9) for s in mlp_program.inputs for d in s.dims[:2]}
    here = space(mlp_program.inputs, limits=limits)
    report = report_of(mlp, mlp_program, lambda judge: search(judge, here, Budget(tries=300), seed=7))
    assert report.verdict == "diverges" and report.search is not None and report.search.excess > 1
    assert any(row.case == report.search.case and row.diverges for row in report.outputs)
    assert ParityReport.from_json(report.to_json()).search == report.search
    for text in (str(report), report.to_markdown("here")):
        assert "300 tries" in text and "seed 7" in text and "Budget(tries=300), seed=7" in text
    assert "## Search" in report.to_markdown("here") and "paritas verify here --search" in report.to_markdown("here")
    without = report.to_json().replace('"search":', '"searched":')
    assert ParityReport.from_json(without).search is None, "a report of an older Paritas"


def test_what_the_engine_raises_is_the_worst_there_is(mlp, mlp_program):
    class Fails(TorchSession):
        def run(self, feed):
            if feed["x"].shape[1] == 5:
                raise MemoryError("no")
            return super().run(feed)

    here = space(mlp_program.inputs, limits={str(d): (1, 9) for s in mlp_program.inputs for d in s.dims[:2]})
    report = report_of(mlp, mlp_program, lambda judge: search(judge, here, Budget(tries=500)), session=Fails)
    assert report.search is not None and "MemoryError" in report.search.fault and report.search.tries < 500


def test_at_half_precision_a_searched_input_may_be_off_by_twice_as_much(mlp, mlp_program):
    case = Case("a", {"x": np.linspace(-1, 2, 48, dtype=np.float32).reshape(2, 3, 8)}, optional=True)
    scores = {}

    def seek(judge):
        scores.update({picked: judge(dataclasses.replace(case, searched=picked)) for picked in (True, False)})
        return Found(Sought("2 tries", 0, 1.0, 2, 1, 0, 0))

    report_of(mlp, mlp_program, seek, "bfloat16")
    assert scores[False].excess == pytest.approx(2 * scores[True].excess)
    report_of(mlp, mlp_program, seek)
    assert scores[False] == scores[True], "at fp32 the tolerance rules"
