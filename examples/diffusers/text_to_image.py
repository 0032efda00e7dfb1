# SPDX-License-Identifier: Apache-2.0
"""A picture from a text.

python examples/diffusers/text_to_image.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

from typing import Any

from recipe import main, noise

PROMPT = "a photo of an astronaut riding a horse on mars"


def draw(pipe: Any, steps: int = 20) -> Any:
    return pipe(PROMPT, num_inference_steps=steps, generator=noise()).images[0]


if __name__ == "__main__":
    main(draw, __doc__ or "")
