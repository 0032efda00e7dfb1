# SPDX-License-Identifier: Apache-2.0
"""Text to picture with PixArt-α: a small model that is trained here, and a page for it and for the real ones.

from paritas.apps.pixart import small_model
from paritas.diffusers import PixArtAlphaPipeline

pipe = PixArtAlphaPipeline.from_pretrained(small_model(), engine="openvino")
pipe("a red circle left of a blue square", num_inference_steps=4, guidance_scale=0.0).images[0]
"""

from __future__ import annotations

from pathlib import Path


def small_model() -> Path:
    """The directory of the small model: a `PixArtAlphaPipeline` of 256 x 256 pixels, as diffusers saves one.

    It draws what `scenes.py` has words for, in 4 steps without guidance.
    """
    return Path(__file__).parent / "small"
