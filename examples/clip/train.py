# SPDX-License-Identifier: Apache-2.0
"""A small CLIP learns captioned pictures, by open_clip's own training, and is asked about others that were held out.

    python examples/clip/train.py FOLDER [--engine mindspore] [--epochs 8] [--pictures 6400]

Pictures of shapes, each with a caption, are drawn into FOLDER, with the lists that open_clip trains from: of a thing in
a colour, somewhere, in front of something; three of ten captions name the thing alone. A tenth of all things in places
is never trained on. In the end the model says of each held-out picture which of forty things it shows, of one in forty
by chance, and which of all held-out scenes is its own, of one in a hundred. Losses are in FOLDER/logs/ENGINE/out.log;
runs of two engines with one seed have the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from paritas import open_clip
from paritas.apps.pixart import scenes
from paritas.open_clip.training import train

#: As open_clip's files of configurations have them.
SMALL: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}

SIZE = SMALL["vision_cfg"]["image_size"]

#: What a held-out picture may show, as texts.
THINGS = [f"{colour} {shape}" for colour in scenes.COLOURS for shape in scenes.SHAPES]
TEMPLATES = [
    lambda thing: f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}",
    *(lambda thing, ground=ground: f"{TEMPLATES[0](thing)} on a {ground} background" for ground in scenes.BACKGROUNDS),
]

#: The share of captions that name a thing, and neither where it is nor before what.
SHORT = 0.3


def caption(scene: scenes.Scene, rng: np.random.Generator) -> str:
    """What is said of a scene."""
    return TEMPLATES[0](thing(scene)) if rng.random() < SHORT else scenes.caption(scene, rng)


def thing(scene: scenes.Scene) -> str:
    """What a scene shows: one of `THINGS`."""
    return f"{scene.first.colour} {scene.first.shape}"


def whole(scene: scenes.Scene) -> str:
    """Of the captions that say all of a scene, always the same one."""
    return scenes.caption(scene, np.random.default_rng(0))


def draw(folder: Path, count: int, seed: int, held_out: bool = False) -> Path:
    """Pictures of one thing each, and a list of them with captions, what they show and all that there is to say: a file
    as open_clip reads it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    while len(rows) < count:
        scene = scenes.draw(rng, held_out=held_out, even=True)
        if scene.layout not in scenes.PLACES:
            continue
        place = folder / f"{len(rows):05}.png"
        Image.fromarray(scenes.picture(scene, rng, SIZE, SIZE)).save(place)
        rows.append((str(place), caption(scene, rng), thing(scene), whole(scene)))
    listed = folder / "pairs.tsv"
    with listed.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("filepath", "title", "thing", "whole"), *rows])
    return listed


def measure(model: Any, preprocess: Any, pairs: Path, engine: str) -> dict[str, float]:
    """Shares of held-out pictures of which the model says the thing, and the scene among all that are held out."""
    with pairs.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    tokenizer = open_clip.get_tokenizer("small")
    model = open_clip.port_model(model.eval(), engine)
    captions = list(dict.fromkeys(row["whole"] for row in rows))
    with torch.no_grad():
        images = torch.cat(
            [
                model.encode_image(
                    torch.stack([preprocess(Image.open(row["filepath"])) for row in rows[at : at + 100]]),
                    normalize=True,
                )
                for at in range(0, len(rows), 100)
            ]
        )
        things = open_clip.build_zero_shot_classifier(model, tokenizer, THINGS, TEMPLATES)
        texts = model.encode_text(tokenizer(captions), normalize=True)
    said, own = (images @ things).argmax(dim=1).tolist(), (images @ texts.T).argmax(dim=1).tolist()
    return {
        "thing": sum(THINGS[a] == row["thing"] for a, row in zip(said, rows, strict=True)) / len(rows),
        "caption": sum(captions[a] == row["whole"] for a, row in zip(own, rows, strict=True)) / len(rows),
    }


def losses(log: Path) -> list[float]:
    """The loss of every step, as open_clip's training has written it."""
    return [float(found) for found in re.findall(r" Loss: (\S+) \(", log.read_text())]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", default="mindspore")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=6400)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=1)
    given, more = parser.parse_known_args(arguments)
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pairs, held_out = folder / "train" / "pairs.tsv", folder / "held out" / "pairs.tsv"
    if not held_out.is_file():
        draw(pairs.parent, given.pictures, seed=0)
        draw(held_out.parent, given.held_out, seed=1, held_out=True)
    config = folder / "small.json"
    config.write_text(json.dumps(SMALL))
    train(
        [
            *("--model", str(config), "--train-data", str(pairs), "--dataset-type", "csv", "--name", given.engine),
            *("--logs", str(folder / "logs"), "--epochs", str(given.epochs), "--batch-size", str(given.batch)),
            *("--lr", str(given.lr), "--wd", "0.1", "--warmup", "40", "--eps", "1e-6", "--workers", str(given.workers)),
            *("--log-every-n-steps", "1", "--aug-cfg", "scale=(0.9,1.0)", "--save-frequency", str(given.epochs)),
            *more,
        ],
        given.engine,
    )
    weights = folder / "logs" / given.engine / "checkpoints" / f"epoch_{given.epochs}.pt"
    model, _, preprocess = open_clip.create_model_and_transforms("small", pretrained=str(weights), engine="torch")
    found = measure(model.in_pytorch(), preprocess, held_out, given.engine)
    curve = losses(folder / "logs" / given.engine / "out.log")
    print(f"{len(curve)} steps, loss {curve[0]:.4f} -> {np.mean(curve[-20:]):.4f}")
    print(f"held out: {found['thing']:.1%} of the things, {found['caption']:.1%} of the scenes")


if __name__ == "__main__":
    main()
