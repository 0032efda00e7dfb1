# SPDX-License-Identifier: Apache-2.0
"""A picture from a text and another picture, of which `strength` says how much is drawn anew.

python examples/diffusers/image_to_image.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

from recipe import main, noise, photo

PROMPT = "A fantasy landscape, trending on artstation"
PIPELINE = "StableDiffusionImg2ImgPipeline"


def draw(pipe: Any, steps: int = 20) -> Any:
    settings = {"strength": 0.75, "guidance_scale": 7.5, "num_inference_steps": steps}
    return pipe(PROMPT, image=photo(pipe), **settings, generator=noise()).images[0]


if __name__ == "__main__":
    main(draw, __doc__ or "", PIPELINE)
