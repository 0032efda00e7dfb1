# SPDX-License-Identifier: Apache-2.0
"""A walk from one prompt and seed to another: pictures of what lies between.

python examples/diffusers/interpolation.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import torch
from recipe import main, noise

PROMPTS, SEEDS = ("a dog", "a cat"), (42, 1337)


def draw(pipe: Any, steps: int = 20, frames: int = 5) -> Any:
    with torch.no_grad():
        texts, _ = pipe.encode_prompt(list(PROMPTS), "cpu", 1, False)
    size = (pipe.unet.config.sample_size,) * 2
    first, last = (torch.randn(1, 4, *size, generator=noise(seed)) for seed in SEEDS)
    found = []
    for share in torch.linspace(0, 1, frames):
        embeds = torch.lerp(texts[:1], texts[1:], share)
        between = {"prompt_embeds": embeds, "negative_prompt_embeds": torch.zeros_like(embeds)}
        found += pipe(**between, latents=around(first, last, share), num_inference_steps=steps).images
    return found


def around(a: torch.Tensor, b: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Between two draws of noise on the circle through both: as large as noise is."""
    angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


if __name__ == "__main__":
    main(draw, __doc__ or "")
