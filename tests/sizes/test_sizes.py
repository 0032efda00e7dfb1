# SPDX-License-Identifier: Apache-2.0
"""No form of size arithmetic is answered with another way's numbers: each size is right, or refused at the door."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from more_size_forms import MORE, ONCE_WRONG
from size_forms import FORMS, Form, inputs, model

import paritas
from paritas.capture import capture
from paritas.capture.forward_names import run_graph
from paritas.errors import ParitasError, PortError, SizeError
from paritas.formulas import NoFormula, parsed
from paritas.guards import holds, remaining
from paritas.program import Guard, TensorSpec
from paritas.pytree import describe_output
from paritas.run.values import check_feed
from paritas.store.manifest import manifest_from_json, manifest_to_json
from paritas.verify import generate
from paritas.verify.inputs.sizes import Ways

Run = Callable[[dict[str, torch.Tensor]], Any]


def _calls(form: Form) -> Iterator[tuple[int, int, int | None]]:
    """(batch, length, the second input's length): the example first."""
    yield form.batch, form.length, None
    for length in range(1, 17):
        yield 2, length, None
    for batch in (1, 3, 6):
        yield batch, form.length, None
    yield 1, 1, None
    if form.inputs == 2:
        yield from ((2, form.length, 1), (2, 1, form.length), (2, form.length, 9), (2, 9, form.length))


def _wrong(form: Form, run: Run) -> tuple[list[str], list[tuple[int, int, int | None]]]:
    """What is answered otherwise than PyTorch answers, and which calls are refused."""
    original, wrong, refused = model(form), [], []
    for call in _calls(form):
        feed = inputs(form, *call)
        try:
            got = run(feed)
        except ParitasError:
            refused.append(call)
            continue
        try:
            with torch.no_grad():
                want = describe_output(original(**feed))[0]
        except Exception as error:  # noqa: BLE001 - in whichever way PyTorch refuses a size
            wrong.append(f"{call}: PyTorch refuses it: {error}")
            continue
        for one, other in zip(got, want, strict=True):
            one, other = np.asarray(one), other.numpy()
            if one.shape != other.shape or not np.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True):
                wrong.append(f"{call}: {one.shape} {one.ravel()[:4]}, not {other.shape} {other.ravel()[:4]}")
    return wrong, refused


ALL = {**FORMS, **MORE}
#: The others are for the long sweeps.
EVERY_DAY = (*list(FORMS)[::3], *ONCE_WRONG)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in EVERY_DAY else pytest.mark.slow) for n in ALL])
def test_the_graph_is_right_wherever_its_guards_hold(name: str) -> None:
    form = ALL[name]
    program = capture(model(form), inputs(form, form.batch, form.length))

    def run(feed: dict[str, torch.Tensor]) -> Any:
        check_feed(feed, program.inputs, {}, program.limits, guards=program.guards)
        return run_graph(program.exported, feed)

    wrong, refused = _wrong(form, run)
    assert not wrong
    assert (form.batch, form.length, None) not in refused


def _ported(name: str, engine: str, mode: str) -> None:
    form = ALL[name]
    try:
        port = paritas.port(model(form), engine=engine, inputs=inputs(form, form.batch, form.length), mode=mode)
    except ParitasError:
        return
    wrong, _ = _wrong(form, lambda feed: port.session.run(port.feed(feed)))
    port.close()
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_openvino_is_right_or_refuses(name: str) -> None:
    _ported(name, "openvino", "graph")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_mindspore_is_right_or_refuses(name: str) -> None:
    _ported(name, "mindspore", "pynative")


# --- the door ----------------------------------------------------------------------------------

DAILY = (
    "odd lengths are padded",
    "batch of one",
    "squeeze",
    "split in twos",
    "every second",
    "broadcast two lengths",
    "and 3",
    "or 1",
    "mean of a slice",
    "adaptive max",
    "the last two at most",
)


@pytest.mark.parametrize("name", DAILY)
def test_an_engine_is_right_or_refuses(name: str) -> None:
    _ported(name, "openvino", "graph")


@pytest.mark.parametrize("name", [*DAILY[:2], "any of a slice", "mean of a slice", "running logsumexp"])
def test_mindspore_too(name: str) -> None:
    _ported(name, "mindspore", "pynative")


def test_windows_that_leave_an_edge_are_folded_into_images_of_any_size() -> None:
    form = ALL["fold tiles"]
    port = paritas.port(model(form), engine="mindspore", inputs=inputs(form, 2, 6), mode="pynative")
    wrong, refused = _wrong(form, lambda feed: port.session.run(port.feed(feed)))
    port.close()
    assert not wrong
    assert {length for _, length, _ in refused} <= {1, 2, 3}, "a single row of windows is another way"


def test_the_refusal_names_the_size_the_line_and_the_way_out(tmp_path: Path) -> None:
    form = FORMS["odd lengths are padded"]
    port = paritas.port(model(form), engine="torch", inputs=inputs(form, 2, 6))
    with pytest.raises(SizeError) as refused:
        port.feed(inputs(form, 2, 7))
    said = str(refused.value)
    assert said.startswith("x.shape[1] is 7: this port was made for x.shape[1] % 2 == 0")
    assert "which the model's code asks at size_forms.py:" in said and "if x.shape[1] % 2 else x" in said
    assert said.endswith("Make another port with an example of such sizes.")


def test_an_original_at_hand_gets_another_port_and_a_loaded_one_refuses(tmp_path: Path) -> None:
    form = FORMS["batch of one"]
    original = model(form)
    port = paritas.port(original, engine="openvino", inputs=inputs(form, 2, 6))
    for batch in (1, 2, 1):
        feed = inputs(form, batch, 6)
        torch.testing.assert_close(port(**feed), original(**feed))
    (other,) = port.others.ports
    assert any("another port was made for x[1, 6, 6], since x.shape[0] is 1" in str(note) for note in port.notes)
    assert other.verify(level="outputs").verdict == "agrees"
    assert any("only the first port was compared" in note for note in port.verify(level="outputs").notes)
    port.save(tmp_path / "port")
    loaded = paritas.load(tmp_path / "port")
    assert any("1 other ports, made for sizes" in str(note) for note in loaded.notes)
    with pytest.raises(SizeError, match="is 1: this port was made for"):
        loaded(**inputs(form, 1, 6))


def test_sizes_of_one_that_change_nothing_are_taken() -> None:
    form = Form(lambda x: x.softmax(-1) * 2 if x.shape[1] > 1 and x.shape[2] < 3 else x.cumsum(1))
    program = capture(model(form), inputs(form, 2, 6))
    assert not [g for g in program.guards if "1" in g.holds.split()], "the way is the same at length 1"


def test_a_size_in_a_message_asks_nothing() -> None:
    form = ALL["a check with a message"]
    program = capture(model(form), inputs(form, 2, 6))
    assert not program.guards
    assert all(not str(dim).isdigit() for dim in program.inputs[0].dims[:2])

    def found(x: torch.Tensor) -> torch.Tensor:
        count = (x > 0).nonzero().shape[0]  # which values decide
        torch._check(count >= 0, f"{count} of {x.shape}")  # type: ignore[arg-type]
        return x * 2

    assert not capture(model(Form(found)), inputs(form, 2, 6)).guards


# --- guards as data ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "s0.bit_length() == 1", "s0[0]", "lambda: 1", "[s0]", "s0 if s0 else 1", "print(s0)", "'a'",
        "1 < s0 < 3", "s0 :=", "min()", "f(s0)", "(" * 300 + "s0" + ")" * 300, "s0 + " * 700 + "s0", "9" * 40,
        "s0 << 9", "~s0", "min(*s0)", "min(s0, key=s0)", "s0 and (yield)",
    ],
)  # fmt: skip
def test_what_is_no_guard_is_refused_unread(text: str) -> None:
    with pytest.raises(NoFormula):
        parsed(text)


def test_a_guard_without_a_value_does_not_hold() -> None:
    for text in (
        "s0 // 0 == 1",
        "((s0**9)**9)**9 ** 9 > 1",
        "s1 == 1",
        "sqrt(0 - s0) > 1",
        "2.0**(s0**s0) > 1",
    ):
        assert not holds(Guard(text), {"s0": 999})


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ("s0 % 2 == 0", 4, 5), ("not (s0 == 7)", 6, 7), ("s0 > 4 and s0 <= 9", 9, 10), ("min(8, s0) <= 8", 3, None),
        ("trunc(s0 / 2) == 3", 7, 8),
        ("ceil(s0*0.25) == 2", 8, 9), ("round(s0*0.5) == 2", 5, 6), ("sqrt(s0) > 2", 5, 4),
    ],
)  # fmt: skip
def test_guards_say_what_python_says(text: str, right: int, wrong: int | None) -> None:
    assert holds(Guard(text), {"s0": right})
    assert wrong is None or not holds(Guard(text), {"s0": wrong})


def test_a_manifest_keeps_its_guards_and_takes_no_others() -> None:
    form = FORMS["at most 4"]
    manifest = paritas.port(model(form), engine="torch", inputs=inputs(form, 2, 6)).manifest
    assert manifest.guards and manifest_from_json(manifest_to_json(manifest)) == manifest
    raw = json.loads(manifest_to_json(manifest))
    raw["guards"][0]["holds"] = "__import__('os').system('true')"
    with pytest.raises(PortError, match=r"guards\[0\] is not a guard"):
        manifest_from_json(json.dumps(raw))
    raw["guards"] = [{"holds": "s0 > 1", "where": ""}] * 5000
    with pytest.raises(PortError, match="there are 5000"):
        manifest_from_json(json.dumps(raw))


def test_guards_of_sizes_that_became_numbers() -> None:
    before, after = (TensorSpec("x", "float32", ("s0", "s1")),), (TensorSpec("x", "float32", (4, "s1")),)
    guards = (Guard("s0 % 2 == 0"), Guard("s0 < s1"))
    assert remaining(guards, before, after) == (Guard("4 < s1"),)


# --- cases -------------------------------------------------------------------------------------


def test_generated_sizes_keep_to_the_guards_and_reach_their_edges() -> None:
    specs = (TensorSpec("x", "float32", ("b", "s", 6)),)
    ways = Ways((Guard("s % 2 == 0"), Guard("s > 4"), Guard("s <= 20")), {"b": 2, "s": 6})
    shapes = {case.name: case.feed["x"].shape for case in generate(specs, ways=ways)}
    assert all(ways.takes({"b": b, "s": s}) for b, s, _ in shapes.values())
    batches, lengths, _ = map(set, zip(*shapes.values(), strict=True))
    assert min(batches) == 1
    assert (min(lengths), max(lengths)) == (6, 20)
    two = Ways((Guard("(h // 8) * (w // 8) == 16"), Guard("h // 8 == w // 8")), {"h": 32, "w": 32})
    assert two.nearest({"h": 7, "w": 5}, {}) == {"h": 32, "w": 32}
