# SPDX-License-Identifier: Apache-2.0
"""Corners of what an input may hold: repeated and extreme tokens, black and white, tiny and huge floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

#: The bounds of an image after ImageNet's normalisation, the widest in use: (0 - 0.485) / 0.229, (1 - 0.406) / 0.225.
BLACK, WHITE = -2.117904, 2.64
#: White in an image that nobody has normalised.
LARGE = 255.0

#: One row of an input: its shape, the largest value it may hold and a generator -> what it holds.
Row = Callable[[tuple[int, ...], float, np.random.Generator], np.ndarray]


def _chequered(shape: tuple[int, ...]) -> np.ndarray:
    """bool, True where the last two indices add up to an even number; a scalar is True."""
    places = np.indices(shape, np.int64)[-2:].sum(0) if shape else np.zeros((), np.int64)
    return places % 2 == 0


def _zeros(shape: tuple[int, ...], high: float, generator: np.random.Generator) -> np.ndarray:
    return np.where(_chequered(shape), 0.0, -0.0)


def _constant(shape: tuple[int, ...], high: float, generator: np.random.Generator) -> np.ndarray:
    return np.full(shape, high)


def _alternating(shape: tuple[int, ...], high: float, generator: np.random.Generator) -> np.ndarray:
    return np.where(_chequered(shape), high, BLACK if high == WHITE else 0.0)


def _tiny(shape: tuple[int, ...], high: float, generator: np.random.Generator) -> np.ndarray:
    """Ordinary values, and among them zeros of both signs and numbers around the smallest normal one.

    Not a row of tiny values alone: where everything is below the smallest normal number, x / |x| is whatever the
    engine does with denormals, while between ordinary values a fault shows (as a NaN, an infinity) and flushing
    does not.
    """
    values = generator.standard_normal(shape)
    odd = np.array([0.0, -0.0, high, -high, high / 2, -high / 2, high / 4])
    flat = values.reshape(-1)
    flat[::3] = np.resize(odd, flat[::3].shape)
    return values


def _large(shape: tuple[int, ...], high: float, generator: np.random.Generator) -> np.ndarray:
    return generator.uniform(0.0, LARGE, shape)


#: One token everywhere, at both ends of the vocabulary, and both in turn; silence or black, white, a chequerboard.
CORNERS: tuple[Row, ...] = (_zeros, _constant, _alternating)
EXTREMES: tuple[Row, ...] = (_tiny, _large)


def fill(
    rows: tuple[Row, ...], first: int, shape: tuple[int, ...], high: float, generator: np.random.Generator
) -> np.ndarray:
    """float64 of this shape: its row i is made by `rows[first + i]`, over and over; a scalar by the first."""
    if not shape:
        return rows[first % len(rows)]((), high, generator)
    made = [rows[(first + i) % len(rows)](shape[1:], high, generator) for i in range(shape[0])]
    return np.stack(made)


def without_denormals(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The feed with its denormal numbers as zeros of their sign; None where it holds none."""
    flushed = {name: _flushed(value) for name, value in feed.items()}
    return None if all(flushed[name] is value for name, value in feed.items()) else flushed


def _flushed(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "f":
        return value
    denormal = (value != 0) & (np.abs(value) < np.finfo(value.dtype).smallest_normal)
    return np.where(denormal, np.copysign(value.dtype.type(0), value), value) if denormal.any() else value
