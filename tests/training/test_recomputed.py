# SPDX-License-Identifier: Apache-2.0
"""What torch.utils.checkpoint computes anew in PyTorch is computed anew by MindSpore, and comes to the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_torch_loops import _built, bert
from torch.utils.checkpoint import checkpoint

import paritas
from paritas.capture import recomputed

pytest.importorskip("mindspore")

nn = torch.nn


class Blocks(nn.Module):
    def __init__(self, *, again: bool, reentrant: bool = False) -> None:
        super().__init__()
        self.again, self.reentrant = again, reentrant
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> Any:
        for number, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=self.reentrant) if self.again and number else block(x)
        return checkpoint(lambda value: value.pow(2), x, use_reentrant=False) if self.again else x.pow(2)


def _x() -> torch.Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_handed_over_is_heard(reentrant: bool) -> None:
    model = Blocks(again=True, reentrant=reentrant)
    with recomputed.noted(model) as found, torch.no_grad():
        torch.manual_seed(0)
        got = model(_x())
    assert found.paths == {"blocks.1", "blocks.2"}
    assert [name.rpartition(".")[2] for name in found.others] == ["<lambda>"]
    torch.manual_seed(0)
    assert torch.equal(got, model(_x()))


def test_gradients_are_those_of_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    plain = Blocks(again=True)
    model = paritas.trainable(copy.deepcopy(plain))
    for one in (plain, model):
        torch.manual_seed(3)
        one(_x()).sum().backward()
    for (name, want), got in zip(plain.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-5, atol=1e-6, msg=name)
    (step,) = model._paritas._steps.values()
    assert step.recomputed == {"blocks.1", "blocks.2"}
    assert "<lambda> computes is kept for the backward" in caplog.text


def test_a_port_says_what_it_keeps() -> None:
    port = paritas.port(Blocks(again=True), engine="mindspore", train=True, loss=torch.sum, inputs={"x": _x()})
    assert any("the activations of blocks.1 and of 1 more are kept" in str(note) for note in port.notes)


@pytest.mark.slow
def test_a_model_of_transformers_is_asked_by_its_own_method() -> None:
    """Layers are recomputed from the call on, kept again once it is switched off, and the curve is the same."""
    model, batches, _ = _built(bert)
    twin = paritas.trainable(copy.deepcopy(model))
    plain = paritas.trainable(copy.deepcopy(model))
    twin.activation_checkpointing_enable()
    losses: list[list[float]] = [[], []]
    for one, found in zip((plain, twin), losses, strict=True):
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        for batch in batches:
            loss = one(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    (step,) = twin._paritas._steps.values()
    assert step.recomputed == {"bert.encoder.layer.0", "bert.encoder.layer.1"}
