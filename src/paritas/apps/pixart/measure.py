# SPDX-License-Identifier: Apache-2.0
"""How much of what is held out a pipeline draws right: `python -m paritas.apps.pixart.measure [DIR] --engine openvino`.

The captions are of combinations that no training saw; a classifier that was trained apart, and comes with Paritas,
tells what the pictures show.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paritas.apps.pixart import scenes, small_model
from paritas.apps.pixart.judge import Judge, agree

JUDGE = Path(__file__).parent / "judge.safetensors"


def judge() -> Judge:
    """The classifier, as it was trained."""
    from safetensors.torch import load_file

    made = Judge().eval()
    made.load_state_dict({name: value.float() for name, value in load_file(JUDGE).items()})
    return made


@torch.no_grad()
def accuracy(
    pipe: Any, judge: Judge, count: int, said: Callable[[str], None] = print, seed: int = 0, **options: Any
) -> float:
    """The part of held-out captions of which the pipeline draws what they say. options: of the pipeline's call."""
    rng = np.random.default_rng([seed, 7])
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 0.0} | options
    right: list[bool] = []
    for start in range(0, count, 16):
        drawn = [scenes.draw(rng, held_out=True) for _ in range(min(16, count - start))]
        captions = [scenes.caption(scene, rng) for scene in drawn]
        generator = torch.Generator().manual_seed(seed + start)
        made = pipe(captions, generator=generator, output_type="pt", clean_caption=False, **options).images
        right += agree(judge(2 * made.float() - 1), drawn)
    said(f"{sum(right)} of {count} held-out captions are drawn right: {100 * np.mean(right):.1f} %")
    return float(np.mean(right))


def main() -> None:
    """Read the arguments and measure."""
    from diffusers import PixArtAlphaPipeline

    import paritas.diffusers
    from paritas.run.engine import about

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, metavar="DIR", help="the small model if not given")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--count", type=int, default=400, help="of captions")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    pipe = PixArtAlphaPipeline.from_pretrained(args.model or small_model())
    if not about(args.engine).is_original:
        pipe = paritas.diffusers.port(pipe, engine=args.engine)
    accuracy(pipe, judge(), args.count, seed=args.seed, num_inference_steps=args.steps)


if __name__ == "__main__":
    main()
