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
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from paritas.apps.pixart import networks, scenes
from paritas.apps.pixart.judge import Judge, agree, spoilt

Said = Callable[[str], None]

FOUR_STEPS = (259, 499, 759, 999)
"""The times that four steps of `LCMScheduler` ask the transformer at: it is trained on them more than on others."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is done in each stage."""

    seed: int = 0
    text_steps: int = 600
    crop: int = 64  # of pictures, for the autoencoder
    crop_steps: int = 700
    crop_batch: int = 12
    whole_steps: int = 120  # on whole pictures, at the end
    pictures: int = 2400  # whose latents the transformer sees
    steps: int = 3000
    batch: int = 32
    width: int = 128
    layers: int = 6
    judge_steps: int = 700


QUICK = Plan(text_steps=3, crop=32, crop_steps=2, crop_batch=2, whole_steps=1, pictures=8, steps=2, batch=4,
             width=16, layers=1, judge_steps=2)  # fmt: skip
"""Every stage, and nothing learnt: for tests."""


def steps(count: int, what: str, said: Said, every: float = 10.0) -> Iterator[tuple[int, Callable[[float], None]]]:
    """Counts, and says every so many seconds how far it is, with the mean of what it was told since."""
    start = last = time.monotonic()
    losses: list[float] = []
    for step in range(count):
        yield step, losses.append
        now = time.monotonic()
        if now - last > every or step == count - 1:
            mean = sum(losses) / max(len(losses), 1)
            said(f"{what}: {step + 1} of {count}, {now - start:.0f} s ({time.process_time():.0f} s), loss {mean:.4f}")
            losses.clear()
            last = now


def rate(step: int, count: int, warm: int = 100) -> float:
    """The learning rate as a part of the highest: up in a line, down as a cosine."""
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / count) + 0.01)


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


def text_stage(plan: Plan, said: Said) -> dict[str, torch.Tensor]:
    """The text encoder's weights: from each word can be read what it is about."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng([plan.seed, 1])
    words = networks.tokenizer()
    encoder = networks.text_encoder(len(words))
    heads = nn.Linear(networks.TEXT_WIDTH, sum(_READ))
    optimizer = adam((encoder.parameters(), 4e-3), (heads.parameters(), 4e-3))
    for step, tell in steps(plan.text_steps, "text encoder", said):
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
        tell(fit(optimizer, mistakes(heads(hidden), labels, _READ), rate(step, plan.text_steps)))
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


def crops_stage(plan: Plan, said: Said) -> dict[str, torch.Tensor]:
    """The autoencoder's weights after parts of pictures, which are quick to learn from."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng([plan.seed, 2])
    vae = networks.autoencoder().to(memory_format=torch.channels_last)
    anchor(vae)
    optimizer = adam((vae.parameters(), 3e-3))
    for step, tell in steps(plan.crop_steps, "autoencoder", said):
        drawn = [_crop(scenes.picture(scenes.draw(rng), rng), plan.crop, rng) for _ in range(plan.crop_batch)]
        tell(fit(optimizer, _unlike(vae, pixels(drawn)), rate(step, plan.crop_steps)))
    return vae.state_dict()


def autoencoder_stage(plan: Plan, weights: dict[str, torch.Tensor], said: Said) -> dict[str, torch.Tensor]:
    """The autoencoder's weights after whole pictures, whose normalised activations are others than those of parts."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng([plan.seed, 8])
    vae = networks.autoencoder().to(memory_format=torch.channels_last)
    vae.load_state_dict(weights)
    optimizer = adam((vae.parameters(), 2e-3))
    for step, tell in steps(plan.whole_steps, "autoencoder, whole pictures", said):
        given = pixels([scenes.picture(scenes.draw(rng), rng) for _ in range(2)])
        tell(fit(optimizer, _unlike(vae, given), rate(step, plan.whole_steps, warm=20)))
    return vae.state_dict()


@torch.no_grad()
def anchor(vae: Any, height: float = 6.0) -> None:
    """Give each convolution two channels that are all but constant, one high and one low, before it has learnt.

    A group norm divides by what is in all of a picture: a shape would have another colour beside another one. Where
    most of the variance is a constant, it divides by that, in a part of a picture as in the whole.
    """
    for name, module in vae.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.mul_(height * (2 / module.num_channels) ** 0.5)
        elif (
            isinstance(module, nn.Conv2d)
            and module.bias is not None
            and not name.endswith(("conv_out", "quant_conv", "conv2"))
        ):
            module.bias[0] += height
            module.bias[1] -= height


def _unlike(vae: Any, given: torch.Tensor) -> torch.Tensor:
    """How unlike pictures [batch, 3, height, width] what their latents give is: shapes count more than background."""
    given = given.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(given).latent_dist
        got = vae.decode(posterior.sample()).sample.float()
    weight = 1 + 4 * (given != given[:, :, :1, :1]).any(1, keepdim=True).float()
    off = got - given
    loss = (weight * (off.abs() + 2 * off.square())).sum() / (3 * weight.sum())
    return loss + 2e-5 * posterior.kl().mean() / posterior.mean[0].numel()


def _crop(picture: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of a picture, around something that it shows."""
    shown = np.argwhere((picture[::4, ::4] != picture[0, 0]).any(-1)) * 4
    centre = shown[rng.integers(len(shown))] + rng.integers(-side // 3, side // 3 + 1, 2)
    top, left = np.clip(centre - side // 2, 0, np.array(picture.shape[:2]) - side)
    return picture[top : top + side, left : left + side]


@torch.no_grad()
def whiten(vae: Any, pictures: torch.Tensor) -> None:
    """Give the latents of an autoencoder mean 0 and variance 1, channel by channel, by its 1x1 convolutions alone."""
    mean = vae.encode(pictures).latent_dist.mean
    shift, scale = mean.mean((0, 2, 3)), mean.std((0, 2, 3))
    before, after, count = vae.quant_conv, vae.post_quant_conv, len(shift)
    before.weight[:count] /= scale[:, None, None, None]
    before.bias[:count] = (before.bias[:count] - shift) / scale
    before.bias[count:] -= 2 * scale.log()  # the logarithm of the variance
    after.bias += after.weight[:, :, 0, 0] @ shift
    after.weight *= scale[None, :, None, None]


# --- latents and the transformer ------------------------------------------------------------------------------


@torch.no_grad()
def latents_stage(plan: Plan, weights: dict[str, torch.Tensor], said: Said) -> dict[str, Any]:
    """The autoencoder, whitened, and of pictures the latents, float32 [pictures, 4, 32, 32], with what they show."""
    rng = np.random.default_rng([plan.seed, 3])
    vae = networks.autoencoder()
    vae.load_state_dict(weights)
    drawn = [scenes.draw(rng) for _ in range(plan.pictures)]
    whiten(vae, pixels([scenes.picture(scene, rng) for scene in drawn[:64]]))
    vae.to(memory_format=torch.channels_last)
    parts = [drawn[start : start + 8] for start in range(0, len(drawn), 8)]
    found = []
    for step, _ in steps(len(parts), "latents", said):
        given = pixels([scenes.picture(scene, rng) for scene in parts[step]]).contiguous(
            memory_format=torch.channels_last
        )
        with torch.autocast("cpu", torch.bfloat16):
            found.append(vae.encode(given).latent_dist.mean.float())
    return {
        "vae": {name: value.contiguous() for name, value in vae.state_dict().items()},
        "latents": torch.cat(found).contiguous(),
        "scenes": [dataclasses.astuple(scene) for scene in drawn],
    }


def shown(value: Any) -> scenes.Scene:
    """A scene of what `dataclasses.astuple` made of it."""
    layout, first, second, size, background = value
    return scenes.Scene(layout, scenes.Thing(*first), second and scenes.Thing(*second), size, background)


class Mixer:
    """More pictures than were encoded: of two with two things each, half of one goes beside half of the other."""

    def __init__(self, latents: torch.Tensor, drawn: list[scenes.Scene]) -> None:
        self.latents, self.drawn = latents, drawn
        self.alike: dict[tuple[str, str], list[int]] = {}
        for index, scene in enumerate(drawn):
            self.alike.setdefault((scene.layout, scene.background), []).append(index)

    def draw(self, rng: np.random.Generator) -> tuple[scenes.Scene, torch.Tensor]:
        """A scene that is not held out, and its latents [4, 32, 32], moved by up to a place in each direction."""
        one = int(rng.integers(len(self.drawn)))
        scene, latents = self.drawn[one], self.latents[one]
        if scene.second and rng.random() < 0.8:
            alike = self.alike[scene.layout, scene.background]
            other = alike[rng.integers(len(alike))]
            mixed = dataclasses.replace(scene, second=self.drawn[other].second)
            if not mixed.held_out and mixed.first != mixed.second:
                across = 2 if scene.layout == "beside" else 1
                half = latents.shape[across] // 2
                halves = latents.narrow(across, 0, half), self.latents[other].narrow(across, half, half)
                scene, latents = mixed, torch.cat(halves, across)
        # What leaves at one border comes in at the other, where it is background as well.
        return scene, latents.roll(tuple(int(step) for step in rng.integers(-1, 2, 2)), (1, 2))


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


def transformer_stage(
    plan: Plan, text: dict[str, torch.Tensor], data: dict[str, Any], said: Said, kept: Path | None = None
) -> dict[str, Any]:
    """The weights of the transformer, and of the text encoder beside it. kept: where a stopped run goes on from."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng([plan.seed, 4])
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
    mixer = Mixer(data["latents"], [shown(value) for value in data["scenes"]])
    begun = 0
    if kept is not None and kept.exists():
        state = torch.load(kept, weights_only=True)
        begun, average.count = state["step"], state["step"] // 4
        both.load_state_dict(state["weights"])
        average.weights = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        rng = np.random.default_rng([plan.seed, 4, begun])
    torch_functions: Any = F
    attention = torch_functions.scaled_dot_product_attention
    torch_functions.scaled_dot_product_attention = _attention
    try:
        for step, tell in steps(plan.steps - begun, "transformer", said):
            step += begun
            chosen = [mixer.draw(rng) for _ in range(plan.batch)]
            captions = [
                "" if rng.random() < 0.1 else scenes.caption(scene, rng, bool(rng.random() < 0.08))
                for scene, _ in chosen
            ]
            ids, mask = networks.tokens(words, captions, 24)
            clean = torch.stack([picture for _, picture in chosen])
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
            tell(fit(optimizer, (weight * off).mean(), rate(step, plan.steps, warm=200)))
            if step % 4 == 3:
                average.update()
            if kept is not None and (step + 1) % 250 == 0:
                torch.save(
                    {"step": step + 1, "weights": both.state_dict(), "average": average.weights,
                     "optimizer": optimizer.state_dict()}, kept,
                )  # fmt: skip
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


def judge_stage(plan: Plan, said: Said) -> dict[str, torch.Tensor]:
    """The weights of the judge, which sees every scene, and none that the model has drawn."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng([plan.seed, 5])
    judge = Judge().train()
    optimizer = adam((judge.parameters(), 2e-3), decay=0.01)
    for step, tell in steps(plan.judge_steps, "judge", said):
        drawn = [scenes.draw(rng, held_out=bool(rng.random() < 0.1)) for _ in range(24)]
        given = spoilt(pixels([scenes.picture(scene, rng) for scene in drawn]), rng)
        loss = mistakes(judge(given), torch.tensor([scene.labels for scene in drawn]), scenes.LABELS)
        tell(fit(optimizer, loss, rate(step, plan.judge_steps)))
    return judge.state_dict()


@torch.no_grad()
def judged(judge: Judge, plan: Plan, count: int = 400) -> float:
    """The part of new pictures, made as those to train on, that the judge has right."""
    rng = np.random.default_rng([plan.seed, 6])
    drawn = [scenes.draw(rng, held_out=True) for _ in range(count)]
    return float(np.mean(agree(judge(pixels([scenes.picture(scene, rng) for scene in drawn])), drawn)))


# --- the run --------------------------------------------------------------------------------------------------


def pipeline(plan: Plan, data: dict[str, Any], trained: dict[str, Any]) -> Any:
    """The `PixArtAlphaPipeline` of what was trained, with the scheduler that needs few steps."""
    from diffusers import LCMScheduler, PixArtAlphaPipeline

    words = networks.tokenizer()
    both = nn.ModuleDict(
        {"text": networks.text_encoder(len(words)), "transformer": networks.transformer(plan.width, plan.layers)}
    )
    both.load_state_dict(trained)
    vae = networks.autoencoder()
    vae.register_to_config(scaling_factor=1.0)
    vae.load_state_dict(data["vae"])
    scheduler = LCMScheduler.from_config(networks.noise_schedule().config)
    return PixArtAlphaPipeline(words, both["text"].eval(), vae.eval(), both["transformer"].eval(), scheduler)


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


@torch.no_grad()
def accuracy(pipe: Any, judge: Judge, count: int, said: Said, seed: int = 0, **options: Any) -> float:
    """The part of held-out captions of which the pipeline draws what they say. options: of the pipeline's call."""
    rng = np.random.default_rng([seed, 7])
    pipe.set_progress_bar_config(disable=True)
    right: list[bool] = []
    for start in range(0, count, 16):
        drawn = [scenes.draw(rng, held_out=True) for _ in range(min(16, count - start))]
        captions = [scenes.caption(scene, rng) for scene in drawn]
        generator = torch.Generator().manual_seed(seed + start)
        made = pipe(captions, generator=generator, output_type="pt", clean_caption=False, **options).images
        right += agree(judge(2 * made.float() - 1), drawn)
    said(f"{sum(right)} of {count} held-out captions are drawn right: {100 * np.mean(right):.1f} %")
    return float(np.mean(right))


def stage(work: Path, name: str, make: Callable[[], Any], said: Said) -> Any:
    """What a stage has made, or what a run before has."""
    path = work / f"{name}.pt"
    if path.exists():
        said(f"{name}: from {path}")
        return torch.load(path, weights_only=True)
    made = make()
    torch.save(made, path)
    return made


def run(plan: Plan, out: Path, work: Path, said: Said, count: int = 400) -> float:
    """All stages, and the pipeline's directory: the accuracy on so many held-out captions."""
    work.mkdir(parents=True, exist_ok=True)
    crops = stage(work, "crops", lambda: crops_stage(plan, said), said)
    vae = stage(work, "vae", lambda: autoencoder_stage(plan, crops, said), said)
    text = stage(work, "text", lambda: text_stage(plan, said), said)
    data = stage(work, "latents", lambda: latents_stage(plan, vae, said), said)
    trained = stage(
        work, "transformer", lambda: transformer_stage(plan, text, data, said, work / "transformer_begun.pt"), said
    )
    judge = Judge().eval()
    judge.load_state_dict(stage(work, "judge", lambda: judge_stage(plan, said), said))
    pipe = pipeline(plan, data, trained)
    said(f"{save(pipe, out)} bytes in {out}")
    said(f"The judge has {100 * judged(judge, plan):.1f} % of new pictures right.")
    return accuracy(pipe, judge, count, said, num_inference_steps=4, guidance_scale=0.0)


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR", help="where the pipeline is written")
    parser.add_argument("--work", type=Path, help="where stages are kept; DIR-work if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="every stage with next to no steps")
    args = parser.parse_args()
    plan = dataclasses.replace(QUICK if args.quick else Plan(), seed=args.seed)
    work = args.work or args.out.with_name(f"{args.out.name}-work")
    run(plan, args.out, work, lambda line: print(line, flush=True), count=16 if args.quick else 400)


if __name__ == "__main__":
    main()
