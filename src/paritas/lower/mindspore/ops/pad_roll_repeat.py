# SPDX-License-Identifier: Apache-2.0
"""Elements put elsewhere: repeated, turned around, padded, written over a part of another tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch

from paritas.capture.normalise import WHOLE_DIMENSION
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import from_front, indexed, is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Size, Sizes, Value, operand
from paritas.lower.registry import Arg


@lowers("aten.repeat.default")
@lowers("aten.tile.default", repeats=Arg("dims"))
def _tiled(emit: Emitter, self: Value, repeats: Sizes) -> Value:
    missing = len(repeats) - self.rank
    if missing > 0:
        self = emit.call("ops.reshape", self, (*[1] * missing, *emit.dims(self.shape)))
    repeats = (*[1] * -missing, *repeats) if missing < 0 else tuple(repeats)
    return emit.call("ops.tile", self, repeats)


@lowers("aten.repeat_interleave.self_int")
def repeat_interleave(
    emit: Emitter, self: Value, repeats: Size, dim: int | None = None, *, output_size: Size | None = None
) -> Value:
    if dim is None:
        self, dim, sizes = emit.call("ops.reshape", self, (-1,)), 0, [_count(self.shape)]
    else:
        dim, sizes = dim % self.rank, list(self.shape)
    spread = emit.call("ops.expand_dims", self, dim + 1)
    before, after = emit.dims(sizes[: dim + 1]), emit.dims(sizes[dim + 1 :])
    spread = emit.call("ops.broadcast_to", spread, (*before, repeats, *after))
    return emit.call("ops.reshape", spread, emit.dims(emit.out.shape, free=True))


def _count(shape: Sizes) -> int:
    total = 1
    for size in shape:
        total = total * size
    return total


@lowers("aten.flip.default")
def flip(emit: Emitter, self: Value, dims: Sequence[int]) -> Value:
    return emit.call("ops.flip", self, tuple(d % self.rank for d in dims)) if dims and self.rank else self


@lowers("aten.roll.default")
def roll(emit: Emitter, self: Value, shifts: Sizes, dims: Sequence[int]) -> Value:
    shifts, dims = _listed(shifts), _listed(dims)
    x = self
    if not dims:
        count = _count(self.shape)
        x = emit.typed(emit.call("ops.reshape", self, (-1,)), shape=(count,))
        dims = [0]
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        if isinstance(shift, int) and isinstance(size, (int, sympy.Integer)):
            shift = shift % int(size) if size else 0
            if shift == 0:
                continue
            x = emit.let(x, "x")
            end, start = (indexed(emit, x, dim % x.rank, f"{-shift}:"), indexed(emit, x, dim % x.rank, f":{-shift}"))
            moved = emit.call("ops.cat", (Value(end), Value(start)), dim)
        elif shift == 0:
            continue
        else:  # either piece may be empty, which a piece to join may not
            places = emit.call("ops.arange", emit.size(size))
            places = emit.infix("%", emit.infix("-", places, shift), emit.size(size))
            moved = emit.call("ops.gather", x, places, dim % x.rank)
        x = emit.typed(moved, like=x)
    return x if x.rank == self.rank else emit.call("ops.reshape", x, emit.dims(emit.out.shape, free=True))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


# --- padding ---


@lowers("aten.constant_pad_nd.default")
def constant_pad_nd(emit: Emitter, self: Value, pad: Sizes, value: Scalar = 0) -> Value:
    if not all(isinstance(width, int) for width in pad):
        in_front = any(not isinstance(width, int) or width != 0 for width in pad[::2])
        return _looked_up(emit, self, pad, "constant", value) if in_front else filled_up(emit, self, pad, value)
    return _padded(emit, self, pad, lambda x, dim, size, last: _edge(emit, x, dim, size, value))


def filled_up(emit: Emitter, self: Value, pad: Sizes, value: float) -> Value:
    """`self` made as large as the result: widths behind that only the run knows may be 0, as no piece to join may."""
    x = self
    for pair in range(len(pad) // 2):
        dim, high = self.rank - 1 - pair, pad[2 * pair + 1]
        size = emit.out.shape[dim]
        if isinstance(high, int) and high == 0:
            continue
        shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
        joined = emit.call("ops.cat", (x, filled(emit, value, shape=shape)), dim)
        joined = emit.let(emit.typed(joined, dtype=x.dtype, shape=shape), "padded")
        cut = Value(indexed(emit, joined, dim, f":{emit.size(size)}"))
        x = emit.typed(cut, dtype=x.dtype, shape=shape)
    return x


def _edge(emit: Emitter, x: Value, dim: int, size: int, value: float) -> Value:
    shape = [*x.shape[:dim], size, *x.shape[dim + 1 :]]
    return filled(emit, value, shape=shape)


def _padded(emit: Emitter, self: Value, pad: Sizes, edge: Callable[..., Any], mirrored: bool = False) -> Value:
    """`self` with `edge(x, dim, size, last)` joined to both ends of each dimension; negative sizes cut."""
    x = self
    for pair in range(len(pad) // 2):
        dim = self.rank - 1 - pair
        low, high = pad[2 * pair], pad[2 * pair + 1]
        later = (min(low, 0), min(high, 0)) if mirrored and max(low, high) > 0 else (0, 0)
        if any(later):  # what lies beyond an edge is taken from the whole tensor, which is cut afterwards
            low, high = max(low, 0), max(high, 0)
        if low < 0 or high < 0:
            text = f"{-low if low < 0 else ''}:{high if high < 0 else ''}"
            size = x.shape[dim] + min(low, 0) + min(high, 0)
            cut = Value(indexed(emit, x, dim, text))
            x = emit.typed(cut, dtype=x.dtype, shape=(*x.shape[:dim], size, *x.shape[dim + 1 :]))
        if low <= 0 and high <= 0:
            continue
        x = emit.let(x, "x") if not is_empty(x) else x
        parts = [] if is_empty(x) else [x]
        if low > 0:
            parts.insert(0, edge(x, dim, low, False))
        if high > 0:
            parts.append(edge(x, dim, high, True))
        joined = parts[0] if len(parts) == 1 else emit.call("ops.cat", tuple(parts), dim)
        size = x.shape[dim] + max(low, 0) + max(high, 0)
        x = emit.typed(joined, dtype=x.dtype, shape=(*x.shape[:dim], size, *x.shape[dim + 1 :]))
        if any(later):
            text = f"{-later[0] or ''}:{later[1] or ''}"
            cut = Value(indexed(emit, x, dim, text))
            shape = (*x.shape[:dim], size + sum(later), *x.shape[dim + 1 :])
            x = emit.typed(cut, dtype=x.dtype, shape=shape)
    return x


def _looked_up(emit: Emitter, self: Value, pad: Sizes, mode: str, value: float = 0) -> Value:
    """Widths that are known at run time only: each place of the result looks up which of `self` it repeats."""
    x = self
    for pair in range(len(pad) // 2):
        dim = self.rank - 1 - pair
        low, high = pad[2 * pair], pad[2 * pair + 1]
        if isinstance(low, int) and isinstance(high, int) and low == 0 == high:
            continue
        size = emit.size(x.shape[dim])
        last = emit.size(x.shape[dim] - 1)
        first = Value(str(-low) if isinstance(low, int) else f"-{operand(low)}")
        places = emit.call("ops.arange", first, emit.infix("+", size, high))
        x = emit.let(x, "x")
        shape = (*x.shape[:dim], emit.out.shape[dim], *x.shape[dim + 1 :])
        if mode == "constant":
            places = emit.let(places, "places")
            inside = emit.call("ops.logical_and", emit.infix(">=", places, 0), emit.infix("<", places, size))
            inside = emit.call("ops.reshape", inside, (-1, *[1] * (x.rank - dim - 1)))
            taken = emit.call("ops.gather", x, _within(emit, places, last), dim)
            made = emit.call("ops.where", inside, taken, filled(emit, value, shape=()))
        else:
            made = emit.call("ops.gather", x, _mirrored(emit, places, mode, size, last), dim)
        x = emit.typed(made, dtype=x.dtype, shape=shape)
    return x


def _within(emit: Emitter, places: Value, last: Value) -> Value:
    return emit.call("ops.maximum", 0, emit.call("ops.minimum", last, places))


def _mirrored(emit: Emitter, places: Value, mode: str, size: Value, last: Value) -> Value:
    """The place inside that each place outside repeats."""
    if mode == "replicate":
        return _within(emit, places, last)
    if mode == "circular":
        return emit.infix("%", places, size)
    beyond = emit.infix("-", emit.call("ops.abs", places), last)
    return emit.infix("-", last, emit.call("ops.abs", beyond))


@lowers("aten.pad.default")
def pad(emit: Emitter, self: Value, pad: Sizes, mode: str, value: float | None) -> Value:
    if mode == "constant":
        return constant_pad_nd(emit, self, pad, 0 if value is None else value)

    def reflect(x: Value, dim: int, size: int, last: bool) -> Value:
        text = f"-{size + 1}:-1" if last else f"1:{size + 1}"
        return emit.call("ops.flip", Value(indexed(emit, x, dim, text)), (dim,))

    def replicate(x: Value, dim: int, size: int, last: bool) -> Value:
        shape = emit.dims([*x.shape[:dim], size, *x.shape[dim + 1 :]])
        return emit.call("ops.broadcast_to", Value(indexed(emit, x, dim, "-1:" if last else ":1")), shape)

    def circular(x: Value, dim: int, size: int, last: bool) -> Value:
        return Value(indexed(emit, x, dim, f":{size}" if last else f"-{size}:"))

    if not all(isinstance(width, int) for width in pad):
        return _looked_up(emit, self, pad, mode)
    edges = {"reflect": reflect, "replicate": replicate, "circular": circular}
    return _padded(emit, self, pad, edges[mode], mirrored=mode != "circular")


# --- a part overwritten ---


def _spliced(
    emit: Emitter, self: Value, src: Value, dim: int, start: Size, length: Size, *, to_the_end: bool = False
) -> Value:
    """x[:start], src, x[start + length:] along dim. to_the_end: the last of these is known to be empty."""
    size = self.shape[dim]
    if isinstance(start, int) and isinstance(size, int):
        start = min(max(start + size if start < 0 else start, 0), size)
    if length == size:
        return src
    if not to_the_end:
        start = from_front(emit, start, size)
    x = emit.let(self, "x")
    after = f"{operand(start) if isinstance(start, Value) else start} + {length}"
    if isinstance(start, int) and isinstance(length, int):
        after = str(start + length)
        if length == 0:
            return x
    parts = [src]
    if start != 0:
        parts.insert(0, Value(indexed(emit, x, dim, f":{start}")))
    known = isinstance(size, int) and isinstance(start, int) and isinstance(length, int)
    if not (to_the_end or (known and start + length >= size)):
        parts.append(Value(indexed(emit, x, dim, f"{after}:")))
    return emit.call("ops.cat", tuple(parts), dim)


@lowers("aten.slice_scatter.default")
def slice_scatter(
    emit: Emitter, self: Value, src: Value, dim: int, start: Size | None, end: Size | None, step: Size
) -> Value:
    dim = dim % self.rank
    if step != 1:
        return _strided(emit, self, emit.cast(src, emit.out.dtype), dim, start, end, step)
    src = emit.cast(src, emit.out.dtype)
    length = src.shape[dim]
    length = length if isinstance(length, int) or length == self.shape[dim] else emit.size(length)
    to_the_end = end is None or (isinstance(end, int) and end >= WHOLE_DIMENSION)
    return _spliced(emit, self, src, dim, start or 0, length, to_the_end=to_the_end)


def _strided(emit: Emitter, self: Value, src: Value, dim: int, start: Size, end: int | None, step: int) -> Value:
    size = self.shape[dim]
    if is_empty(src):
        return self
    if not all(isinstance(x, int) for x in (size, step, start or 0, end or 0)):
        return _every(emit, self, src, dim, start or 0, WHOLE_DIMENSION if end is None else end, step)
    places = list(range(size))[start:end:step]
    chosen, rows = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.int64)
    chosen[places], rows[places] = True, torch.arange(len(places))
    spread = emit.call("ops.gather", src, emit.constant(rows, "rows"), dim)
    shape = (-1, *[1] * (self.rank - dim - 1))
    return emit.call("ops.where", emit.call("ops.reshape", emit.constant(chosen, "chosen"), shape), spread, self)


def _every(emit: Emitter, self: Value, src: Value, dim: int, start: Size, end: Size, step: int) -> Value:
    """Bounds that depend on the input's size: every place says whether it is overwritten, and by which row."""
    size = sympy.sympify(self.shape[dim])
    start, end = (from_front(emit, bound, size) for bound in (start, end))
    at = emit.let(emit.call("ops.arange", emit.size(self.shape[dim])), "at")
    places = emit.let(emit.infix("-", at, start), "places")
    whole_steps = emit.infix("==", emit.infix("%", places, step), 0)
    chosen = emit.call("ops.logical_and", emit.infix(">=", places, 0), whole_steps)
    if not (isinstance(end, int) and end >= WHOLE_DIMENSION):
        chosen = emit.call("ops.logical_and", chosen, emit.infix("<", at, end))
    # Behind the rows that stay, since there may be none that are written.
    fresh = emit.infix("+", emit.infix("//", places, step), emit.size(self.shape[dim]))
    rows = emit.call("ops.where", chosen, fresh, at)
    return emit.call("ops.gather", emit.call("ops.cat", (self, src), dim), rows, dim)


@lowers("aten.select_scatter.default")
def select_scatter(emit: Emitter, self: Value, src: Value, dim: int, index: Size) -> Value:
    dim = dim % self.rank
    row = emit.call("ops.expand_dims", emit.cast(src, emit.out.dtype), dim)
    return _spliced(emit, self, row, dim, index, 1)


# --- windows and blocks ---


@lowers("aten.unfold.default")
def unfold(emit: Emitter, self: Value, dimension: int, size: int, step: int) -> Value:
    if self.rank == 0:
        return emit.call("ops.reshape", self, emit.dims(emit.out.shape))
    if (nothing := emit.if_empty()) is not None:
        return nothing
    dim = dimension % self.rank
    starts = emit.call("ops.arange", 0, emit.size((emit.out.shape[dim] - 1) * step + 1), step)
    places = emit.infix("+", emit.call("ops.expand_dims", starts, -1), emit.call("ops.arange", size))
    windows = emit.call("ops.gather", self, places, dim)  # [.., count, size, ..]: the size goes last
    order = [d for d in range(self.rank + 1) if d != dim + 1]
    return permuted(emit, windows, [*order, dim + 1])


@lowers("aten.pixel_shuffle.default")
def pixel_shuffle(emit: Emitter, self: Value, upscale_factor: int) -> Value:
    r = upscale_factor
    *batch, channels, height, width = self.shape
    cut = emit.call("ops.reshape", self, emit.dims([*batch, channels // (r * r), r, r, height, width]))
    n = len(batch)
    turned = permuted(emit, cut, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return emit.call("ops.reshape", turned, emit.dims(emit.out.shape))


@lowers("aten.pixel_unshuffle.default")
def pixel_unshuffle(emit: Emitter, self: Value, downscale_factor: int) -> Value:
    r = downscale_factor
    *batch, channels, _, _ = self.shape
    rows, columns = emit.out.shape[-2:]
    cut = emit.call("ops.reshape", self, emit.dims([*batch, channels, rows, r, columns, r]))
    n = len(batch)
    turned = permuted(emit, cut, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return emit.call("ops.reshape", turned, emit.dims(emit.out.shape))
