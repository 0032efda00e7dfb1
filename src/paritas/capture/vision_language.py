# SPDX-License-Identifier: Apache-2.0
"""Models that write about images, taken apart as openvino-genai runs them: embeddings of texts and of images, and what
goes on with both. Each is the original's own module or method."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paritas import files
from paritas.capture import generation, image_inputs, image_patches, image_tiles
from paritas.capture.component import Component
from paritas.capture.export import is_transformers
from paritas.capture.inputs import example_inputs
from paritas.errors import InputsNeeded, first_line

#: What a refusal advises.
_INSTEAD = "Generate with paritas.transformers."

#: By optimum's name.
IMAGES_AND_TEXT = "image-text-to-text"


class ImageFeatures(torch.nn.Module):
    """Of pixel_values float [images, channels, height, width]: what stands in the places of an image's tokens, [images,
    tokens, width]. size: the only one that images may have, channels first; () for any."""

    def __init__(self, model: Any, size: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.size:
            pixel_values = pixel_values.reshape(-1, *self.size)
        found = self.model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output
        return found if isinstance(found, torch.Tensor) else torch.stack(list(found))


def task_of(model: Any) -> str:
    """The task of a model that writes about images, as a decoder alone; "" for any other."""
    if not is_transformers(model) or model.config.is_encoder_decoder or not model.can_generate():
        return ""
    return IMAGES_AND_TEXT if "pixel_values" in inspect.signature(model.forward).parameters else ""


def parts(model: Any) -> Mapping[str, Component]:
    """text_embeddings, vision_embeddings and language_model; where images are patches, vision_embeddings_merger, and
    vision_embeddings_pos if their places are looked up.

    Raises `InputsNeeded` for a model that has them not.
    """
    if not task_of(model):
        raise InputsNeeded(f"{type(model).__name__} does not write about images: it has no {IMAGES_AND_TEXT}.")
    if not hasattr(model, "get_image_features"):
        raise InputsNeeded(
            f"{type(model).__name__} has no get_image_features: what it sees in images does not stand among its "
            f"tokens, as in an {IMAGES_AND_TEXT} port. {_INSTEAD}"
        )
    return {
        "text_embeddings": Component(model.get_input_embeddings(), lambda: (_ids(model),)),
        **_of_images(model),
        "language_model": Component(image_inputs.told(model), lambda: _going_on(model)),
    }


def _going_on(model: Any) -> dict[str, Any]:
    """A call on embeddings of new tokens, and on what else the model is told of them, after `generation.PAST`."""
    language = image_inputs.told(model)
    if not image_inputs.is_all(model, language):
        raise InputsNeeded(
            f"{type(model).__name__} computes with more of an image than what stands in its places among the tokens, "
            f"which no {IMAGES_AND_TEXT} port does. {_INSTEAD}"
        )
    given = generation.after_tokens(model, embedded=True)
    embeds = given["inputs_embeds"]
    return {**given, **image_inputs.examples(model, embeds.shape[-1], embeds.dtype)}


def _ids(model: Any) -> torch.Tensor:
    return generation.seeded_tokens(model.config.get_text_config().vocab_size)


def _takes(features: ImageFeatures, pixels: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            features(pixels)
    except Exception:  # noqa: BLE001 - of any kind: it is called with what it does not take
        return False
    return True


def _places(table: Any) -> torch.Tensor:
    """int64 [places that are mixed, patches]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, table.num_embeddings, (4, 6), generator=generator)


def _of_images(model: Any) -> dict[str, Component]:
    """What computes features of images."""
    tower = image_patches.tower_of(model)
    if tower is not None:
        patches, _ = image_patches.example_of(tower)
        merged = image_patches.example_for_merger(tower)  # refused before anything is ported
        table = image_patches.table_of(tower)
        places = {} if table is None else {"vision_embeddings_pos": Component(table, lambda: (_places(table),))}
        return {
            "vision_embeddings": Component(
                image_patches.PatchEmbeddings(tower).eval(), lambda: {image_patches.HIDDEN: patches}
            ),
            **places,
            "vision_embeddings_merger": Component(image_patches.merger(tower).eval(), lambda: merged),
        }
    pixels = example_inputs(model).get("pixel_values")
    if pixels is None or "image_grid_thw" in inspect.signature(model.forward).parameters:
        raise InputsNeeded(
            f"{type(model).__name__} takes its images in pieces whose number their sizes decide, and has no vision "
            f"tower that a {IMAGES_AND_TEXT} port of Paritas knows. {_INSTEAD}"
        )
    if image_tiles.is_in_tiles(model):
        networks = image_tiles.networks_of(model, pixels)
        if networks is None:
            raise InputsNeeded(
                f"{type(model).__name__} computes features of more than pixel_values, and not by one network that sees "
                f"tiles of images and one that makes tokens of it, as a {IMAGES_AND_TEXT} port does. {_INSTEAD}"
            )
        tiles = image_tiles.TileFeatures(model, networks).eval()
        return {"vision_embeddings": Component(tiles, lambda: dict(networks.tensors))}
    features = ImageFeatures(model).eval()
    try:
        with torch.no_grad():
            features(pixels[:1])
        if not _takes(features, torch.cat((pixels[:1], pixels[:1]), dim=-1)):
            features = ImageFeatures(model, tuple(pixels.shape[1:])).eval()  # sizes that are known are asked of nobody
    except Exception as error:  # of any kind: it is called with what it does not take
        raise InputsNeeded(
            f"{type(model).__name__} computes features of more than pixel_values [images, channels, height, width], "
            f"which no {IMAGES_AND_TEXT} port does: {first_line(error).rstrip('.')}. {_INSTEAD}"
        ) from error
    return {"vision_embeddings": Component(features, lambda: {"pixel_values": pixels[:1]})}


def keep_own_weights(model: Any, config: Path) -> None:
    """Write into a configuration what the model's own code reads between its networks, and is weight of none: the
    places of ends of lines, by the name under which openvino-genai and optimum-intel look for it."""
    in_tiles = image_patches.tower_of(model) is None and image_tiles.is_in_tiles(model)
    weights = image_tiles.own_weights(model) if in_tiles else {}
    if weights:
        said = files.json_of(config)
        said |= {name: weight.detach().float().tolist() for name, weight in weights.items()}
        config.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


#: As `components.TASKS`.
TASKS = {IMAGES_AND_TEXT: parts}
