# SPDX-License-Identifier: Apache-2.0
"""A classifier on CLIP's features, by scikit-learn: a folder for each class, some to learn, some to ask.

    python examples/clip/linear_probe.py FOLDER [--model ViT-B-32] [--pretrained TAG|FILE] [--engine openvino]

FOLDER has train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from zero_shot import batches, pictures

from paritas import open_clip


def features(model: Any, preprocess: Any, folder: Path, batch: int = 32) -> tuple[Any, list[str]]:
    """(features [pictures, width], the folder of each) of a folder of folders."""
    found, names = [], []
    with torch.no_grad():
        for paths, images in batches(pictures(folder), preprocess, batch):
            found.append(model.encode_image(images).numpy())
            names += [path.relative_to(folder).parts[0] for path in paths]
    return np.concatenate(found), names


def probe(model: Any, preprocess: Any, folder: Path, strength: float = 0.316) -> tuple[float, Any]:
    """(the share of test pictures that is recognised, the classifier). strength: OpenAI's C for ImageNet."""
    learnt, classes = features(model, preprocess, folder / "train")
    classifier = LogisticRegression(random_state=0, C=strength, max_iter=1000).fit(learnt, classes)
    asked, wanted = features(model, preprocess, folder / "test")
    return float(np.mean(classifier.predict(asked) == np.array(wanted))), classifier


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default="laion2b_s34b_b79k")
    parser.add_argument("--engine", default=None)
    given = parser.parse_args(arguments)
    model, _, preprocess = open_clip.create_model_and_transforms(
        given.model, pretrained=given.pretrained, engine=given.engine
    )
    share, classifier = probe(model, preprocess, given.folder)
    print(f"{share:.1%} of {given.folder / 'test'} are recognised, of {len(classifier.classes_)} classes")


if __name__ == "__main__":
    main()
