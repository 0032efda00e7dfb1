# SPDX-License-Identifier: Apache-2.0
"""Elements by their positions: tables, indexing, gathering, scattering."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.capture.normalise import expression
from paritas.lower.openvino.emit import Emitter, Scalar, Size, Tensor, concatenated, is_tensor, out, rank_of
from paritas.lower.openvino.integers import chosen, floor_division
from paritas.lower.openvino.ops.move import END, from_front, start_of
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.ops.shape import shared_sizes
from paritas.lower.registry import Arg


@lowers("aten.embedding.default")
def embedding(emit: Emitter, weight: Tensor, indices: Tensor, **_: object) -> Tensor:
    return ops.gather(weight, indices, np.int64(0))


@lowers("aten.index_select.default")
def index_select(emit: Emitter, self: Tensor, dim: int, index: Tensor) -> Tensor:
    if rank_of(self) == 0:
        return self
    if rank_of(index) == 0:
        index = emit.unsqueeze(index, 0)
    return ops.gather(self, index, np.int64(dim % rank_of(self)))


def whole_indices(emit: Emitter, x: Tensor, indices: Sequence[Tensor | None]) -> list[Any]:
    """Pairs (axis, i64 positions) of a list of indices; a mask becomes the positions of what is True in it."""
    found, axis = [], 0
    for index in indices:
        if index is None:
            axis += 1
        elif emit.dtype_of(index) in (torch.bool, torch.uint8):
            rank = rank_of(index)
            places = ops.non_zero(emit.cast(index, torch.bool), "i64")  # [rank, count]
            for part in range(rank):
                found.append((axis + part, out(ops.gather(places, np.int64(part), np.int64(0)))))
            axis += rank
        else:
            found.append((axis, from_front(emit, index, emit.size(x, axis))))
            axis += 1
    return found


def linear(emit: Emitter, x: Tensor, found: Sequence[Any]) -> tuple[Any, Any, Any]:
    """(x with the indexed axes in front and merged, positions in these, sizes of the positions)."""
    rank = rank_of(x)
    axes = [axis for axis, _ in found]
    rest = [axis for axis in range(rank) if axis not in axes]
    sizes = emit.sizes(x)
    front = emit.transpose(x, [*axes, *rest])
    merged = emit.reshape(front, [-1, *(sizes[axis] for axis in rest)]) if len(axes) > 1 else front
    places = None
    for axis, index in found:
        moved = places if places is None else ops.multiply(places, emit.number(sizes[axis]))
        places = index if moved is None else ops.add(moved, index)
    shape = shared_sizes(emit, [index for _, index in found])
    return merged, emit.broadcast(places, shape), shape


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(emit: Emitter, self: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    found = whole_indices(emit, self, indices)
    if len(found) == 1:
        axis, places = found[0]
        return ops.gather(self, places, np.int64(axis))
    merged, places, shape = linear(emit, self, found)
    taken = ops.gather(merged, places, np.int64(0))  # [*shape, *rest]
    axes = [axis for axis, _ in found]
    if axes != list(range(axes[0], axes[0] + len(axes))) or axes[0] == 0 or _apart(indices):
        return taken
    first, width, rank = axes[0], len(shape), rank_of(taken)
    order = [*range(width, width + first), *range(width), *range(width + first, rank)]
    return emit.transpose(taken, order)


def _apart(indices: Sequence[Tensor | None]) -> bool:
    """Whether a whole axis lies between two indexed ones: the result's axes then come first."""
    given = [i for i, index in enumerate(indices) if index is not None]
    return given != list(range(given[0], given[0] + len(given)))


@lowers("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(
    emit: Emitter, self: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool, **_: object
) -> Tensor:
    rank = rank_of(self)
    given = [index for index in indices if index is not None]
    is_mask = emit.dtype_of(given[0]) == torch.bool
    if len(given) == 1 and is_mask and not accumulate and indices[0] is not None and _is_one_number(values):
        mask = given[0]
        if rank > rank_of(mask):
            mask = emit.unsqueeze(mask, *range(rank_of(mask), rank))
        value = ops.reshape(values, emit.array([]), False)
        return chosen(mask, emit.cast(value, emit.dtype), self)
    found = whole_indices(emit, self, indices)
    axes = [axis for axis, _ in found]
    rest = [axis for axis in range(rank) if axis not in axes]
    own = emit.sizes(self)
    merged, places, shape = linear(emit, self, found)
    is_bool = emit.dtype == torch.bool
    held = torch.int32 if is_bool or emit.dtype in _BYTES else emit.dtype
    wide, updates = emit.cast(merged, held), emit.cast(emit.cast(values, emit.dtype), held)
    front = _apart(indices) or axes[0] == 0
    behind = [own[axis] for axis in rest]
    if front:
        updates = emit.broadcast(updates, [*shape, *behind])
    else:
        first = axes[0]
        updates = emit.broadcast(updates, [*behind[:first], *shape, *behind[first:]])
        width, whole = len(shape), rank_of(updates)
        order = [*range(first, first + width), *range(first), *range(first + width, whole)]
        updates = emit.transpose(updates, order)
    updates = emit.reshape(updates, [-1, *behind])
    ids = ops.reshape(places, emit.array([-1, 1]), False)
    written = ops.scatter_nd_update(wide, ids, updates, "sum" if accumulate else "none")
    written = emit.cast(written, emit.dtype)
    if len(axes) > 1:
        written = emit.reshape(written, [*(own[axis] for axis in axes), *behind])
    order = [*axes, *rest]
    return emit.transpose(written, [order.index(axis) for axis in range(rank)])


_BYTES = (torch.uint8, torch.int8, torch.int16)


def _is_one_number(x: Tensor) -> bool:
    shape = out(x).get_partial_shape()
    return shape.is_static and all(d.get_length() == 1 for d in shape)


def _same(a: Size, b: Size) -> bool:
    return expression(a) == expression(b)


def narrowed(emit: Emitter, x: Tensor, index: Tensor, dim: int) -> Tensor:
    """`x` cut to the sizes of `index` in all axes but `dim`, as `gather` reads it.

    By strided slices: OpenVINO 2026.4 takes a Slice before GatherElements away, and then finds that the shapes differ.
    """
    mine, other = emit.meta(x), emit.meta(index)
    for axis in range(rank_of(x)):
        if axis == dim or (mine is not None and _same(mine.shape[axis], other.shape[axis])):
            continue
        ends = emit.dims([*[0] * axis, emit.size(index, axis)])
        whole = [1] * (axis + 1)
        x = ops.strided_slice(x, emit.array([0] * (axis + 1)), ends, emit.array(whole), whole, [*[1] * axis, 0])
    return x


@lowers("aten.gather.default")
def gather(emit: Emitter, self: Tensor, dim: int, index: Tensor, **_: object) -> Tensor:
    rank = rank_of(self)
    if rank == 0:
        return emit.broadcast(self, emit.sizes(index)) if rank_of(index) else self
    dim %= rank
    kind = emit.dtype
    x = (
        emit.cast(narrowed(emit, self, index, dim), torch.int32)
        if kind == torch.bool
        else narrowed(emit, self, index, dim)
    )
    return emit.cast(ops.gather_elements(x, emit.cast(index, torch.int64), dim), kind)


@lowers("aten.scatter.value", src=Arg("value"), reduction="none")
@lowers("aten.scatter.src", reduction="none")
@lowers("aten.scatter_add.default", reduction="sum")
def scattered(
    emit: Emitter, self: Tensor, dim: int, index: Tensor, src: Any, reduction: str = "none", include: bool = True
) -> Tensor:
    rank = rank_of(self)
    if rank == 0:
        one = emit.array([1])
        x, places, values = (
            ops.reshape(x, one, False) if is_tensor(x) and rank_of(x) == 0 else x for x in (self, index, src)
        )
        found = scattered(emit, x, 0, places, values, reduction, include)
        return ops.reshape(found, emit.array([]), False)
    dim %= rank
    dtype = emit.dtype
    held = torch.int32 if dtype == torch.bool or dtype in _BYTES else dtype
    x, index = emit.cast(self, held), emit.cast(index, torch.int64)
    if is_tensor(src) and rank_of(src):
        own, other = emit.meta(src), emit.meta(index)
        cut = src
        for axis in range(rank):
            if own is None or other is None or not _same(own.shape[axis], other.shape[axis]):
                cut = emit.slice(cut, 0, emit.size(index, axis), axis)
        updates = emit.cast(emit.cast(cut, dtype), held)
    else:
        updates = emit.broadcast(emit.cast(emit.cast(src, dtype), held), emit.sizes(index))
    found = ops.scatter_elements_update(x, index, updates, np.int64(dim), reduction, include)
    return emit.cast(found, dtype)


@lowers("aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_reduced(
    emit: Emitter,
    self: Tensor,
    dim: int,
    index: Tensor,
    reduce: str,
    src: Tensor | None = None,
    value: Scalar | None = None,
) -> Tensor:
    kind = {"add": "sum", "multiply": "prod"}[reduce]
    return scattered(emit, self, dim, index, src if src is not None else value, kind)


@lowers("aten.scatter_reduce.two")
def scatter_reduce(
    emit: Emitter, self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, include_self: bool
) -> Tensor:
    kind = {"sum": "sum", "prod": "prod", "mean": "mean", "amax": "max", "amin": "min"}[reduce]
    dtype = emit.dtype
    if kind == "mean" and not dtype.is_floating_point:
        # The plugin rounds the mean of whole numbers to zero, torch rounds it down.
        total = emit.wide(scattered(emit, self, dim, index, src, "sum", include_self), dtype)
        count = emit.wide(_how_many(emit, self, dim, index, src, include_self), dtype)
        return emit.result(floor_division(total, count)[0])
    found = scattered(emit, self, dim, index, src, kind, include_self)
    if kind in ("max", "min") and dtype.is_floating_point:
        found = _with_nan(emit, found, self, dim, index, src, include_self)
    return found


def _how_many(emit: Emitter, self: Tensor, dim: int, index: Tensor, src: Tensor, include: bool) -> Tensor:
    """How many elements each mean is of, at least 1."""
    zero, one = (np.array(value, out(self).get_element_type().to_dtype()) for value in (0, 1))
    nothing, ones = (ops.broadcast(zero, emit.shape_of(self)), ops.broadcast(one, emit.shape_of(src)))
    counted = scattered(emit, nothing, dim, index, ones, "sum", True)
    return ops.maximum(ops.add(counted, one) if include else counted, one)


def _with_nan(
    emit: Emitter, found: Tensor, self: Tensor, dim: int, index: Tensor, src: Tensor, include: bool
) -> Tensor | None:
    """The plugin's extremes step over NaN: where one was among the elements, it is the result."""
    nothing = ops.broadcast(np.float32(0), emit.shape_of(self))
    there = ops.convert(ops.is_nan(src), "f32")
    seen = ops.greater(scattered(emit, nothing, dim, index, there, "sum", True), np.float32(0))
    if include:
        seen = ops.logical_or(seen, ops.is_nan(self))
    return ops.select(seen, np.float32(np.nan), found)


@lowers("aten.index_add.default")
def index_add(emit: Emitter, self: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Scalar) -> Tensor:
    dtype = emit.dtype
    if dtype == torch.bool and not alpha:
        return self
    if alpha != 1:
        source = emit.result(ops.multiply(emit.wide(source, dtype), emit.wide(alpha, dtype)))
    return along_axis(emit, self, dim, index, source, "sum")


@lowers("aten.index_copy.default", reduction="none")
def along_axis(emit: Emitter, self: Tensor, dim: int, index: Tensor, source: Tensor, reduction: str) -> Tensor:
    """Whole slices of `self` along an axis, written or added at positions."""
    rank = rank_of(self)
    if rank == 0:
        one = emit.array([1])
        x, places, values = (ops.reshape(v, one, False) for v in (self, index, source))
        return ops.reshape(along_axis(emit, x, 0, places, values, reduction), emit.array([]), False)
    dim %= rank
    if rank_of(index) == 0:
        index = emit.unsqueeze(index, 0)
    order = [dim, *(axis for axis in range(rank) if axis != dim)]
    held = torch.int32 if emit.dtype == torch.bool or emit.dtype in _BYTES else emit.dtype
    x, updates = (emit.transpose(emit.cast(v, held), order) for v in (self, source))
    ids = emit.unsqueeze(from_front(emit, index, emit.size(self, dim)), 1)
    written = ops.scatter_nd_update(x, ids, updates, reduction)
    back = [order.index(axis) for axis in range(rank)]
    return emit.cast(emit.transpose(written, back), emit.dtype)


@lowers("aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor")
def index_fill(emit: Emitter, self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    if rank_of(self) == 0:
        return along_axis(emit, self, 0, index, emit.cast(value, emit.dtype), "none")
    dim %= rank_of(self)
    sizes = emit.sizes(self)
    sizes[dim] = emit.size(index, 0) if rank_of(index) else 1
    return along_axis(emit, self, dim, index, emit.full(sizes, value, emit.dtype), "none")


@lowers("aten.masked_scatter.default")
def masked_scatter(emit: Emitter, self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    sizes = shared_sizes(emit, [self, mask])
    x, wide = emit.broadcast(self, sizes), emit.broadcast(mask, sizes)
    flat = ops.reshape(emit.cast(wide, torch.int64), emit.array([-1]), False)
    places = ops.maximum(ops.subtract(ops.cum_sum(flat, np.int64(0)), np.int64(1)), np.int64(0))
    given = ops.reshape(emit.cast(source, emit.dtype), emit.array([-1]), False)
    last = ops.subtract(emit.number(emit.size(given, 0)), np.int64(1))
    taken = ops.gather(given, ops.minimum(places, last), np.int64(0))
    return chosen(wide, ops.reshape(taken, emit.shape_of(x), False), x)


@lowers("aten.slice_scatter.default")
def slice_scatter(
    emit: Emitter, self: Tensor, src: Tensor, dim: int, start: Size | None, end: Size | None, step: Size
) -> Tensor:
    dim %= rank_of(self)
    start = 0 if start is None else start
    end = END if end is None or (isinstance(end, int) and end >= END) else end
    src = emit.cast(src, emit.dtype)
    if isinstance(step, int) and step == 1:
        before = emit.slice(self, 0, start, dim)
        after = emit.slice(self, emit.plus(start_of(emit, self, dim, start), emit.size(src, dim)), END, dim)
        kept = [] if isinstance(start, int) and start == 0 else [before]
        kept.append(src)
        if not (isinstance(end, int) and end == END):
            kept.append(after)
        return concatenated(kept, dim) if len(kept) > 1 else src
    places = emit.slice(emit.arange(0, emit.size(self, dim)), start, end, 0, step)
    return along_axis(emit, self, dim, places, src, "none")


@lowers("aten.select_scatter.default")
def select_scatter(emit: Emitter, self: Tensor, src: Tensor, dim: int, index: Size) -> Tensor:
    dim %= rank_of(self)
    src = emit.unsqueeze(emit.cast(src, emit.dtype), dim)
    place = start_of(emit, self, dim, index)
    before = emit.slice(self, 0, place, dim)
    after = emit.slice(self, emit.plus(place, 1), END, dim)
    return concatenated([before, src, after], dim)


@lowers("aten.nonzero.default", "aten.argwhere.default")
def nonzero(emit: Emitter, self: Tensor) -> Tensor:
    is_scalar = rank_of(self) == 0
    there = emit.cast(emit.unsqueeze(self, 0) if is_scalar else self, torch.bool)
    found = ops.transpose(ops.non_zero(there, "i64"), emit.array([1, 0]))
    return emit.slice(found, 0, 0, 1) if is_scalar else found  # a scalar has no axis to name


@lowers("aten.where.default")
@lowers("aten.nonzero_numpy.default", condition=Arg("self"))
def where_true(emit: Emitter, condition: Tensor) -> list[Tensor]:
    there = emit.cast(condition, torch.bool)
    there = emit.unsqueeze(there, 0) if rank_of(there) == 0 else there
    places = ops.non_zero(there, "i64")
    return [ops.gather(places, np.int64(axis), np.int64(0)) for axis in range(rank_of(there))]


@lowers("aten.masked_select.default")
def masked_select(emit: Emitter, self: Tensor, mask: Tensor) -> Tensor:
    sizes = shared_sizes(emit, [self, mask])
    x, wide = emit.broadcast(self, sizes), emit.broadcast(mask, sizes)
    flat = ops.reshape(wide, emit.array([-1]), False)
    places = emit.squeeze(ops.non_zero(flat, "i64"), 0)
    return ops.gather(ops.reshape(x, emit.array([-1]), False), places, np.int64(0))


@lowers("aten.take.default")
def take(emit: Emitter, self: Tensor, index: Tensor) -> Tensor:
    flat = ops.reshape(self, emit.array([-1]), False)
    return ops.gather(flat, from_front(emit, index, emit.size(flat, 0)), np.int64(0))
