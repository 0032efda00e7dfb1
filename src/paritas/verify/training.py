# SPDX-License-Identifier: Apache-2.0
"""Trains the original, the port and the original in float64 on the same batches, and compares them step by step.

All three go down their gradients at one rate, with PyTorch's own dropout. What a parameter may be off grows with the
way that it has gone, and with what PyTorch itself is off from float64.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paritas.arguments import invoke, nest
from paritas.capture import autocast
from paritas.capture.training import Mask
from paritas.errors import EngineError, InputError, first_line
from paritas.run.values import describe_output, dynamic_sizes
from paritas.verify.report.rows import TrainedStep
from paritas.verify.subject import Subject
from paritas.verify.tolerance import EPSILON, Tolerance

#: How far all weights together go in the first step, as a share of what they are.
STEP = 2e-3

#: Of a loss, or of the way that a parameter has gone.
SHARE = 1e-4
#: Times PyTorch's own distance from float64: two roundings of one size, of which the larger of many is up to here.
OWN = 4.0

TOLERANCE = Tolerance(
    0.0, 0.0,
    "gradients that agree to 1e-5 leave a tenth of it; one that is off by a thousandth is ten times as far",
    words=f"of each loss {SHARE:g}, of each parameter {SHARE:g} of the way that it has gone, or {OWN:g} times "
    "PyTorch's own distance from float64",
)  # fmt: skip

Feed = Mapping[str, np.ndarray]


@dataclasses.dataclass
class _Side:
    """A model and what it answers to a batch: its loss, with the gradients of its parameters."""

    weights: dict[str, torch.Tensor]
    answer: Callable[[Feed, int], tuple[float, dict[str, torch.Tensor]]]

    def descend(self, gradients: Mapping[str, torch.Tensor], rate: float) -> None:
        with torch.no_grad():
            for name, gradient in gradients.items():
                self.weights[name].sub_(gradient, alpha=rate)


def compare_training(
    port: Subject,
    session: Any,
    original: torch.nn.Module,
    masks: Sequence[Mask],
    batches: Sequence[Feed],
    steps: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> tuple[TrainedStep, ...]:
    """A row for each step, from the state in which both begin on. Stops after a loss that is not finite in PyTorch.

    session: of its own, whose weights become others. Raises `EngineError`, and `InputError` where the first output is
    no loss.
    """
    plain, exact = copy.deepcopy(original).train(), copy.deepcopy(original).double().train()
    twin = copy.deepcopy(original).train()
    rows = [_begin(session, plain)]
    if not rows[0].agrees:
        return tuple(rows)
    sides = [_of_torch(port, plain, seed), _of_engine(port, session, twin, masks, seed), _of_torch(port, exact, seed)]
    rate, before = 0.0, {name: weight.detach().clone() for name, weight in sides[2].weights.items()}
    for step in range(1, steps + 1):
        if progress is not None:
            progress(f"step {step} of {steps}")
        feed = batches[(step - 1) % len(batches)]
        found = [side.answer(feed, step) for side in sides]
        losses = [loss for loss, _ in found]
        if not all(math.isfinite(loss) for loss in (losses[0], losses[2])):
            rows.append(_lost(step, losses))
            break
        if step == 1:
            rate = _rate(sides[2].weights, found[2][1])
        for side, (_, gradients) in zip(sides, found, strict=True):
            side.descend(gradients, rate)
        rows.append(_row(step, losses, sides, before))
    return tuple(rows)


def loss_of(port: Subject, model: torch.nn.Module, feed: Feed) -> float:
    """What the original answers. Raises whatever it raises."""
    return float(_loss(port, model, feed, 0).detach())


def shuffled(example: Feed, count: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of the example's own numbers, each input's in another order; masks stay as they are."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        made = {}
        for name, array in example.items():
            flags = array.dtype == bool or (
                array.dtype.kind in "iu" and array.size > 2 and set(np.unique(array)) <= {0, 1}
            )
            made[name] = array if flags else generator.permutation(array.reshape(-1)).reshape(array.shape)
        yield made


# --- the sides -----------------------------------------------------------------------------------------------


def _loss(port: Subject, model: torch.nn.Module, feed: Feed, seed: int) -> torch.Tensor:
    """With dropout as it is drawn from this seed."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    given = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    given = {name: t.to(dtype) if t.is_floating_point() else t for name, t in given.items()}
    torch.manual_seed(seed)
    halves = str(port.manifest.settings.get("autocast", "")) if dtype == torch.float32 else ""
    with torch.enable_grad(), autocast.applied(halves):
        flat, _ = describe_output(invoke(model, {**nest(given, port.manifest.nesting), **port.manifest.constants}))
    _check_loss(flat[0])
    return flat[0]


def _of_torch(port: Subject, model: torch.nn.Module, seed: int) -> _Side:
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def answer(feed: Feed, step: int) -> tuple[float, dict[str, torch.Tensor]]:
        loss = _loss(port, model, feed, seed + step)
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        pairs = zip(weights, found, strict=True)
        return float(loss.detach()), {name: gradient for name, gradient in pairs if gradient is not None}

    return _Side(dict(weights), answer)


def _of_engine(port: Subject, session: Any, twin: torch.nn.Module, masks: Sequence[Mask], seed: int) -> _Side:
    known = set(session.weights())
    named = [*twin.named_parameters(remove_duplicate=False), *twin.named_buffers(remove_duplicate=False)]
    own = {name: tensor for name, tensor in named if name in known}
    session.share({name: tensor.detach().numpy() for name, tensor in own.items()})

    def answer(feed: Feed, step: int) -> tuple[float, dict[str, torch.Tensor]]:
        sizes = dynamic_sizes(port.inputs, feed)
        torch.manual_seed(seed + step)
        drawn = {mask.node: mask.drawn(sizes).float().contiguous().numpy() for mask in masks}
        try:
            recorded = session.record(feed, (), train=True, drawn=drawn)
            _check_loss(recorded.outputs[0])
            loss = float(recorded.outputs[0])
            rest = [None] * (len(recorded.outputs) - 1)
            found = recorded.backward([np.ones_like(recorded.outputs[0]), *rest])
        except (EngineError, InputError):
            raise
        except Exception as error:
            raise EngineError(f"the engine failed in training: {first_line(error)}") from error
        return loss, {n: torch.from_numpy(np.array(g)) for n, g in found.parameters.items() if g is not None}

    return _Side(own, answer)


def _check_loss(value: Any) -> None:
    if math.prod(value.shape) != 1:
        raise InputError(
            f"The first output has the shape {list(value.shape)}, and is no loss: a port for training returns its loss "
            "first. Give labels among its inputs, or paritas.port(..., train=True, loss=)."
        )


# --- a row ---------------------------------------------------------------------------------------------------


def _begin(session: Any, model: torch.nn.Module) -> TrainedStep:
    """Whether the port's weights are the original's before the first step."""
    known = set(session.weights())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in known and tensor.is_floating_point():
            value = session.weight(name)
            off = float(np.abs(value.reshape(tensor.shape) - tensor.detach().numpy()).max(initial=0.0))
            if off != 0:
                return TrainedStep(0, parameter=name, excess=math.inf, error=off, fault="it begins with another value")
    return TrainedStep(0, excess=0.0, error=0.0)


def _lost(step: int, losses: Sequence[float]) -> TrainedStep:
    fault = "PyTorch's own loss is not finite"
    return TrainedStep(step, losses[0], losses[1], losses[2], fault=fault, excess=math.inf)


def _rate(weights: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]) -> float:
    size = math.sqrt(sum(float(weights[name].detach().square().sum()) for name in gradients))
    steep = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    return STEP * size / steep if steep else 0.0


def _row(step: int, losses: Sequence[float], sides: Sequence[_Side], before: Mapping[str, torch.Tensor]) -> TrainedStep:
    """The loss, and the parameter that is furthest from where it should be."""
    plain, got, exact = losses
    own = abs(plain - exact)
    error = abs(got - exact) / max(abs(exact), 1e-30)
    excess = abs(got - exact) / max(SHARE * abs(exact), OWN * own, 1e-30)
    found = [(excess if math.isfinite(got) else math.inf, "", 0.0, 0.0)]
    ways = {n: float((w.detach() - before[n]).abs().max()) for n, w in sides[2].weights.items() if w.numel()}
    # What is added to a weight is rounded with it; and a gradient may be 0 but for rounding.
    least = EPSILON["float32"] * max(ways.values(), default=0.0)
    for name, way in ways.items():
        if name not in sides[1].weights:
            continue
        true = sides[2].weights[name].detach()
        off, torch_off = (float((side.weights[name].detach() - true).abs().max()) for side in (sides[1], sides[0]))
        rounding = EPSILON["float32"] / 2 * step * float(true.abs().max())
        allowed = max(SHARE * way, OWN * torch_off, rounding, least, 1e-30)
        share = off / allowed if math.isfinite(off) else math.inf
        found.append((share, name, off / max(way, 1e-30), torch_off / max(way, 1e-30)))
    worst = max(found)
    furthest = max(found[1:], default=(0.0, "", 0.0, 0.0))
    return TrainedStep(
        step, plain, got, exact,
        parameter=furthest[1], drift=furthest[2], torch_drift=furthest[3], loss_excess=found[0][0],
        excess=worst[0], error=error, max_abs=abs(got - exact),
        torch_error=own / max(abs(exact), 1e-30), port_error=error,
    )  # fmt: skip
