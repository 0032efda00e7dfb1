# SPDX-License-Identifier: Apache-2.0
"""What a policy says of actions: the parameters of a distribution, which PyTorch differentiates and NumPy draws from.

A distribution holds sizes alone. Its `parameters` are what a policy returns for each observation, [batch, width]:
PyTorch computes with them inside the captured loss; NumPy draws, where a tensor's overhead would be most of the time.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np
import torch

from paritas.errors import InputError

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """width: how many parameters. shape: of one action; dtype: as it is kept.

    `log_prob(parameters [n, width], actions [n, *shape])` and `entropy(parameters)` are float32 [n]. `noise` is drawn
    for many steps at once, `sample` makes actions of it; `mode` is the most probable action, `best` in PyTorch.
    """

    @property
    def width(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> type: ...

    def log_prob(self, parameters: torch.Tensor, actions: torch.Tensor) -> torch.Tensor: ...

    def entropy(self, parameters: torch.Tensor) -> torch.Tensor: ...

    def best(self, parameters: torch.Tensor) -> torch.Tensor: ...

    def noise(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray: ...

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray: ...

    def mode(self, parameters: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of `width` actions: the parameters are logits."""

    width: int
    shape: tuple[int, ...] = ()
    dtype: type = np.int64

    def log_prob(self, parameters: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(parameters, -1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, parameters: torch.Tensor) -> torch.Tensor:
        logs = torch.log_softmax(parameters, -1)
        return -(logs.exp() * logs).sum(-1)

    def best(self, parameters: torch.Tensor) -> torch.Tensor:
        return parameters.argmax(-1)

    def noise(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        return rng.gumbel(size=(*size, self.width)).astype(np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        # The largest of logits with Gumbel's noise is a draw from their softmax.
        drawn: np.ndarray = (parameters + noise).argmax(-1)
        return drawn

    def mode(self, parameters: np.ndarray) -> np.ndarray:
        found: np.ndarray = parameters.argmax(-1)
        return found


@dataclasses.dataclass(frozen=True)
class MultiCategorical:
    """Several choices at once, of `counts` each: the parameters are their logits, one beside the other."""

    counts: tuple[int, ...]
    dtype: type = np.int64

    @property
    def width(self) -> int:
        return sum(self.counts)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.counts),)

    def _parts(self, values: Any) -> list[tuple[Categorical, Any]]:
        ends = np.cumsum(self.counts).tolist()
        return [
            (Categorical(count), values[..., end - count : end]) for count, end in zip(self.counts, ends, strict=True)
        ]

    def log_prob(self, parameters: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        terms = [one.log_prob(part, actions[..., i]) for i, (one, part) in enumerate(self._parts(parameters))]
        return torch.stack(terms, -1).sum(-1)

    def entropy(self, parameters: torch.Tensor) -> torch.Tensor:
        return torch.stack([one.entropy(part) for one, part in self._parts(parameters)], -1).sum(-1)

    def best(self, parameters: torch.Tensor) -> torch.Tensor:
        return torch.stack([one.best(part) for one, part in self._parts(parameters)], -1)

    def noise(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        return rng.gumbel(size=(*size, self.width)).astype(np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return self.mode(parameters + noise)

    def mode(self, parameters: np.ndarray) -> np.ndarray:
        return np.stack([one.mode(part) for one, part in self._parts(parameters)], -1)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """`size` numbers, independent of each other: parameters are their means, then logarithms of their deviations."""

    size: int
    dtype: type = np.float32

    @property
    def width(self) -> int:
        return 2 * self.size

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def log_prob(self, parameters: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        mean, log_std = parameters[..., : self.size], parameters[..., self.size :]
        scaled = (actions - mean) * torch.exp(-log_std)
        return (-0.5 * scaled * scaled - log_std - _HALF_LOG_TWO_PI).sum(-1)

    def entropy(self, parameters: torch.Tensor) -> torch.Tensor:
        return (parameters[..., self.size :] + (0.5 + _HALF_LOG_TWO_PI)).sum(-1)

    def best(self, parameters: torch.Tensor) -> torch.Tensor:
        return parameters[..., : self.size]

    def noise(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*size, self.size), np.float32)

    def sample(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        drawn: np.ndarray = parameters[..., : self.size] + np.exp(parameters[..., self.size :]) * noise
        return drawn

    def mode(self, parameters: np.ndarray) -> np.ndarray:
        return parameters[..., : self.size]


def distribution_of(space: Any) -> Distribution:
    """The distribution for a space of actions of gymnasium: Discrete, MultiDiscrete or Box.

    Raises `InputError` for any other.
    """
    kind = type(space).__name__
    if kind == "Discrete":
        return Categorical(int(space.n))
    if kind == "MultiDiscrete" and np.ndim(space.nvec) == 1:
        return MultiCategorical(tuple(int(n) for n in space.nvec))
    if kind == "Box" and np.issubdtype(space.dtype, np.floating):
        return Gaussian(int(np.prod(space.shape)))
    raise InputError(
        f"Actions of {space} have no distribution here: there are Discrete, MultiDiscrete (of one dimension) and Box "
        "of floats. Wrap the environment so that it takes one of these (gymnasium.ActionWrapper)."
    )
