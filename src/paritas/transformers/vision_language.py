# SPDX-License-Identifier: Apache-2.0
"""A model that writes about images as three ports: embeddings of texts and of images, and what goes on with both."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from paritas import pipeline
from paritas.components import Components
from paritas.transformers.opened import SeveralPorts

_IDS, _EMBEDS, _PIXELS = "input_ids", "inputs_embeds", "pixel_values"

#: What loops hand on of images that they have encoded already, by kind: {"image": features}.
_READY = "mm_encoder_outputs"


class ImagesAndText(SeveralPorts):
    """What answers for such a model: calls of the whole, in whose places for images their features stand."""

    def __init__(self, model: Any, components: Components[pipeline.Port]) -> None:
        super().__init__(model, components, "language_model")
        self._texts, self._images = components["text_embeddings"], components["vision_embeddings"]
        # Loops ask for the features before the first call, and hand them on: beams share them.
        model.get_image_features = model.base_model.get_image_features = self._features_of

    def _filled(self, tensors: dict[str, Any], seen: int) -> dict[str, Any]:
        """The embeddings of texts and images, with mask and positions as for ids."""
        ids, pixels, embeds, ready = (tensors.pop(name, None) for name in (_IDS, _PIXELS, _EMBEDS, _READY))
        images = (ready or {}).get("image")
        if pixels is not None:
            images = self._features_of(pixels)
        if ids is None and images is not None:
            self._refuse(f"images were given without {_IDS}, which say where they stand", f"Pass {_IDS}")
        places = torch.zeros(embeds.shape[:2], dtype=torch.int64) if ids is None and embeds is not None else ids
        # Positions and masks are counted of the ids, whatever they are.
        filled = super()._filled({**tensors, _IDS: places}, seen)
        if embeds is None:
            embeds = self._texts(input=filled[_IDS])
        if images is not None:
            embeds = self._with_images(embeds, filled[_IDS], torch.cat(list(images.pooler_output)))
        del filled[_IDS]
        return {_EMBEDS: embeds, **filled}

    def _features_of(self, pixel_values: torch.Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """As the original's `get_image_features`: pooler_output is a list with [tokens, width] of each image."""
        unknown = [name for name, value in options.items() if name != "return_dict" and value is not None]
        if unknown:
            self._refuse(f"{', '.join(unknown)} was given, and this port computes the features that it was made with")
        # The port takes one image at a time, as openvino-genai hands them on.
        found = [self._images(pixel_values=image) for image in pixel_values.split(1)]
        listed: Any = [one.flatten(0, -2) for one in found]
        return BaseModelOutputWithPooling(pooler_output=listed)

    def _with_images(self, embeds: torch.Tensor, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        places = ids == self.model.config.image_token_id
        if int(places.sum()) != len(features):
            self._refuse(
                f"{_IDS} holds {int(places.sum())} tokens for images, and {_PIXELS} has {len(features)} features",
                "Make both with the model's processor",
            )
        return embeds.masked_scatter(places[..., None], features.to(embeds.dtype))
