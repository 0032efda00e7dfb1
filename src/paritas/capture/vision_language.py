# SPDX-License-Identifier: Apache-2.0
"""Models that write about images, taken apart as openvino-genai runs them: embeddings of texts and of images, and what
goes on with both. Each is the original's own module or method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from paritas.capture import generation, image_patches
from paritas.capture.component import Component
from paritas.capture.export import is_transformers
from paritas.capture.inputs import example_inputs
from paritas.errors import InputsNeeded, first_line

#: The argument that says where images are among tokens that attend in both directions there.
_WHERE = "token_type_ids"

#: What a refusal advises.
_INSTEAD = "Generate with paritas.transformers."

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


def task_of(model: Any) -> str:
    """The task of a model that writes about images, as a decoder alone; "" for any other."""
    if not is_transformers(model) or model.config.is_encoder_decoder or not model.can_generate():
        return ""
    sees = hasattr(model, "get_image_features") and "pixel_values" in inspect.signature(model.forward).parameters
    return IMAGES_AND_TEXT if sees else ""


def parts(model: Any) -> Mapping[str, Component]:
    """text_embeddings, vision_embeddings and language_model; vision_embeddings_merger where images are patches.

    Raises `InputsNeeded` for a model that has them not.
    """
    if not task_of(model):
        raise InputsNeeded(f"{type(model).__name__} does not write about images: it has no {IMAGES_AND_TEXT}.")
    if _WHERE in inspect.signature(model.forward).parameters:
        raise InputsNeeded(
            f"{type(model).__name__} is told by {_WHERE} where images are, and its tokens look at each other in both "
            f"directions there, which no {IMAGES_AND_TEXT} port does. {_INSTEAD}"
        )
    return {
        "text_embeddings": Component(model.get_input_embeddings(), lambda: (_ids(model),)),
        **_of_images(model),
        "language_model": Component(model, lambda: generation.after_tokens(model, embedded=True)),
    }


def _ids(model: Any) -> torch.Tensor:
    return generation.seeded_tokens(model.config.get_text_config().vocab_size)


def _of_images(model: Any) -> dict[str, Component]:
    """What computes features of images."""
    tower = image_patches.tower_of(model)
    if tower is not None:
        patches, _ = image_patches.example_of(tower)
        merged = image_patches.example_for_merger(tower)  # refused before anything is ported
        return {
            "vision_embeddings": Component(
                image_patches.PatchEmbeddings(tower).eval(), lambda: {image_patches.HIDDEN: patches}
            ),
            "vision_embeddings_merger": Component(image_patches.merger(tower).eval(), lambda: merged),
        }
    pixels = example_inputs(model).get("pixel_values")
    if pixels is None or "image_grid_thw" in inspect.signature(model.forward).parameters:
        raise InputsNeeded(
            f"{type(model).__name__} takes its images in pieces whose number their sizes decide, and has no vision "
            f"tower that a {IMAGES_AND_TEXT} port of Paritas knows. {_INSTEAD}"
        )
    features = ImageFeatures(model).eval()
    try:
        with torch.no_grad():
            features(pixels[:1])
    except Exception as error:  # of any kind: it is called with what it does not take
        raise InputsNeeded(
            f"{type(model).__name__} computes features of more than pixel_values [images, channels, height, width], "
            f"which no {IMAGES_AND_TEXT} port does: {first_line(error).rstrip('.')}. {_INSTEAD}"
        ) from error
    return {"vision_embeddings": Component(features, lambda: {"pixel_values": pixels[:1]})}


#: As `components.TASKS`.
TASKS = {IMAGES_AND_TEXT: parts}
