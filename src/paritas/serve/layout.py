# SPDX-License-Identifier: Apache-2.0
"""Which dimension of a port is the batch and which a length that may be filled up: declared, and then measured.

That dimensions have the same name does not say that rows have nothing to do with each other (a contrastive loss mixes
them). So two examples are computed alone and together when a version is loaded, and only what does not change is used.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from paritas.ports import Port
from paritas.program import TensorSpec

Arrays = dict[str, np.ndarray]
Compute = Callable[[Mapping[str, np.ndarray]], Arrays]

#: Inputs that are filled up to a length, and with what; tokens get the padding token.
FILL = {"attention_mask": 0, "token_type_ids": 0}

#: How far an answer may move, of its largest value, for rounding: a batch is summed in another order.
MOVES = {"float32": 1e-3, "float64": 1e-3}
MOVES_MORE = 3e-2  # for what is computed in half precision


@dataclasses.dataclass(frozen=True)
class Layout:
    """How requests are put together. fixed: the number of rows that the port has to have, 0 where it is free.

    length: name of the dimension that may be filled up, "" where none may. why: why not, for the log.
    """

    batched: bool
    fixed: int = 0
    length: str = ""
    fill: Mapping[str, int] = dataclasses.field(default_factory=dict)
    why: str = ""


def declared(port: Port, pad_token: int = 0) -> Layout:
    """What `port.json` says: every input and output begins with one dimension of the same name or size."""
    specs = (*port.inputs, *port.outputs)
    first = {spec.dims[0] if spec.dims else "nothing" for spec in specs}
    if len(first) != 1 or "nothing" in first:
        odd = next((spec for spec in specs if not spec.dims or spec.dims[0] != specs[0].dims[0]), specs[0])
        return Layout(False, why=f"{odd} does not begin with the batch")
    batch = first.pop()
    if any(spec.value is not None or spec.counts for spec in port.inputs):
        return Layout(False, why="the values of an input belong to the whole call")
    fixed = batch if isinstance(batch, int) else 0
    length = _length(port.inputs, port.outputs)
    if not length:
        return Layout(True, fixed)
    return Layout(True, fixed, length, {**FILL, "input_ids": pad_token})


def _length(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """The name of the texts' length, where a mask says of each token whether it is one."""
    by_name = {spec.name: spec for spec in inputs}
    mask = by_name.get("attention_mask")
    if mask is None or len(mask.dims) != 2 or "input_ids" not in by_name:
        return ""
    length = mask.dims[1]
    if not isinstance(length, str) or not length.isidentifier():
        return ""
    for spec in inputs:
        mentions = [dim for dim in spec.dims if isinstance(dim, str) and re.search(rf"\b{length}\b", dim)]
        if mentions and (spec.name not in (*FILL, "input_ids") or spec.dims[1:] != (length,)):
            return ""
    for spec in outputs:
        for dim in spec.dims:
            if isinstance(dim, str) and dim != length and re.search(rf"\b{length}\b", dim):
                return ""
    return length


def measured(layout: Layout, port: Port, compute: Compute) -> Layout:
    """What of a layout holds on two examples. Computes at most five rows; it warms the engine up as well."""
    rows = examples(port)
    if not rows or not layout.batched:
        return layout
    close = _Close(port)
    first, second = rows
    if layout.fixed:
        alone = compute({name: _tiled(array, layout.fixed) for name, array in first.items()})
        others = _tiled_second(first, second, layout.fixed)
        mixed = compute(others)
        if not close({name: array[:1] for name, array in alone.items()}, {n: a[:1] for n, a in mixed.items()}):
            return Layout(False, why="an answer changes with the rows beside it")
        return layout
    one, other = compute(first), compute(second)
    both = compute({name: np.concatenate([first[name], second[name]]) for name in first})
    for number, alone in enumerate((one, other)):
        if not close(alone, {name: array[number : number + 1] for name, array in both.items()}):
            return Layout(False, why="an answer changes with the rows beside it")
    if not layout.length:
        return layout
    had = first["attention_mask"].shape[1]
    filled = padded(first, layout, had + 3)
    return (
        layout
        if _fits(port, filled) and close(one, trimmed(compute(filled), port.outputs, layout, had))
        else dataclasses.replace(layout, length="", why="an answer changes with the padding behind it")
    )


def _fits(port: Port, feed: Mapping[str, np.ndarray]) -> bool:
    from paritas.errors import InputError

    try:
        port.feed(feed)
    except InputError:
        return False
    return True


def padded(feed: Mapping[str, np.ndarray], layout: Layout, length: int) -> Arrays:
    """The arrays of a request, filled up to a length."""
    found = {}
    for name, array in feed.items():
        fill = layout.fill.get(name)
        if fill is None or array.ndim < 2 or array.shape[1] == length:
            found[name] = array
            continue
        found[name] = np.full((array.shape[0], length, *array.shape[2:]), fill, array.dtype)
        found[name][:, : array.shape[1]] = array
    return found


def trimmed(outputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], layout: Layout, length: int) -> Arrays:
    """Outputs without what belongs to the filling."""
    found = {}
    for spec in specs:
        cut = tuple(slice(0, length) if dim == layout.length else slice(None) for dim in spec.dims)
        found[spec.name] = outputs[spec.name][cut]
    return found


def examples(port: Port) -> tuple[Arrays, Arrays] | None:
    """Two requests of a row each: what the port was made with, and the same backwards. None where there is none."""
    known = port.examples()
    if not known:
        known = made_up(port)
    if not known or any(not array.ndim or not array.shape[0] for array in known.values()):
        return None
    first = {name: np.ascontiguousarray(array[:1]) for name, array in known.items()}
    second = {}
    for name, array in first.items():
        turned = array[..., ::-1] if array.ndim > 1 and name not in FILL else array
        second[name] = np.ascontiguousarray(-turned if turned.dtype.kind == "f" else turned)
    if "attention_mask" in first:  # of the port's example, which may have ended in padding
        first["attention_mask"] = np.ones_like(first["attention_mask"])
        second["attention_mask"] = np.ones_like(second["attention_mask"])
    return first, second


def made_up(port: Port, length: int = 8) -> Arrays:
    """An array for each input, of numbers that it may hold; free sizes are those of the example, or `length`."""
    random, found = np.random.default_rng(0), {}
    for spec in port.inputs:
        shape = tuple(
            dim if isinstance(dim, int) else port.manifest.sizes.get(dim, length) if dim.isidentifier() else length
            for dim in spec.dims
        )
        if spec.name in FILL:
            found[spec.name] = np.full(shape, int(spec.name == "attention_mask"), spec.dtype)
        elif np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype).kind == "f":
            found[spec.name] = random.standard_normal(shape).astype(
                "float32" if spec.dtype == "bfloat16" else spec.dtype
            )
        else:
            found[spec.name] = random.integers(spec.low or 0, max(1, spec.high or 2), shape).astype(spec.dtype)
    return found


class _Close:
    """Whether two answers are the same but for rounding."""

    def __init__(self, port: Port) -> None:
        self._moves = MOVES.get(port.session.precision, MOVES_MORE)

    def __call__(self, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> bool:
        return all(self._same(got[name], want[name]) for name in want)

    def _same(self, got: np.ndarray, want: np.ndarray) -> bool:
        if got.shape != want.shape:
            return False
        if got.dtype.kind not in "fc":
            return bool(np.array_equal(got, want))
        with np.errstate(all="ignore"):
            known = np.isfinite(want)
            if not np.array_equal(known, np.isfinite(got)):
                return False
            largest = float(np.abs(want[known]).max(initial=0.0))
            return bool(np.abs(got[known] - want[known]).max(initial=0.0) <= self._moves * max(largest, 1e-6))


def _tiled(array: np.ndarray, rows: int) -> np.ndarray:
    return np.repeat(array, rows, axis=0)


def _tiled_second(first: Arrays, second: Arrays, rows: int) -> Arrays:
    return {
        name: np.concatenate([first[name], _tiled(second[name], rows - 1)]) if rows > 1 else first[name]
        for name in first
    }
