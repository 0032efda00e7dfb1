# SPDX-License-Identifier: Apache-2.0
"""The cache that transformers' generation loops see, while its keys and values are an engine's.

The caller's own object is frozen: it says its length, is reordered, repeated and cropped, and the engine does it.
Whatever else is asked of it, its layers above all, thaws it first: then it is what it was before, with keys and values
in the layers of its own kind. The engine takes them from there when it goes on.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import (
    Cache,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
    StaticLayer,
    StaticSlidingWindowLayer,
)

from paritas.run.session import State
from paritas.run.state import Array

#: Layers that an engine can keep: one tensor of keys and one of values, in the order of the tokens.
KEPT = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer)


class Held:
    """A `State` that no engine has taken yet: arrays [batch, heads, tokens, width], keys and values in turn."""

    def __init__(self, arrays: Sequence[Array] = ()) -> None:
        self._arrays = list(arrays)

    @property
    def length(self) -> int:
        return self._arrays[0].shape[2] if self._arrays else 0

    def run(self, feed: Any, tokens: int) -> dict[int, Array]:
        raise NotImplementedError("nothing computes here")

    def reorder(self, rows: Array) -> None:
        self._arrays = [array[rows] for array in self._arrays]

    def crop(self, tokens: int) -> None:
        if tokens:
            self._arrays = [array[:, :, :-tokens] for array in self._arrays]

    def arrays(self) -> list[Array]:
        return self._arrays

    def load(self, arrays: Sequence[Array]) -> None:
        self._arrays = list(arrays)


class EngineCache(Cache):
    """Mixed into the class of a cache whose keys and values are in a `State`."""

    _paritas_state: State
    _paritas_owner: object  # the port whose state it is; None for one that is only held
    _paritas_dtype: torch.dtype

    @property
    def layers(self) -> list[Any]:
        return thawed(self).layers

    @layers.setter
    def layers(self, value: list[Any]) -> None:
        thawed(self).layers = value

    def _stored(self) -> list[Any]:
        found: list[Any] = vars(self)["layers"]
        return found or [DynamicLayer()] * len(self)

    def __len__(self) -> int:
        return len(vars(self)["layers"]) or len(self._paritas_state.arrays()) // 2

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._paritas_state.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._paritas_state.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        stored = self._stored()
        chosen = stored if layer_idx is None else [stored[layer_idx]]
        return max((layer.get_max_length() for layer in chosen), default=-1)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._paritas_state.length + query_length, 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self._paritas_state.reorder(beam_idx.numpy())

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            thawed(self).crop(tokens_to_remove)  # which says what it thinks of that
        else:
            self._paritas_state.crop(-tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._paritas_state.reorder(np.repeat(self._rows(), repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._paritas_state.reorder(self._rows()[indices.numpy()])

    def _rows(self) -> np.ndarray:
        arrays = self._paritas_state.arrays()
        return np.arange(len(arrays[0]) if arrays else 0)

    def activate_past_recording(self) -> None:
        for layer in vars(self)["layers"]:
            if hasattr(layer, "activate_past_recording"):
                layer.activate_past_recording()

    def is_recording_past(self, layer_idx: int) -> bool:
        return bool(getattr(self._stored()[layer_idx], "record_past", False))

    @property
    def is_initialized(self) -> bool:
        return self._paritas_state.length > 0

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [bool(getattr(layer, "is_sliding", False)) for layer in self._stored()]

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self._stored())

    @property
    def is_dummy(self) -> list[bool]:
        return [isinstance(layer, DummyLayer) for layer in self._stored()]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(thawed(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return thawed(self).__reduce_ex__(protocol)


@functools.cache
def _frozen(cls: type) -> Any:
    space = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (EngineCache, cls), {**space, "_paritas_plain": cls})


def freeze(cache: Any, state: State, owner: object, dtype: torch.dtype) -> Any:
    """`cache` itself, from now on with its keys and values in `state`: whoever holds it goes on with it."""
    if not isinstance(cache, EngineCache):
        vars(cache).setdefault("layers", [])
        cls: Any = type(cache)
        cache.__class__ = _frozen(cls)
    vars(cache).update(_paritas_state=state, _paritas_owner=owner, _paritas_dtype=dtype)
    return cache


def thawed(cache: Any) -> Any:
    """The same object as it was before it was frozen, with what the engine has added."""
    if not isinstance(cache, EngineCache):
        return cache
    space: Any = vars(cache)
    state, dtype = space.pop("_paritas_state"), space.pop("_paritas_dtype")
    space.pop("_paritas_owner")
    plain: Any = type(cache)
    cache.__class__ = plain._paritas_plain
    tensors = [torch.from_numpy(np.array(array)).to(dtype) for array in state.arrays()]
    if not tensors:
        for layer in cache.layers:
            layer.reset()
        return cache
    while len(cache.layers) < len(tensors) // 2 and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    kept: list[Any] = [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]
    for layer, keys, values in zip(kept, tensors[::2], tensors[1::2], strict=False):
        other_batch = layer.is_initialized and len(layer.keys) != len(keys)
        if other_batch and isinstance(layer, StaticLayer):
            layer.is_initialized = False
        layer.reset()
        layer.update(keys, values)
    return cache


def is_kept(cache: Any) -> bool:
    """Whether an engine can go on with a cache: of layers that it can keep, with every token that they have seen."""
    if isinstance(cache, EngineCache):
        return True
    if isinstance(cache, EncoderDecoderCache):
        return is_kept(cache.self_attention_cache) and is_kept(cache.cross_attention_cache)
    if getattr(cache, "offloading", False) or type(cache).get_mask_sizes is not Cache.get_mask_sizes:
        return False
    layers = [layer for layer in cache.layers if not isinstance(layer, DummyLayer)]
    return all(type(layer) in KEPT and _is_whole(layer) for layer in layers)


def has_seen_nothing(cache: Any) -> bool:
    """Whether it was made for a generation that has not begun, as loops make one of a model's layers."""
    names = ("is_initialized", "is_conv_states_initialized", "is_recurrent_states_initialized")
    return all(not _any_of(getattr(layer, name, False)) for layer in cache.layers for name in names)


def _any_of(said: Any) -> bool:
    return any(said.values()) if isinstance(said, dict) else bool(said)


def _is_whole(layer: Any) -> bool:
    return not layer.is_initialized or int(layer.get_seq_length()) <= layer.keys.shape[-2]


def arrays_of(cache: Any) -> list[np.ndarray]:
    """Keys and values of every layer of a cache of transformers', as float32."""
    if isinstance(cache, EngineCache):
        return list(cache._paritas_state.arrays())
    found = []
    for layer in cache.layers:
        if layer.keys is not None and layer.keys.numel() and (seen := int(layer.get_seq_length())):
            found += [tensor[:, :, :seen].float().numpy() for tensor in (layer.keys, layer.values)]
    return found


def dtype_of(cache: Any, otherwise: torch.dtype = torch.float32) -> torch.dtype:
    """Of the keys that are in it."""
    if isinstance(cache, EngineCache):
        return cache._paritas_dtype
    return next((layer.keys.dtype for layer in cache.layers if layer.keys is not None), otherwise)


def parts_of(cache: Any) -> tuple[Any, Any]:
    """The cache of the tokens themselves, and that of the encoder's, or None."""
    if isinstance(cache, EncoderDecoderCache):
        return cache.self_attention_cache, cache.cross_attention_cache
    return cache, None


def fill(cache: Any, made: Any) -> None:
    """The keys and values of `made`, in the caller's own cache: held there until an engine goes on with them."""
    freeze(cache, Held(arrays_of(made)), None, dtype_of(made))


def copy_into(cache: Any, made: Any) -> None:
    """The keys and values of an encoder's tokens, which stay as they are."""
    for index, layer in enumerate(made.layers):
        if layer.keys is not None:
            cache.update(layer.keys, layer.values, index)


def forgets(module: torch.nn.Module) -> bool:
    """Whether the cache that the original would begin with keeps no more than a window of some layers' tokens."""
    config = getattr(module, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        return False
    layers = DynamicCache(config=config).layers
    return any(type(layer) is DynamicSlidingWindowLayer for layer in layers) and all(
        type(layer) in (DynamicSlidingWindowLayer, DynamicLayer) for layer in layers
    )


def growing(cache: Any) -> Any:
    """A cache of layers that only grow: the engine keeps every token, and masks leave out what is too far away."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(growing(cache.self_attention_cache), growing(cache.cross_attention_cache))
    made, layers = DynamicCache(), [DynamicLayer() for _ in cache.layers]
    for layer, own in zip(layers, cache.layers, strict=True):
        if own.keys is not None:
            layer.update(own.keys, own.values)
    made.layers = list(layers)
    return made
