# SPDX-License-Identifier: Apache-2.0
"""Caches whose layers keep states of a fixed size, as Mamba's do, alone or beside keys and values.

PyTorch reads the prompt: the recurrence of its tokens has no graph of free length. Every further token is a step of
the engine, in which the states are inputs and outputs. Between two steps they are in the caller's own cache, which is
never another's: it can be reordered, copied, read and edited.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from paritas.capture.generation import PAST
from paritas.pytree import STATES, describe_output, leaf_names
from paritas.transformers.cache import EngineCache
from paritas.transformers.calls import SEEN, TOKENS, Call

#: Layers that a step takes apart and puts together again.
_STEPPED = (LinearAttentionLayer, LinearAttentionAndFullAttentionLayer, DynamicLayer, DummyLayer)


def is_recurrent(cache: Any) -> bool:
    """Whether some layer of a cache has a state of a fixed size. One that is an engine's has none, and stays there."""
    if isinstance(cache, EngineCache):
        return False
    layers = getattr(cache, "layers", None) if isinstance(cache, Cache) else None
    return layers is not None and any(isinstance(one, LinearAttentionCacheLayerMixin) for one in layers)


def only_original(call: Call, is_wanted: bool) -> str:
    """Why PyTorch has to compute a call with such a cache; "" for a step of an engine.

    is_wanted: whether the original would return the cache.
    """
    layers = call.cache.layers
    if not is_wanted:
        return "PyTorch writes into a cache that is not to be returned"
    if not all(type(layer) in _STEPPED for layer in layers):
        kinds = sorted({type(layer).__name__ for layer in layers if type(layer) not in _STEPPED})
        return f"PyTorch computes, since no engine keeps what is in a {kinds[0]}"
    linear = [layer for layer in layers if isinstance(layer, LinearAttentionCacheLayerMixin)]
    if not all(all(layer.has_previous_state.values()) for layer in linear):
        return "PyTorch reads the prompt, token by token; the engine computes every token after it"
    if any(layer.record_past for layer in linear):
        return "PyTorch computes, since a cache that can be rolled back keeps more than a state"
    if any(t.shape[1] != 1 for n, t in call.tensors.items() if n in TOKENS and t.dim() > 1):
        return "PyTorch computes several tokens at once, since the engine goes on by one"
    if any(call.tensors[name].dim() != 2 for name in SEEN if name in call.tensors):
        return "PyTorch goes on with a mask of its own kind"
    return ""


def kind(cache: Any) -> tuple[Any, ...]:
    """What of a cache is a constant of a step's graph: which tensors each layer has, and their sizes but the free."""
    flat, structure = describe_output(cache)
    names = leaf_names(structure)
    return tuple(
        (name, str(tensor.dtype), tuple(tensor.shape[1:]) if _is_state(name) else tensor.shape[1::2])
        for name, tensor in zip(names, flat, strict=True)
    )


def example(call: Call) -> dict[str, Any]:
    """The tensors of a step of two rows after `PAST` tokens, with the caller's values: sizes that are no constants."""
    found: dict[str, Any] = {}
    for name, value in call.tensors.items():
        if not isinstance(value, torch.Tensor):
            found[name] = value
        elif name in SEEN and value.shape[1] != 1:
            found[name] = torch.ones(2, PAST + 1, dtype=value.dtype)
        elif name.endswith("position_ids") or name == "cache_position":
            rows = value.shape[:-1] if value.dim() != 2 or len(value) == 1 else (2,)
            found[name] = torch.full((*rows, 1), PAST, dtype=value.dtype)
        else:
            found[name] = _rows(value)
    return found


def example_cache(cache: Any) -> Any:
    """A cache of that kind, of two rows and `PAST` tokens."""
    made = DynamicCache()
    made.layers = [_example_layer(layer) for layer in cache.layers]
    return made


def _example_layer(layer: Any) -> Any:
    if isinstance(layer, DummyLayer):
        return layer
    if not isinstance(layer, LinearAttentionCacheLayerMixin):
        made: Any = type(layer)()
    else:
        made = type(layer)(number_of_states=layer.number_of_states)
        made.has_previous_state = dict(layer.has_previous_state)
        made.conv_kernel_size = dict(layer.conv_kernel_size)
        made.dtype, made.device = layer.dtype, layer.device
        for name in STATES:
            for index, state in getattr(layer, name).items():
                if state is not None:
                    getattr(made, name)[index] = _rows(state)
                    getattr(made, f"is_{name}_initialized")[index] = True
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is not None and values is not None:
        places = torch.arange(PAST) % keys.shape[2]
        made.update(_rows(keys)[:, :, places], _rows(values)[:, :, places])
    return made


def take_over(cache: Any, made: Any) -> None:
    """The tensors of `made`, which a step has returned, in the caller's own cache."""
    for own, other in zip(cache.layers, made.layers, strict=True):
        for name in STATES:
            for index, state in getattr(other, name, {}).items():
                if state is not None:
                    getattr(own, name)[index] = state
        if getattr(other, "keys", None) is not None:
            own.keys, own.values = other.keys, other.values


def _is_state(name: str) -> bool:
    return any(f".{kind}." in f".{name}" or f"_{kind}." in name for kind in STATES)


def _rows(value: torch.Tensor) -> torch.Tensor:
    return value[torch.arange(2) % len(value)].clone()
