# SPDX-License-Identifier: Apache-2.0
"""Each way in which a wrong result has passed a comparison somewhere is a test here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_programs import eager, program_of

import paritas
from paritas.program import TensorSpec
from paritas.run.torch.session import TorchSession
from paritas.verify import Case, Environment, ParityReport, Tolerance, compare, verify, whole_model
from paritas.verify.report.rows import OutputParity

pytestmark = pytest.mark.usefixtures("all_suspects")

nan, inf = np.nan, np.inf
WIDE = Tolerance(1.0, 1e6, "wide enough for any number, so that only the form can fail")
FP32 = whole_model("float32")


def f32(*values):
    return np.array(values, np.float32)


class Stub:
    """An engine that answers what it is told to."""

    precision = "float32"

    def __init__(self, answer, precision="float32"):
        self.answer, self.precision = answer, precision

    def run(self, feed):
        result = self.answer(feed)
        return list(result)

    def close(self):
        pass


def report_of(want, got, **kwargs) -> ParityReport:
    want, got = (v if isinstance(v, list) else [v] for v in (want, got))
    specs = [TensorSpec(f"out{i}", str(w.dtype), tuple(w.shape)) for i, w in enumerate(want)]
    return verify(
        Stub(lambda feed: got),
        lambda feed: want,
        [Case("only", {})],
        outputs=kwargs.pop("outputs", specs),
        environment=Environment("stub"),
        **kwargs,
    )


FOOLED = {
    "NaN exceeds no threshold": (f32(1, 2), f32(1, nan), "NaN where the original has none, first at [1]"),
    "NaN is all there is": (f32(1), f32(nan), "NaN where the original has none"),
    "NaN becomes 0": (f32(1, nan), f32(1, 0), "no NaN where the original has one, first at [1]"),
    "NaN becomes inf": (f32(1, nan), f32(1, inf), "no NaN where the original has one"),
    "inf becomes NaN": (f32(1, inf), f32(1, nan), "NaN where the original has none"),
    "inf becomes the maximum": (f32(1, inf), f32(1, np.finfo("f4").max), "infinity: want inf"),
    "the maximum becomes inf": (f32(1, np.finfo("f4").max), f32(1, inf), "infinity: want 3.40"),
    "+inf against -inf": (f32(1, inf), f32(1, -inf), "infinity: want inf, got -inf, first at [1]"),
    "broadcasting": (np.ones((2, 2), "f4"), np.ones(2, "f4"), "shape: want [2, 2], got [2]"),
    "a scalar for a vector": (np.ones(1, "f4"), np.float32(1), "shape: want [1], got []"),
    "transposed": (np.ones((2, 3), "f4"), np.ones((3, 2), "f4"), "shape"),
    "float64 for float32": (f32(1), np.ones(1), "dtype: want float32, got float64"),
    "int32 for int64": (np.array([1]), np.array([1], "i4"), "dtype: want int64, got int32"),
    "integers for booleans": (np.array([True]), np.array([1]), "dtype"),
    "text": (np.array(["a"]), np.array(["a"]), "cannot be compared"),
    "objects": (np.array([None]), np.array([None]), "cannot be compared"),
}


@pytest.mark.parametrize("name", FOOLED)
def test_what_must_not_pass_however_wide_the_tolerance(name):
    want, got, message = FOOLED[name]
    result = compare(want, got, WIDE)
    assert not result.agrees and message in result.fault, result
    assert result.needed is None
    report = report_of(want, got, tolerance=WIDE)
    assert report.verdict == "diverges" and report.error == inf and message in str(report)


def test_a_missing_value_is_no_agreement_even_on_both_sides():
    assert compare(None, f32(1), WIDE).fault == "missing in the original"
    assert compare(f32(1), None, WIDE).fault == "missing here"
    assert not compare(None, None, WIDE).agrees
    assert "not an array: got is list" in compare(f32(1), [1.0], WIDE).fault  # type: ignore[arg-type]


def test_a_shorter_list_of_outputs_names_the_missing_one():
    report = report_of([f32(1), f32(2)], [f32(1)])
    assert report.verdict == "diverges"
    assert [(r.output, r.fault) for r in report.outputs if not r.agrees] == [("out1", "missing here")]


def test_a_longer_list_of_outputs_is_not_cut():
    report = report_of([f32(1)], [f32(1), f32(2)])
    assert report.verdict == "diverges" and "missing in the original" in str(report)


def test_an_output_that_only_the_manifest_knows_is_missed():
    specs = [TensorSpec(n, "float32", (1,)) for n in ("a", "b")]
    assert report_of([f32(1)], [f32(1)], outputs=specs).verdict == "diverges"


def test_one_bad_row_is_not_averaged_away():
    want = np.random.default_rng(0).standard_normal((10_000, 8)).astype(np.float32)
    got = want.copy()
    got[4711] += 0.01
    result = compare(want, got, FP32)
    assert not result.agrees and result.worst[0] == 4711
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 1e-3  # what a norm would have said


def test_both_terms_add_up_and_neither_alone_must_be_exceeded():
    rule = Tolerance(0.1, 1.0, "a test")
    want = f32(100)
    assert compare(want, f32(110.9), rule).agrees
    assert not compare(want, f32(111.1), rule).agrees
    assert not compare(f32(0), f32(1.1), rule).agrees  # above atol, though rtol * 0 says nothing


FILLS = {"legacy": -1e4, "half": -65504.0, "billion": -1e9, "fp32 minimum": float(np.finfo("f4").min)}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
@pytest.mark.parametrize("share", [0.002, 0.5, 0.9])
def test_fill_values_do_not_widen_the_tolerance_of_the_rest(fill, share):
    rng = np.random.default_rng(0)
    want = rng.standard_normal(5_000).astype(np.float32)
    filled = rng.random(5_000) < share
    want[filled] = fill
    noise = compare(want, want * np.float32(1 - 3e-7), FP32)
    assert noise.agrees, noise
    got = want.copy()
    at = int(np.flatnonzero(~filled)[7])
    got[at] += 0.01
    result = compare(want, got, FP32)
    assert not result.agrees and result.worst == (at,), result


def test_an_infinite_allowance_is_none():
    huge = np.full(4, 1.7e308)
    got = huge.copy()
    got[0] = -got[0]
    assert not compare(huge, got, Tolerance(1e-5, 0.0, "a test", scaled=1.0)).agrees


def test_comparing_nothing_is_incomplete():
    nothing = verify(Stub(lambda f: []), lambda f: [], [], outputs=[], environment=Environment("stub"))
    assert nothing.verdict == "incomplete" and np.isnan(nothing.error)
    assert report_of([], []).verdict == "incomplete"
    empty = np.zeros((0, 4), np.float32)
    assert report_of(empty, empty).verdict == "incomplete"
    assert ParityReport(Environment("stub"), FP32).verdict == "incomplete"


def test_an_original_that_is_nan_everywhere_proves_nothing():
    report = report_of(f32(nan, nan), f32(nan, nan))
    assert report.verdict == "incomplete" and "NaN or infinite everywhere" in str(report)


def test_a_case_that_the_original_refuses_is_counted():
    def original(feed):
        if feed["x"].size > 1:
            raise IndexError("too long\nsecond line")
        return [feed["x"]]

    report = verify(
        Stub(lambda feed: [feed["x"]]),
        original,
        [Case("short", {"x": f32(1)}), Case("long", {"x": f32(1, 2)})],
        outputs=[TensorSpec("y", "float32", ("s0",))],
        environment=Environment("stub"),
    )
    assert report.verdict == "incomplete"
    assert report.unseen == {'case "long"': "the original refuses it: IndexError: too long"}


@pytest.mark.parametrize(("got", "verdict"), [(lambda x: x, "agrees"), (lambda x: x + 1, "diverges")])
def test_other_sizes_are_compared_where_the_original_refuses_the_first_and_it_is_told(got, verdict):
    def original(feed):
        if feed["x"].size > 1:
            raise IndexError("too long")
        return [feed["x"]]

    nearer = (Case("long", {"x": f32(1, 2, 3)}), Case("long", {"x": f32(5)}))
    report = verify(
        Stub(lambda feed: [got(feed["x"])]),
        original,
        [Case("long", {"x": f32(1, 2)}, otherwise=nearer)],
        outputs=[TensorSpec("y", "float32", ("s0",))],
        environment=Environment("stub"),
    )
    assert report.verdict == verdict and not report.unseen
    assert 'case "long" has other sizes, x[1]: of its own, the original refuses it: IndexError: too long' in str(report)


# --- made-up values ---------------------------------------------------------------------------


def made_up(want, got, x, optional=True, **kwargs):
    return verify(
        Stub(lambda feed: [got(feed["x"])]),
        lambda feed: [want(feed["x"])],
        [Case("ordinary", {"x": f32(1, 2)}), Case("made up", {"x": x}, optional=optional)],
        outputs=[TensorSpec("y", "float32", ("s0",))],
        environment=Environment("stub"),
        **kwargs,
    )


def flushing(function):
    """An engine that takes denormal numbers for zeros."""
    return lambda x: function(np.where(np.abs(x) < np.finfo("f4").smallest_normal, np.float32(0), x))


def log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


def test_an_engine_may_take_denormal_numbers_for_zeros():
    tiny = f32(1, 1e-40, 2)
    report = made_up(log, flushing(log), tiny)
    assert report.verdict == "agrees", str(report)
    assert any("denormal numbers as zeros" in row.hint for row in report.outputs)
    assert made_up(np.sign, flushing(np.sign), tiny).verdict == "agrees"


def test_flushing_excuses_nothing_else():
    tiny = f32(1, 1e-40, 2)
    assert made_up(log, lambda x: flushing(log)(x) + np.float32(0.1), tiny).verdict == "diverges"
    assert made_up(log, flushing(log), f32(1, 1e-30, 2)).verdict == "agrees"
    assert made_up(log, lambda x: log(np.where(x < 1e-20, np.float32(0), x)), f32(1, 1e-30)).verdict == "diverges"
    assert made_up(log, lambda x: np.where(x < 1e-20, np.float32(nan), log(x)), tiny).verdict == "diverges"


def test_made_up_values_that_the_original_refuses_are_a_note():
    def original(x):
        if x.size > 2:
            raise IndexError("no end token")
        return x

    report = made_up(original, lambda x: x, f32(1, 2, 3))
    assert report.verdict == "agrees" and not report.unseen
    assert 'case "made up" was not compared: the original refuses it: IndexError: no end token' in str(report)
    assert made_up(original, lambda x: x, f32(1, 2, 3), optional=False).verdict == "incomplete"


def test_a_port_that_crashes_diverges():
    def crash(feed):
        raise MemoryError("no")

    report = verify(
        Stub(crash),
        lambda feed: [f32(1)],
        [Case("only", {})],
        outputs=[TensorSpec("y", "float32", (1,))],
        environment=Environment("stub"),
    )
    assert report.verdict == "diverges" and "the engine failed: MemoryError: no" in str(report)


@pytest.mark.parametrize("excess", [nan, inf, 1.0000001])
def test_a_row_passes_only_by_being_within(excess):
    row = OutputParity("c", "o", excess=excess, error=0.0, elements=1)
    assert not row.agrees and row.diverges


def test_an_unjudged_row_is_neither():
    row = OutputParity("c", "o", excess=0.0, error=0.0, unjudged="why", elements=1)
    assert not row.agrees and not row.diverges
    good = OutputParity("c", "p", excess=0.0, error=0.0, elements=1)
    assert ParityReport(Environment("stub"), FP32, (good, row)).verdict == "incomplete"


# --- half precision ---------------------------------------------------------------------------


class Doubled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


CASES = [Case(n, {"x": np.random.default_rng(i).standard_normal((4, 16)).astype("f4")}) for i, n in enumerate("abc")]


def half_report(answer, *, yardstick=True, original=None, truth=True, tolerance=None):
    model = Doubled().eval()
    program = program_of(model, {"x": torch.randn(4, 16)})
    mine = eager(Doubled().eval().bfloat16())
    return verify(
        Stub(answer or mine, "bfloat16"),
        original or eager(model),
        CASES,
        outputs=[TensorSpec("y", "bfloat16", (4, 16))],
        environment=Environment("stub"),
        truth=TorchSession(program, "float64") if truth else None,
        reference=TorchSession(program),
        yardstick=mine if yardstick else None,
        tolerance=tolerance,
    )


def test_half_precision_agrees_when_as_accurate_as_pytorch():
    report = half_report(None)
    assert report.verdict == "agrees", str(report)
    assert report.environment.precision == "bfloat16" and "bfloat16" in str(report)
    assert all(row.ratio == pytest.approx(1) and row.excess <= 0.5 for row in report.outputs)


def test_half_precision_diverges_when_less_accurate_than_twice_pytorch():
    mine = eager(Doubled().eval().bfloat16())
    report = half_report(lambda feed: [mine(feed)[0] + np.float32(0.05)])
    assert report.verdict == "diverges" and report.outputs[0].ratio > 2


def test_half_precision_is_not_judged_without_float64_and_pytorch():
    for report in (half_report(None, yardstick=False), half_report(None, truth=False)):
        assert report.verdict == "incomplete" and "were not given" in str(report)
    stated = half_report(None, yardstick=False, tolerance=Tolerance(0.1, 0.1, "asked for"))
    assert stated.verdict == "agrees" and "asked for" in str(stated)


def test_a_shape_fault_is_no_matter_of_precision():
    report = half_report(lambda feed: [np.ones(3, "f4")], yardstick=False)
    assert report.verdict == "diverges"
    report = half_report(lambda feed: [np.full((4, 16), nan, "f4")], yardstick=False)
    assert report.verdict == "diverges"


def test_a_wrong_capture_does_not_excuse_a_wrong_port_in_half_precision():
    model = eager(Doubled().eval())
    report = half_report(None, original=lambda feed: [model(feed)[0] * np.float32(1.01)])
    assert report.verdict == "diverges" and "the captured graph is not the original" in str(report)


def test_a_wrong_capture_is_named_at_fp32_and_does_not_pass_as_rounding():
    model = Doubled().eval()
    program = program_of(model, {"x": torch.randn(4, 16)})
    port = TorchSession(program)
    run = eager(model)
    report = verify(
        port,
        lambda feed: [run(feed)[0] * np.float32(1.001)],
        CASES,
        outputs=program.outputs,
        environment=Environment("stub"),
        truth=TorchSession(program, "float64"),
        reference=port,
    )
    assert report.verdict == "diverges" and "The captured graph is not the original" in str(report)


class IllConditioned(torch.nn.Module):
    """(x + 1000) - 1000: fp32 keeps four digits of x, and so may a port that rounds otherwise."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(1000.0))

    def forward(self, x):
        return (x + self.shift) - self.shift


def test_rounding_of_pytorch_itself_is_no_divergence_but_ten_times_that_is():
    model = IllConditioned().eval()
    program = program_of(model, {"x": torch.randn(4, 16)})
    exact = TorchSession(program, "float64")

    def check(off):
        return verify(
            Stub(lambda feed: [exact.run(feed)[0].astype(np.float32) + np.float32(off)]),
            eager(model),
            CASES,
            outputs=program.outputs,
            environment=Environment("stub"),
            truth=exact,
            reference=TorchSession(program),
        )

    better = check(0)
    assert better.error > 1e-5 and better.verdict == "agrees", str(better)
    assert check(1e-3).verdict == "diverges"


def test_made_up_values_on_which_pytorch_itself_is_lost_are_a_note():
    model = IllConditioned().eval()
    program = program_of(model, {"x": torch.randn(4)})
    exact = TorchSession(program, "float64")
    run = eager(model)

    def report(x, off, optional):
        return made_up(
            lambda x: run({"x": x})[0],
            lambda x: exact.run({"x": x})[0].astype(np.float32) + np.float32(off) * x,
            x, optional, truth=exact, reference=TorchSession(program),
        )  # fmt: skip

    lost = f32(1e-4, 2e-4, -1e-4)  # fp32 keeps one digit of these
    assert report(lost, 0, optional=False).verdict == "diverges"
    excused = report(lost, 0, optional=True)
    assert excused.verdict == "agrees" and "PyTorch's own fp32 is" in str(excused)
    assert report(f32(3, 4), 0.1, optional=True).verdict == "diverges"


class Scaled(torch.nn.Module):
    def forward(self, x, scale=1.0, as_pair=True):
        return (x * scale, x) if as_pair else x * scale


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
def test_what_was_fixed_beside_the_inputs_is_part_of_every_case(engine: str) -> None:
    port = paritas.port(Scaled(), engine=engine, inputs={"x": torch.randn(3, 4), "scale": 3.0, "as_pair": False})
    report = port.verify({"x": torch.randn(2, 4), "scale": 3.0, "as_pair": False})
    assert report.verdict == "agrees", str(report)
    assert not report.unseen
