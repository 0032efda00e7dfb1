# SPDX-License-Identifier: Apache-2.0
"""Two checkpoints of the same networks, merged weight by weight: before and after.

python examples/diffusers/checkpoint_merging.py [MODEL] [--engine openvino]

Weights may be changed on a pipeline that is on an engine: the next call makes ports of the new ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from recipe import main, noise, tiny

PROMPT = "An astronaut riding a horse on Mars"


def draw(pipe: Any, steps: int = 20, alpha: float = 0.4, other: str | None = None) -> Any:
    """other: the second checkpoint; by default a tiny one, for the tiny model."""
    before = pipe(PROMPT, num_inference_steps=steps, generator=noise()).images
    with tempfile.TemporaryDirectory() as place:
        second = diffusers.StableDiffusionPipeline.from_pretrained(
            other or tiny(Path(place), seed=1), safety_checker=None
        )
        for name in ("unet", "vae", "text_encoder"):
            merge(getattr(pipe, name), getattr(second, name), alpha)
    return before + pipe(PROMPT, num_inference_steps=steps, generator=noise()).images


@torch.no_grad()
def merge(first: torch.nn.Module, second: torch.nn.Module, alpha: float) -> None:
    """alpha: the share of the second, through a sigmoid as the community's merger has it."""
    share = alpha * alpha * (3 - 2 * alpha)
    for weight, other in zip(first.parameters(), second.parameters(), strict=True):
        weight.lerp_(other, share)


if __name__ == "__main__":
    main(draw, __doc__ or "")
