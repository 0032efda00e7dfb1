# SPDX-License-Identifier: Apache-2.0
"""`paritas.clip` for programs of MindSpore: `tokenize` returns its tensors, `preprocess` arrays [1, 3, size, size].

from paritas.clip import mindspore as clip

model, preprocess = clip.load("ViT-B/32", device="CPU")
logits_per_image, logits_per_text = model(Tensor(preprocess(image)), clip.tokenize(["a dog", "a cat"]))
"""

from __future__ import annotations

from paritas.clip import available_models
from paritas.clip.loading import load as _load
from paritas.clip.tokens import tokenize as _tokenize
from paritas.open_clip.foreign import for_mindspore

load = for_mindspore(_load)
tokenize = for_mindspore(_tokenize)

__all__ = ["available_models", "load", "tokenize"]
