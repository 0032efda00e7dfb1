# SPDX-License-Identifier: Apache-2.0
"""Prompts whose __words__ stand for one of a list each, drawn by chance: four of them.

python examples/diffusers/wildcards.py [MODEL] [--engine openvino]
"""

from __future__ import annotations

import random
import re
from typing import Any

from recipe import main, noise

PROMPT = "__animal__ sitting on a __object__ wearing a __clothing__"
WORDS = {
    "animal": ["dog", "cat", "mouse"],
    "clothing": ["hat", "shirt", "scarf", "beret"],
    "object": ["chair", "sofa", "bench"],
}


def draw(pipe: Any, steps: int = 20, pictures: int = 4) -> Any:
    chance = random.Random(0)
    prompts = [re.sub("__(.*?)__", lambda card: chance.choice(WORDS[card[1]]), PROMPT) for _ in range(pictures)]
    return pipe(prompts, num_inference_steps=steps, generator=noise()).images


if __name__ == "__main__":
    main(draw, __doc__ or "")
