# SPDX-License-Identifier: Apache-2.0
"""What a call of a model's forward is to an engine: tensors, fixed arguments, and whether it remembers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from paritas.capture.generation import CACHES, NEW, PAST
from paritas.dropin import calls
from paritas.dropin.calls import is_object, takes
from paritas.errors import InputError

__all__ = ["CACHE", "CACHE_OF_MAMBA", "LABELS", "LOGITS", "SEEN", "TOKENS", "Call", "is_object", "take", "takes"]

#: Arguments with one entry per new token along dimension 1, by transformers' names.
TOKENS = (
    "input_ids", "decoder_input_ids", "inputs_embeds", "decoder_inputs_embeds", "position_ids",
    "decoder_position_ids", "token_type_ids", "cache_position", "hidden_states",
)  # fmt: skip

#: And with one per token seen so far.
SEEN = ("attention_mask", "decoder_attention_mask")

#: The name of the argument that is a cache, and of a few older models'.
CACHE, CACHE_OF_MAMBA = CACHES

#: And of that which says at which of the new tokens logits are wanted.
LOGITS = "logits_to_keep"


#: And of that with which a loss is computed, of the logits at all tokens.
LABELS = "labels"


@dataclasses.dataclass(frozen=True)
class Call(calls.Call):
    """A call taken apart.

    cache: the caller's, or None. kept: how many of the last logits are wanted, 0 for all. cache_name: of that argument.
    """

    cache: Any = None
    use_cache: bool | None = None
    as_tuple: bool = False
    kept: int = 0
    cache_name: str = CACHE


def take(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], config: Any = None) -> Call:
    """The call `forward(*args, **kwargs)` of a module of class `cls`. Raises `InputError` for unknown arguments."""
    given = calls.given_to(cls, args, kwargs)
    _, defaults, open_ended = calls.parameters(cls)
    cache_name = CACHE_OF_MAMBA if CACHE_OF_MAMBA in defaults else CACHE
    cache = given.pop(cache_name, None)
    as_dict = given.pop("return_dict", None)
    as_tuple = (getattr(config, "return_dict", True) if as_dict is None else as_dict) is False
    use_cache = given.pop("use_cache", None)
    kept = given.pop(LOGITS, 0)
    if open_ended:  # a beam search hands on the assistant that it does not ask
        given = {n: v for n, v in given.items() if n in defaults or not isinstance(v, torch.nn.Module)}
    # A switch that is off is one that is not given.
    tensors, fixed = calls.sorted_out(cls, {name: v for name, v in given.items() if v is not False})
    if isinstance(kept, torch.Tensor):
        tensors[LOGITS], kept = kept, 0
    return Call(tensors, fixed, cache, use_cache, as_tuple, int(kept or 0), cache_name)


def has_plain_masks(call: Call) -> bool:
    """Whether the masks say which of the tokens count, [batch, tokens], and not which token sees which."""
    masks = [call.tensors[name] for name in SEEN if name in call.tensors]
    return all(isinstance(mask, torch.Tensor) and mask.dim() == 2 for mask in masks)


# --- examples to capture a generation with -----------------------------------------------------------------

#: What an encoder hands to a decoder, with one row per sequence.
_ENCODED = ("encoder_outputs", "encoder_hidden_states", "encoder_attention_mask", *SEEN)


def of_two_rows(call: Call) -> Call:
    """A call of one sequence, twice: a graph takes a batch of 1 for a constant. Any other call as it is."""
    if not call.tensors.keys() <= {*TOKENS, *_ENCODED, LOGITS} or any(
        len(tensor) != 1 for name in call.tensors.keys() - {LOGITS} for tensor in _leaves(call.tensors[name])
    ):
        return call
    rows = {name: value if name == LOGITS else _twice(value) for name, value in call.tensors.items()}
    return dataclasses.replace(call, tensors=rows)


def _leaves(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.dim() > 1 else []
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return [leaf for item in inner for leaf in _leaves(item)]


def _twice(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value]) if value.dim() > 1 else value
    if isinstance(value, Mapping):
        made = {name: _twice(item) for name, item in value.items()}
        return type(value)(**made) if hasattr(value, "to_tuple") else made
    return type(value)(map(_twice, value)) if type(value) in (tuple, list) else value


def generation_examples(call: Call, encoder_decoder: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a call on `PAST` tokens, and of one that goes on with `NEW` more: as `call`, but for sizes."""
    first, then = {}, {}
    for name, value in call.tensors.items():
        if name == LOGITS:
            first[name] = then[name] = torch.arange(1, NEW)
        elif name in TOKENS and isinstance(value, torch.Tensor):
            axis = _token_axis(name, value)
            if name.endswith("position_ids") or name == "cache_position":
                counted = torch.arange(PAST + NEW).expand(*value.shape[:-1], -1)
                first[name], then[name] = counted[..., :PAST].clone(), counted[..., PAST:].clone()
            else:
                whole = _cycled(value, axis, PAST + NEW)
                first[name], then[name] = whole.narrow(axis, 0, PAST), whole.narrow(axis, PAST, NEW)
        elif name in SEEN and isinstance(value, torch.Tensor) and _is_of_decoder(name, encoder_decoder):
            if value.dim() != 2:
                raise InputError(f"{name} has {value.dim()} dimensions; generation takes [batch, tokens].")
            ones = torch.ones(len(value), PAST + NEW, dtype=value.dtype)
            first[name], then[name] = ones[:, :PAST], ones
        else:
            first[name] = then[name] = value
    return first, then


def new_tokens(name: str, value: torch.Tensor) -> int:
    """How many tokens an argument of `TOKENS` brings."""
    return value.shape[_token_axis(name, value)]


def _token_axis(name: str, value: torch.Tensor) -> int:
    return value.dim() - 1 if "position" in name or not value.is_floating_point() else 1


def _is_of_decoder(name: str, encoder_decoder: bool) -> bool:
    return name == "decoder_attention_mask" or not encoder_decoder


def _cycled(value: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    places = torch.arange(size) % max(value.shape[axis], 1)
    return value.index_select(axis, places)
