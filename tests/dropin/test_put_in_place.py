# SPDX-License-Identifier: Apache-2.0
"""What somebody changes in a network between two calls, beside its weights: classes, code of torch's layers, tables of
every kind. Each change is seen, and the answer is the original's."""

from __future__ import annotations

import collections
import logging
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from paritas.dropin.classes import attach
from paritas.dropin.describe import describe
from paritas.dropin.watch import Watch

INPUT = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))


class Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1.0


class Twice(torch.nn.Linear):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(given)


class Holding(torch.nn.Module):
    """A layer whose factor is made of what stands in tables of every kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm, self.act = torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.GELU()
        self.left_out, self.queue, self.raw = {7}, collections.deque([1.0]), bytearray(b"\x01")
        self.array, self.held, self.slotted = np.ones(()), {"array": np.ones(2)}, Slotted()
        self.space = types.SimpleNamespace(value=1.0, listed=[1.0])

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = self.norm(self.act(self.layer(given)))
        factor = self.queue[0] * self.raw[0] * float(self.array) * float(self.held["array"][1]) * self.slotted.value
        factor *= self.space.value * self.space.listed[0]
        return found * factor if 0 in self.left_out else found * factor + 1


_LAYERS = {cls: cls.forward for cls in (torch.nn.Linear, torch.nn.LayerNorm, torch.nn.GELU)}


def _twice(cls: Any) -> Callable[..., torch.Tensor]:
    own = _LAYERS[cls]
    return lambda self, given: own(self, given) * 2


#: In a network, or in torch for all of them.
_CHANGES: dict[str, Callable[[Any], Any]] = {
    "the class of a layer": lambda m: setattr(m.layer, "__class__", Twice),
    "a set": lambda m: m.left_out.add(0),
    "a queue": lambda m: m.queue.append(m.queue.popleft() * 2),
    "bytes": lambda m: m.raw.__setitem__(0, 3),
    "an array": lambda m: m.array.fill(2),
    "an array in a table": lambda m: m.held["array"].fill(2),
    "an object with slots": lambda m: setattr(m.slotted, "value", 2.0),
    "an object": lambda m: setattr(m.space, "value", 2.0),
    "a list in an object": lambda m: m.space.listed.__setitem__(0, 2.0),
}

_IN_TORCH: dict[str, tuple[Any, str, Any]] = {
    "linear layers": (torch.nn.Linear, "forward", _twice(torch.nn.Linear)),
    "norms": (torch.nn.LayerNorm, "forward", _twice(torch.nn.LayerNorm)),
    "activations": (torch.nn.GELU, "forward", _twice(torch.nn.GELU)),
    "a function": (torch.nn.functional, "gelu", lambda given, approximate="none": given * 2),
    "forward of its class": (Holding, "forward", lambda self, given: self.layer(given)),
}


def _text(model: torch.nn.Module) -> str:
    names = {id(tensor): name for name, tensor in Watch(model).tensors.items()}
    return describe(model, names, lambda value: pytest.fail(f"{value!r} has no description"))


@pytest.mark.parametrize("name", [*_CHANGES, *_IN_TORCH])
def test_it_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Holding().eval()
    watch, before = Watch(model), _text(model)
    assert not watch.changed()
    if name in _CHANGES:
        _CHANGES[name](model)
    else:
        monkeypatch.setattr(*_IN_TORCH[name])
    assert watch.changed() and _text(model) != before
    watch.look()
    assert not watch.changed()
    monkeypatch.undo()
    assert (name in _CHANGES) != (_text(model) == before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino", "mindspore"])
@pytest.mark.parametrize("name", [*_CHANGES, *_IN_TORCH])
@torch.no_grad()
def test_the_answer_is_the_originals(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = Holding().eval(), attach(Holding().eval(), engine=engine)
    before = theirs(INPUT)
    torch.testing.assert_close(mine(INPUT), before, rtol=1e-4, atol=1e-4)
    if name in _CHANGES:
        _CHANGES[name](theirs)
        _CHANGES[name](mine)
    else:
        monkeypatch.setattr(*_IN_TORCH[name])
    assert not torch.allclose(theirs(INPUT), before, atol=1e-2)
    torch.testing.assert_close(mine(INPUT), theirs(INPUT), rtol=1e-4, atol=1e-4)
    assert len(mine.ports) > 0
    monkeypatch.undo()
    torch.testing.assert_close(mine(INPUT), theirs(INPUT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [torch, torch.Tensor], ids=["torch", "tensors"])
@torch.no_grad()
def test_a_function_that_torch_itself_calls_is_left_to_it(
    place: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, mine = Twice(8, 8).eval(), attach(Twice(8, 8).eval(), engine="torch")
    mine.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(mine(INPUT), theirs(INPUT))
    own = place.transpose
    monkeypatch.setattr(place, "transpose", lambda *given: own(*given))
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(mine(INPUT), theirs(INPUT))
    assert (
        f"another function is in the place of {'torch' if place is torch else 'torch.Tensor'}.transpose" in caplog.text
    )
