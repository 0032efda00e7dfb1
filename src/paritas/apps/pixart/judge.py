# SPDX-License-Identifier: Apache-2.0
"""Whether a picture is what its caption says, by a network that saw pictures alone and no model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from paritas.apps.pixart import scenes


class Judge(nn.Module):
    """Of pictures, float [batch, 3, height, width] in [-1, 1], the logits of `Scene.labels`, [batch, sum(LABELS)]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 24), (24, 48), (48, 64), (64, 96)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 192), nn.ReLU())
        self.answer = nn.Linear(192, sum(scenes.LABELS))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(pictures, (64, 64), mode="area")
        return self.answer(self.layers(small))


def agree(logits: torch.Tensor, wanted: Sequence[scenes.Scene]) -> list[bool]:
    """For each picture whether all of it is as its scene has it."""
    found = torch.stack([part.argmax(1) for part in logits.split(scenes.LABELS, dim=1)], 1)
    return (found == torch.tensor([scene.labels for scene in wanted])).all(1).tolist()


def spoilt(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures a little less sharp, of other brightness and with noise: what a judge learns from."""
    size = int(rng.integers(56, 129))
    soft = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
    bright = 1 + 0.06 * torch.randn(len(pictures), 3, 1, 1)
    return soft * bright + 0.04 * torch.randn(soft.shape) + 0.03 * torch.randn(len(pictures), 3, 1, 1)
