# SPDX-License-Identifier: Apache-2.0
"""The pictures of a folder that a text describes best; their features are kept in a file beside the next question.

python examples/clip/retrieval.py FOLDER "a red circle" [--index index.npz] [--model ViT-B-32] [--engine openvino]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from zero_shot import batches, pictures

from paritas import open_clip


def index(model: Any, preprocess: Any, paths: Sequence[Path], batch: int = 32) -> tuple[list[str], Any]:
    """(names, features [pictures, width] of length 1)."""
    names, found = [], []
    with torch.no_grad():
        for read, images in batches(paths, preprocess, batch):
            names += map(str, read)
            found.append(model.encode_image(images, normalize=True).numpy())
    return names, np.concatenate(found)


def search(model: Any, tokenizer: Any, text: str, features: Any, most: int = 5) -> list[tuple[int, float]]:
    """The pictures that fit best, as places in the index, with their cosines."""
    with torch.no_grad():
        wanted = model.encode_text(tokenizer([text]), normalize=True).numpy()[0]
    scores = features @ wanted
    return [(int(place), float(scores[place])) for place in np.argsort(-scores)[:most]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("text")
    parser.add_argument("--index", type=Path, help="a file of features: written if it is not there, else read")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default="laion2b_s34b_b79k")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--most", type=int, default=5)
    given = parser.parse_args(arguments)
    model, _, preprocess = open_clip.create_model_and_transforms(
        given.model, pretrained=given.pretrained, engine=given.engine
    )
    if given.index is not None and given.index.exists():
        kept = np.load(given.index)
        names, features = kept["names"].tolist(), kept["features"]
    else:
        names, features = index(model, preprocess, pictures(given.folder))
        if given.index is not None:
            np.savez(given.index, names=names, features=features)
    for place, score in search(model, open_clip.get_tokenizer(given.model), given.text, features, given.most):
        print(f"{score:.3f}  {names[place]}")


if __name__ == "__main__":
    main()
