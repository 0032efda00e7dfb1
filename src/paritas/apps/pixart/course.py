# SPDX-License-Identifier: Apache-2.0
"""How the small model's stages learn: steps that a stopped run goes on from, rates, an optimizer, averages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

T = TypeVar("T")
Said = Callable[[str], None]


class Stopped(Exception):
    """The time of a run is over before it is done."""


class Course:
    """The steps of a stage, said every so many seconds; what is learnt is kept, so that a stopped run goes on from it.

    Each step draws from generators of its own: a run that was stopped gives the weights of one that was not.
    """

    until: ClassVar[float] = math.inf
    """When to stop, of `time.monotonic`: what was learnt is kept, and the next run goes on from it."""

    def __init__(self, name: str, count: int, seed: tuple[int, int], said: Said, kept: Path | None = None) -> None:
        self.name, self.count, self.seed, self.said, self.kept = name, count, seed, said, kept
        self.losses: list[torch.Tensor] = []

    def steps(self, **learnt: Any) -> Iterator[tuple[int, np.random.Generator]]:
        """The steps that are left, each with its generator. learnt: modules, optimizers, averages, by names."""
        return self.given(lambda _, rng: rng, **learnt)

    def given(
        self, made: Callable[[int, np.random.Generator], T], workers: int = 0, every: float = 10.0, **learnt: Any
    ) -> Iterator[tuple[int, T]]:
        """The steps that are left, each with what is made for it by its generator; by so many processes, beside it."""
        begun = self._begun(learnt)
        start = last = saved = time.monotonic()
        left = range(begun, self.count)
        items: Iterable[T] = DataLoader(
            _Made(made, self.seed),  # type: ignore[arg-type]  # a sampler's indices are all that it is asked for
            batch_size=None,
            sampler=left,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        for step, item in zip(left, items, strict=True):
            torch.manual_seed(self.seed[0] * 1_000_003 + self.seed[1] * 100_003 + step)
            yield step, item
            now = time.monotonic()
            if now - last > every or step == self.count - 1:
                mean = float(sum(self.losses)) / max(len(self.losses), 1)
                spent = f"{now - start:.0f} s ({time.process_time():.0f} s)"
                self.said(f"{self.name}: {step + 1} of {self.count}, {spent}, loss {mean:.4f}")
                self.losses.clear()
                last = now
            ends = now > self.until and step < self.count - 1
            if self.kept is not None and (ends or now - saved > 3 * every):
                beside = self.kept.with_suffix(".new")
                torch.save({"step": step + 1} | {name: part.state_dict() for name, part in learnt.items()}, beside)
                beside.replace(self.kept)
                saved = now
            if ends:
                raise Stopped(f"{self.name}: {step + 1} of {self.count} steps are done")

    def _begun(self, learnt: dict[str, Any]) -> int:
        if self.kept is None or not self.kept.exists():
            return 0
        state = torch.load(self.kept, weights_only=True, map_location="cpu")
        for name, part in learnt.items():
            part.load_state_dict(state[name])
        return int(state["step"])


class _Made(Generic[T]):
    """What is made for each step, by its number."""

    def __init__(self, made: Callable[[int, np.random.Generator], T], seed: tuple[int, int]) -> None:
        self.made, self.seed = made, seed

    def __getitem__(self, step: int) -> T:
        return self.made(step, np.random.default_rng([*self.seed, step]))


def rate(step: int, count: int, warm: int = 100) -> float:
    """The learning rate as a part of the highest: up in a line, down as a cosine."""
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / count) + 0.01)


def late(step: int, count: int, warm: int = 200, falls: float = 0.3) -> float:
    """As `rate`, but the highest until the last part of the steps: what is slow to be found has time."""
    return min((step + 1) / warm, (count - step) / (falls * count), 1.0)


def fit(optimizer: Any, loss: torch.Tensor, part: float) -> torch.Tensor:
    """One step of an optimizer, at a part of its learning rate: the loss, which a device is not waited for."""
    for group in optimizer.param_groups:
        group["lr"] = part * group["initial_lr"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return loss.detach()


def adam(*groups: tuple[Any, float], decay: float = 0.0) -> Any:
    """AdamW; groups: parameters with the highest learning rate of each."""
    return torch.optim.AdamW(
        [{"params": list(params), "lr": lr, "initial_lr": lr} for params, lr in groups],
        betas=(0.9, 0.99),
        fused=True,
        weight_decay=decay,
    )


class Average:
    """A moving average of a module's weights, of about the last tenth of what has been learnt."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.count = module, 0
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        keep = self.count / (self.count + 10)
        for name, value in self.module.state_dict().items():
            self.weights[name].lerp_(value, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)
