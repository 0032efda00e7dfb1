# SPDX-License-Identifier: Apache-2.0
"""The CLIP Handbook's example of OpenCLIP: features of a picture and of texts, and how probable each text is.

    python examples/clip/open_clip_appetizer.py PICTURE [TEXT ...] [--model RN50] [--pretrained TAG|FILE]
        [--engine mindspore]

The program is one of MindSpore's, whichever engine computes the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mindspore import Tensor, ops
from PIL import Image

from paritas.open_clip.mindspore import create_model_and_transforms, get_tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("texts", nargs="*", default=["a diagram", "a dog", "a cat"])
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--pretrained", default="yfcc15m")
    parser.add_argument("--engine", default=None)
    given = parser.parse_args(arguments)

    model, _, preprocess = create_model_and_transforms(given.model, given.pretrained, engine=given.engine)
    image = Tensor(preprocess(Image.open(given.picture)))
    text = get_tokenizer(given.model)(given.texts)

    image_features = model.encode_image(image)
    text_features = model.encode_text(text)
    image_features /= image_features.norm(dim=-1, keepdim=True)
    text_features /= text_features.norm(dim=-1, keepdim=True)
    text_probs = ops.softmax(100.0 * image_features @ text_features.T, axis=-1)

    print("Label probs:", text_probs.asnumpy())


if __name__ == "__main__":
    main()
