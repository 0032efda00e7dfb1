# SPDX-License-Identifier: Apache-2.0
"""Values that a port is rarely tried on: whole numbers of any size and sign, ties, wide floats, NaN and infinities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from paritas.program import TensorSpec
from paritas.verify.inputs.generate import Case, as_floats, holds_values, is_attention_mask, is_whole

#: Where float32, 32 bits and float64 stop to hold every whole number, and their neighbours.
EDGES = tuple(sign * edge + step for edge in (2**24, 2**31, 2**32, 2**53) for sign in (1, -1) for step in (-1, 0, 1))

#: How far from zero, in powers of ten, the rows of wide floats lie.
DECADES = (3, -3, 1, 4, -1)

Ranges = Mapping[str, tuple[int, int]]


def ranges(specs: Sequence[TensorSpec], examples: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """The smallest and the largest value of the example, for whole numbers of which nothing else says what they may be.

    A model may index with them, or count: what the example holds is the only thing that is known to be meant.
    """
    return {
        spec.name: (int(examples[spec.name].min()), int(examples[spec.name].max()))
        for spec in specs
        if _unknown(spec) and spec.name in examples and examples[spec.name].size
    }


def odd(specs: Sequence[TensorSpec], base: Case, *, seed: int = 0, keep: Collection[str] = ()) -> tuple[Case, ...]:
    """Variants of `base`, of its shapes: each is optional, since nobody knows whether the model takes such values.

    "whole numbers" are negative, zero and positive; "huge whole numbers" lie around the ends of 24, 31, 32 and 53
    bits; "ties" are halves and whole floats, many of them equal; "wide values" go from 1e-4 to 1e5; masks that are no
    attention masks are drawn at random, positions are shifted by one. keep: inputs that stay as they are.
    "NaN and infinity" puts one of them into each row; it is `special`, which never decides.
    """
    free = [spec for spec in specs if spec.value is None and spec.name not in keep]
    made: list[Case] = []

    def add(
        name: str,
        change: Callable[[TensorSpec, np.ndarray], np.ndarray | None],
        edge: bool = False,
        special: bool = False,
    ) -> None:
        generator_of[0] = np.random.default_rng((seed, len(name), ord(name[0])))
        feed, changed = dict(base.feed), False
        for spec in free:
            other = change(spec, base.feed[spec.name])
            if other is not None:
                feed[spec.name], changed = other, True
        if changed:
            made.append(Case(name, feed, edge, optional=True, special=special))

    generator_of = [np.random.default_rng(seed)]

    def whole(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _whole(spec, value.shape, generator_of[0]) if _unknown(spec) else None

    def huge(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _huge(spec, value.shape, generator_of[0]) if _unknown(spec) else None

    def ties(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _ties(spec, value.shape, generator_of[0]) if _is_float(spec) else None

    def wide(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _wide(spec, value.shape, generator_of[0]) if _is_float(spec) else None

    def structure(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _structure(spec, value, generator_of[0])

    def special(spec: TensorSpec, value: np.ndarray) -> np.ndarray | None:
        return _special(spec, value) if _is_float(spec) else None

    add("whole numbers", whole)
    add("huge whole numbers", huge, edge=True)
    add("ties", ties)
    add("wide values", wide, edge=True)
    add("other masks and positions", structure)
    add("NaN and infinity", special, edge=True, special=True)
    return tuple(made)


def _unknown(spec: TensorSpec) -> bool:
    """Whether it is a whole number of which neither a table nor a name says what it may be."""
    known = spec.high is not None or spec.value is not None or spec.is_order or not holds_values(spec)
    return is_whole(spec.dtype) and not known and not is_attention_mask(spec)


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("float", "bfloat"))


def _within(spec: TensorSpec, values: np.ndarray) -> np.ndarray:
    info = np.iinfo(spec.dtype)
    return np.clip(values, info.min, info.max).astype(spec.dtype)


def _whole(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    values = np.asarray(generator.integers(-9, 10, shape))
    flat = values.reshape(-1)
    first = np.array([-7, 0, -1, 5, -3, 1, -2, 9])[: flat.size]
    flat[: first.size] = first
    if np.iinfo(spec.dtype).min == 0:
        values = np.abs(values) + np.asarray(generator.integers(0, 2, shape)) * 120
    return _within(spec, values.reshape(shape))


def _huge(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    info = np.iinfo(spec.dtype)
    edges = [edge for edge in EDGES if info.min <= edge <= info.max]
    edges += [int(info.min), int(info.max), int(info.max) - 1]
    values = np.array(generator.choice(np.array(edges, spec.dtype), shape))
    return np.where(generator.random(shape) < 0.3, _whole(spec, shape, generator), values).astype(spec.dtype)


def _ties(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    halves = np.asarray(generator.integers(-7, 8, shape) / 2)
    wholes = np.asarray(generator.integers(-4, 5, shape) * 1.0)
    rows = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) if shape else np.zeros(())
    return as_floats(spec.dtype, np.where(rows % 2 == 0, halves, wholes))


def _wide(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    values = np.asarray(generator.standard_normal(shape))
    rows = np.array([10.0 ** DECADES[i % len(DECADES)] for i in range(shape[0] if shape else 1)])
    scale = rows.reshape(-1, *[1] * (len(shape) - 1)) if shape else rows[0]
    return as_floats(spec.dtype, np.asarray(values * scale))


def _structure(spec: TensorSpec, value: np.ndarray, generator: np.random.Generator) -> np.ndarray | None:
    if spec.name.endswith(("position_ids", "cache_position")):
        moved = value + 1
        return moved if spec.high is None or moved.max(initial=0) < spec.high else None
    if not spec.name.endswith("mask") or is_attention_mask(spec) or not is_whole(spec.dtype):
        return None
    drawn = np.asarray(generator.random(value.shape) < 0.6)
    drawn[..., :1] = True  # a row that sees nothing is another case
    return drawn.astype(spec.dtype)


def _special(spec: TensorSpec, value: np.ndarray) -> np.ndarray:
    """One NaN or infinity in each row, another place in each."""
    changed = np.array(value, order="C")
    if not changed.ndim:
        return np.asarray(np.nan, changed.dtype)
    rows = changed.reshape(len(changed), -1)
    for number, row in enumerate(rows):
        if row.size:
            row[(number * 2 + 1) % row.size] = (np.nan, np.inf, -np.inf)[number % 3]
    if len(rows) == 1 and rows.size > 2:
        rows[0, [0, rows.size - 1]] = (np.inf, -np.inf)
    return changed


def usual(cases: Sequence[Case], accepted: Callable[[Case], bool]) -> Case | None:
    """The case whose shapes the odd values get: odd sizes where the original takes them, else the first it takes."""
    ordered = sorted((c for c in cases if not c.optional), key=lambda case: case.name != "odd sizes")
    return next((dataclasses.replace(case) for case in ordered if accepted(case)), None)
