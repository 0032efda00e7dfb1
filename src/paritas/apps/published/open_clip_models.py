# SPDX-License-Identifier: Apache-2.0
"""OpenAI's CLIP architectures as open_clip has them, with the three outputs that the CLIP Handbook compares."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import torch
from torch.nn import functional as F

from paritas.errors import ZooError
from paritas.mending import mend_torchvision

INSTALL = "pip install 'paritas[clip]'"

#: What the loss's temperature is in the checkpoints: they were trained up to this bound.
_SCALE = 100.0


class Clip(torch.nn.Module):
    """open_clip's model of that architecture with random weights; image and text in, features and `probs` out.

    image_layers, text_layers: instead of the architecture's. Raises `ZooError` if open_clip is not installed.
    """

    def __init__(self, architecture: str, image_layers: int = 0, text_layers: int = 0) -> None:
        super().__init__()
        library = open_clip()
        config = copy.deepcopy(library.get_model_config(architecture))
        if image_layers:
            config["vision_cfg"]["layers"] = image_layers
        if text_layers:
            config["text_cfg"]["layers"] = text_layers
        self.clip = library.CLIP(**config)
        with torch.no_grad():
            self.clip.logit_scale.fill_(math.log(_SCALE))
        as_if_trained(self.clip.visual)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> dict[str, torch.Tensor]:
        image_features, text_features = self.clip.encode_image(image), self.clip.encode_text(text)
        cosine = F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T
        probs = (self.clip.logit_scale.exp() * cosine).softmax(dim=-1)
        return {"image_features": image_features, "text_features": text_features, "probs": probs}


def as_if_trained(visual: Any) -> None:
    """Batch norms with the statistics of a batch, and branches that do something: they start with a scale of 0.

    With mean 0 and variance 1, what a ResNet of random weights returns hardly depends on the image.
    """
    norms = [module for module in visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if not norms:
        return
    generator = torch.Generator().manual_seed(0)
    brightness = torch.randn(4, 3, 1, 1, generator=generator)
    images = torch.randn(4, 3, 224, 224, generator=generator) + brightness
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the mean over all batches, of which there is one
            if not norm.weight.any():
                norm.weight.fill_(0.5)
        visual.train()
        values = visual.stem(images)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            values = stage(values)
        visual.eval()


@functools.cache
def open_clip() -> Any:
    """The library. Raises `ZooError` with the command that installs it."""
    mend_torchvision()
    try:
        import open_clip
    except ImportError as error:
        raise ZooError(f"open_clip is not installed here ({error}). Install it:   {INSTALL}") from None
    return open_clip
