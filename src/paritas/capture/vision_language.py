# SPDX-License-Identifier: Apache-2.0
"""Models that write about images, taken apart as openvino-genai runs them: embeddings of texts and of images, and what
goes on with both. Each is the original's own module or method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from paritas.capture import generation
from paritas.capture.component import Component
from paritas.capture.export import is_transformers
from paritas.capture.inputs import example_inputs
from paritas.errors import InputsNeeded

#: By optimum's name.
IMAGES_AND_TEXT = "image-text-to-text"


class ImageFeatures(torch.nn.Module):
    """Of pixel_values float [images, channels, height, width]: what stands in the places of an image's tokens, [images,
    tokens, width]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found = self.model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output
        return found if isinstance(found, torch.Tensor) else torch.stack(list(found))


def parts(model: Any) -> Mapping[str, Component]:
    """text_embeddings, vision_embeddings and language_model. Raises `InputsNeeded` for a model that has them not."""
    name = type(model).__name__
    if not (is_transformers(model) and hasattr(model, "get_image_features") and model.can_generate()):
        raise InputsNeeded(f"{name} does not write about images: it has no {IMAGES_AND_TEXT}.")
    known = example_inputs(model)
    pixels = known.get("pixel_values")
    if pixels is None or "image_grid_thw" in inspect.signature(model.forward).parameters:
        raise InputsNeeded(
            f"{name} takes its images in pieces whose number their sizes decide, which no {IMAGES_AND_TEXT} port of "
            "Paritas does yet. Generate with paritas.transformers."
        )

    def ids() -> dict[str, torch.Tensor]:
        return {"input": known["input_ids"]}

    return {
        "text_embeddings": Component(model.get_input_embeddings(), ids),
        "vision_embeddings": Component(ImageFeatures(model).eval(), lambda: {"pixel_values": pixels[:1]}),
        "language_model": Component(model, lambda: generation.after_tokens(model, embedded=True)),
    }


#: As `components.TASKS`.
TASKS = {IMAGES_AND_TEXT: parts}
