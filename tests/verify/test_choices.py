# SPDX-License-Identifier: Apache-2.0
"""What PyTorch itself leaves open: which of equal values is chosen, and the digits that its own code loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from small_programs import program_of
from torch import nn

from paritas.run.torch.session import TorchSession
from paritas.verify import Case, Environment, ParityReport, verify
from paritas.verify.of_port import nodes_of

pytestmark = pytest.mark.usefixtures("all_suspects")

WIDTH = 8


def eager(model: nn.Module) -> Any:
    """The original, as `verify` takes it."""
    return lambda feed: [model(*map(torch.from_numpy, feed.values())).numpy()]


class Sparse(nn.Module):
    """Reads three of the values, those with the highest scores: of 0, which a ReLU makes, there are many."""

    def forward(self, scores, values):
        places = scores.relu().topk(3, dim=-1).indices
        return values.gather(-1, places) * torch.tensor([3.0, 2.0, 1.0])


class Choosing:
    """A port of it that chooses by itself, and may be off by something."""

    precision = "float32"
    cut_with, cut_mode, cut_runs_all = "nothing", "", False

    def __init__(self, program: Any, choose: Any, off: float = 0.0) -> None:
        self._graph, self._choose, self._off = TorchSession(program), choose, off
        self._node = next(node.name for node in nodes_of(program) if node.orders)

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = self._graph.locally(feed, self.part(feed, {}, [self._node]), lambda name, value: None)
        return [value + np.float32(self._off) for value in found]

    def borders(self) -> list[frozenset[str]]:
        return [frozenset({self._node})]

    def part(self, feed: Any, given: Any, outputs: Any) -> dict[str, np.ndarray]:
        return {self._node: self._choose(np.maximum(feed["scores"], 0))}

    def close(self) -> None:
        pass


def the_last(scores: np.ndarray) -> np.ndarray:
    """Of equal ones, those at the end: PyTorch takes them as its algorithm comes to them."""
    return WIDTH - 1 - np.argsort(-scores[:, ::-1], axis=-1, kind="stable")[:, :3]


def a_lower_one(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, axis=-1, kind="stable")[:, 1:4]


def one_twice(scores: np.ndarray) -> np.ndarray:
    return the_last(scores)[:, [0, 1, 1]]


def report(choose: Any, off: float = 0.0) -> ParityReport:
    torch.manual_seed(0)
    scores = torch.tensor([[-1.0, 2, -3, -1, -2, -1, -1, -1], [4, -1, -1, 3, -1, -1, -1, -1]])
    model, values = Sparse().eval(), torch.randn(2, WIDTH)
    program = program_of(model, {"scores": scores, "values": values})
    case = Case("ties", {"scores": scores.numpy(), "values": values.numpy()})
    graph = TorchSession(program)
    return verify(
        Choosing(program, choose, off), eager(model), [case], outputs=program.outputs, environment=Environment("stub"),
        truth=TorchSession(program, "float64"), reference=graph, nodes=nodes_of(program),
    )  # fmt: skip


def test_another_choice_among_equals_agrees_and_is_said() -> None:
    found = report(the_last)
    assert found.verdict == "agrees", str(found)
    assert "among equal values the port chose others than PyTorch did" in str(found)
    assert "aten.topk.default[1] (small_programs.py:1  getitem_1), in 1 of the cases (ties)" in str(found)


@pytest.mark.parametrize(("choose", "off"), [(a_lower_one, 0.0), (one_twice, 0.0), (the_last, 0.01)])
def test_what_is_wrong_otherwise_diverges(choose: Any, off: float) -> None:
    assert report(choose, off).verdict == "diverges"


class Forgetful(nn.Module):
    """In fp32 it keeps three digits of x; what was captured of it keeps all."""

    def forward(self, x):
        return (x + 10000) - 10000


class Keeping(nn.Module):
    def forward(self, x):
        return x * 1.0


@pytest.mark.parametrize(
    ("exact", "verdict"),
    [
        (lambda feed: [feed["x"].astype(np.float64) + 10000 - 10000], "agrees"),
        (lambda feed: [feed["x"].astype(np.float64) * (1 + 1e-6)], "diverges"),  # another function
        (None, "diverges"),
    ],
)
def test_a_port_that_keeps_more_digits_than_pytorch_is_judged_by_the_original_in_float64(
    exact: Any, verdict: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 16)
    program = program_of(Keeping().eval(), {"x": x})
    graph = TorchSession(program)
    found = verify(
        graph, eager(Forgetful().eval()), [Case("one", {"x": x.numpy()})], outputs=program.outputs,
        environment=Environment("stub"), truth=TorchSession(program, "float64"), reference=graph, exact=exact,
    )  # fmt: skip
    assert found.verdict == verdict, str(found)
