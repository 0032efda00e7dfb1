# SPDX-License-Identifier: Apache-2.0
"""The same training twice: on PyTorch, and on an engine behind the same torch objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import paritas

Batch = Mapping[str, Any]


@dataclasses.dataclass
class Run:
    """losses: step by step. gradients: those of the first step, by parameter. model: as it is afterwards."""

    losses: list[float]
    gradients: dict[str, torch.Tensor | None]
    model: Any


def train(
    model: Any,
    batches: Sequence[Batch],
    steps: int,
    *,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    lr: float = 1e-3,
    loss: Callable[[Any], torch.Tensor] = lambda out: out.loss,
) -> Run:
    """A plain loop of torch's, with clipping."""
    torch.manual_seed(7)
    opt = optimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    run = Run([], {}, model)
    for step in range(steps):
        value = loss(model(**batches[step % len(batches)]))
        opt.zero_grad()
        value.backward()
        if not step:
            run.gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        run.losses.append(value.item())
    return run


def both(model: Any, batches: Sequence[Batch], steps: int, **how: Any) -> tuple[Run, Run, Run]:
    """On PyTorch, on MindSpore, and one step in float64."""
    twin = paritas.trainable(copy.deepcopy(model), engine="mindspore")
    exact = train(copy.deepcopy(model).double(), [_wide(batches[0])], 1, **how)
    return train(model, batches, steps, **how), train(twin, batches, steps, **how), exact


def _wide(batch: Batch) -> Batch:
    return {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in batch.items()}


def worst_gradient(want: Run, got: Run, truth: Run) -> tuple[float, str]:
    """The largest error of a parameter's gradient over its largest element, and whose. truth: in float64.

    A gradient that is 0 but for rounding, as those of keys' biases are, is no further off than twice PyTorch's own, or
    than 1e-7 of the largest of all: that is no error.
    """
    assert want.gradients.keys() == got.gradients.keys()
    found, rounding = [(0.0, "")], 1e-7 * max(g.abs().max().item() for g in truth.gradients.values() if g is not None)
    for name, exact in truth.gradients.items():
        plain, other = want.gradients[name], got.gradients[name]
        assert (plain is None) == (other is None), name
        if plain is None or other is None or exact is None:
            continue
        error, own = ((one.double() - exact).abs().max().item() for one in (other, plain))
        if error > max(2 * own, rounding):
            found.append((error / exact.abs().max().item(), name))
    return max(found)


def furthest(want: Run, got: Run) -> float:
    """The largest distance of two losses of one step, over the loss."""
    return max(abs(a - b) / abs(a) for a, b in zip(want.losses, got.losses, strict=True))
