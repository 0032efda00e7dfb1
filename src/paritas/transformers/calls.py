# SPDX-License-Identifier: Apache-2.0
"""What a call of a model's forward is to an engine: tensors, fixed arguments, and whether it remembers."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.cache_utils import Cache

from paritas.errors import InputError

#: Arguments with one entry per new token along dimension 1, by transformers' names.
TOKENS = (
    "input_ids", "decoder_input_ids", "inputs_embeds", "decoder_inputs_embeds", "position_ids",
    "decoder_position_ids", "token_type_ids", "cache_position", "hidden_states",
)  # fmt: skip

#: And with one per token seen so far.
SEEN = ("attention_mask", "decoder_attention_mask")

#: Arguments that are constants of a graph.
_CONSTANTS = (bool, int, float, str)

#: The name of the argument that is a cache, and of a few older models'.
CACHE, CACHE_OF_MAMBA = "past_key_values", "cache_params"

#: And of that which says at which of the new tokens logits are wanted.
LOGITS = "logits_to_keep"


#: And of that with which a loss is computed, of the logits at all tokens.
LABELS = "labels"


@dataclasses.dataclass(frozen=True)
class Call:
    """A call taken apart.

    tensors: by name, nested ones as they came. fixed: numbers, strings and switches. kept: how many of the last
    logits are wanted, 0 for all. cache: the caller's, or None. cache_name: of that argument.
    """

    tensors: dict[str, Any]
    fixed: dict[str, Any]
    cache: Any
    use_cache: bool | None
    as_tuple: bool
    kept: int
    cache_name: str = CACHE

    @property
    def signature(self) -> tuple[Any, ...]:
        """Calls of one signature are served by one port, as long as their shapes fit it."""
        tensors = tuple(sorted((name, *_kind(value)) for name, value in self.tensors.items()))
        return tensors, tuple(sorted((name, repr(value)) for name, value in self.fixed.items()))


def _kind(value: Any) -> tuple[Any, ...]:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.dim()
    if isinstance(value, Mapping):
        return tuple((key, *_kind(item)) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(_kind(item) for item in value)
    return (repr(value),)


def take(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], config: Any = None) -> Call:
    """The call `forward(*args, **kwargs)` of a module of class `cls`. Raises `InputError` for unknown arguments."""
    names, defaults, open_ended = _parameters(cls)
    if len(args) > len(names):
        raise InputError(
            f"{cls.__name__} takes {len(names)} arguments by position, {len(args)} were given: {', '.join(names)}"
        )
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    tensors: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    cache_name = CACHE_OF_MAMBA if CACHE_OF_MAMBA in defaults else CACHE
    cache = given.pop(cache_name, None)
    as_dict = given.pop("return_dict", None)
    as_tuple = (getattr(config, "return_dict", True) if as_dict is None else as_dict) is False
    use_cache = given.pop("use_cache", None)
    kept = given.pop(LOGITS, 0)
    for name, value in given.items():
        if value is None:
            continue
        if open_ended and name not in defaults and isinstance(value, torch.nn.Module):
            continue  # a beam search hands on the assistant that it does not ask
        if not open_ended and name not in defaults:
            raise InputError(
                f"{cls.__name__}.forward has no argument {name!r}; it has {', '.join(defaults)}."
            )
        if _holds_tensor(value):
            tensors[name] = value
        elif value != defaults.get(name, inspect.Parameter.empty) and value is not False:
            fixed[name] = value
    if isinstance(kept, torch.Tensor):
        tensors[LOGITS], kept = kept, 0
    return Call(tensors, fixed, cache, use_cache, as_tuple, int(kept or 0), cache_name)


def has_plain_masks(call: Call) -> bool:
    """Whether the masks say which of the tokens count, [batch, tokens], and not which token sees which."""
    masks = [call.tensors[name] for name in SEEN if name in call.tensors]
    return all(isinstance(mask, torch.Tensor) and mask.dim() == 2 for mask in masks)


def takes(cls: type, name: str) -> bool:
    """Whether forward of `cls` has that argument by name."""
    return name in _parameters(cls)[1]


def original_class(cls: type) -> Any:
    """The class of transformers that a ported one was made of; any other class itself."""
    return getattr(cls, "_paritas_original", cls)


@functools.cache
def _parameters(cls: type) -> tuple[tuple[str, ...], dict[str, Any], bool]:
    parameters = list(inspect.signature(original_class(cls).forward).parameters.values())[1:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    keyed = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return tuple(p.name for p in named), {p.name: p.default for p in keyed}, open_ended


def is_object(value: Any) -> bool:
    """Whether an argument is, or holds, what is neither a tensor nor a number nor made of them: a paged cache."""
    if value is None or isinstance(value, (torch.Tensor, Cache, torch.nn.Module, *_CONSTANTS)):
        return False
    if isinstance(value, Mapping):
        return any(map(is_object, value.values()))
    if isinstance(value, (tuple, list)):
        return any(map(is_object, value))
    return not dataclasses.is_dataclass(value)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, (tuple, list)) and any(map(_holds_tensor, value))


# --- examples to capture a generation with -----------------------------------------------------------------

#: Tokens that are new and tokens that were seen, in the call that a generation is captured with: sizes that no
#: graph can take for a constant of the model, as it could 0 and 1.
NEW, PAST = 3, 4


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
    inner = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    )
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
