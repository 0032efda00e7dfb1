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


def mistaken(logits: torch.Tensor, wanted: Sequence[scenes.Scene]) -> torch.Tensor:
    """Of each picture which of `Scene.labels` are not as its scene has them, bool [pictures, labels]."""
    found = torch.stack([part.argmax(1) for part in logits.split(scenes.LABELS, dim=1)], 1)
    return found != torch.tensor([scene.labels for scene in wanted])


def spoilt(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures that are less sharp, a little bent, of other brightness and with noise: what a judge learns from.

    They are true pictures all the same: a judge of sharp edges alone takes a star with round corners for a circle.
    """
    size = int(rng.integers(28, 129))
    soft = F.interpolate(bent(pictures, rng), (size, size), mode="bilinear", antialias=True)
    bright = 1 + 0.06 * torch.randn(len(pictures), 3, 1, 1)
    return soft * bright + 0.04 * torch.randn(soft.shape) + 0.03 * torch.randn(len(pictures), 3, 1, 1)


def bent(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures whose lines waver, by about one part of a hundred of the side."""
    count, cells = len(pictures), int(rng.integers(6, 15))
    away = 0.03 * torch.rand(count, 1, 1, 1) * torch.randn(count, 2, cells, cells)
    away = F.interpolate(away, pictures.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    straight = F.affine_grid(torch.eye(2, 3).repeat(count, 1, 1), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, straight + away, padding_mode="border", align_corners=False)
