# SPDX-License-Identifier: Apache-2.0
"""Diffusion on pictures of shapes, in a loop of torch's, on PyTorch and on MindSpore behind the same objects.

    pip install 'paritas[mindspore,diffusers]'
    python examples/training/diffusion.py [ddpm|iadb]

DDPM learns the noise in a picture, IADB (iterative alpha-deblending, Heitz et al. 2023) the difference between a
picture and the noise that it is blended with. Both with the same UNet of diffusers.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel

import paritas

SIZE, TIMES = 16, 50


def shapes(count: int, seed: int) -> torch.Tensor:
    """Pictures [count, 1, SIZE, SIZE] between -1 and 1: a disc or a square, anywhere."""
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(5, SIZE - 5, (count, 1, 1), generator=draw) for _ in range(2))
    radius = torch.randint(3, 5, (count, 1, 1), generator=draw)
    down, across = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    disc = (down - y) ** 2 + (across - x) ** 2 <= radius**2
    square = ((down - y).abs() < radius) & ((across - x).abs() < radius)
    is_disc = torch.rand(count, 1, 1, generator=draw) < 0.5
    return torch.where(is_disc, disc, square).float()[:, None] * 2 - 1


class DDPM:
    """Denoising diffusion: the noise is what is learnt."""

    def __init__(self) -> None:
        self.schedule = DDPMScheduler(num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2")

    def loss(self, model: Any, pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        noise = torch.randn(pictures.shape, generator=draw)
        times = torch.randint(0, TIMES, (len(pictures),), generator=draw)
        found = model(self.schedule.add_noise(pictures, noise, times), times).sample
        return torch.nn.functional.mse_loss(found, noise)

    def draws(self, model: Any, count: int, draw: torch.Generator) -> torch.Tensor:
        pictures = torch.randn(count, 1, SIZE, SIZE, generator=draw)
        self.schedule.set_timesteps(TIMES)
        for time in self.schedule.timesteps:
            found = model(pictures, time.expand(count)).sample
            pictures = self.schedule.step(found, time, pictures, generator=draw).prev_sample
        return pictures


class IADB:
    """Iterative alpha-deblending: noise is blended into a picture, and the way between them is what is learnt."""

    def loss(self, model: Any, pictures: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        noise = torch.randn(pictures.shape, generator=draw)
        alpha = torch.rand(len(pictures), generator=draw)
        blended = torch.lerp(noise, pictures, alpha[:, None, None, None])
        return torch.nn.functional.mse_loss(model(blended, alpha * TIMES).sample, pictures - noise)

    def draws(self, model: Any, count: int, draw: torch.Generator) -> torch.Tensor:
        pictures = torch.randn(count, 1, SIZE, SIZE, generator=draw)
        for time in range(TIMES):
            pictures = pictures + model(pictures, torch.full((count,), float(time))).sample / TIMES
        return pictures


METHODS = {"ddpm": DDPM, "iadb": IADB}


def train(model: Any, method: Any, steps: int) -> tuple[float, float]:
    """The loss on pictures that were held out, and which share of a drawn one's pixels is off the nearest shape."""
    pictures, draw = shapes(512, 0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        loss = method.loss(model, pictures[torch.randint(0, len(pictures), (32,), generator=draw)], draw)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    held_out, every = shapes(32, 1), shapes(4096, 2)
    with torch.no_grad():
        loss = method.loss(model, held_out, torch.Generator().manual_seed(2))
        drawn = method.draws(model, 32, torch.Generator().manual_seed(3))
    wrong = (drawn.sign().flatten(1)[:, None] != every.flatten(1)[None]).float().mean(-1).min(1).values
    return float(loss), float(wrong.mean())


def main(which: str = "ddpm", steps: int = 200) -> list[tuple[float, float]]:
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=4, attention_head_dim=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).train()  # fmt: skip
    found = [
        train(one, METHODS[which](), steps)
        for one in (copy.deepcopy(model), paritas.trainable(model, engine="mindspore"))
    ]
    for name, (loss, wrong) in zip(("PyTorch", "MindSpore"), found, strict=True):
        print(f"{which} on {name}: held-out loss {loss:.5f}, pixels that are off the nearest shape {wrong:.3f}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
