# SPDX-License-Identifier: Apache-2.0
"""Trains the small model: `python -m paritas.apps.pixart.train DIR`, without a network and on a CPU.

The stages, each kept in `--work`, so that a run that was stopped goes on: the text encoder learns to say what each word
is about, the autoencoder to draw parts of pictures, the transformer to make latents out of noise, the judge to tell
what a picture shows. The same seed gives the same weights on the same machine and number of threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from paritas.apps.pixart import autoencoder, networks, scenes
from paritas.apps.pixart.judge import Judge, agree, spoilt
from paritas.apps.pixart.measure import accuracy

Said = Callable[[str], None]

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
    steps: int = 7000
    more_steps: int = 1800  # the rate goes up once more, half as high
    batch: int = 32
    width: int = 128
    layers: int = 6
    judge_steps: int = 700


QUICK = Plan(text_steps=3, crop=32, crop_steps=2, crop_batch=2, rough_steps=1, steps=2, more_steps=1, batch=4,
             width=16, layers=1, judge_steps=2)  # fmt: skip
"""Every stage, and nothing learnt: for tests."""


class Stopped(Exception):
    """The time of a run is over before it is done."""


class Course:
    """The steps of a stage, said every so many seconds; what is learnt is kept, so that a stopped run goes on from it.

    Each step draws from generators of its own: a run that was stopped gives the weights of one that was not.
    """

    until: ClassVar[float] = math.inf
    """When to stop, of `time.monotonic`: what was learnt is kept, and the next run goes on from it."""

    def __init__(self, name: str, count: int, seed: tuple[int, int], said: Said, kept: Path | None = None) -> None:
        self.name, self.count, self.seed, self.said, self.kept = name, count, seed, said, kept
        self.losses: list[float] = []

    def steps(self, every: float = 10.0, **learnt: Any) -> Iterator[tuple[int, np.random.Generator]]:
        """The steps that are left, each with its generator. learnt: modules, optimizers, averages, by names."""
        begun = self._begun(learnt)
        start = last = saved = time.monotonic()
        for step in range(begun, self.count):
            torch.manual_seed(self.seed[0] * 1_000_003 + self.seed[1] * 100_003 + step)
            yield step, np.random.default_rng([*self.seed, step])
            now = time.monotonic()
            if now - last > every or step == self.count - 1:
                mean = sum(self.losses) / max(len(self.losses), 1)
                spent = f"{now - start:.0f} s ({time.process_time():.0f} s)"
                self.said(f"{self.name}: {step + 1} of {self.count}, {spent}, loss {mean:.4f}")
                self.losses.clear()
                last = now
            ends = now > self.until and step < self.count - 1
            if self.kept is not None and (ends or now - saved > 3 * every):
                beside = self.kept.with_suffix(".new")
                torch.save({"step": step + 1} | {name: part.state_dict() for name, part in learnt.items()}, beside)
                beside.replace(self.kept)
                saved = now
            if ends:
                raise Stopped(f"{self.name}: {step + 1} of {self.count} steps are done")

    def _begun(self, learnt: dict[str, Any]) -> int:
        if self.kept is None or not self.kept.exists():
            return 0
        state = torch.load(self.kept, weights_only=True)
        for name, part in learnt.items():
            part.load_state_dict(state[name])
        return int(state["step"])


def rate(step: int, count: int, warm: int = 100) -> float:
    """The learning rate as a part of the highest: up in a line, down as a cosine."""
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / count) + 0.01)


def late(step: int, count: int, warm: int = 200, falls: float = 0.3) -> float:
    """As `rate`, but the highest until the last part of the steps: what is slow to be found has time."""
    return min((step + 1) / warm, (count - step) / (falls * count), 1.0)


def fit(optimizer: Any, loss: torch.Tensor, part: float) -> float:
    """One step of an optimizer, at a part of its learning rate: the loss."""
    for group in optimizer.param_groups:
        group["lr"] = part * group["initial_lr"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return float(loss.detach())


def adam(*groups: tuple[Any, float], decay: float = 0.0) -> Any:
    """AdamW; groups: parameters with the highest learning rate of each."""
    return torch.optim.AdamW(
        [{"params": list(params), "lr": lr, "initial_lr": lr} for params, lr in groups],
        betas=(0.9, 0.99),
        fused=True,
        weight_decay=decay,
    )


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
    encoder = networks.text_encoder(len(words))
    heads = nn.Linear(networks.TEXT_WIDTH, sum(_READ))
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
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        loss = mistakes(heads(hidden), labels, _READ)
        course.losses.append(fit(optimizer, loss, rate(step, plan.text_steps)))
    return encoder.state_dict()


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
    vae.to(memory_format=torch.channels_last)
    optimizer = adam((vae.decoder.parameters(), 2e-3))
    average = Average(vae)
    for step, rng in course.steps(vae=vae, optimizer=optimizer, average=average):
        given = pixels([scenes.part(rng, plan.crop) for _ in range(plan.crop_batch)])
        squares = spoil(autoencoder.averages(given)).contiguous(memory_format=torch.channels_last)
        coarse = F.interpolate(F.avg_pool2d(given, 8), scale_factor=8.0)
        weight = 1 + 8 * (given - coarse).abs().mean(1, keepdim=True)  # what is not seen in the averages: edges
        with torch.autocast("cpu", torch.bfloat16):
            got = vae.decode(squares).sample
        off = got.float() - given
        loss = (weight * (off.abs() + 2 * off.square())).mean()
        course.losses.append(fit(optimizer, loss, rate(step, course.count)))
        autoencoder.hold(vae)
        if step % 4 == 3:
            average.update()
    return {name: value.contiguous() for name, value in average.weights.items()}


def noise(latents: torch.Tensor) -> torch.Tensor:
    """Of each picture as much as it happens: latents [batch, channels, rows, columns]."""
    return torch.rand(len(latents), 1, 1, 1) * torch.randn(latents.shape)


def rough(latents: torch.Tensor) -> torch.Tensor:
    """Latents with what a transformer gets wrong: noise, soft edges, colours that change from token to token."""
    count, channels, rows, columns = latents.shape
    soft = F.avg_pool2d(F.pad(latents, (1, 1, 1, 1), mode="replicate"), 3, 1)
    latents = latents.lerp(soft, 0.7 * torch.rand(count, 1, 1, 1))
    row, column = (torch.arange(size) >= torch.randint(size, (1,)) for size in (rows, columns))
    colours = 0.3 * noise(torch.empty(count, channels, 2, 2))
    return latents + colours[:, :, row.long()][..., column.long()] + 0.3 * noise(latents)


# --- the transformer ------------------------------------------------------------------------------------------


def latents(drawn: list[scenes.Scene], rng: np.random.Generator) -> torch.Tensor:
    """The latents of a picture of each scene, float32 [scenes, 3, 32, 32]: of half the pixels, which is quicker."""
    side = 2 * networks.LATENTS
    return autoencoder.averages(pixels([scenes.picture(scene, rng, side, side) for scene in drawn]), 2)


class Average:
    """An exponential moving average of a module's weights, short at first."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.count = module, 0
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        keep = min(0.99, self.count / (self.count + 10))
        for name, value in self.module.state_dict().items():
            self.weights[name].lerp_(value, 1 - keep)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.weights = state["count"], state["weights"]


def transformer_stage(
    plan: Plan, text: dict[str, torch.Tensor], said: Said, kept: Path | None = None
) -> dict[str, Any]:
    """The weights of the transformer, and of the text encoder beside it. kept: where a stopped run goes on from."""
    torch.manual_seed(plan.seed)
    words = networks.tokenizer()
    both = nn.ModuleDict(
        {"text": networks.text_encoder(len(words)), "transformer": networks.transformer(plan.width, plan.layers)}
    )
    both["text"].load_state_dict(text)
    calm(both["transformer"])
    average = Average(both)
    both["text"].requires_grad_(False)  # it says all that there is to be said
    optimizer = adam((both["transformer"].parameters(), 2e-3), decay=0.01)
    signal = networks.noise_schedule().alphas_cumprod
    torch_functions: Any = F
    attention = torch_functions.scaled_dot_product_attention
    torch_functions.scaled_dot_product_attention = _attention
    try:
        course = Course("transformer", plan.steps + plan.more_steps, (plan.seed, 4), said, kept)
        for step, rng in course.steps(both=both, average=average, optimizer=optimizer):
            more = step >= plan.steps  # what is rare is seen oftener then
            drawn = [scenes.draw(rng, even=more and rng.random() < 0.35) for _ in range(plan.batch)]
            captions = [
                "" if rng.random() < 0.1 else scenes.caption(scene, rng, bool(rng.random() < 0.08)) for scene in drawn
            ]
            ids, mask = networks.tokens(words, captions, 24)
            clean = latents(drawn, rng)
            time_ = torch.from_numpy(
                np.where(
                    rng.random(plan.batch) < 0.6,
                    rng.choice(FOUR_STEPS, plan.batch),
                    rng.integers(1000, size=plan.batch),
                )
            )
            a = signal[time_][:, None, None, None]
            noisy = a.sqrt() * clean + (1 - a).sqrt() * torch.randn(clean.shape)
            with torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    hidden = both["text"](input_ids=ids, attention_mask=mask).last_hidden_state
                got = both["transformer"](
                    noisy, encoder_hidden_states=hidden, timestep=time_, encoder_attention_mask=mask, return_dict=False
                )[0].float()
            off = (got - clean).square().mean((1, 2, 3))
            weight = (a / (1 - a)).flatten().clamp(1, 5)  # what is nearly clean has to become clean
            part = (course.count - step) / (2 * plan.more_steps) if more else late(step, plan.steps)
            course.losses.append(fit(optimizer, (weight * off).mean(), part))
            if step % 4 == 3:
                average.update()
    finally:
        torch_functions.scaled_dot_product_attention = attention
    return average.weights


def calm(transformer: Any) -> None:
    """A start from which a transformer learns fast: time does nothing yet, and the answer is 0."""
    for layer in (transformer.adaln_single.linear, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> torch.Tensor:
    # torch 2.13 differentiates its own in bfloat16 on a CPU ten times as slowly as everything else together.
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


@torch.no_grad()
def judged(judge: Judge, plan: Plan, count: int = 400) -> float:
    """The part of new pictures, made as those to train on, that the judge has right."""
    rng = np.random.default_rng([plan.seed, 6])
    drawn = [scenes.draw(rng, held_out=True) for _ in range(count)]
    return float(np.mean(agree(judge(pixels([scenes.picture(scene, rng) for scene in drawn])), drawn)))


# --- the run --------------------------------------------------------------------------------------------------


def pipeline(plan: Plan, vae_weights: dict[str, Any], trained: dict[str, Any]) -> Any:
    """The `PixArtAlphaPipeline` of what was trained, with the scheduler that needs few steps."""
    from diffusers import LCMScheduler, PixArtAlphaPipeline

    words = networks.tokenizer()
    both = nn.ModuleDict(
        {"text": networks.text_encoder(len(words)), "transformer": networks.transformer(plan.width, plan.layers)}
    )
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
`python -m paritas.apps.pixart.train DIR --seed {seed}`.

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


def run(plan: Plan, out: Path, work: Path, said: Said, count: int = 400) -> float:
    """All stages, and the pipeline's directory: the accuracy on so many held-out captions."""
    work.mkdir(parents=True, exist_ok=True)
    plain = stage(work, "vae", lambda kept: decoder_stage(plan, said, kept), said)
    vae = stage(work, "rough", lambda kept: rough_stage(plan, plain, said, kept), said)
    text = stage(work, "text", lambda kept: text_stage(plan, said, kept), said)
    trained = stage(work, "transformer", lambda kept: transformer_stage(plan, text, said, kept), said)
    judge = Judge().eval()
    judge.load_state_dict(stage(work, "judge", lambda kept: judge_stage(plan, said, kept), said))
    save_file({name: value.half() for name, value in judge.state_dict().items()}, work / "judge.safetensors")
    pipe = pipeline(plan, vae, trained)
    said(f"{save(pipe, out)} bytes in {out}")
    said(f"The judge has {100 * judged(judge, plan):.1f} % of new pictures right.")
    right = accuracy(pipe, judge, count, said)
    (out / "README.md").write_text(CARD.format(right=100 * right, count=count, seed=plan.seed), encoding="utf-8")
    return right


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR", help="where the pipeline is written")
    parser.add_argument("--work", type=Path, help="where stages are kept; DIR-work if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop then; the same command goes on from there"
    )
    parser.add_argument("--quick", action="store_true", help="every stage with next to no steps")
    args = parser.parse_args()
    plan = dataclasses.replace(QUICK if args.quick else Plan(), seed=args.seed)
    work = args.work or args.out.with_name(f"{args.out.name}-work")
    Course.until = time.monotonic() + 60 * args.minutes
    try:
        run(plan, args.out, work, lambda line: print(line, flush=True), count=16 if args.quick else 400)
    except Stopped as why:
        print(f"Stopped, to be gone on with: {why}")


if __name__ == "__main__":
    main()
