# SPDX-License-Identifier: Apache-2.0
"""What is white in a mask is drawn anew from a text. MODEL is one for inpainting, or any Stable Diffusion.

python examples/diffusers/inpainting.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

import PIL.Image
from recipe import main, noise, photo

PROMPT = "Face of a yellow cat, high resolution, sitting on a park bench"
PIPELINE = "StableDiffusionInpaintPipeline"


def draw(pipe: Any, steps: int = 20) -> Any:
    image = photo(pipe)
    mask = PIL.Image.new("L", image.size, 0)
    mask.paste(255, (0, 0, image.width // 2, image.height))
    size = {"width": image.width, "height": image.height}
    return pipe(PROMPT, image=image, mask_image=mask, **size, num_inference_steps=steps, generator=noise()).images[0]


if __name__ == "__main__":
    main(draw, __doc__ or "", PIPELINE, inpaints=True)
