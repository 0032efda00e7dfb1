# SPDX-License-Identifier: Apache-2.0
"""Small changes of an input that leave it legal: tokens, paddings, elements and blocks of floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paritas.program import TensorSpec
from paritas.verify.inputs.edge_values import BLACK, LARGE, WHITE
from paritas.verify.inputs.generate import as_floats, is_attention_mask, is_whole

#: Below it a float input is not scaled down: far below, all that is left of an output may be denormal.
FAINT = 1e-3


def mutated(spec: TensorSpec, value: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`value`, changed: of the same shape and dtype, integers below `spec.high`, floats within +-`LARGE`.

    Of an attention mask one row's padding is drawn anew; every row keeps a visible token.
    """
    changed = np.array(value, order="C")
    if is_attention_mask(spec):
        row = int(generator.integers(len(changed)))
        changed[row] = padding(changed.shape[1], generator)
        return changed
    if spec.dtype == "bool":
        flat = changed.reshape(-1)
        flat[generator.integers(flat.size)] ^= True
        return changed
    if spec.is_order:
        _two_tokens_swapped(changed, changed.size, generator)
        return changed
    if is_whole(spec.dtype):
        low, high = (0, spec.high) if spec.high is not None else _ends(changed)
        moved = np.asarray(changed.astype(np.int64) - low)
        _pick(_TOKENS, generator)(moved, high - low, generator)
        return (moved + low).astype(spec.dtype)
    wide = changed.astype(np.float64)
    _pick(_FLOATS, generator)(wide, generator)
    return as_floats(spec.dtype, np.clip(wide, -LARGE, LARGE))


def _ends(value: np.ndarray) -> tuple[int, int]:
    """Where whole numbers lie that no table bounds: around zero, and as far as they do already."""
    least = 0 if value.dtype.kind == "u" else -9
    far = 1 << 31
    return max(min(least, int(value.min())), -far), min(max(10, int(value.max()) + 1), far)


def padding(columns: int, generator: np.random.Generator) -> np.ndarray:
    """bool [columns]: all visible, or padding on one side, and at least one token visible."""
    visible = int(generator.integers(1, columns + 1))
    side = generator.random()
    if side < 0.2:
        return np.ones(columns, bool)
    places = np.arange(columns)
    return places < visible if side < 0.6 else places >= columns - visible


def _pick(ways: tuple[Callable[..., None], ...], generator: np.random.Generator) -> Callable[..., None]:
    return ways[int(generator.integers(len(ways)))]


def _block(value: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A view of some neighbours in memory: a run of tokens, a part of an image's rows."""
    flat = value.reshape(-1)
    first = int(generator.integers(flat.size))
    length = int(generator.integers(1, max(2, flat.size // 4 + 1)))
    return flat[first : first + length]


# --- tokens -------------------------------------------------------------------------------------


def _some_tokens(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    flat = value.reshape(-1)
    places = generator.integers(0, flat.size, int(generator.integers(1, 5)))
    flat[places] = generator.integers(0, high, places.shape)


def _block_of_tokens(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    block = _block(value, generator)
    block[:] = generator.integers(0, high, block.shape)


def _one_token_in_a_block(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    _block(value, generator)[:] = generator.choice(value.reshape(-1))


def _ends_of_the_vocabulary(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    value.reshape(-1)[generator.integers(value.size)] = generator.choice((0, high - 1))


def _two_tokens_swapped(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    flat = value.reshape(-1)
    one, other = generator.integers(0, flat.size, 2)
    flat[one], flat[other] = flat[other], flat[one]


def _all_tokens(value: np.ndarray, high: int, generator: np.random.Generator) -> None:
    value[...] = generator.integers(0, high, value.shape)


_TOKENS = (
    _some_tokens, _block_of_tokens, _one_token_in_a_block, _ends_of_the_vocabulary, _two_tokens_swapped, _all_tokens
)  # fmt: skip


# --- floats -------------------------------------------------------------------------------------

_EXTREME = (0.0, -0.0, 1.0, -1.0, BLACK, WHITE, 8.0, -8.0, 32.0, -32.0, LARGE, -LARGE)


def _one_element(value: np.ndarray, generator: np.random.Generator) -> None:
    value.reshape(-1)[generator.integers(value.size)] = generator.choice(_EXTREME)


def _block_of_noise(value: np.ndarray, generator: np.random.Generator) -> None:
    block = _block(value, generator)
    block[:] = generator.standard_normal(block.shape) * 2.0 ** generator.integers(-3, 5)


def _constant_block(value: np.ndarray, generator: np.random.Generator) -> None:
    _block(value, generator)[:] = generator.choice(_EXTREME[:6])


def _a_little_everywhere(value: np.ndarray, generator: np.random.Generator) -> None:
    value += generator.standard_normal(value.shape) * (0.1 * value.std() + 0.01)


def _scaled(value: np.ndarray, generator: np.random.Generator) -> None:
    faint = np.abs(value).max() < FAINT
    value *= 2.0 if faint else generator.choice((0.5, 2.0, 4.0))


def _turned(value: np.ndarray, generator: np.random.Generator) -> None:
    _block(value, generator)[:] *= -1


def _all_floats(value: np.ndarray, generator: np.random.Generator) -> None:
    value[...] = generator.standard_normal(value.shape)


_FLOATS = (
    _one_element, _block_of_noise, _constant_block, _a_little_everywhere, _scaled, _turned, _all_floats
)  # fmt: skip
