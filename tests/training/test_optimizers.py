# SPDX-License-Identifier: Apache-2.0
"""torch's optimizers in MindSpore's loops: the same weights after each step, state that moves there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Adafactor

import paritas
from paritas.errors import InputError

ms = pytest.importorskip("mindspore")

SHAPES = {"table": (40, 8), "bias": (8,), "kernel": (6, 3, 3, 3), "gain": ()}


class Lion(torch.optim.Optimizer):
    """As its authors have it."""

    def __init__(self, params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                beta1, beta2 = group["betas"]
                p.add_(average.clone().mul_(beta1).add(p.grad, alpha=1 - beta1).sign_(), alpha=-group["lr"])
                average.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class Weights(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            self.register_parameter(name, torch.nn.Parameter(torch.randn(shape, generator=generator)))


class Net(ms.nn.Cell):  # type: ignore[misc]
    """A cell with the same parameters under the same names."""

    def __init__(self, model: Weights) -> None:
        super().__init__()
        for name, value in model.named_parameters():
            setattr(self, name, ms.Parameter(ms.Tensor(value.detach().numpy().copy()), name=name))


OPTIMIZERS: list[Any] = [
    (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"lr": 1e-3, "betas": (0.8, 0.95), "eps": 1e-3, "maximize": True}),
    (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (torch.optim.Adafactor, {"lr": 1e-2}),
    (torch.optim.Adafactor, {"lr": 0.5, "eps": (1e-3, 1e-2), "weight_decay": 0.1}),
    (Adafactor, {"lr": 1e-2, "scale_parameter": False, "relative_step": False}),
    (Adafactor, {"beta1": 0.9, "weight_decay": 0.01, "warmup_init": True}),
    (Lion, {"lr": 1e-2, "weight_decay": 0.1}),
]


def _gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=generator) * 10.0**-step for name, shape in SHAPES.items()}


def _stepped(model: Weights, optimizer: Any, steps: range) -> None:
    for step in steps:
        for name, gradient in _gradients(step).items():
            model.get_parameter(name).grad = gradient
        optimizer.step()


def _stepped_there(optimizer: Any, step: int) -> None:
    given = _gradients(step)
    optimizer(tuple(ms.Tensor(given[weight.name].numpy()) for weight in optimizer.parameters))


def _off(model: Weights, net: Any) -> float:
    """The largest distance of a weight, over the largest of its tensor."""
    pairs = [(p.detach().numpy(), net.parameters_dict()[name].asnumpy()) for name, p in model.named_parameters()]
    return max(float(np.abs(got - want).max() / np.abs(want).max()) for want, got in pairs)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_weights_are_torch_s_after_each_step(cls: Any, options: dict[str, Any], compiled: bool) -> None:
    model = Weights()
    net = Net(model)
    want = cls(model.parameters(), **options)
    got = paritas.optimizer(cls(model.parameters(), **options), model, net)

    @ms.jit
    def jitted(*gradients):  # type: ignore[no-untyped-def] # compiled from its source
        return got(gradients)

    if options.get("lr"):
        schedulers = [torch.optim.lr_scheduler.ConstantLR(one, 0.5, 2) for one in (want, got.given)]
    else:
        schedulers = []
    got.update_rates()
    for step in range(5):
        _stepped(model, want, range(step, step + 1))
        given = _gradients(step)
        gradients = tuple(ms.Tensor(given[weight.name].numpy()) for weight in got.parameters)
        _ = jitted(*gradients) if compiled else got(gradients)
        for scheduler in schedulers:
            scheduler.step()
        got.update_rates()
        assert _off(model, net) <= 1e-6, step


def test_another_rate_is_seen() -> None:
    model = Weights()
    net = Net(model)
    got = paritas.optimizer(torch.optim.AdamW(model.parameters(), lr=1.001e-2), model, net)
    _stepped(model, torch.optim.AdamW(model.parameters(), lr=1e-2), range(1))
    _stepped_there(got, 0)
    assert _off(model, net) > 1e-6


@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_state_moves_there_and_back(cls: Any, options: dict[str, Any]) -> None:
    """Two steps in torch, two in MindSpore, two in torch: the six of torch."""
    model, moved = Weights(), Weights()
    want = cls(model.parameters(), **options)
    _stepped(model, want, range(6))
    first = cls(moved.parameters(), **options)
    _stepped(moved, first, range(2))
    net = Net(moved)
    there = paritas.optimizer(cls(moved.parameters(), **options), moved, net)
    there.load_state_dict(first.state_dict())
    for step in (2, 3):
        _stepped_there(there, step)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter.copy_(torch.from_numpy(net.parameters_dict()[name].asnumpy()))
    back = cls(moved.parameters(), **options)
    back.load_state_dict(there.state_dict())
    _stepped(moved, back, range(4, 6))
    for name, one in want.state_dict()["state"].items():
        other = back.state_dict()["state"][name]
        assert one.keys() == other.keys()
        for key, value in one.items():
            if key != "RMS":  # of the weights, which are compared
                value, found = torch.as_tensor(value), torch.as_tensor(other[key])
                assert found.shape == value.shape and (found - value).abs().max() <= 1e-6 * value.abs().max(), key
    assert _off(model, Net(moved)) <= 1e-6


class Own(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (torch.optim.RMSprop, r"torch's RMSprop has no form .*torch.optim.AdamW.* have\. .*paritas.trainable"),
        (Own, "Own has no form"),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), r"AdamW has no form .* with amsgrad=True\."),
        (lambda p: torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1), r"of shape \(2,\) is none that the cell"),
    ],
)
def test_what_has_no_form_is_named(made: Any, message: str) -> None:
    model = Weights()
    with pytest.raises(InputError, match=message):
        paritas.optimizer(made(model.parameters()), model, Net(model))


def test_parameters_that_began_later_are_refused() -> None:
    model = Weights()
    optimizer = torch.optim.AdamW(model.parameters())
    model.bias.grad = torch.ones(8)
    optimizer.step()
    with pytest.raises(InputError, match="of one group have made 0, 1 steps"):
        paritas.optimizer(optimizer, model, Net(model))
