# SPDX-License-Identifier: Apache-2.0
"""Parts of tensors, and tensors made of parts: slices, joins, paddings, repetitions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Scalar, Size, Sizes, Tensor, concatenated, out, rank_of
from paritas.lower.openvino.integers import KNOWN_APART, division_of_sizes
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg

END = 2**31 - 1  # the engine counts in 32 bits


@lowers("aten.slice.Tensor")
def slice_tensor(emit: Emitter, self: Tensor, dim: int, start: Size | None, end: Size | None, step: Size) -> Tensor:
    start = 0 if start is None else start
    end = END if end is None or (isinstance(end, int) and end >= END) else end
    dim %= rank_of(self)
    # An axis of which OpenVINO knows no more than that it may go beyond END: it infers that nothing is left of it.
    if isinstance(start, int) and start < 0 and out(self).get_partial_shape()[dim].get_max_length() > END:
        start = out(ops.maximum(emit.number(start_of(emit, self, dim, start)), np.int64(0)))
    return emit.slice(self, start, end, dim, step)


def from_front(emit: Emitter, index: Tensor, size: Size) -> Tensor:
    """Positions counted from the front, i64: negative ones count from the end."""
    index = emit.cast(index, torch.int64)
    return out(ops.select(ops.less(index, np.int64(0)), ops.add(index, emit.number(size)), index))


def start_of(emit: Emitter, x: Tensor, dim: int, start: Size) -> Size:
    """Where a slice begins, from the front."""
    if isinstance(start, int):
        return emit.plus(emit.size(x, dim), start) if start < 0 else start
    return from_front(emit, start, emit.size(x, dim))


@lowers("aten.narrow.default")
def narrow(emit: Emitter, self: Tensor, dim: int, start: Size, length: Size) -> Tensor:
    dim %= rank_of(self)
    start = start_of(emit, self, dim, start)
    return emit.slice(self, start, emit.plus(start, length), dim)


@lowers("aten.select.int")
def select(emit: Emitter, self: Tensor, dim: int, index: Size) -> Tensor:
    return ops.gather(self, emit.number(index), np.int64(dim % rank_of(self)))


@lowers("aten.unbind.int")
def unbind(emit: Emitter, self: Tensor, dim: int) -> list[Tensor]:
    axis = np.int64(dim % rank_of(self))
    return [ops.gather(self, np.int64(i), axis) for i in range(len(emit.out))]


@lowers(
    "aten.split_with_sizes.default", "aten.unsafe_split_with_sizes.default", x=Arg("self"), sizes=Arg("split_sizes")
)
@lowers("aten.split.sizes", x=Arg("self"), sizes=Arg("split_size"))
def parts(emit: Emitter, x: Tensor, sizes: Sizes, dim: int) -> list[Tensor]:
    """Cut `x` along an axis into parts of these sizes, ints or i64 scalars."""
    sizes, dim = list(sizes), dim % rank_of(x)
    found, start = [], 0
    for size in sizes:
        stop = emit.plus(start, size)
        found.append((start, stop))
        start = stop
    if all(isinstance(size, int) for size in sizes):
        # The last part is whatever is left: that is known for certain where the axis is free.
        lengths = [*sizes[:-1], -1] if sizes[-1] else list(sizes)
        return list(ops.variadic_split(x, np.int64(dim), np.array(lengths, np.int64)).outputs())
    return [emit.slice(x, begin, end, dim) for begin, end in found]


@lowers("aten.split.Tensor", "aten.unsafe_split.Tensor")
def split(emit: Emitter, self: Tensor, split_size: Size, dim: int) -> list[Tensor]:
    dim %= rank_of(self)
    count = len(emit.out)
    bounds = [emit.times(split_size, i) for i in range(count)]
    return [
        emit.slice(self, begin, bounds[i + 1] if i + 1 < count else END, dim) if count > 1 else self
        for i, begin in enumerate(bounds)
    ]


@lowers("aten.chunk.default")
def chunk(emit: Emitter, self: Tensor, chunks: int, dim: int) -> list[Tensor]:
    dim %= rank_of(self)
    size = emit.size(self, dim)
    if not isinstance(size, int):
        # How many parts there are is a question of the capture's, and a guard: another number is another port.
        width = division_of_sizes(emit.plus(size, chunks - 1), np.int64(chunks))[0]
        bounds = [emit.times(width, i) for i in range(len(emit.out))]
        return [emit.slice(self, a, b, dim) for a, b in zip(bounds, [*bounds[1:], END], strict=True)]
    width = -(-size // chunks)
    return parts(emit, self, [min(width, size - i * width) for i in range(len(emit.out))], dim)


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def joined(emit: Emitter, tensors: Sequence[Tensor], dim: int) -> Tensor:
    dtype = emit.dtype
    # A vector of no elements goes with anything, as it always did.
    kept = [x for x in tensors if not (rank_of(x) == 1 and emit.size(x, 0) == 0)] or list(tensors[:1])
    cast = [emit.cast(x, dtype) for x in kept]
    return cast[0] if len(cast) == 1 else concatenated(cast, dim % rank_of(cast[0]))


@lowers("aten.stack.default")
def stack(emit: Emitter, tensors: Sequence[Tensor], dim: int) -> Tensor:
    axis = dim % (rank_of(tensors[0]) + 1)
    return concatenated([emit.unsqueeze(emit.cast(x, emit.dtype), axis) for x in tensors], axis)


@lowers("aten.hstack.default", rank=1, dim=1)
@lowers("aten.vstack.default", rank=2, dim=0)
@lowers("aten.dstack.default", rank=3, dim=2)
def stacked(emit: Emitter, tensors: Sequence[Tensor], rank: int, dim: int) -> Tensor:
    shaped = [_shaped(emit, x, rank) for x in tensors]
    return joined(emit, shaped, 0 if rank_of(shaped[0]) == 1 else dim)


def _shaped(emit: Emitter, x: Tensor, rank: int) -> Tensor:
    """As `atleast_2d` and its kin have it."""
    own = rank_of(x)
    if own == 0:
        x, own = emit.unsqueeze(x, 0), 1
    if rank >= 2 and own == 1:
        x, own = emit.unsqueeze(x, 0), 2
    return emit.unsqueeze(x, 2) if rank == 3 and own == 2 else x


@lowers("aten.pad.default", x=Arg("self"))
@lowers("aten.constant_pad_nd.default", x=Arg("self"), mode="constant")
@lowers(
    "aten.reflection_pad1d.default", "aten.reflection_pad2d.default", x=Arg("self"), pad=Arg("padding"), mode="reflect"
)
@lowers("aten.reflection_pad3d.default", x=Arg("self"), pad=Arg("padding"), mode="reflect")
@lowers("aten.replication_pad1d.default", x=Arg("self"), pad=Arg("padding"), mode="replicate")
@lowers("aten.replication_pad2d.default", x=Arg("self"), pad=Arg("padding"), mode="replicate")
@lowers("aten.replication_pad3d.default", x=Arg("self"), pad=Arg("padding"), mode="replicate")
def padded(emit: Emitter, x: Tensor, pad: Sizes, mode: str, value: Scalar | None = 0) -> Tensor:
    """torch's pairs of paddings, the last axis first. Where one is negative, that much is cut off."""
    value = value or 0
    rank = rank_of(x)
    pairs = [(0, 0)] * rank
    for i in range(len(pad) // 2):
        pairs[rank - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    for axis, (before, after) in enumerate(pairs):
        cut = [-p if isinstance(p, int) and p < 0 else 0 for p in (before, after)]
        if any(cut):
            stop = -cut[1] if cut[1] else END
            x = emit.slice(x, cut[0], stop, axis)
    pairs = [(_not_below_0(before), _not_below_0(after)) for before, after in pairs]
    if all(isinstance(p, int) and p == 0 for pair in pairs for p in pair):
        return x
    if mode == "circular":
        for axis, (before, after) in enumerate(pairs):
            around = [x]
            if not (isinstance(before, int) and before == 0):
                around.insert(0, emit.slice(x, emit.minus(0, before), END, axis))
            if not (isinstance(after, int) and after == 0):
                around.append(emit.slice(x, 0, after, axis))
            x = concatenated(around, axis) if len(around) > 1 else x
        return x
    begins, ends = (emit.dims([pair[side] for pair in pairs]) for side in (0, 1))
    dtype = emit.dtype
    if dtype == torch.bool:
        filled = ops.pad(emit.cast(x, torch.uint8), begins, ends, _MODES[mode], emit.const(int(value), torch.uint8))
        return emit.cast(filled, torch.bool)
    if mode == "constant" and dtype in (torch.int32, torch.int64) and abs(value) > KNOWN_APART:
        # The plugin keeps the value in float32.
        value = emit.const(value, dtype)
        moved = ops.pad(ops.subtract(x, value), begins, ends, "constant", emit.const(0, dtype))
        return out(ops.add(moved, value))
    return ops.pad(x, begins, ends, _MODES[mode], emit.const(value, dtype) if mode == "constant" else None)


def _not_below_0(p: Size) -> Size:
    return 0 if isinstance(p, int) and p < 0 else p


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@lowers("aten.repeat.default")
@lowers("aten.tile.default", repeats=Arg("dims"))
def repeat(emit: Emitter, self: Tensor, repeats: Sizes) -> Tensor:
    repeats = [1] * (rank_of(self) - len(repeats)) + list(repeats)
    x = self
    if len(repeats) > rank_of(x):
        x = emit.unsqueeze(x, *range(len(repeats) - rank_of(x)))
    return ops.tile(x, emit.dims(repeats)) if repeats else x


@lowers("aten.repeat_interleave.self_int")
def repeat_interleave(emit: Emitter, self: Tensor, repeats: Size, dim: int | None, **_: object) -> Tensor:
    x = self
    if dim is None:
        x, dim = ops.reshape(self, emit.array([-1]), False), 0
    rank = rank_of(x)
    dim %= rank
    sizes = emit.sizes(x)
    wide = emit.broadcast(emit.unsqueeze(x, dim + 1), [*sizes[: dim + 1], repeats, *sizes[dim + 1 :]])
    return emit.reshape(wide, [*sizes[:dim], emit.times(sizes[dim], repeats), *sizes[dim + 1 :]])


@lowers("aten.repeat_interleave.self_Tensor")
def repeat_interleave_tensor(emit: Emitter, self: Tensor, repeats: Tensor, dim: int | None, **_: object) -> Tensor:
    x = self
    if dim is None:
        x, dim = ops.reshape(self, emit.array([-1]), False), 0
    dim %= rank_of(x)
    known = out(repeats).get_node()
    if known.get_type_name() == "Constant" and known.data.size > 1:  # the plugin finds no memory for their ends
        places = np.repeat(np.arange(known.data.size, dtype=np.int64), known.data.reshape(-1))
        return ops.gather(x, places, np.int64(dim))
    if rank_of(repeats) == 0:
        repeats = emit.unsqueeze(repeats, 0)
    counts = emit.broadcast(repeats, [emit.size(x, dim)])
    return ops.gather(x, repeated_indices(emit, counts), np.int64(dim))


@lowers("aten.repeat_interleave.Tensor")
def repeat_counts(emit: Emitter, repeats: Tensor, **_: object) -> Tensor:
    return emit.cast(repeated_indices(emit, repeats), emit.dtype)


def repeated_indices(emit: Emitter, counts: Tensor) -> Tensor:
    """0 as often as counts[0] says, then 1, ..: how many of the ends lie at or before each place."""
    ends = ops.cum_sum(emit.cast(counts, torch.int64), np.int64(0))
    total = emit.slice(ends, -1, END, 0)
    places = emit.arange(0, emit.squeeze(total, 0))
    before = ops.less_equal(emit.unsqueeze(ends, 0), emit.unsqueeze(places, 1))
    return out(ops.convert(ops.reduce_sum(ops.convert(before, "f32"), emit.array([1]), False), "i64"))


@lowers("aten.flip.default")
def flip(emit: Emitter, self: Tensor, dims: Sequence[int]) -> Tensor:
    x, rank = self, rank_of(self)
    for dim in dims:
        x = emit.slice(x, -1, -END, dim % rank, -1)
    return x


@lowers("aten.roll.default")
def roll(emit: Emitter, self: Tensor, shifts: Any, dims: Any) -> Tensor:
    x = emit.cast(self, torch.uint8) if emit.dtype == torch.bool else self
    shifts, dims = ([s] if not isinstance(s, (list, tuple)) else list(s) for s in (shifts, dims))
    rank = rank_of(self)
    if not dims:
        flat = ops.roll(ops.reshape(x, emit.array([-1]), False), emit.dims(shifts), emit.array([0]))
        found = ops.reshape(flat, emit.shape_of(x), False)
    else:
        found = ops.roll(x, emit.dims(shifts), emit.array([dim % rank for dim in dims]))
    return emit.cast(found, emit.dtype)


@lowers("aten.meshgrid.indexing", "aten.meshgrid.default")
def meshgrid(emit: Emitter, tensors: Sequence[Tensor], indexing: str = "ij") -> list[Tensor]:
    flat = [ops.reshape(x, emit.array([-1]), False) for x in tensors]
    sizes = [emit.size(x, 0) for x in flat]
    grids = []
    for axis, x in enumerate(flat):
        others = [other for other in range(len(flat)) if other != axis]
        grids.append(emit.broadcast(emit.unsqueeze(x, *others) if others else x, sizes))
    if indexing == "xy" and len(flat) > 1:
        order = [1, 0, *range(2, len(flat))]
        grids = [emit.transpose(grid, order) for grid in grids]
    return grids


@lowers("aten.unfold.default")
def unfold(emit: Emitter, self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    rank = rank_of(self)
    if rank == 0:
        return emit.broadcast(self, [size])
    dim = dimension % rank
    length = emit.size(self, dim)
    starts = emit.arange(0, emit.plus(emit.minus(length, size), 1), step)
    places = ops.add(emit.unsqueeze(starts, 1), emit.array(range(size)))
    found = ops.gather(self, places, np.int64(dim))  # [.., windows, size, ..]
    order = [*range(dim + 1), *range(dim + 2, rank + 1), dim + 1]
    return emit.transpose(found, order)


@lowers("aten.diff.default")
def diff(emit: Emitter, self: Tensor, n: int, dim: int, prepend: Tensor | None, append: Tensor | None) -> Tensor:
    dtype, dim = emit.dtype, dim % rank_of(self)
    if n == 0:
        return self  # as it is, whatever is put in front of it
    around = [x for x in (prepend, self, append) if x is not None]
    x = concatenated(around, dim) if len(around) > 1 else self
    for _ in range(n):
        late, early = emit.slice(x, 1, END, dim), emit.slice(x, 0, -1, dim)
        if dtype == torch.bool:
            x = ops.logical_xor(late, early)
        else:
            x = emit.result(ops.subtract(emit.wide(late, dtype), emit.wide(early, dtype)))
    return x
