# SPDX-License-Identifier: Apache-2.0
"""A picture from another in four steps, without guidance: MODEL is a latent consistency model.

python examples/diffusers/lcm_image_to_image.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import diffusers
from recipe import main, noise, photo

PROMPT = "High altitude snowy mountains"
PIPELINE = "StableDiffusionImg2ImgPipeline"


def draw(pipe: Any, steps: int = 4) -> Any:
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    settings = {"strength": 0.8, "guidance_scale": 0.0, "num_inference_steps": steps}
    return pipe(PROMPT, image=photo(pipe), **settings, generator=noise()).images[0]


if __name__ == "__main__":
    main(draw, __doc__ or "", PIPELINE)
