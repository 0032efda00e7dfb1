# SPDX-License-Identifier: Apache-2.0
"""The cache that transformers' generation loops see: its keys and values are the engine's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from paritas.errors import InputError
from paritas.run.state import State


class EngineCache(DynamicCache):
    """A `DynamicCache` in whose place a `State` of an engine stands.

    It says its length, is reordered, repeated and cropped as the original. `layers` fetches the tensors, of shape
    [batch, heads, tokens, width], as a copy: to read, not to write.
    """

    state: State
    owner: object  # the port whose state it is

    def __init__(self, state: State, owner: object) -> None:
        vars(self).clear()
        self.state, self.owner = state, owner

    @property  # type: ignore[override]
    def layers(self) -> list[DynamicLayer]:
        arrays = [torch.from_numpy(array) for array in self.state.arrays()]
        found = []
        for keys, values in zip(arrays[::2], arrays[1::2], strict=True):
            layer = DynamicLayer()
            layer.update(keys, values)
            found.append(layer)
        return found

    @layers.setter
    def layers(self, value: list[Any]) -> None:
        raise InputError("The tensors of an engine's cache cannot be replaced.")

    def __len__(self) -> int:
        return len(self.state.arrays()) // 2

    def __iter__(self) -> Iterator[Any]:
        for layer in self.layers:
            yield layer.keys, layer.values, None

    def __repr__(self) -> str:
        return f"EngineCache(tokens={self.state.length})"

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.state.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.state.length + query_length, 0

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.state.reorder(beam_idx.numpy())

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            raise InputError(f"crop({tokens_to_remove}): pass minus the number of tokens to remove.")
        self.state.crop(-tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = self._rows()
        self.state.reorder(np.repeat(rows, repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.state.reorder(self._rows()[indices.numpy()])

    def _rows(self) -> np.ndarray:
        arrays = self.state.arrays()
        return np.arange(len(arrays[0]) if arrays else 0)

    def reset(self) -> None:
        self.state.crop(self.state.length)

    def activate_past_recording(self) -> None:
        pass  # every token is kept

    @property
    def is_initialized(self) -> bool:
        return self.state.length > 0

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * len(self)


def adopt(cache: Cache, state: State, owner: object) -> EngineCache:
    """`cache` itself, from now on the engine's: whoever holds it goes on with it, as with the original's."""
    cache.__class__ = EngineCache
    EngineCache.__init__(cache, state, owner)  # type: ignore[arg-type]
    return cache  # type: ignore[return-value]


def arrays_of(cache: Any) -> list[np.ndarray]:
    """Keys and values of every layer of a cache of transformers', as float32."""
    found = []
    for layer in cache.layers:
        if layer.keys is not None and layer.keys.numel():
            found += [layer.keys.float().numpy(), layer.values.float().numpy()]
    return found


def parts_of(cache: Any) -> tuple[Any, Any]:
    """The cache of the tokens themselves, and that of the encoder's, or None."""
    if isinstance(cache, EncoderDecoderCache):
        return cache.self_attention_cache, cache.cross_attention_cache
    return cache, None
