# SPDX-License-Identifier: Apache-2.0
"""What no input reaches is computed once, at capture; what belongs to the checkpoint is not touched."""

from __future__ import annotations

import torch

from paritas.capture import capture
from paritas.capture.normalise import name_of
from paritas.program import Program
from paritas.run.torch.session import TorchSession


class Angles(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.register_buffer("saved", torch.arange(4.0))
        self.register_buffer("made", torch.arange(4.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(-torch.arange(4) * 0.3)
        table = torch.cos(self.made * 2.0)
        return x * frequencies + table + torch.exp(self.weight) + torch.sin(self.saved) + torch.rand_like(x) * 0


def captured() -> Program:
    return capture(Angles(), {"x": torch.ones(2, 4)})


def test_what_no_input_reaches_is_a_constant_of_the_module_under_the_name_it_was_assigned_to() -> None:
    program = captured()
    names = [name_of(node) for node in program.graph.nodes]
    assert "aten.cos.default" not in names
    assert names.count("aten.exp.default") == 1  # of the parameter
    assert "aten.sin.default" in names  # of what the checkpoint has
    assert torch.equal(program.exported.constants["frequencies"], torch.exp(-torch.arange(4) * 0.3))
    assert torch.equal(program.exported.constants["table"], torch.cos(torch.arange(4.0) * 2.0))
    assert "made" not in {n.target for n in program.graph.nodes if n.op == "placeholder" and n.users}


def test_the_values_stay() -> None:
    program = captured()
    x = torch.randn(3, 4)
    (got,) = TorchSession(program, "float32").run({"x": x.numpy()})
    assert torch.equal(torch.from_numpy(got), Angles()(x).detach())


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.arange(4).unsqueeze(0)


def test_what_is_only_made_and_shaped_stays_readable() -> None:
    program = capture(Plain(), {"x": torch.ones(2, 4)})
    assert "aten.arange.default" in [name_of(node) for node in program.graph.nodes]


class Growing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.exp(torch.arange(x.shape[1]) * -0.1)


def test_what_depends_on_a_dynamic_size_stays() -> None:
    program = capture(Growing(), {"x": torch.ones(2, 5)})
    assert "aten.exp.default" in [name_of(node) for node in program.graph.nodes]
