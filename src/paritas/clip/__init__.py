# SPDX-License-Identifier: Apache-2.0
"""OpenAI's CLIP with its towers on an engine, by the interface of its own package.

    from paritas import clip

    model, preprocess = clip.load("ViT-B/32", device="cpu")
    logits_per_image, logits_per_text = model(preprocess(image).unsqueeze(0), clip.tokenize(["a dog", "a cat"]))

The models, tokens and transforms are those that open_clip has for OpenAI's weights: none of their code is ours.
`paritas.clip.mindspore` is the same with tokens and pictures of MindSpore.
"""

from __future__ import annotations

from paritas.extras import require
from paritas.mending import mend_torchvision

require("port", "paritas.clip")
require("clip", "paritas.clip")
mend_torchvision()

from paritas.clip.loading import available_models, load  # noqa: E402
from paritas.clip.tokens import tokenize  # noqa: E402

__all__ = ["available_models", "load", "tokenize"]
