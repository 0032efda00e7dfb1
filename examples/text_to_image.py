# SPDX-License-Identifier: Apache-2.0
"""A prompt drawn by the small PixArt-α that comes with Paritas, in PyTorch and on engines, from the same noise.

python examples/text_to_image.py "a red circle left of a blue square" --engine openvino --engine mindspore
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import torch
from diffusers import PixArtAlphaPipeline

import paritas.diffusers
from paritas.apps.pixart import small_model


def draw(pipe: PixArtAlphaPipeline, prompt: str, seed: int) -> np.ndarray:
    """uint8 [256, 256, 3], in four steps without guidance, which the model was trained for."""
    generator = torch.Generator().manual_seed(seed)
    image = pipe(prompt, num_inference_steps=4, guidance_scale=0.0, generator=generator, output_type="pil").images[0]
    return np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", default="a red circle left of a blue square")
    parser.add_argument("--engine", action="append", help="as often as there are engines to draw on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="a file for the picture, picture.png for one")
    args = parser.parse_args()
    logging.getLogger("paritas").setLevel(logging.ERROR)

    pipe = PixArtAlphaPipeline.from_pretrained(small_model())
    pipe.set_progress_bar_config(disable=True)
    want = draw(pipe, args.prompt, args.seed)
    for engine in args.engine or ["openvino"]:
        ported = paritas.diffusers.PixArtAlphaPipeline.from_pretrained(small_model(), engine=engine)
        ported.set_progress_bar_config(disable=True)
        draw(ported, args.prompt, args.seed)  # ports what is called, once
        start = time.perf_counter()
        got = draw(ported, args.prompt, args.seed)
        apart = int(np.abs(got.astype(int) - want.astype(int)).max())
        print(f"{engine}: {time.perf_counter() - start:.2f} s, at most {apart} of 255 levels from PyTorch's picture")
    if args.out:
        from PIL import Image

        Image.fromarray(want).save(args.out)


if __name__ == "__main__":
    main()
