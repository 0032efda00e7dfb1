# SPDX-License-Identifier: Apache-2.0
"""Ports that are wrong at some sizes, magnitudes or structures only: `verify` tries many, and says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_wrong_ports import MATRIX, Answers, Does, OfX, floats, whole
from torch import nn

import paritas
from paritas.verify.of_port import eager

pytestmark = pytest.mark.usefixtures("all_suspects")


class OfXY(Does):
    def forward(self, x, y):
        return self.function(self, x, y)


class OfIds(Does):
    def __init__(self, function):
        super().__init__(function)
        self.table = nn.Embedding(50, 4)

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        return self.function(self, input_ids, attention_mask, position_ids)


IDS = {"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])}
MASKED = {**IDS, "attention_mask": torch.ones(2, 6, dtype=torch.long)}
PLACED = {**IDS, "position_ids": torch.arange(6)[None].repeat(2, 1)}
LENGTHS = {"x": torch.randn(2, 5, 3), "y": torch.randn(2, 7, 3)}


def same(m, x):
    return x * 1.0


def last_off(x):
    return torch.cat([x[:, :-1], x[:, -1:] + 0.1], 1)


def off_if(holds):
    """The last element is off where `holds` is true of the shape."""
    return lambda m, x: last_off(x) if holds(*x.shape) else x * 1.0


def off_where(holds):
    return lambda m, x: torch.where(holds(x), x + 1, x)


def pooled(m, ids, mask, _):
    return (m.table(ids) * mask[..., None]).sum(1)


def placed(m, ids, _, positions):
    return m.table(ids) * (positions + 1)[..., None]


#: what is computed, what the port computes, and an example that does not show the difference
WRONG = {
    "a length of 2": (same, off_if(lambda b, n: n == 2), OfX, floats(2, 7)),
    "a length of 3": (same, off_if(lambda b, n: n == 3), OfX, floats(2, 7)),
    "a length of 16": (same, off_if(lambda b, n: n == 16), OfX, floats(2, 7)),
    "a length that 32 divides": (same, off_if(lambda b, n: n % 32 == 0), OfX, floats(2, 7)),
    "beyond 64": (same, off_if(lambda b, n: n > 64), OfX, floats(2, 7)),
    "beyond 128": (same, off_if(lambda b, n: n > 128), OfX, floats(2, 7)),
    "beyond 512": (same, off_if(lambda b, n: n > 512), OfX, floats(2, 7)),
    "a batch of 4": (same, off_if(lambda b, n: b == 4), OfX, floats(2, 7)),
    "a batch of 5": (same, off_if(lambda b, n: b == 5), OfX, floats(2, 7)),
    "beyond a batch of 8": (same, off_if(lambda b, n: b > 8), OfX, floats(2, 7)),
    "as long as the batch": (same, off_if(lambda b, n: b == n), OfX, floats(2, 7)),
    "one by one": (same, off_if(lambda b, n: b == n == 1), OfX, floats(2, 7)),
    "equal lengths": (
        lambda m, x, y: torch.cat([x, y], 1),
        lambda m, x, y: torch.cat([x, y + 0.1 * (x.shape[1] == y.shape[1])], 1), OfXY, LENGTHS,
    ),
    "the second longer": (
        lambda m, x, y: torch.cat([x, y], 1),
        lambda m, x, y: torch.cat([x, y + 0.1 * (x.shape[1] < y.shape[1])], 1), OfXY,
        {"x": torch.randn(2, 7, 3), "y": torch.randn(2, 5, 3)},
    ),
    "above ten thousand": (same, lambda m, x: torch.where(x.abs() > 1e4, x * 1.1, x), OfX, floats(2, 6)),
    "below a hundred thousandth": (
        lambda m, x: torch.sign(x), lambda m, x: torch.where(x.abs() < 1e-5, x * 0, torch.sign(x)), OfX, floats(2, 6),
    ),
    "the logarithm near one": (
        lambda m, x: torch.log1p(x.abs()), lambda m, x: torch.log(1 + x.abs()), OfX, floats(2, 6),
    ),
    "exactly zero": (same, off_where(lambda x: x == 0), OfX, floats(2, 6)),
    "like its neighbour": (same, off_where(lambda x: x == x.roll(1, 1)), OfX, floats(2, 6)),
    "a softmax that overflows": (
        lambda m, x: x.softmax(1), lambda m, x: x.exp() / x.exp().sum(1, keepdim=True), OfX, floats(2, 6),
    ),
    "an epsilon": (
        lambda m, x: F.layer_norm(x, (4,)), lambda m, x: F.layer_norm(x, (4,), eps=2e-5), OfX, floats(2, 4),
    ),
    "rounded to bfloat16": (
        lambda m, x: x @ m.weight, lambda m, x: (x.bfloat16() @ m.weight.bfloat16()).float(), OfX, floats(2, 4),
    ),
    "a small output": (lambda m, x: (x * 1e3, x * 1e-6), lambda m, x: (x * 1e3, x * 0), OfX, floats(2, 4)),
    "a whole number of 16 bits": (lambda m, x: x + 1, lambda m, x: (x.short() + 1).long(), OfX, MATRIX),
    "a whole number of 53 bits": (lambda m, x: x + 1, lambda m, x: (x.double() + 1).long(), OfX, MATRIX),
    "the least of 8 bits": (
        lambda m, x: x // 1, lambda m, x: x.clamp(min=-127), OfX, whole([1, 2], [3, 4], dtype=torch.int8),
    ),
    "all true": (
        lambda m, x: x.any(1), lambda m, x: x.any(1) & ~x.all(1), OfX, whole([1, 0], [0, 0], dtype=torch.bool),
    ),
    "the last of a table": (
        lambda m, i, a, p: m.table(i), lambda m, i, a, p: m.table(i.clamp(max=48)), OfIds, IDS,
    ),
    "a hole in a mask": (
        pooled,
        lambda m, i, a, p: pooled(m, i, (a.cumsum(1) > 0) * (a.flip(1).cumsum(1).flip(1) > 0), p), OfIds, MASKED,
    ),
    "left padding": (
        pooled, lambda m, i, a, p: pooled(m, i, (a.flip(1).cumsum(1).flip(1) > 0).long(), p), OfIds, MASKED,
    ),
    "the first row's mask": (pooled, lambda m, i, a, p: pooled(m, i, a[:1].expand_as(a), p), OfIds, MASKED),
    "positions in their order": (placed, lambda m, i, a, p: placed(m, i, a, p.sort(1).values), OfIds, PLACED),
    "the first row's positions": (placed, lambda m, i, a, p: placed(m, i, a, p[:1]), OfIds, PLACED),
    "positions without gaps": (
        placed, lambda m, i, a, p: placed(m, i, a, p[:, :1] + torch.arange(p.shape[1])), OfIds, PLACED,
    ),
}  # fmt: skip

EVERY_DAY = (
    "a length of 2", "beyond 128", "a batch of 5", "as long as the batch", "equal lengths", "the logarithm near one",
    "a hole in a mask", "positions in their order",
)  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in EVERY_DAY else pytest.mark.slow) for n in WRONG])
def test_a_wrong_port_never_agrees(name):
    right, wrong, cls, inputs = WRONG[name]
    port = paritas.port(cls(right), engine="torch", inputs=inputs)
    honest = port.verify(level="outputs")
    assert honest.verdict == "agrees", str(honest)
    port.session = Answers(eager(port, cls(wrong)))
    assert port.verify(level="outputs").verdict == "diverges"


def writes_into_its_inputs(feed, seen):
    found = feed["x"] * 2
    feed["x"][...] = 0
    return [found]


def returns_one_memory(feed, seen):
    kept = seen.setdefault(feed["x"].shape, np.zeros(feed["x"].shape, np.float32))
    kept[:] = feed["x"] * 2
    return [kept]


def answers_by_shape(feed, seen):
    return [seen.setdefault(feed["x"].shape, feed["x"] * 2)]


@pytest.mark.parametrize("answer", [writes_into_its_inputs, returns_one_memory, answers_by_shape])
def test_what_one_call_leaves_to_the_next_is_no_agreement(answer):
    port = paritas.port(OfX(lambda m, x: x * 2), engine="torch", inputs=floats(2, 4))
    seen: dict = {}
    port.session = Answers(lambda feed: answer(feed, seen))
    assert port.verify(level="outputs").verdict == "diverges"


def test_a_size_at_which_everything_is_nan_leaves_nothing_open():
    port = paritas.port(OfX(lambda m, x: x.std(1)), engine="torch", inputs=floats(2, 4))
    assert port.verify(level="outputs").verdict == "agrees"


def test_a_port_without_a_free_size_is_judged_too() -> None:
    def adds_itself(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.index_add_(0, torch.tensor([0, 0, 1]), y[:1].expand(3, 3))  # PyTorch reads what it has just written
        return y

    port = paritas.port(OfX(adds_itself), engine="torch", inputs=floats(2, 3))
    assert any("all dimensions are fixed" in str(note) for note in port.notes)
    assert port.verify().verdict == "diverges"
