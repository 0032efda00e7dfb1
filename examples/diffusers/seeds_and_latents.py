# SPDX-License-Identifier: Apache-2.0
"""Four pictures from four seeds; then the second of them again, from its latents, with another prompt.

python examples/diffusers/seeds_and_latents.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import torch
from recipe import main, noise

PROMPT = "Labrador in the style of Vermeer"
TWEAKED = "Terrier in the style of Vermeer"


def draw(pipe: Any, steps: int = 20) -> Any:
    size = (pipe.unet.config.sample_size,) * 2
    latents = torch.cat([torch.randn(1, 4, *size, generator=noise(seed)) for seed in range(4)])
    drawn = pipe([PROMPT] * 4, latents=latents, num_inference_steps=steps).images
    again = pipe([PROMPT, TWEAKED], latents=latents[1:2].repeat(2, 1, 1, 1), num_inference_steps=steps).images
    return [*drawn, *again]


if __name__ == "__main__":
    main(draw, __doc__ or "")
