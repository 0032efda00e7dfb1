# SPDX-License-Identifier: Apache-2.0
"""What a language model is told of images beside their embeddings, as inputs of its graph: where they are, where tokens
look at each other in both directions (`KINDS`), and what is added behind its first layers (`PLACES`, `ADDED`).

Its own forward computes with them; that it goes on with a memory is no reason for it to leave them out.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from paritas.capture.generation import AXES, CACHES, NEW, counts_in_space, seeded_tokens

#: int64 [batch, tokens]: of which kind each new token is, where that decides which others it looks at.
KINDS = "token_type_ids"

#: bool [batch, tokens]: which of the new tokens are those of images; float [layers, such tokens, width]: what is added
#: there to what these layers compute. By transformers' and optimum-intel's names.
PLACES, ADDED = "visual_pos_masks", "deepstack_visual_embeds"

#: How many tokens of images an example has.
_SEEN = 4


def is_told_kinds(model: Any) -> bool:
    return KINDS in inspect.signature(model.forward).parameters


def layers_added_to(model: Any) -> int:
    """Behind how many of its layers features of images are added; 0 for a model that has them among its tokens only."""
    decoder = model.get_decoder()
    if not {PLACES, ADDED} <= inspect.signature(decoder.forward).parameters.keys():
        return 0
    return len(getattr(model.config.vision_config, "deepstack_visual_indexes", None) or ())


def examples(model: Any, width: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Those that a model is told, of two rows of `NEW` tokens."""
    found = {}
    places = torch.arange(2 * NEW).reshape(2, NEW) % 2
    if is_told_kinds(model):
        found[KINDS] = places
    if layers := layers_added_to(model):
        generator = torch.Generator().manual_seed(0)
        found[PLACES] = places.bool()
        found[ADDED] = torch.randn(layers, _SEEN, width, generator=generator).to(dtype)
    return found


def told(model: Any) -> Any:
    """The same model, whose forward takes them beside the embeddings of new tokens; itself where there is none."""
    if not is_told_kinds(model) and not layers_added_to(model):
        return model
    original: Any = type(model)
    made = original.__new__(original)
    made.__dict__ = {**model.__dict__, "_modules": {**model._modules}}
    signature = inspect.signature(model.forward)
    more = [name for name in (PLACES, ADDED) if layers_added_to(model)]
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    added = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in more]
    kind = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    cache_name = next((name for name in CACHES if name in signature.parameters), CACHES[0])

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = {**signature.bind_partial(*args).arguments, **kwargs}
        places, features = given.pop(PLACES, None), given.pop(ADDED, None)
        cache, kinds = given.get(cache_name), given.get(KINDS)
        if cache is not None and kinds is not None:
            kinds = kinds.reshape(given["inputs_embeds"].shape[:2])  # so that all sizes are said by one
            # They are read by a token's place among all.
            seen = kinds.new_zeros(kinds.shape[0], cache.get_seq_length())
            given[KINDS] = torch.cat((seen, kinds), dim=1)
        tokens = given["inputs_embeds"].shape[1] if places is not None else 0
        with _as_at_first(cache), _adding(model, places, features, tokens):
            return original.forward(made, **given)

    forward.__signature__ = signature.replace(parameters=[*own, *added, *kind])  # type: ignore[attr-defined]
    made.forward = forward
    return made


@contextlib.contextmanager
def _as_at_first(cache: Any) -> Iterator[None]:
    """Kinds of tokens count in every call: a graph is one for the first and for those that go on."""
    if cache is None:
        yield
        return
    own = type(cache)
    cache.__class__ = type(own.__name__, (own,), {"is_initialized": False})
    try:
        yield
    finally:
        cache.__class__ = own


@contextlib.contextmanager
def _adding(model: Any, places: torch.Tensor | None, features: torch.Tensor | None, tokens: int) -> Iterator[None]:
    """The decoder adds to all tokens, zero to those that are none of an image: which of them are is no size then.

    places may be [batch, 1] for all of them, as openvino-genai says it of a text: their number is a size of its own.
    """
    if places is None or features is None:
        yield
        return
    which = (places.flatten().cumsum(0) - 1).clamp(0, features.shape[1] - 1).reshape(places.shape)
    each = torch.arange(tokens) % places.shape[1]
    places, which = places[:, each], which[:, each]
    every = [torch.where(places[..., None], of_layer[which], 0.0) for of_layer in features.unbind(0)]

    def hand_on(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, PLACES: _Everywhere(), ADDED: every}

    handle = model.get_decoder().register_forward_pre_hook(hand_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class _Everywhere:
    """In the place of a mask: as an index it is all that there is."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return ...


def is_all(model: Any, language: Any) -> bool:
    """Whether the model says of a text with an image what `language`, of `told`, says when it is told of the same.

    Also where the original does not take features that somebody else has computed: then nobody can tell.
    """
    token = getattr(model.config, "image_token_id", None)
    if token is None or "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return True
    ids = seeded_tokens(model.config.get_text_config().vocab_size)[:1]
    places = (torch.arange(ids.shape[1]) // 2 == 1)[None]  # two of them
    with torch.no_grad():
        embeds = model.get_input_embeddings()(ids)
        generator = torch.Generator().manual_seed(1)
        layers = layers_added_to(model)
        drawn = torch.randn(layers + 1, 2, embeds.shape[-1], generator=generator).to(embeds.dtype)
        positions = torch.arange(ids.shape[1])[None]
        both: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
        if "position_ids" in inspect.signature(model.forward).parameters:
            both["position_ids"] = positions.expand(AXES, 1, -1) if counts_in_space(model) else positions
        if is_told_kinds(model):
            both[KINDS] = places.long()
        added = {PLACES: places, ADDED: drawn[1:]} if layers else {}
        found = language(inputs_embeds=embeds.masked_scatter(places[..., None], drawn[0]), **both, **added).logits
        for features in ([drawn[0]], drawn[:1]):
            more = {"deepstack_features": [[one] for one in drawn[1:]]} if layers else {}
            out = _Encoded(pooler_output=features, **more)
            try:
                want = model(input_ids=ids.masked_fill(places, token), mm_encoder_outputs={"image": out}, **both).logits
            except Exception:  # noqa: BLE001 - of any kind: it takes them in another form
                if out.asked:
                    return False
                continue
            return bool(torch.allclose(found.float(), want.float(), rtol=1e-2, atol=1e-3, equal_nan=True))
    return True


class _Encoded:
    """What an encoder of images returns. asked: what else a model wanted of it."""

    def __init__(self, **features: Any) -> None:
        self.__dict__.update(features)
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            self.asked.append(name)
        raise AttributeError(name)
