# SPDX-License-Identifier: Apache-2.0
"""Several prompts in one picture: added and subtracted by weight, then each in a region of its own.

python examples/diffusers/composed_prompts.py [MODEL] [--engine openvino]

A loop of one's own calls the same networks, here one prediction for all prompts in each step.
"""

from __future__ import annotations

from typing import Any

import torch
from recipe import main, noise

COMPOSED = {"mystical trees": 7.5, "a magical pond": 7.5, "dark": -7.5}
ROWS = ["green hair, twintail", "red blouse", "blue skirt"]


def draw(pipe: Any, steps: int = 20) -> Any:
    size = pipe.unet.config.sample_size
    everywhere = torch.ones(len(COMPOSED), 1, size, size)
    weights = torch.tensor(list(COMPOSED.values())).reshape(-1, 1, 1, 1)
    rows = torch.zeros(len(ROWS), 1, size, size)
    for number, part in enumerate(torch.arange(size).tensor_split(len(ROWS))):
        rows[number, :, part] = 1
    return [composed(pipe, list(COMPOSED), weights * everywhere, steps), composed(pipe, ROWS, 7.5 * rows, steps)]


@torch.no_grad()
def composed(pipe: Any, prompts: list[str], weights: torch.Tensor, steps: int) -> Any:
    """A picture of prompts. weights: how much each guides, (prompts, 1, height, width) of the latents."""
    texts, empty = pipe.encode_prompt(prompts, "cpu", 1, True)
    embeds = torch.cat([empty[:1], texts])
    pipe.scheduler.set_timesteps(steps)
    size = (pipe.unet.config.sample_size,) * 2
    latents = torch.randn(1, 4, *size, generator=noise()) * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        given = pipe.scheduler.scale_model_input(latents, t).expand(len(embeds), -1, -1, -1)
        free, *guided = pipe.unet(given, t, encoder_hidden_states=embeds).sample.split(1)
        guidance = (weights * (torch.cat(guided) - free)).sum(0, keepdim=True)
        latents = pipe.scheduler.step(free + guidance, t, latents).prev_sample
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(decoded)[0]


if __name__ == "__main__":
    main(draw, __doc__ or "")
