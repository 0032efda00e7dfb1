# SPDX-License-Identifier: Apache-2.0
"""Policies and values as PyTorch modules: observations in, parameters of a distribution and a value out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from paritas.errors import InputError
from paritas.rl.distributions import Distribution, Gaussian

#: By the names that settings have.
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}


def orthogonal(module: nn.Module, gain: float = math.sqrt(2)) -> nn.Module:
    """Orthogonal weights times `gain` and biases of 0, for every linear and convolutional layer inside."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def mlp(size: int, hidden: Sequence[int], activation: str = "tanh") -> nn.Sequential:
    """Linear layers of these widths, each followed by the activation."""
    if activation not in ACTIVATIONS:
        raise InputError(f"There is no activation {activation!r}: there are {', '.join(ACTIVATIONS)}.")
    layers: list[nn.Module] = []
    for before, width in zip([size, *hidden], hidden, strict=False):
        layers += [nn.Linear(before, width), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def is_image(shape: Sequence[int]) -> bool:
    """Whether observations of this shape are pictures, which a CNN reads."""
    return len(shape) == 3 and min(shape[0], shape[2]) <= 16 and min(shape[1], max(shape[0], shape[2])) >= 36


class Flat(nn.Module):
    """Observations of any shape as vectors."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.size = int(np.prod(shape))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations.float().flatten(1)


class Cnn(nn.Module):
    """The network of the paper on Atari (Mnih et al., 2015): three convolutions and a linear layer.

    Pictures of 36 pixels or more a side, with their channels first or last; bytes become numbers from 0 to 1.
    """

    def __init__(self, shape: Sequence[int], size: int = 512) -> None:
        super().__init__()
        self.channels_last = shape[2] < shape[0]
        channels, *sides = (shape[2], *shape[:2]) if self.channels_last else shape
        self.size = size
        self.cnn = nn.Sequential(
            nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1),
            nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        with torch.no_grad():
            count = self.cnn(torch.zeros(1, channels, *sides)).shape[1]
        self.linear = nn.Sequential(nn.Linear(count, size), nn.ReLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        pictures = observations.permute(0, 3, 1, 2) if self.channels_last else observations
        scaled = pictures.float() if pictures.is_floating_point() else pictures.float() / 255.0
        return self.linear(self.cnn(scaled))


def features_of(shape: Sequence[int], features: str = "auto") -> nn.Module:
    """What reads observations of this shape. features: "mlp" takes them as vectors, "cnn" as pictures; "auto" looks."""
    kinds = {"mlp": Flat, "cnn": Cnn}
    kind = features if features != "auto" else "cnn" if is_image(shape) else "mlp"
    if kind not in kinds:
        raise InputError(f"There are no features {features!r}: there are mlp, cnn and auto.")
    if kind == "cnn" and not is_image(shape):
        raise InputError(
            f"Observations of shape {tuple(shape)} are no pictures of 36 pixels a side: take features mlp."
        )
    return kinds[kind](shape)


class ActorCritic(nn.Module):
    """A policy and a value, of networks of their own behind common features.

    Args:
        shape: of one observation.
        distribution: of actions, as `distribution_of(space)` gives it.
        hidden: widths of the layers of both networks; () is none.
        activation: between them: tanh, relu, elu or gelu.
        features: "mlp", "cnn" or "auto".
        log_std: where the deviations of a Gaussian begin, as logarithm.
    """

    def __init__(
        self,
        shape: Sequence[int],
        distribution: Distribution,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        features: str = "auto",
        log_std: float = 0.0,
        init: bool = True,
    ) -> None:
        super().__init__()
        #: With what it is made again.
        self.made_of = {"hidden": list(hidden), "activation": activation, "features": features}
        self.features = features_of(shape, features)
        size = int(self.features.size)  # type: ignore[arg-type]
        outputs = hidden[-1] if hidden else size
        self.policy, self.value = mlp(size, hidden, activation), mlp(size, hidden, activation)
        self.deviates = isinstance(distribution, Gaussian)
        count = distribution.size if isinstance(distribution, Gaussian) else distribution.width
        self.action_head, self.value_head = nn.Linear(outputs, count), nn.Linear(outputs, 1)
        if self.deviates:
            self.log_std = nn.Parameter(torch.full((count,), log_std))
        if init:
            for module in (self.features, self.policy, self.value):
                orthogonal(module)
            orthogonal(self.action_head, 0.01)  # nearly uniform at first, so that everything is tried
            orthogonal(self.value_head, 1.0)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """observations [batch, *shape] -> parameters [batch, width], values [batch]."""
        features = self.features(observations)
        parameters = self.action_head(self.policy(features))
        if self.deviates:
            parameters = torch.cat([parameters, self.log_std.expand_as(parameters)], -1)
        return parameters, self.value_head(self.value(features)).squeeze(-1)


class QNetwork(nn.Module):
    """The value of each action: observations [batch, *shape] -> [batch, actions]."""

    def __init__(
        self,
        shape: Sequence[int],
        actions: int,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        features: str = "auto",
    ) -> None:
        super().__init__()
        #: With what it is made again.
        self.made_of = {"hidden": list(hidden), "activation": activation, "features": features}
        self.features = features_of(shape, features)
        size = int(self.features.size)  # type: ignore[arg-type]
        self.q = nn.Sequential(*mlp(size, hidden, activation), nn.Linear(hidden[-1] if hidden else size, actions))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.q(self.features(observations))


def example(shape: Sequence[int], dtype: Any, batch: int) -> torch.Tensor:
    """Observations of which nothing but sizes is meant."""
    return torch.zeros(batch, *shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)
