# SPDX-License-Identifier: Apache-2.0
"""A model that writes about images as several ports: embeddings of texts and of images, and what goes on with both."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from paritas import pipeline
from paritas.capture import image_patches, image_tiles
from paritas.capture.generation import AXES
from paritas.capture.image_inputs import ADDED, KINDS, PLACES
from paritas.components import Components
from paritas.dropin.dispatch import original
from paritas.transformers.opened import SeveralPorts

_IDS, _EMBEDS, _MASK, _POSITIONS = "input_ids", "inputs_embeds", "attention_mask", "position_ids"

#: What loops hand on of images and films that they have encoded already, by kind: {"image": features}.
_READY = "mm_encoder_outputs"

#: What forward takes for positions in images and films alone.
_OF_PLACES = ("image_grid_thw", "video_grid_thw", "mm_token_type_ids", "second_per_grid_ts")

#: Kind -> what forward calls its pixels, and the configuration the token in whose place a feature stands.
_KINDS = {"image": ("pixel_values", "image_token_id"), "video": ("pixel_values_videos", "video_token_id")}


@dataclasses.dataclass
class Features(BaseModelOutputWithPooling):
    """Of images or films. deepstack_features: of each layer behind which they are added, [tokens, width] of each."""

    deepstack_features: Any = None


class ImagesAndText(SeveralPorts):
    """What answers for such a model: calls of the whole, in whose places for images their features stand."""

    def __init__(self, model: Any, components: Components[pipeline.Port]) -> None:
        super().__init__(model, components, "language_model")
        self._texts, self._images = components["text_embeddings"], components["vision_embeddings"]
        #: Kind -> what computes its features, as the original's method of that name is called.
        self._encoders = self._encoders_by_kind()
        # Loops ask for the features before the first call, and hand them on: beams share them.
        for kind, encode in self._encoders.items():
            for one in (model, model.base_model):
                setattr(one, f"get_{kind}_features", encode)

    def _encoders_by_kind(self) -> dict[str, Any]:
        return {"image": self._features_of}

    def _filled(self, tensors: dict[str, Any], seen: int) -> dict[str, Any]:
        """The embeddings of texts and images, with mask and positions as for ids."""
        ids, embeds, ready = (tensors.pop(name, None) for name in (_IDS, _EMBEDS, _READY))
        features = self._features(tensors, ready or {})
        if ids is None and features:
            self._refuse(f"images were given without {_IDS}, which say where they stand", f"Pass {_IDS}")
        places = torch.zeros(embeds.shape[:2], dtype=torch.int64) if ids is None and embeds is not None else ids
        # Positions and masks are counted of the ids, whatever they are.
        filled = self._counted({**tensors, _IDS: places}, ids, seen)
        if embeds is None:
            embeds = self._texts(filled[_IDS])
        for kind, found in features.items():
            listed: Any = found.pooler_output
            embeds = self._with_features(embeds, filled[_IDS], torch.cat(list(listed)), kind)
        told = self._told(filled, features, embeds.dtype)
        del filled[_IDS]
        return {_EMBEDS: embeds, **filled, **told}

    def _told(self, tensors: dict[str, Any], features: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """What the language model is told of images beside the embeddings. tensors: with the ids. Kinds of tokens that
        were not given are those of text."""
        told: dict[str, Any] = {}
        ids = tensors[_IDS]
        if KINDS in self._plan.inputs and tensors.get(KINDS) is None:
            told[KINDS] = torch.full_like(ids, self._kind_of_text)
        if ADDED not in self._plan.inputs:
            return told
        dims = next(spec.dims for spec in self._plan.specs if spec.name == ADDED)
        layers, width = int(dims[0]), int(dims[2])
        places, every = torch.zeros_like(ids, dtype=torch.bool), torch.zeros(layers, *ids.shape, width, dtype=dtype)
        for kind, found in features.items():
            of_kind = ids == getattr(self.model.config, _KINDS[kind][1])
            every[:, of_kind] = torch.stack([torch.cat(list(layer)) for layer in found.deepstack_features]).to(dtype)
            places |= of_kind
        added = every[:, places] if bool(places.any()) else every.new_zeros(layers, 1, width)
        return {**told, PLACES: places, ADDED: added}

    @functools.cached_property
    def _kind_of_text(self) -> int:
        """The kind of tokens that look at those before them alone, as the original's masks say."""
        text = self.model.config.get_text_config()
        for kind in (0, 1):
            masks = self.model.create_masks_for_generate(
                config=self.model.config,
                inputs_embeds=torch.zeros(1, 3, text.hidden_size),
                attention_mask=torch.ones(1, 3, dtype=torch.int64),
                past_key_values=None,
                position_ids=torch.arange(3)[None],
                token_type_ids=torch.full((1, 3), kind),
            )
            mask = next(iter(masks.values())) if isinstance(masks, Mapping) else masks
            if mask is None or not bool(mask[0, 0, 0, 1] if mask.dtype == torch.bool else mask[0, 0, 0, 1] == 0):
                return kind
        return self._refuse(f"{KINDS} is missing, and no kind of tokens is that of a text", f"Pass {KINDS}")

    def _counted(self, tensors: dict[str, Any], ids: torch.Tensor | None, seen: int) -> dict[str, Any]:
        """These inputs, with mask and positions. ids: None where embeddings were given instead."""
        return super()._filled(tensors, seen)

    def _features(self, tensors: dict[str, Any], ready: Mapping[str, Any]) -> dict[str, BaseModelOutputWithPooling]:
        """Those of each kind that is there. What they are computed of is taken out of `tensors`."""
        found = {}
        for kind, encode in self._encoders.items():
            names = [n for n, p in inspect.signature(encode).parameters.items() if p.kind is not p.VAR_KEYWORD]
            given = {name: tensors[name] for name in names if tensors.get(name) is not None}
            tensors.pop(_KINDS[kind][0], None)
            if ready.get(kind) is not None:
                found[kind] = ready[kind]
            elif _KINDS[kind][0] in given:
                found[kind] = encode(**given)
        return found

    def _features_of(self, pixel_values: torch.Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """As the original's `get_image_features`: pooler_output is a list with [tokens, width] of each image."""
        self._refuse_options(options)
        dims = self._images.inputs[0].dims
        together = dims[0] if dims and isinstance(dims[0], int) else max(len(pixel_values), 1)
        found = [self._images(pixel_values=images) for images in pixel_values.split(together)]
        listed: Any = list(torch.cat(found))
        return BaseModelOutputWithPooling(pooler_output=listed)

    def _refuse_options(self, options: Mapping[str, Any]) -> None:
        unknown = [name for name, value in options.items() if name != "return_dict" and value is not None]
        if unknown:
            self._refuse(f"{', '.join(unknown)} was given, and this port computes the features that it was made with")

    def _with_features(
        self, embeds: torch.Tensor, ids: torch.Tensor, features: torch.Tensor, kind: str
    ) -> torch.Tensor:
        pixels, token = _KINDS[kind]
        places = ids == getattr(self.model.config, token)
        if int(places.sum()) != len(features):
            self._refuse(
                f"{_IDS} holds {int(places.sum())} tokens for {kind}s, and {pixels} has {len(features)} features",
                "Make both with the model's processor",
            )
        return embeds.masked_scatter(places[..., None], features.to(embeds.dtype))


class ImagesInTiles(ImagesAndText):
    """As `ImagesAndText`, of a model whose own code cuts images into tiles and puts together what is seen in them."""

    def __init__(self, model: Any, components: Components[pipeline.Port]) -> None:
        super().__init__(model, components)
        # As optimum-intel keeps them, and openvino-genai reads them.
        kept = {name: getattr(model.config, name, None) for name in image_tiles.own_weights(model)}
        self._weights = {name: torch.tensor(value) for name, value in kept.items() if value is not None}
        if missing := sorted(kept.keys() - self._weights.keys()):
            self._refuse(f"config.json lacks {', '.join(missing)}, which {type(model).__name__} reads")

    def _encoders_by_kind(self) -> dict[str, Any]:
        encode = type(self.model.base_model).get_image_features
        known = inspect.signature(encode)
        own = known.replace(parameters=list(known.parameters.values())[1:])

        def bound(*args: Any, **options: Any) -> Features:
            return self._features_of_tiles({**own.bind_partial(*args).arguments, **options})

        bound.__signature__ = own  # type: ignore[attr-defined]
        return {"image": bound}

    def _features(self, tensors: dict[str, Any], ready: Mapping[str, Any]) -> dict[str, BaseModelOutputWithPooling]:
        found = super()._features(tensors, ready)
        for encode in self._encoders.values():
            for name in inspect.signature(encode).parameters.keys() - set(self._plan.inputs):
                tensors.pop(name, None)  # loops hand them on in every step
        return found

    def _features_of_tiles(self, arguments: Mapping[str, Any]) -> Features:
        with original():
            found = image_tiles.around(self.model, arguments, self._weights, self._seen)
        return Features(pooler_output=found.pooler_output)

    def _seen(self, **tensors: torch.Tensor) -> torch.Tensor:
        known = {spec.name for spec in self._images.inputs}
        found: torch.Tensor = self._images(**{name: value for name, value in tensors.items() if name in known})
        return found


class ImagesInPatches(ImagesAndText):
    """As `ImagesAndText`, of a model whose images come as patches, so many as their sizes say."""

    def __init__(self, model: Any, components: Components[pipeline.Port]) -> None:
        super().__init__(model, components)
        self._merger = components["vision_embeddings_merger"]
        tower = image_patches.tower_of(model)
        self._tower, self._config = tower, tower.config
        self._table = components.get("vision_embeddings_pos")
        # Frequencies are no weights: they follow from the configuration.
        self._rotary = type(tower.rotary_pos_emb)(tower.config)

    def _encoders_by_kind(self) -> dict[str, Any]:
        return {"image": self._features_of, "video": self._features_of_films}

    def _features_of(
        self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None = None, **options: Any
    ) -> BaseModelOutputWithPooling:
        self._refuse_options(options)
        return self._of_patches(pixel_values, image_grid_thw, "image_grid_thw")

    def _features_of_films(
        self, pixel_values_videos: torch.Tensor, video_grid_thw: torch.Tensor | None = None, **options: Any
    ) -> BaseModelOutputWithPooling:
        self._refuse_options(options)
        return self._of_patches(pixel_values_videos, video_grid_thw, "video_grid_thw")

    def _of_patches(self, patches: torch.Tensor, grid: torch.Tensor | None, name: str) -> BaseModelOutputWithPooling:
        if grid is None:
            self._refuse(f"{name} is missing, which says of how many patches each is", "Pass what the processor made")
        if int(grid.prod(-1).sum()) != len(patches):
            self._refuse(
                f"{name} tells of {int(grid.prod(-1).sum())} patches, and {len(patches)} were given",
                "Make both with the model's processor",
            )
        sizes = (grid.prod(-1) // self._config.spatial_merge_size**2).tolist()
        if sum(sizes) == 1:  # which no graph of a merger takes: twice the same image, and nothing of the second
            patches, grid = torch.cat((patches, patches)), torch.cat((grid, grid))
        hidden = self._images(hidden_states=patches)["last_hidden_state"]
        if self._table is not None:
            indices, weights = image_patches.taps_of_grids(self._tower, grid)
            hidden = image_patches.with_places(hidden, self._table(indices), weights)
        given = image_patches.of_grids(self._config, self._rotary, grid)
        found = self._merger(hidden_states=hidden, **given)
        listed: Any = found[image_patches.TOKENS][: sum(sizes)].split(sizes)
        added = found.get(image_patches.ADDED)
        added = None if added is None else added[:, : sum(sizes)]
        return Features(
            pooler_output=listed,
            deepstack_features=None if added is None else [layer.split(sizes) for layer in added],
        )

    def _counted(self, tensors: dict[str, Any], ids: torch.Tensor | None, seen: int) -> dict[str, Any]:
        places = tensors[_IDS]
        positions = tensors.pop(_POSITIONS, None)
        count: Any = self.model.base_model.compute_3d_position_ids
        known = inspect.signature(count).parameters
        told = {name: tensors.pop(name, None) for name in known if name not in (_IDS, _MASK)}
        for name in _OF_PLACES:
            tensors.pop(name, None)
        filled = super()._counted({**tensors, _POSITIONS: torch.zeros_like(places)}, ids, seen)
        batch, new = places.shape
        if positions is None:
            told |= {_IDS: ids, _EMBEDS: places[..., None], _MASK: tensors.get(_MASK), "past_key_values": _Seen(seen)}
            positions = count(**{name: value for name, value in told.items() if name in known})
        if positions is None:
            positions = torch.arange(seen, seen + new)[None]
        # A first row of four counts the text alone, for masks of packed sequences.
        positions = positions[-AXES:] if positions.dim() == AXES else positions
        return {**filled, _POSITIONS: positions[..., -new:].expand(AXES, batch, new).contiguous()}


def of_images(model: Any, components: Components[pipeline.Port]) -> ImagesAndText:
    """What answers for a model whose images are no patches."""
    return (ImagesInTiles if image_tiles.is_in_tiles(model) else ImagesAndText)(model, components)


class _Seen:
    """What a model asks a cache for when it counts positions."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def get_seq_length(self) -> int:
        return self.tokens
