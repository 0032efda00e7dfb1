# SPDX-License-Identifier: Apache-2.0
"""Ports that are wrong somewhere: `verify` says so, of its own accord, for each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import paritas
from paritas.errors import EngineError, InputError
from paritas.run.results import check_outputs
from paritas.verify.of_port import eager

pytestmark = pytest.mark.usefixtures("all_suspects")

nan, inf = float("nan"), float("inf")


class Does(nn.Module):
    """A function as a module; `weight` and `other` are there for those that want them."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.weight, self.other = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, **inputs):
        return self.function(self, **inputs)


class OfX(Does):
    def forward(self, x):
        return self.function(self, x)


class OfTwo(Does):
    def forward(self, x, attn_mask):
        return self.function(self, x, attn_mask)


class OfPositions(Does):
    def forward(self, x, position_ids):
        return self.function(self, x, position_ids)


class Answers:
    """A session that answers as another module does."""

    precision = "float32"

    def __init__(self, answer):
        self.answer = answer

    def run(self, feed):
        return self.answer(feed)

    def close(self):
        pass


def floats(*shape):
    return {"x": torch.randn(*shape)}


def whole(*values, dtype=torch.int64):
    return {"x": torch.tensor(values, dtype=dtype)}


def in_row(x, row, change):
    return torch.cat([x[:row], change(x[row : row + 1]), x[row + 1 :]])


MATRIX = whole([1, 2, 3, 4], [5, 6, 7, 9])
MASK = {"x": torch.randn(2, 3, 3), "attn_mask": torch.ones(2, 3, 3, dtype=torch.bool)}
POSITIONS = {"x": torch.randn(2, 5), "position_ids": torch.arange(5)[None].repeat(2, 1)}

#: what is computed, what the port computes, and an example that does not show the difference
WRONG = {
    "division of negatives": (
        lambda m, x: x // 2, lambda m, x: torch.div(x, 2, rounding_mode="trunc"), OfX, MATRIX,
    ),
    "remainder of negatives": (lambda m, x: x % 3, lambda m, x: torch.fmod(x, 3), OfX, MATRIX),
    "not of whole numbers as of bool": (
        lambda m, x: (~x) % 2, lambda m, x: (x == 0).long(), OfX, whole([0, 1], [1, 0]),
    ),
    "clamp with bounds between": (
        lambda m, x: x.clamp(-1, 9), lambda m, x: x.clamp(0, 9), OfX, MATRIX,
    ),
    "32 bits": (lambda m, x: x * 3, lambda m, x: (x.int() * 3).long(), OfX, MATRIX),
    "float32 for whole numbers": (lambda m, x: x + 1, lambda m, x: (x.float() + 1).long(), OfX, MATRIX),
    "sign of zero whole numbers": (
        lambda m, x: torch.sign(x), lambda m, x: (x > 0).long(), OfX, MATRIX,
    ),
    "8 bits that saturate": (
        lambda m, x: x + x,
        lambda m, x: (x.int() * 2).clamp(max=255).to(torch.uint8),
        OfX,
        whole([1, 2], [3, 4], dtype=torch.uint8),
    ),
    "ties away from zero": (
        lambda m, x: torch.round(x), lambda m, x: torch.floor(x + 0.5), OfX, floats(2, 4),
    ),
    "the last of equals": (
        lambda m, x: x.argmax(-1), lambda m, x: x.shape[-1] - 1 - x.flip(-1).argmax(-1), OfX, floats(2, 9),
    ),
    "floor of a whole float": (
        lambda m, x: torch.ceil(x), lambda m, x: torch.floor(x) + 1, OfX, floats(2, 4),
    ),
    "large floats": (lambda m, x: x * 2, lambda m, x: x.clamp(-300, 300) * 2, OfX, floats(2, 4)),
    "tiny floats": (
        lambda m, x: torch.where(x.abs() < 1e-2, x * 1e3, x),
        lambda m, x: torch.where(x.abs() < 1e-3, x * 1e3, x), OfX, floats(2, 4),
    ),
    "the last element": (
        lambda m, x: x * 1.0, lambda m, x: torch.cat([x[:, :-1], x[:, -1:] * 1.01], 1), OfX, floats(2, 4),
    ),
    "one row of the batch": (
        lambda m, x: x * 1.0, lambda m, x: in_row(x, 1, lambda y: y * 1.01), OfX, floats(2, 4),
    ),
    "the third row only": (
        lambda m, x: x * 1.0, lambda m, x: in_row(x, 2, lambda y: y * 1.01), OfX, floats(2, 4),
    ),
    "a batch of one": (
        lambda m, x: x - x.mean(-1, keepdim=True),
        lambda m, x: x - (x.mean() if len(x) > 1 else x.mean(-1, keepdim=True)) * (len(x) == 1)
        - x.mean(-1, keepdim=True) * (len(x) > 1) + (len(x) == 1) * 0.1, OfX, floats(2, 4),
    ),
    "a longer length": (
        lambda m, x: x.cumsum(-1), lambda m, x: torch.cat([x[:, :16].cumsum(-1), x[:, 16:]], 1), OfX, floats(2, 4),
    ),
    "a weight read twice": (
        lambda m, x: x @ m.weight + x @ m.other, lambda m, x: x @ m.weight + x @ m.weight, OfX, floats(2, 4),
    ),
    "a second output like the first": (
        lambda m, x: (x + 1, x + 2), lambda m, x: (x + 1, x + 1), OfX, floats(2, 4),
    ),
    "a second output that is missing": (lambda m, x: (x + 1, x + 2), lambda m, x: (x + 1,), OfX, floats(2, 4)),
    "another dtype": (lambda m, x: x.sum(-1), lambda m, x: x.sum(-1).int(), OfX, MATRIX),
    "another rank": (lambda m, x: x.sum(-1), lambda m, x: x.sum(-1, keepdim=True), OfX, floats(2, 4)),
    "a mask that is not read": (
        lambda m, x, a: x.masked_fill(~a, -1e9).softmax(-1), lambda m, x, a: x.softmax(-1), OfTwo, MASK,
    ),
    "positions that are counted": (
        lambda m, x, p: x * p, lambda m, x, p: x * torch.arange(x.shape[-1]), OfPositions, POSITIONS,
    ),
}  # fmt: skip


def ported(right, cls, inputs, engine="torch"):
    return paritas.port(cls(right), engine=engine, inputs=inputs)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_port_never_agrees(name):
    right, wrong, cls, inputs = WRONG[name]
    port = ported(right, cls, inputs)
    honest = port.verify(level="outputs")
    assert honest.verdict == "agrees", str(honest)
    port.session = Answers(eager(port, cls(wrong)))
    report = port.verify(level="outputs")
    assert report.verdict == "diverges", str(report)


EXAMPLE = whole([-7, -3, 0], [3, 5, 9])


def test_the_example_is_always_among_the_cases_also_of_a_port_that_was_saved(tmp_path):
    port = ported(lambda m, x: x * 2, OfX, EXAMPLE, "openvino")

    def wrong(feed):
        return [np.where((feed["x"] == -3) & (feed["x"][:, -1:] == 0), 0, feed["x"] * 2)]

    port.session = Answers(wrong)
    report = port.verify(level="outputs")
    assert report.verdict == "diverges" and any("the example" in case for case in report.cases)
    assert {row.case for row in report.outputs if row.diverges} == {"the example"}
    port.save(tmp_path / "port")
    loaded = paritas.load(tmp_path / "port")
    assert loaded.examples()["x"].tolist() == EXAMPLE["x"].tolist()
    loaded.session = Answers(wrong)
    assert loaded.verify(level="outputs", original=port.original()).verdict == "diverges"


def test_an_example_that_is_not_kept_is_said(tmp_path, monkeypatch):
    from paritas.verify.inputs import example

    monkeypatch.setattr(example, "LARGEST", 8)
    port = ported(lambda m, x: x * 2, OfX, floats(2, 4), "openvino")
    assert any("the example is not kept with the port" in str(note) for note in port.notes)
    port.save(tmp_path / "port")
    loaded = paritas.load(tmp_path / "port")
    report = loaded.verify(level="outputs", original=port.original())
    assert report.verdict == "agrees" and "keeps no example" in str(report)


def test_a_nan_that_is_lost_is_a_note_that_names_the_operator():
    port = ported(lambda m, x: torch.relu(x) + 1, OfX, floats(3, 4))
    session = port.session

    class Loses:
        precision, computed_with = "float32", "a test"

        def run(self, feed):
            return [np.nan_to_num(value, posinf=inf, neginf=-inf) for value in session.run(feed)]

        def nodes(self):
            return {node.name for node in port.program().graph.nodes}

        def lockstep(self, feed, given):
            return {
                name: np.nan_to_num(value, posinf=inf) if name == "relu" else value for name, value in given.items()
            }

    port.session = Loses()
    report = port.verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    said = next(note for note in report.notes if "NaN or infinities" in note)
    assert "aten.relu.default" in said and "no NaN where the original has one" in said, said
    assert "check_finite=True" in said


def test_check_finite_refuses_at_the_door(tmp_path):
    port = paritas.port(OfX(lambda m, x: x + 1), inputs=floats(2, 4), check_finite=True)
    port(x=torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"x holds nan at \[1, 2\] and 1 more; this port takes finite values"):
        port(x=torch.tensor([[0, 0, 0, 0], [0, 0, nan, inf]]))
    assert port.verify(level="outputs").verdict == "agrees"
    port.save(tmp_path / "port")
    paritas.load(tmp_path / "port")(x=torch.full((2, 4), nan))
    with pytest.raises(InputError, match="x holds inf"):
        paritas.load(tmp_path / "port", check_finite=True)(x=torch.full((2, 4), inf))


OUTPUTS = {
    "a dtype": (lambda x: [x.astype(np.float64), x.sum(-1)], "out0.*dtype float64"),
    "a rank": (lambda x: [x, x], r"out1.*shape is \[2, 4\]"),
    "a size": (lambda x: [x[:1], x.sum(-1)], "out0.*size is 1 in dimension 0, not 2"),
    "a count": (lambda x: [x], "returned 1 outputs"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_call_checks_what_the_engine_returns(name):
    answer, message = OUTPUTS[name]
    port = ported(lambda m, x: {"out0": x + 0, "out1": x.sum(-1)}, OfX, floats(2, 4))
    port.session = Answers(lambda feed: answer(feed["x"]))
    with pytest.raises(EngineError, match=message):
        port(x=torch.zeros(2, 4))


def test_sizes_that_depend_on_values_are_not_checked():
    from paritas.program import TensorSpec

    specs = (TensorSpec("x", "float32", ("s0",)),)
    feed = {"x": np.zeros(3, np.float32)}
    check_outputs([np.zeros(7, np.float32)], [TensorSpec("y", "float32", ("u0",))], specs, feed)
    check_outputs([np.zeros(6, np.float32)], [TensorSpec("y", "float32", ("2*s0",))], specs, feed)
    with pytest.raises(EngineError, match="not 6"):
        check_outputs([np.zeros(7, np.float32)], [TensorSpec("y", "float32", ("2*s0",))], specs, feed)
