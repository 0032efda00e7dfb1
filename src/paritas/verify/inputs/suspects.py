# SPDX-License-Identifier: Apache-2.0
"""Many sizes, magnitudes and structures, each tried once and quickly: those on which a port is off become cases.

A report cannot list a hundred cases, and an engine that compiles for each shape cannot run them. So these are tried for
a limited time, in an order in which the first tell most, and only what does not agree at once is judged as a case is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from paritas.errors import InputError
from paritas.program import TensorSpec
from paritas.verify.compare import compare
from paritas.verify.inputs.generate import Case, as_floats, draw, holds_values, is_attention_mask, shapes_of, symbols
from paritas.verify.inputs.sizes import Limits, Ways
from paritas.verify.tolerance import whole_model

#: How long is looked, and how many of those that are off are judged.
SECONDS, MOST = 1.0, 3
#: Small sizes, those at which blocks of 8, 16, 64 and 128 begin or end, and others. The first tell most.
LENGTHS = (2, 130, 3, 16, 65, 4, 257, 5, 32, 6, 10, 64, 12, 520, 128)
BATCHES = (4, 9, 5, 17, 8, 7, 33, 16, 32)
#: By which ordinary floats are multiplied: all of them, so that none hides behind a larger one.
SCALES = (1e-6, 1e5, 30.0)
#: Of what is tried there is no more memory than for so many elements of all inputs.
MOST_ELEMENTS = 1 << 22

Run = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
Feed = dict[str, np.ndarray]


def suspects(
    specs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    base: Mapping[str, np.ndarray],
    original: Run,
    port: Run,
    *,
    precision: str,
    limits: Limits,
    ways: Ways,
    keep: Collection[str] = (),
    resize: bool = True,
    seed: int = 0,
    seconds: float | None = None,
) -> tuple[Case, ...]:
    """Cases on which the port is not at once what the original is, at most `MOST`, each optional.

    base: inputs that the original takes. port: as a caller calls it; what it refuses at the door is no suspect.
    precision: the port's; half precisions are judged by a truth that costs too much here. keep: inputs that stay as
    they are. resize: whether sizes may be others. What the original refuses is passed over.
    """
    if precision not in ("float32", "float64"):
        return ()
    generator = np.random.default_rng((seed, 77))
    tries = itertools.chain(
        _other_values(specs, base, keep, generator), _other_sizes(specs, limits, ways, generator) if resize else ()
    )
    found: list[Case] = []
    until = time.perf_counter() + (SECONDS if seconds is None else seconds)
    for name, feed in tries:
        if time.perf_counter() > until or len(found) == MOST:
            break
        if _is_off(feed, outputs, original, port, precision):
            found.append(Case(name, feed, edge=True, optional=True))
    return tuple(found)


def _is_off(feed: Feed, outputs: Sequence[TensorSpec], original: Run, port: Run, precision: str) -> bool:
    try:
        want = list(original(feed))
    except Exception:  # noqa: BLE001 - in whichever way a model refuses its inputs
        return False
    try:
        got = list(port(feed))
    except InputError:
        return False
    except Exception:  # noqa: BLE001 - the report says which
        return True
    if len(want) != len(got):
        return True
    rule = whole_model(precision)
    return any(
        not compare(one, other, rule, dtype="float32" if spec.dtype == "bfloat16" else spec.dtype).agrees
        for one, other, spec in zip(want, got, outputs, strict=True)
    )


# --- values ------------------------------------------------------------------------------------


def _other_values(
    specs: Sequence[TensorSpec], base: Mapping[str, np.ndarray], keep: Collection[str], generator: np.random.Generator
) -> Iterator[tuple[str, Feed]]:
    free = [spec for spec in specs if spec.value is None and spec.name not in keep]
    floats = [s for s in free if s.dtype.startswith(("float", "bfloat")) and holds_values(s)]
    if floats:
        for scale in SCALES:
            drawn = {
                s.name: as_floats(s.dtype, np.asarray(generator.standard_normal(base[s.name].shape) * scale))
                for s in floats
            }
            yield f"values around {scale:g}", {**base, **drawn}
        drawn = {s.name: as_floats(s.dtype, np.asarray(generator.uniform(-16, 16, base[s.name].shape))) for s in floats}
        yield "values up to 16", {**base, **drawn}
    holes = {s.name: _with_hole(base[s.name]) for s in free if is_attention_mask(s)}
    if any(value.shape[1] > 2 for value in holes.values()):
        yield "a hole in the mask", {**base, **holes}
    positions = {s.name: base[s.name] for s in free if s.name.endswith("position_ids") and base[s.name].ndim}
    if positions:
        yield "positions backwards", {**base, **{n: _backwards(value) for n, value in positions.items()}}


def _with_hole(mask: np.ndarray) -> np.ndarray:
    changed = np.ones_like(mask)
    changed[:, mask.shape[1] // 2] = 0
    return changed


def _backwards(value: np.ndarray) -> np.ndarray:
    """The last row, where there are several, and else the only one."""
    changed = np.array(value)
    if changed.ndim == 1:
        return np.ascontiguousarray(changed[::-1])
    changed[-1] = changed[-1, ..., ::-1]
    return changed


# --- sizes -------------------------------------------------------------------------------------


def _other_sizes(
    specs: Sequence[TensorSpec], limits: Limits, ways: Ways, generator: np.random.Generator
) -> Iterator[tuple[str, Feed]]:
    if any(spec.value is not None for spec in specs):
        return  # sizes follow from it
    usual = dict(ways.example) or dict.fromkeys(symbols(specs), 2)
    tried: set[tuple[tuple[str, int], ...]] = set()
    for sizes in _sizes(specs, usual):
        if not sizes or (one := tuple(sorted(sizes.items()))) in tried:
            continue  # nothing is free, or two ways lead to the same
        tried.add(one)
        fits = all(low <= sizes[s] <= high for s, (low, high) in limits.items() if s in sizes)
        if not fits or not ways.takes(sizes):
            continue
        shapes = shapes_of(specs, sizes)
        if sum(int(np.prod(shape)) for shape in shapes.values()) > MOST_ELEMENTS:
            continue
        feed = draw(specs, shapes, generator)
        for spec in specs:
            if spec.is_order:
                feed[spec.name] = np.arange(feed[spec.name].size).astype(spec.dtype).reshape(feed[spec.name].shape)
            elif spec.counts:  # lengths of padded sequences: as long as they can be
                feed[spec.name] = np.full_like(feed[spec.name], max(sizes.values()))
        yield "sizes " + ", ".join(f"{symbol}={size}" for symbol, size in sizes.items()), feed


def _sizes(specs: Sequence[TensorSpec], usual: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every symbol by itself, then all lengths together; all of 1, and all equal."""
    found = {symbol: is_batch for symbol, is_batch in symbols(specs).items() if symbol in usual}
    batches = [symbol for symbol, is_batch in found.items() if is_batch]
    lengths = [symbol for symbol, is_batch in found.items() if not is_batch]
    few = dict.fromkeys(batches, 2)
    yield {**usual, **dict.fromkeys(found, 1)}
    yield {**usual, **dict.fromkeys(found, 3)}
    for number in range(max(len(LENGTHS), len(BATCHES))):
        if number < len(LENGTHS):
            wanted = LENGTHS[number]
            for symbol in lengths:
                yield {**usual, **few, symbol: wanted}
            if len(lengths) > 1:
                yield {**usual, **few, **dict.fromkeys(lengths, wanted)}
        if number < len(BATCHES):
            yield {**usual, **dict.fromkeys(batches, BATCHES[number])}
