# SPDX-License-Identifier: Apache-2.0
"""A model that is two ports, an encoder and a decoder: each answers for its own, and loops are the original's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from paritas import pipeline
from paritas.components import Components
from paritas.transformers.cache import is_kept
from paritas.transformers.calls import Call
from paritas.transformers.opened import SeveralPorts

#: What forward calls what the decoder takes.
_MASK, _OWN_MASK, _ENCODED = "attention_mask", "decoder_attention_mask", "encoder_outputs"


class TwoPorts(SeveralPorts):
    """What answers for such a model: the encoder by its module, the decoder by the model's own forward."""

    def __init__(self, model: Any, components: Components[pipeline.Port]) -> None:
        super().__init__(model, components, "decoder")
        self._encoder = components["encoder"]

    def __call__(
        self, path: str, module: torch.nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if module is not self.model.get_encoder():
            return super().__call__(path, module, own, args, kwargs)
        return self._answered(module, args, kwargs, lambda call: self._encoded({**call.tensors, **call.fixed}))

    def _encoded(self, given: dict[str, Any]) -> Any:
        manifest = self._encoder.manifest
        known = {spec.name for spec in manifest.inputs} | manifest.constants.keys()
        if _MASK not in known:
            given.pop(_MASK, None)  # which such an encoder does not look at
        return self._encoder(**given)

    def _going_on(self, call: Call) -> Any:
        cache = call.cache
        if cache is None or not isinstance(cache, EncoderDecoderCache):
            own = DynamicCache() if cache is None else cache
            if not is_kept(own):
                self._refuse(f"{call.cache_name} is a {type(cache).__name__}, whose content no engine keeps")
            cache = EncoderDecoderCache(own, DynamicCache())
        tensors = dict(call.tensors)
        encoded, features = tensors.pop(_ENCODED, None), tensors.get(self.model.main_input_name)
        if encoded is None:
            names = [spec.name for spec in self._encoder.inputs if spec.name in tensors]
            encoded = self._encoded({name: tensors[name] for name in names})
            for name in names:
                if name != _MASK:
                    tensors.pop(name)
        hidden = next(iter(encoded.values())) if hasattr(encoded, "values") else encoded[0]
        mask, own_mask = tensors.pop(_MASK, None), tensors.pop(_OWN_MASK, None)
        returned = getattr(encoded, _MASK, None)
        mask = mask if returned is None else returned
        if own_mask is not None and not bool(own_mask.all()):
            source = self.port.manifest.source
            name = type(self.model).__name__
            self._refuse(
                f"{_OWN_MASK} leaves tokens out, and this port's decoder looks at all of its own: it takes what "
                "openvino-genai and optimum-intel hand to a decoder, and no such mask is among it",
                "Compute sequences of other lengths one by one, or let a model with its weights make the port for it: "
                f"paritas.transformers.{name}.from_pretrained({source.id or 'ORIGINAL'!r}, engine='openvino')",
            )
        ids = tensors.pop("decoder_input_ids", None)
        if ids is None:
            self._refuse("decoder_input_ids is missing", "Pass what the decoder has written so far, as generate does")
        tensors.pop("decoder_position_ids", None)  # loops count them as the port does
        given = {**tensors, "input_ids": ids, "encoder_hidden_states": hidden}
        if "encoder_attention_mask" in self._plan.inputs:
            given["encoder_attention_mask"] = self._every(hidden, features) if mask is None else mask
        wanted = call.use_cache is None or call.use_cache
        own = cache.self_attention_cache
        out = super()._going_on(dataclasses.replace(call, tensors=given, cache=own))
        out[call.cache_name] = cache if wanted else None
        out["encoder_last_hidden_state"] = hidden
        return out

    def _every(self, hidden: torch.Tensor, features: Any) -> torch.Tensor:
        """The mask of whoever gives none: nothing of it is padding."""
        specs = {spec.name: spec for spec in self._plan.specs}
        mask, encoded = specs["encoder_attention_mask"], specs["encoder_hidden_states"]
        if mask.dims[1] == encoded.dims[1]:
            sizes = hidden.shape[:2]
        elif isinstance(features, torch.Tensor):
            sizes = features.shape[:2]
        else:
            self._refuse(f"{_MASK} is missing", f"Pass that of {self.model.main_input_name}, which the encoder got")
        return torch.ones(sizes, dtype=getattr(torch, mask.dtype))
