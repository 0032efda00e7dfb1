# SPDX-License-Identifier: Apache-2.0
"""The CLIP Handbook's first example: how probable each text is for a picture, by OpenAI's interface.

    python examples/clip/appetizer.py PICTURE [TEXT ...] [--model ViT-B/32|FILE] [--engine mindspore]

The program is one of MindSpore's, whichever engine computes the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindspore import Tensor, nn
from PIL import Image

from paritas.clip import mindspore as clip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("texts", nargs="*", default=["a diagram", "a dog", "a cat"])
    parser.add_argument("--model", default="ViT-B/32", help=f"a file, or one of {', '.join(clip.available_models())}")
    parser.add_argument("--engine", default=None)
    given = parser.parse_args(arguments)

    model, preprocess = clip.load(given.model, device="CPU", engine=given.engine)
    image = Tensor(preprocess(Image.open(given.picture)))
    text = clip.tokenize(given.texts)

    logits_per_image, _ = model(image, text)
    probs = nn.Softmax(axis=-1)(logits_per_image).asnumpy()

    print("Label probs:", probs)


if __name__ == "__main__":
    main()
