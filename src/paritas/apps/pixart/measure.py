# SPDX-License-Identifier: Apache-2.0
"""How much of what is held out a pipeline draws right: `python -m paritas.apps.pixart.measure [DIR] --engine openvino`.

The captions are of combinations that no training saw; a classifier that was trained apart, and comes with Paritas,
tells what the pictures show. It may be wrong itself: how often is said too, of pictures that a program drew.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paritas.apps.pixart import scenes, small_model
from paritas.apps.pixart.judge import Judge, mistaken

JUDGE = Path(__file__).parent / "judge.safetensors"

BATCH = 16
"""Pictures that are drawn at a time."""

#: What a picture may have wrong, as places in `Scene.labels`.
KINDS: dict[str, slice] = {
    "layout": slice(0, 1), "colour": slice(1, 3), "shape": slice(3, 5), "size": slice(5, 6), "background": slice(6, 7),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tally:
    """Of so many pictures how many are right, and how many are wrong in each of `KINDS`. seconds: for all of them."""

    count: int
    right: int
    wrong: dict[str, int]
    seconds: float

    @property
    def part(self) -> float:
        """Of all pictures."""
        return self.right / self.count


def judge() -> Judge:
    """The classifier, as it was trained."""
    from safetensors.torch import load_file

    made = Judge().eval()
    made.load_state_dict({name: value.float() for name, value in load_file(JUDGE).items()})
    return made


def drawn(pipe: Any, judge: Judge, count: int, seed: int = 0, **options: Any) -> Tally:
    """What a pipeline draws of held-out captions, always the same ones. options: of the pipeline's call."""
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 0.0} | options

    def pictures(start: int, _: Sequence[scenes.Scene], captions: list[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed + start)
        made = pipe(captions, generator=generator, output_type="pt", clean_caption=False, **options).images
        return 2 * made.float() - 1

    return _tally(pictures, judge, count, seed)


def true(judge: Judge, count: int, seed: int = 0) -> Tally:
    """What the judge says of true pictures of the same scenes: what is wrong there, the judge has wrong."""
    rng = np.random.default_rng([seed, 6])

    def pictures(_: int, wanted: Sequence[scenes.Scene], __: list[str]) -> torch.Tensor:
        made = np.stack([scenes.picture(scene, rng) for scene in wanted])
        return torch.from_numpy(made).permute(0, 3, 1, 2).float() / 127.5 - 1

    return _tally(pictures, judge, count, seed)


def accuracy(
    pipe: Any, judge: Judge, count: int, said: Callable[[str], None] = print, seed: int = 0, **options: Any
) -> float:
    """The part of held-out captions of which the pipeline draws what they say. options: of the pipeline's call."""
    found = drawn(pipe, judge, count, seed, **options)
    said(f"{found.right} of {count} held-out captions are drawn right: {100 * found.part:.1f} %")
    return found.part


@torch.no_grad()
def _tally(
    pictures: Callable[[int, Sequence[scenes.Scene], list[str]], torch.Tensor], judge: Judge, count: int, seed: int
) -> Tally:
    begun = time.perf_counter()
    wrong = torch.cat([mistaken(judge(pictures(*batch)), batch[1]) for batch in _batches(count, seed)])
    kinds = {kind: int(wrong[:, place].any(1).sum()) for kind, place in KINDS.items()}
    return Tally(count, int((~wrong.any(1)).sum()), kinds, time.perf_counter() - begun)


def _batches(count: int, seed: int) -> Iterator[tuple[int, list[scenes.Scene], list[str]]]:
    """How many came before, scenes that are held out, and their captions."""
    rng = np.random.default_rng([seed, 7])
    for start in range(0, count, BATCH):
        wanted = [scenes.draw(rng, held_out=True) for _ in range(min(BATCH, count - start))]
        yield start, wanted, [scenes.caption(scene, rng) for scene in wanted]


def measured(
    model: Path, engines: Sequence[str], count: int, steps: int = 4, seed: int = 0
) -> Iterator[tuple[str, Tally]]:
    """What the judge says of true pictures, then of those that each engine draws, with what they are."""
    from diffusers import PixArtAlphaPipeline

    import paritas.diffusers
    from paritas.run.engine import about

    classifier = judge()
    yield "true pictures", true(classifier, count, seed)
    for name in engines:
        engine = about(name)
        pipe = PixArtAlphaPipeline.from_pretrained(model)
        if not engine.is_original:
            pipe = paritas.diffusers.port(pipe, engine=name)
        drawn(pipe, classifier, BATCH, seed, num_inference_steps=steps)  # loads and compiles
        if count % BATCH:
            drawn(pipe, classifier, count % BATCH, seed, num_inference_steps=steps)
        title = engine.title(next(iter(engine.modes)))
        yield title, drawn(pipe, classifier, count, seed, num_inference_steps=steps)


def main() -> None:
    """Read the arguments, measure, and print a table."""
    from paritas.run.engine import engines

    installed = [name for name, info in engines().items() if info.available]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, metavar="DIR", help="the small model if not given")
    parser.add_argument("--engine", nargs="+", default=installed, help="all that are installed if not given")
    parser.add_argument("--count", type=int, default=400, help="of captions")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{args.count} captions of combinations that no training saw, {args.steps} steps")
    print(f"{'':22}{'right':>18}   wrong in {'  '.join(f'{kind:>10}' for kind in KINDS)}{'a picture':>14}")
    for what, found in measured(args.model or small_model(), args.engine, args.count, args.steps, args.seed):
        wrong = "  ".join(f"{found.wrong[kind]:>10}" for kind in KINDS)
        print(
            f"{what:22}{found.right:>5} = {100 * found.part:5.1f} %   {'':9}{wrong}"
            f"{1000 * found.seconds / found.count:>11.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
