# SPDX-License-Identifier: Apache-2.0
"""ImageNet's classes for a folder of pictures, without training: names and templates become the classifier.

    python examples/clip/zero_shot.py FOLDER [--model ViT-B-32] [--pretrained TAG|FILE] [--engine openvino] [--top 5]

Pictures are read and transformed in threads while the engine computes, a batch at a time: memory does not grow with the
folder. What is no picture is said, and left out.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import tqdm
from PIL import Image

from paritas import open_clip

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def pictures(folder: Path) -> list[Path]:
    """The pictures below a folder, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def batches(paths: Sequence[Path], preprocess: Any, size: int = 32) -> Iterator[tuple[list[Path], torch.Tensor]]:
    """The pictures that can be read, in batches [size, 3, height, width]; the next ones are read meanwhile."""

    def read(path: Path) -> Any:
        try:
            with Image.open(path) as picture:
                return preprocess(picture)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            print(f"{path} is left out: {error}", file=sys.stderr)
            return None

    with ThreadPoolExecutor(2) as pool:
        waiting: collections.deque[tuple[Path, Any]] = collections.deque()
        found: list[tuple[Path, torch.Tensor]] = []
        left = iter(paths)
        while True:
            while len(waiting) < 2 * size and (path := next(left, None)) is not None:
                waiting.append((path, pool.submit(read, path)))
            if not waiting:
                break
            path, image = waiting.popleft()
            if (image := image.result()) is not None:
                found.append((path, image))
            if len(found) == size:
                yield [path for path, _ in found], torch.stack([image for _, image in found])
                found = []
        if found:
            yield [path for path, _ in found], torch.stack([image for _, image in found])


def classify(
    model: Any, preprocess: Any, paths: Sequence[Path], classifier: torch.Tensor, top: int = 5, batch: int = 32
) -> Iterator[tuple[Path, list[tuple[int, float]]]]:
    """Of each picture its most probable classes. classifier: [width, classes], of `build_zero_shot_classifier`."""
    with torch.no_grad(), tqdm.tqdm(total=len(paths), unit="pictures", disable=None) as bar:
        for names, images in batches(paths, preprocess, batch):
            features = model.encode_image(images, normalize=True)
            shares = (100.0 * features @ classifier).softmax(dim=-1).topk(min(top, classifier.shape[1]))
            for name, values, places in zip(names, shares.values.tolist(), shares.indices.tolist(), strict=True):
                yield name, list(zip(places, values, strict=True))
            bar.update(len(names))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default="laion2b_s34b_b79k")
    parser.add_argument("--engine", default=None)
    parser.add_argument("--classes", nargs="*", default=None, help="names; ImageNet's thousand if not given")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args(arguments)
    paths = pictures(given.folder)
    if not paths:
        parser.error(f"{given.folder} has no pictures ({', '.join(SUFFIXES)})")
    model, _, preprocess = open_clip.create_model_and_transforms(
        given.model, pretrained=given.pretrained, engine=given.engine
    )
    names = given.classes or open_clip.IMAGENET_CLASSNAMES
    templates = open_clip.SIMPLE_IMAGENET_TEMPLATES
    classifier = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(given.model), names, templates, use_tqdm=sys.stderr.isatty()
    )
    for path, found in classify(model, preprocess, paths, classifier, given.top, given.batch):
        print(f"{path}: " + ", ".join(f"{names[place]} {share:.1%}" for place, share in found))


if __name__ == "__main__":
    main()
