# SPDX-License-Identifier: Apache-2.0
"""A CLIP model on an engine that is asked which caption is whose picture's, and which part of the picture says so."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from paritas.errors import InputError
from paritas.run.engine import about, default_engine, engines

Floats = np.ndarray[Any, np.dtype[np.float32]]

#: How many pictures, captions and letters of a caption there may be.
PICTURES, CAPTIONS, LETTERS = 24, 32, 400

#: Parts of a side that are covered, one after the other.
PARTS = 7

_BATCH = 16


class Matcher:
    """A model with its tokenizer and transform. engines: (label, name) of those that can be chosen.

    Raises what `paritas.open_clip.create_model` raises.
    """

    def __init__(self, name: str, pretrained: str = "", engine: str | None = None) -> None:
        from paritas import open_clip

        self.name, self.pretrained = name, pretrained
        self.engine = about(engine or default_engine()).name
        options: dict[str, Any] = {"pretrained": pretrained or None, "engine": self.engine}
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name, **options)
        self.tokenizer = open_clip.get_tokenizer(name)
        self.engines = [(about(one).label, one) for one, found in engines().items() if found.available]
        self._ported: dict[str, Any] = {self.engine: self.model}
        self._lock = threading.RLock()

    def on(self, engine: str) -> Any:
        """The model on an engine; of one network several share no port, but they share their weights in PyTorch."""
        with self._lock:
            if engine not in self._ported:
                from paritas.open_clip.networks import attach

                self._ported[engine] = attach(self.model.in_pytorch(), engine=engine)
            return self._ported[engine]

    def features(self, pictures: Sequence[Any], engine: str = "") -> torch.Tensor:
        """Of pictures of `PIL.Image`: [pictures, width], of length 1."""
        return self._encoded([self.preprocess(one.convert("RGB")) for one in pictures], engine)

    def _encoded(self, images: Sequence[torch.Tensor], engine: str) -> torch.Tensor:
        model = self.on(engine or self.engine)
        with self._lock, torch.no_grad():
            batches = [torch.stack(list(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)]
            return torch.cat([model.encode_image(one, normalize=True) for one in batches])

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a page has one for as long as it is served
    def _texts(self, captions: tuple[str, ...], engine: str) -> torch.Tensor:
        with self._lock, torch.no_grad():
            found: torch.Tensor = self.on(engine).encode_text(self.tokenizer(list(captions)), normalize=True)
            return found

    def scores(self, features: torch.Tensor, captions: Sequence[str], engine: str = "") -> torch.Tensor:
        """Cosines times the model's scale, plus its bias where it has one: [pictures, captions]."""
        texts = self._texts(tuple(captions), engine or self.engine)
        with torch.no_grad():
            found = self.model.logit_scale.exp() * features @ texts.T
            bias = getattr(self.model, "logit_bias", None)
            return found if bias is None else found + bias

    def probabilities(self, pictures: Sequence[Any], captions: Sequence[str], engine: str = "") -> Floats:
        """Of each caption that it is the picture's, of these: [pictures, captions], rows of sum 1."""
        check(pictures, captions)
        found: Floats = self.scores(self.features(pictures, engine), captions, engine).softmax(dim=-1).numpy()
        return found

    def parts(self, picture: Any, captions: Sequence[str], place: int, engine: str = "") -> Floats:
        """How much less a caption fits where a part of the picture is covered: [PARTS, PARTS], 0 where not at all.

        What is measured is the score of the caption, with each part in turn replaced by the picture's mean colour.
        """
        check([picture], captions)
        image = self.preprocess(picture.convert("RGB"))
        _, height, width = image.shape
        mean = image.mean(dim=(1, 2), keepdim=True)
        covered = [image]
        for row in range(PARTS):
            for column in range(PARTS):
                one = image.clone()
                top, left = row * height // PARTS, column * width // PARTS
                one[:, top : (row + 1) * height // PARTS, left : (column + 1) * width // PARTS] = mean
                covered.append(one)
        scores = self.scores(self._encoded(covered, engine), [captions[place]], engine)[:, 0]
        found: Floats = (scores[0] - scores[1:]).clamp(min=0).reshape(PARTS, PARTS).numpy()
        return found

    def seen(self, picture: Any) -> Any:
        """What of a picture the model sees: its middle, as `preprocess` cuts it, as a `PIL.Image`."""
        image = self.preprocess(picture.convert("RGB"))
        shape = (3, 1, 1)
        mean, std = (torch.tensor(one).reshape(shape) for one in self._measures())
        pixels = (255 * (image * std + mean)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        from PIL import Image

        return Image.fromarray(pixels)

    def _measures(self) -> tuple[Any, Any]:
        last = self.preprocess.transforms[-1]
        return last.mean, last.std


def check(pictures: Sequence[Any], captions: Sequence[str]) -> None:
    """Raise `InputError` where there is nothing to compare, or too much."""
    if not pictures:
        raise InputError("There is no picture yet: drop one, or several.")
    if len(captions) < 2:
        raise InputError("Write two captions at least, one on each line: the model says which of them fits better.")
    if len(pictures) > PICTURES or len(captions) > CAPTIONS:
        raise InputError(f"At most {PICTURES} pictures and {CAPTIONS} captions at once.")
    if long := [text for text in captions if len(text) > LETTERS]:
        raise InputError(f"A caption has {len(long[0])} letters; models read about 77 words. Shorten it.")


def overlay(picture: Any, parts: Floats) -> Any:
    """The picture with what counts left as it is and all else faded, as a `PIL.Image`."""
    from PIL import Image

    top = float(parts.max())
    shares = parts / top if top > 0 else np.zeros_like(parts)
    mask = Image.fromarray((255 * shares).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    faded = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, "white"), 0.72)
    return Image.composite(picture, faded, mask)
