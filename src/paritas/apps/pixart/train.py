# SPDX-License-Identifier: Apache-2.0
"""Trains the small model: `python -m paritas.apps.pixart.train DIR`, without a network, on a CPU or by `--device cuda`.

The stages, each kept in `--work`, so that a run that was stopped goes on: the text encoder learns to say what each word
is about, the autoencoder to draw parts of pictures, the transformer to make latents out of noise. The same seed gives
the same weights on the same machine and number of threads. What tells how much is drawn right, the judge, is trained
apart, by `--judge`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from paritas.apps.pixart import autoencoder, measure, networks, scenes
from paritas.apps.pixart.course import Average, Course, Said, Stopped, adam, fit, late, rate
from paritas.apps.pixart.judge import Judge, spoilt
from paritas.errors import InputError

FOUR_STEPS = (259, 499, 759, 999)
"""The times that four steps of `LCMScheduler` ask the transformer at: it is trained on them more than on others."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done in each stage."""

    seed: int = 0
    text_steps: int = 600
    crop: int = 64  # of pictures, for the autoencoder
    crop_steps: int = 900
    crop_batch: int = 12
    rough_steps: int = 800
    steps: int = 13000  # of the transformer
    rate: float = 2e-3  # of its learning, the highest
    batch: int = 32
    width: int = 128
    layers: int = 6
    judge_steps: int = 900
    device: str = "cpu"
    workers: int = 0  # processes that make the transformer's pictures beside its learning


QUICK = Plan(text_steps=3, crop=32, crop_steps=2, crop_batch=2, rough_steps=1, steps=4, batch=4, width=16, layers=1,
             judge_steps=2)  # fmt: skip
"""Every stage, and nothing learnt: for tests."""


# --- the text encoder -----------------------------------------------------------------------------------------

#: What is read from a word: where its thing is, its colour and its shape, then the scene's layout, size, background.
_READ = (
    *(len(scenes.SPOTS), len(scenes.COLOURS), len(scenes.SHAPES)),
    *(len(scenes.LAYOUTS), len(scenes.SIZES), len(scenes.BACKGROUNDS)),
)


def text_stage(plan: Plan, said: Said, kept: Path | None = None) -> dict[str, torch.Tensor]:
    """The text encoder's weights: from each word can be read what it is about."""
    torch.manual_seed(plan.seed)
    words = networks.tokenizer()
    encoder = networks.text_encoder(len(words)).to(plan.device)
    heads = nn.Linear(networks.TEXT_WIDTH, sum(_READ)).to(plan.device)
    optimizer = adam((encoder.parameters(), 4e-3), (heads.parameters(), 4e-3))
    course = Course("text encoder", plan.text_steps, (plan.seed, 1), said, kept)
    for step, rng in course.steps(encoder=encoder, heads=heads, optimizer=optimizer):
        drawn = [scenes.draw(rng) for _ in range(64)]
        told = [scenes.told(scene, rng) for scene in drawn]
        ids, mask = networks.tokens(words, [" ".join(word for word, _ in caption) for caption in told])
        labels = torch.full((*ids.shape, len(_READ)), -100)
        for row, scene, caption in zip(labels, drawn, told, strict=True):
            things = dict(zip(scene.spots, (scene.first, scene.second or scene.first), strict=True))
            layout, *_, size, background = scene.labels
            row[: len(caption) + 1, 3:] = torch.tensor([layout, size, background])
            for token, (_, spot) in zip(row, caption, strict=False):  # a word is a token
                if spot is not None:
                    token[0], token[1:3] = spot, torch.tensor(_looks(things[spot]))
        hidden = encoder(input_ids=ids.to(plan.device), attention_mask=mask.to(plan.device)).last_hidden_state
        loss = mistakes(heads(hidden), labels.to(plan.device), _READ)
        course.losses.append(fit(optimizer, loss, rate(step, plan.text_steps)))
    return on_cpu(encoder.state_dict())


def on_cpu(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights where every machine can read them."""
    return {name: value.cpu() for name, value in weights.items()}


def _looks(thing: scenes.Thing) -> tuple[int, int]:
    return list(scenes.COLOURS).index(thing.colour), scenes.SHAPES.index(thing.shape)


def mistakes(answer: torch.Tensor, labels: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """The sum of all labels' cross-entropies. answer: float [..., sum(sizes)]; labels: int64 [..., len(sizes)]."""
    parts = answer.float().flatten(0, -2).split(sizes, dim=1)
    flat = labels.flatten(0, -2)
    return torch.stack([F.cross_entropy(part, flat[:, i]) for i, part in enumerate(parts)]).sum()


# --- the autoencoder ------------------------------------------------------------------------------------------


def pixels(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 [height, width, 3] each as float32 [pictures, 3, height, width] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def decoder_stage(plan: Plan, said: Said, kept: Path | None = None) -> dict[str, torch.Tensor]:
    """The autoencoder's weights: parts of pictures, which are quick to learn from, are drawn from their averages."""
    torch.manual_seed(plan.seed)
    vae = networks.autoencoder()
    autoencoder.set_encoder(vae)
    autoencoder.start_decoder(vae)
    course = Course("autoencoder", plan.crop_steps, (plan.seed, 2), said, kept)
    return decoded(vae, plan, course, lambda latents: latents + 0.08 * noise(latents))


def rough_stage(
    plan: Plan, weights: dict[str, torch.Tensor], said: Said, kept: Path | None = None
) -> dict[str, torch.Tensor]:
    """The autoencoder's weights when its decoder draws a whole shape in one colour of what a transformer makes too."""
    vae = networks.autoencoder()
    vae.load_state_dict(weights)
    course = Course("autoencoder, of rough latents", plan.rough_steps, (plan.seed, 3), said, kept)
    return decoded(vae, plan, course, rough)


def decoded(
    vae: Any, plan: Plan, course: Course, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The autoencoder's weights after a course of parts of pictures, which are drawn of spoilt latents."""
    vae.to(plan.device, memory_format=torch.channels_last)
    optimizer = adam((vae.decoder.parameters(), 2e-3))
    average = Average(vae)
    for step, rng in course.steps(vae=vae, optimizer=optimizer, average=average):
        given = pixels([scenes.part(rng, plan.crop) for _ in range(plan.crop_batch)]).to(plan.device)
        squares = spoil(autoencoder.averages(given)).contiguous(memory_format=torch.channels_last)
        coarse = F.interpolate(F.avg_pool2d(given, 8), scale_factor=8.0)
        weight = 1 + 8 * (given - coarse).abs().mean(1, keepdim=True)  # what is not seen in the averages: edges
        with torch.autocast(plan.device, torch.bfloat16):
            got = vae.decode(squares).sample
        off = got.float() - given
        loss = (weight * (off.abs() + 2 * off.square())).mean()
        course.losses.append(fit(optimizer, loss, rate(step, course.count)))
        autoencoder.hold(vae)
        if step % 4 == 3:
            average.update()
    return {name: value.contiguous() for name, value in on_cpu(average.weights).items()}


def noise(latents: torch.Tensor) -> torch.Tensor:
    """Of each picture as much as it happens: latents [batch, channels, rows, columns]."""
    return torch.rand(len(latents), 1, 1, 1, device=latents.device) * torch.randn_like(latents)


def rough(latents: torch.Tensor) -> torch.Tensor:
    """Latents with what a transformer gets wrong: noise, soft edges, colours that change from token to token."""
    count, channels, rows, columns = latents.shape
    soft = F.avg_pool2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, 1)
    latents = latents.lerp(soft, 0.7 * torch.rand(count, 1, 1, 1, device=latents.device))
    row, column = (torch.arange(size) >= torch.randint(size, (1,)) for size in (rows, columns))
    colours = 0.3 * noise(latents.new_empty(count, channels, 2, 2))
    return latents + colours[:, :, row.long()][..., column.long()] + 0.3 * noise(latents)


# --- the transformer ------------------------------------------------------------------------------------------


def latents(drawn: list[scenes.Scene], rng: np.random.Generator, left_open: Sequence[str] = ()) -> torch.Tensor:
    """The latents of a picture of each scene, float32 [scenes, 3, 32, 32]: of half the pixels, which is quicker.

    left_open: of each scene what its caption does not say.
    """
    side = 2 * networks.LATENTS
    pairs = zip(drawn, left_open or [""] * len(drawn), strict=True)
    pictures = [scenes.picture(scene, rng, side, side, unsaid) for scene, unsaid in pairs]
    return autoencoder.averages(pixels(pictures), 2)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a step of the transformer's training is. part: of the learning rate; the others: in how many of all."""

    part: float
    even: float = 0.35  # scenes of all layouts, sizes and backgrounds alike
    vague: float = 0.05  # captions that leave a colour or a shape open
    vague_of_several: float = 0.3  # of scenes with several things alike
    empty: float = 0.06  # captions that say nothing, for guidance
    times: tuple[float, ...] = (0.15, 0.15, 0.15, 0.15)  # each of `FOUR_STEPS`; the rest are any
    own: float = 0.0  # of the last of four steps, what it is given is what the one before it made


def last_lesson(part: float) -> Lesson:
    """What decides how a shape ends: the last two of four steps, the last one on what the one before it makes."""
    return Lesson(part, even=0.6, times=(0.4, 0.28, 0.12, 0.12), own=0.6)


def transformer_stage(
    plan: Plan, text: dict[str, torch.Tensor], said: Said, kept: Path | None = None
) -> dict[str, Any]:
    """The weights of the transformer, and of the text encoder beside it. kept: where a stopped run goes on from.

    The few combinations of a layout of several things alike could be learnt by heart, and the ones held out then be
    wrong: pictures that mix what a caption leaves open make shape and colour be learnt each by itself.
    """
    torch.manual_seed(plan.seed)
    both = _both(plan)
    both["text"].load_state_dict(text)
    calm(both["transformer"])
    course = Course("transformer", plan.steps, (plan.seed, 4), said, kept)

    def lesson(step: int) -> Lesson:
        part = late(step, course.count)
        return Lesson(part) if step < 0.6 * course.count else last_lesson(part)

    return denoised(both, plan, course, lesson)


def further_stage(plan: Plan, trained: dict[str, Any], said: Said, kept: Path | None = None) -> dict[str, Any]:
    """As `transformer_stage`, from weights that draw: its last lesson alone."""
    both = _both(plan)
    both.load_state_dict(trained)
    course = Course("transformer, further", plan.steps, (plan.seed, 8), said, kept)
    return denoised(both, plan, course, lambda step: last_lesson(min((step + 1) / 200, 1 - step / course.count)))


def noised(latents: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """Latents in noise. signal: float [batch], what part of each one's variance is its own."""
    a = signal[:, None, None, None]
    return a.sqrt() * latents + (1 - a).sqrt() * torch.randn_like(latents)


def answer(
    transformer: Any, noisy: torch.Tensor, times: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The latents that a transformer makes out of noisy ones, float32."""
    return transformer(
        noisy, encoder_hidden_states=hidden, timestep=times, encoder_attention_mask=mask, return_dict=False
    )[0].float()


def _both(plan: Plan) -> Any:
    words = networks.tokenizer()
    return nn.ModuleDict(
        {"text": networks.text_encoder(len(words)), "transformer": networks.transformer(plan.width, plan.layers)}
    )


@dataclasses.dataclass(frozen=True)
class Batch:
    """What a step of the transformer learns from, [batch, ...]. own: int64, which of them `Lesson.own` is of."""

    ids: torch.Tensor
    mask: torch.Tensor
    latents: torch.Tensor
    times: torch.Tensor
    own: torch.Tensor

    def to(self, device: str) -> Batch:
        """The same, there."""
        return Batch(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def batch(plan: Plan, words: Any, now: Lesson, rng: np.random.Generator) -> Batch:
    """A step's captions, and the latents of a picture of each. words: the tokenizer."""
    drawn = [scenes.draw(rng, even=rng.random() < now.even) for _ in range(plan.batch)]
    unsaid = [
        ("colour", "shape")[rng.integers(2)]
        if rng.random() < (now.vague_of_several if scene.layout in ("two", "three", "four") else now.vague)
        else ""
        for scene in drawn
    ]
    captions = [
        "" if rng.random() < now.empty else scenes.caption(scene, rng, left_open)
        for scene, left_open in zip(drawn, unsaid, strict=True)
    ]
    clean = latents(drawn, rng, unsaid)
    steps = rng.choice((*FOUR_STEPS, -1), plan.batch, p=(*now.times, 1 - sum(now.times)))
    times = np.where(steps < 0, rng.integers(1000, size=plan.batch), steps)
    own = (steps == FOUR_STEPS[0]) & (rng.random(plan.batch) < now.own)
    return Batch(*networks.tokens(words, captions, 24), clean, *map(torch.from_numpy, (times, own.nonzero()[0])))


def denoised(both: Any, plan: Plan, course: Course, lesson: Callable[[int], Lesson]) -> dict[str, Any]:
    """The weights of both, averaged, after a course in which the transformer makes latents out of noisy ones."""
    words = networks.tokenizer()
    both.to(plan.device)
    average = Average(both)
    both["text"].requires_grad_(False)  # it says all that there is to be said
    optimizer = adam((both["transformer"].parameters(), plan.rate), decay=0.01)
    signal = networks.noise_schedule().alphas_cumprod.to(plan.device)

    def made(step: int, rng: np.random.Generator) -> Batch:
        return batch(plan, words, lesson(step), rng)

    with _attention_that_learns_fast(plan.device):
        for step, given in course.given(made, plan.workers, both=both, average=average, optimizer=optimizer):
            given = given.to(plan.device)
            clean, times, own = given.latents, given.times, given.own
            with torch.autocast(plan.device, torch.bfloat16):
                with torch.no_grad():
                    hidden = both["text"](input_ids=given.ids, attention_mask=given.mask).last_hidden_state
                    start = clean.clone()
                    if len(own):
                        before = torch.full_like(times[own], FOUR_STEPS[1])
                        noisy = noised(clean[own], signal[before])
                        start[own] = answer(both["transformer"], noisy, before, hidden[own], given.mask[own])
                got = answer(both["transformer"], noised(start, signal[times]), times, hidden, given.mask)
            off = (got - clean).square().mean((1, 2, 3))
            weight = (signal[times] / (1 - signal[times])).clamp(1, 5)  # what is nearly clean has to become clean
            course.losses.append(fit(optimizer, (weight * off).mean(), lesson(step).part))
            if step % 4 == 3:
                average.update()
    return on_cpu(average.weights)


@contextlib.contextmanager
def _attention_that_learns_fast(device: str) -> Iterator[None]:
    # torch 2.13 differentiates its own in bfloat16 on a CPU ten times as slowly as everything else together.
    if device != "cpu":
        yield
        return
    torch_functions: Any = F
    attention = torch_functions.scaled_dot_product_attention
    torch_functions.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        torch_functions.scaled_dot_product_attention = attention


def calm(transformer: Any) -> None:
    """A start from which a transformer learns fast: time does nothing yet, and the answer is 0."""
    for layer in (transformer.adaln_single.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> torch.Tensor:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).to(value.dtype) @ value


# --- the judge ------------------------------------------------------------------------------------------------


def judge_stage(plan: Plan, said: Said, kept: Path | None = None) -> dict[str, torch.Tensor]:
    """The weights of the judge, which sees every scene, and none that the model has drawn."""
    torch.manual_seed(plan.seed)
    judge = Judge().train()
    optimizer = adam((judge.parameters(), 2e-3), decay=0.01)
    course = Course("judge", plan.judge_steps, (plan.seed, 5), said, kept)
    for step, rng in course.steps(judge=judge, optimizer=optimizer):
        drawn = [scenes.draw(rng, held_out=bool(rng.random() < 0.1)) for _ in range(24)]
        given = spoilt(pixels([scenes.picture(scene, rng, 128, 128) for scene in drawn]), rng)
        loss = mistakes(judge(given), torch.tensor([scene.labels for scene in drawn]), scenes.LABELS)
        course.losses.append(fit(optimizer, loss, rate(step, plan.judge_steps)))
    return judge.state_dict()


# --- the run --------------------------------------------------------------------------------------------------


def pipeline(plan: Plan, vae_weights: dict[str, Any], trained: dict[str, Any]) -> Any:
    """The `PixArtAlphaPipeline` of what was trained, with the scheduler that needs few steps."""
    from diffusers import LCMScheduler, PixArtAlphaPipeline

    words = networks.tokenizer()
    both = _both(plan)
    both.load_state_dict(trained)
    vae = networks.autoencoder()
    vae.register_to_config(scaling_factor=1.0)
    vae.load_state_dict(vae_weights)
    scheduler = LCMScheduler.from_config(networks.noise_schedule().config)
    return PixArtAlphaPipeline(words, both["text"].eval(), vae.eval(), both["transformer"].eval(), scheduler)


CARD = """---
license: apache-2.0
pipeline_tag: text-to-image
library_name: diffusers
---

# A small PixArt-α that draws shapes

A `PixArtAlphaPipeline` of 256 x 256 pixels whose weights are a few megabytes, for 4 steps without guidance. It was
trained on pictures that a program draws, and on nothing else:
`python -m paritas.apps.pixart.train DIR {how}`.

Of {count} captions with combinations that no training saw it draws {right:.1f} % right, as a classifier tells that was
trained apart: layout, colours, shapes, size and background all have to be those of the caption.

It knows circles, squares, triangles, stars and hearts in eight colours, one to four of them, left of, right of, above
and below each other, in corners and in the middle, on white, grey and black. Of everything else it makes what it can.
"""


def save(pipe: Any, out: Path) -> int:
    """Write a pipeline with weights of 16 bits: how many bytes it takes."""
    parts = (pipe.text_encoder, pipe.vae, pipe.transformer)
    for part in parts:
        nn.Module.to(part, torch.float16)  # diffusers' own warns of modules that there are none of here
    pipe.save_pretrained(out)
    config = out / "text_encoder" / "config.json"  # where transformers reads which dtype it makes of the file's
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2))
    for part in parts:
        nn.Module.to(part, torch.float32)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def written(directory: Path, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of a pipeline that a run has written: the autoencoder's, and the transformer's and text encoder's."""
    from diffusers import PixArtAlphaPipeline

    pipe = PixArtAlphaPipeline.from_pretrained(directory)
    both = nn.ModuleDict({"text": pipe.text_encoder, "transformer": pipe.transformer}).state_dict()
    wanted = {name: value.shape for name, value in _both(plan).state_dict().items()}
    if {name: value.shape for name, value in both.items()} != wanted:
        raise InputError(f"{directory} is no pipeline that this plan trains: its networks have other sizes.")
    return pipe.vae.state_dict(), both


def stage(work: Path, name: str, make: Callable[[Path], Any], said: Said) -> Any:
    """What a stage has made, or what a run before has. make: is given the file that a stopped stage goes on from."""
    path, begun = work / f"{name}.pt", work / f"{name}_begun.pt"
    if path.exists():
        said(f"{name}: from {path}")
        return torch.load(path, weights_only=True)
    made = make(begun)
    torch.save(made, path)
    begun.unlink(missing_ok=True)
    return made


def run(plan: Plan, out: Path, work: Path, said: Said, count: int = 400, start: Path | None = None) -> float:
    """All stages, and the pipeline's directory: the accuracy on so many held-out captions, as Paritas' judge tells.

    start: a directory that a run has written, whose transformer goes on to learn. What comes before is not done.
    """
    work.mkdir(parents=True, exist_ok=True)
    if start is None:
        plain = stage(work, "vae", lambda kept: decoder_stage(plan, said, kept), said)
        vae = stage(work, "rough", lambda kept: rough_stage(plan, plain, said, kept), said)
        text = stage(work, "text", lambda kept: text_stage(plan, said, kept), said)
        trained = stage(work, "transformer", lambda kept: transformer_stage(plan, text, said, kept), said)
    else:
        vae, first = written(start, plan)
        trained = stage(work, "further", lambda kept: further_stage(plan, first, said, kept), said)
    pipe = pipeline(plan, vae, trained)
    said(f"{save(pipe, out)} bytes in {out}")
    right = measure.accuracy(pipe, measure.judge(), count, said)
    how = f"--seed {plan.seed} --steps {plan.steps} --batch {plan.batch} --rate {plan.rate}"
    how += "" if plan.device == "cpu" else f" --device {plan.device}"
    how += "" if start is None else f" --from {start}"
    (out / "README.md").write_text(CARD.format(right=100 * right, count=count, how=how), encoding="utf-8")
    return right


def run_judge(plan: Plan, out: Path, work: Path, said: Said, count: int = 400) -> float:
    """The judge's weights as `judge.safetensors` in a directory: how many of so many true pictures it has right."""
    for directory in (out, work):
        directory.mkdir(parents=True, exist_ok=True)
    judge = Judge().eval()
    judge.load_state_dict(stage(work, "judge", lambda kept: judge_stage(plan, said, kept), said))
    save_file({name: value.half() for name, value in judge.state_dict().items()}, out / "judge.safetensors")
    known = measure.true(judge, count)
    said(f"The judge has {known.right} of {count} true pictures right: {100 * known.part:.1f} %")
    return known.part


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR", help="where the pipeline is written")
    parser.add_argument("--work", type=Path, help="where stages are kept; DIR-work if not given")
    parser.add_argument(
        "--from", type=Path, dest="start", metavar="DIR", help="go on from a pipeline's weights, without its stages"
    )
    parser.add_argument("--judge", action="store_true", help="train the judge instead, into DIR/judge.safetensors")
    parser.add_argument("--steps", type=int, default=Plan().steps, help="of the transformer")
    parser.add_argument("--batch", type=int, default=Plan().batch, help="pictures in each of them")
    parser.add_argument("--rate", type=float, default=Plan().rate, help="of its learning, the highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make pictures beside the learning")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop then; the same command goes on from there"
    )
    parser.add_argument("--quick", action="store_true", help="every stage with next to no steps")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no such device here")
    plan = QUICK if args.quick else dataclasses.replace(Plan(), steps=args.steps, batch=args.batch, rate=args.rate)
    plan = dataclasses.replace(plan, seed=args.seed, device=args.device, workers=args.workers)
    work = args.work or args.out.with_name(f"{args.out.name}-work")
    Course.until = time.monotonic() + 60 * args.minutes
    try:
        told, count = lambda line: print(line, flush=True), 16 if args.quick else 400
        if args.judge:
            run_judge(plan, args.out, work, told, count)
        else:
            run(plan, args.out, work, told, count, args.start)
    except Stopped as why:
        print(f"Stopped, to be gone on with: {why}")


if __name__ == "__main__":
    main()
