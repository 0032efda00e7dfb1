# SPDX-License-Identifier: Apache-2.0
"""Peepholes: what they catch, what they leave alone, and that the captured program stays as it was."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import paritas
from paritas.capture import capture
from paritas.capture.normalise import name_of
from paritas.lower.mindspore.fuse import fused
from paritas.program import Program


class RMSNorm(nn.Module):
    def __init__(self, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(8) + 0.5), eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class OverRows(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-2, keepdim=True) + self.eps))


class OfAnother(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + self.eps))


class NewGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class OtherGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.05 * torch.pow(x, 3.0))))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Scale() for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class FilledUp(nn.Module):
    """What was added to fill a block is overwritten, from the end or from the front."""

    def __init__(self, how: str):
        super().__init__()
        self.row, self.how = nn.Parameter(torch.randn(8)), how

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        more = (8 - length % 8) % 8
        x = nn.functional.pad(x, (0, 0, 0, more)) + 1
        if self.how == "a number at the end":
            x[:, -more:] = 0
        elif self.how == "a row at the end":
            x[:, -more:] = self.row
        elif self.how == "a row in between":
            x[:, -more - 1 : -1] = self.row.expand(more, 8)
        else:
            x[:, length:] = self.row
        return x


def _captured(module: nn.Module) -> Program:
    return capture(module.eval(), {"x": torch.randn(2, 5, 8)})


def _operators(program: Program) -> Counter[str]:
    return Counter(filter(None, map(name_of, program.graph.nodes)))


@pytest.mark.parametrize(
    ("module", "operator"), [(RMSNorm(), "aten.rms_norm.default"), (NewGELU(), "aten.gelu.default")]
)
def test_a_function_that_was_written_out_becomes_one_node(module: nn.Module, operator: str) -> None:
    program = _captured(module)
    assert _operators(fused(program)) == {operator: 1}


def test_eps_and_weight_are_the_models() -> None:
    program = fused(_captured(RMSNorm(eps=0.25)))
    (node,) = [n for n in program.graph.nodes if name_of(n)]
    assert node.args[3] == 0.25
    assert node.args[2].op == "placeholder"


def test_the_node_that_stays_keeps_its_name() -> None:
    program = _captured(RMSNorm())
    last = [n.name for n in program.graph.nodes if name_of(n)][-1]
    assert [n.name for n in fused(program).graph.nodes if name_of(n)] == [last]


@pytest.mark.parametrize("module", [OverRows(), OfAnother(), OtherGELU()])
def test_what_only_looks_alike_stays(module: nn.Module) -> None:
    program = _captured(module)
    assert _operators(fused(program)) == _operators(program)


def test_float16_stays() -> None:
    program = capture(RMSNorm().half().eval(), {"x": torch.randn(2, 5, 8).half()})
    assert _operators(fused(program)) == _operators(program)


def test_broadcasts_in_layers_are_explicit_and_others_are_not() -> None:
    assert _operators(fused(_captured(Scaled())))["aten.expand.default"] == 2
    assert _operators(fused(_captured(Scale())))["aten.expand.default"] == 0


def test_the_captured_program_stays_as_it_was() -> None:
    program = _captured(Scaled())
    before = str(program.graph)
    names = {n.name for n in program.graph.nodes}
    assert names <= {n.name for n in fused(program).graph.nodes}
    assert str(program.graph) == before


@pytest.mark.parametrize("module", [RMSNorm(), NewGELU(), Scaled()])
def test_the_result_is_the_same(module: nn.Module) -> None:
    example = {"x": torch.randn(2, 5, 8)}
    port = paritas.port(module.eval(), "mindspore", inputs=example)
    other = torch.randn(3, 4, 8) * 3  # dimensions are still free
    torch.testing.assert_close(port(x=other), module(other), rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("how", ["a number at the end", "a row at the end", "a row in between", "a row behind"])
def test_what_fills_up_is_counted_from_its_own_end(how: str) -> None:
    pytest.importorskip("mindspore")
    module = FilledUp(how).eval()
    port = paritas.port(module, engine="mindspore", mode="pynative", inputs={"x": torch.randn(2, 5, 8)})
    for length in (5, 6):
        x = torch.randn(2, length, 8)
        with torch.no_grad():
            torch.testing.assert_close(port(x=x), module(x))
