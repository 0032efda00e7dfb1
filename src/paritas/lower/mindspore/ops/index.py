# SPDX-License-Identifier: Apache-2.0
"""Look-ups by index, and writing by index."""

import math
from collections.abc import Sequence
from typing import Any

from paritas.lower.mindspore.ops.data_dependent import selected
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, may_be_empty, permuted
from paritas.lower.mindspore.ops.where_clamp import number
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Size, Sizes, Value
from paritas.lower.registry import Arg


@lowers("aten.embedding.default")
def embedding(emit: Emitter, weight: Value, indices: Value, padding_idx: Size, **_: object) -> Value:
    padding = emit.number("padding_idx", padding_idx)
    if padding_idx < 0 and padding.text == str(padding_idx):
        return emit.call("ops.gather", weight, indices, 0)
    return emit.prelude("embedding_lookup", weight, indices, padding, emit.training)


@lowers("aten.index_select.default")
def index_select(emit: Emitter, self: Value, dim: int, index: Value) -> Value:
    if self.rank == 0:
        return self
    if index.rank == 0:
        index = emit.call("ops.reshape", index, (1,))
    return emit.call("ops.gather", self, index, dim % self.rank)


@lowers("aten.gather.default")
def gather(emit: Emitter, self: Value, dim: int, index: Value, **_: object) -> Value:
    if self.rank == 0 or index.rank == 0:
        if not index.rank:
            return emit.call("ops.reshape", self, ()) if self.rank else self
        one = emit.call("ops.reshape", self, (1,))
        return emit.call("ops.broadcast_to", one, emit.dims(index.shape))
    return emit.call("ops.gather_elements", self, dim % self.rank, emit.cast(index, "int64"))


def _places(emit: Emitter, self: Value, indices: Sequence[Value | None]) -> tuple[Any, Any]:
    """The indexed axes, and the index tensors: int64, of one shape, none negative."""
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if any(i.dtype in ("bool", "uint8") for _, i in given):
        raise emit.refuse("the size of the result depends on the values of a mask")
    axes = [axis for axis, _ in given]
    return axes, [i for _, i in given]


def _common(emit: Emitter, shapes: Sequence[Any]) -> list[int]:
    """The shape that the index tensors broadcast to."""
    rank = max(len(shape) for shape in shapes)
    padded = [[1] * (rank - len(shape)) + list(shape) for shape in shapes]
    return [next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True)]


def _stacked(emit: Emitter, self: Value, axes: Sequence[int], indices: Sequence[Value], shape: Sizes) -> Value:
    parts = []
    for axis, i in zip(axes, indices, strict=True):
        i = emit.let(emit.cast(i, "int64"), "index")
        # GatherNd and the scatters do not count from the end; adding a size to negatives is what torch does.
        i = emit.typed(emit.infix("%", i, emit.size(self.shape[axis])), dtype="int64", shape=i.shape)
        if list(i.shape) != shape:
            i = emit.call("ops.broadcast_to", i, emit.dims(shape))
        parts.append(i)
    return emit.call("ops.stack", tuple(parts), -1)


def _front(self: Value, axes: Sequence[int]) -> list[int]:
    """The order that brings the indexed axes to the front."""
    return [*axes, *(a for a in range(self.rank) if a not in axes)]


def _landing(axes: Sequence[int]) -> int:
    """Where torch puts the indexed dimensions: at the first if they are neighbours, else in front."""
    return axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0


@lowers("aten.index.Tensor")
def index(emit: Emitter, self: Value, indices: Sequence[Value | None]) -> Value:
    if any(i is not None and i.dtype in ("bool", "uint8") for i in indices):
        return selected(emit, self, indices)
    axes, given = _places(emit, self, indices)
    if not given:
        return self
    if len(given) == 1:
        return emit.prelude("picked", self, given[0], axes[0], emit.training)
    shape = _common(emit, [i.shape for i in given])
    x = permuted(emit, self, _front(self, axes))
    found = emit.prim("ops.GatherNd")(x, _stacked(emit, self, axes, given, shape))
    landing, count, rank = _landing(axes), len(shape), len(emit.out.shape)
    order = [*range(count, count + landing), *range(count), *range(count + landing, rank)]
    return permuted(emit, found, order)


@lowers("aten.index_put.default")
def index_put(emit: Emitter, self: Value, indices: Sequence[Value | None], values: Value, accumulate: bool) -> Value:
    values = emit.cast(values, emit.out.dtype)
    masks = [i for i in indices if i is not None and i.dtype in ("bool", "uint8")]
    if masks:
        return _put_where(emit, self, indices, values, accumulate)
    axes, given = _places(emit, self, indices)
    shape = _common(emit, [i.shape for i in given])
    order = _front(self, axes)
    rest = [self.shape[a] for a in order[len(axes) :]]
    landing, count = _landing(axes), len(shape)
    result = [*rest[:landing], *shape, *rest[landing:]]  # what self[indices] has, and values broadcasts to
    spread = emit.call("ops.broadcast_to", values, emit.dims(result)) if list(values.shape) != result else values
    turned = [*range(landing, landing + count), *range(landing), *range(landing + count, len(result))]
    written = permuted(emit, spread, turned)
    x = permuted(emit, self, order)
    places = _stacked(emit, self, axes, given, shape)
    if emit.out.dtype == "bool":
        x, written = (emit.cast(emit.typed(v, dtype="bool"), "int32") for v in (x, written))
    name = "ops.TensorScatterAdd" if accumulate else "ops.TensorScatterUpdate"
    out = emit.prim(name)(x, places, written)
    if emit.out.dtype == "bool":
        out = emit.cast(emit.typed(out, dtype="int32"), "bool")
    return permuted(emit, out, [order.index(a) for a in range(self.rank)])


def _put_where(emit: Emitter, self: Value, indices: Sequence[Value | None], values: Value, accumulate: bool) -> Value:
    mask = indices[0]
    if any(i is not None for i in indices[1:]) or mask is None or mask.dtype != "bool":
        raise emit.refuse("index_put with a mask beside other indices")
    if accumulate:
        raise emit.refuse("index_put that adds where a mask says")
    rest = self.shape[mask.rank :]
    if is_empty(values):  # torch takes it for a mask without a True only
        return self
    if values.rank == 1 + len(rest) and values.shape[0] != 1:
        values = _dealt(emit, mask, values)
    elif values.rank > len(rest):
        values = emit.call("ops.reshape", values, emit.dims(values.shape[values.rank - len(rest) :]))
    if mask.rank < self.rank:
        mask = emit.call("ops.reshape", mask, (*emit.dims(mask.shape), *[1] * (self.rank - mask.rank)))
    return emit.call("ops.where", mask, values, self)


def _turns(emit: Emitter, mask: Value) -> Value:
    """Of each True of the flattened mask, the how many-th it is; any number that exists for the others."""
    flags = emit.call("ops.reshape", mask, (-1,))
    counted = emit.prim("ops.CumSum")(emit.cast(emit.typed(flags, dtype="bool"), "int64"), 0)
    return emit.call("ops.maximum", 0, emit.infix("-", counted, 1))


def _dealt(emit: Emitter, mask: Value, values: Value) -> Value:
    """A row of `values` for each True of the mask, in order; any row for the others."""
    taken = emit.call("ops.gather", _at_least_one(emit, values), _turns(emit, mask), 0)
    wide = values.shape[1:]
    return emit.typed(
        emit.call("ops.reshape", taken, (*emit.dims(mask.shape), *emit.dims(wide))), shape=(*mask.shape, *wide)
    )


def _at_least_one(emit: Emitter, values: Value) -> Value:
    """A mask without a True has no rows to take: one more is there, read for places that keep what they had."""
    if not may_be_empty(values):
        return values
    shape = (1, *values.shape[1:])
    spare = emit.call("ops.zeros", emit.dims(shape), emit.dtype(values.dtype))
    return emit.typed(emit.call("ops.cat", (values, spare)), dtype=values.dtype, shape=("?", *values.shape[1:]))


@lowers("aten.masked_scatter.default")
def masked_scatter(emit: Emitter, self: Value, mask: Value, source: Value) -> Value:
    shape = emit.dims(emit.out.shape)
    if is_empty(source):
        return emit.call("ops.broadcast_to", self, shape)
    mask = emit.let(emit.call("ops.broadcast_to", mask, shape), "mask")
    flat = emit.typed(emit.call("ops.reshape", source, (-1,)), dtype=source.dtype, shape=(math.prod(source.shape),))
    taken = emit.call("ops.gather", _at_least_one(emit, flat), _turns(emit, mask), 0)
    return emit.call("ops.where", mask, emit.call("ops.reshape", taken, shape), self)


# --- scatter ---


@lowers("aten.scatter.src", reduction="none")
@lowers("aten.scatter_add.default", reduction="add")
def scatter(emit: Emitter, self: Value, dim: int, index: Value, src: Value, reduction: str = "none") -> Value:
    if any(size == 0 for size in index.shape):
        return self
    if self.rank == 0:
        parts = (_one(emit, x) if x.rank == 0 else x for x in (self, index, src))
        self, index, src = parts
        made = scatter(emit, self, 0, index, src, reduction)
        return emit.call("ops.reshape", emit.typed(made, dtype=emit.out.dtype, shape=(1,)), ())
    if index.rank == 0:
        index = _one(emit, index)
    if src.rank == 0:
        src = _one(emit, src)
    if list(src.shape) != list(index.shape):  # torch reads only as much of src as there are indices
        ends = ", ".join(f":{size}" for size in emit.dims(index.shape))
        src = Value(f"{emit.let(src, 'source')}[{ends}]", src.dtype, index.shape)
    primitive = emit.prim("ops.TensorScatterElements", axis=dim % self.rank, reduction=reduction)
    if emit.out.dtype == "bool":
        wide = emit.typed(primitive(emit.cast(self, "int32"), index, emit.cast(src, "int32")), dtype="int32")
        return emit.cast(wide, "bool")
    return primitive(self, emit.cast(index, "int64"), emit.cast(src, emit.out.dtype))


@lowers("aten.scatter.value")
def scatter_value(emit: Emitter, self: Value, dim: int, index: Value, value: Scalar) -> Value:
    filled = emit.call("ops.broadcast_to", number(emit, value), emit.dims(index.shape))
    return scatter(emit, self, dim, index, emit.typed(filled, dtype=emit.out.dtype, shape=index.shape))


@lowers("aten.index_add.default")
def index_add(emit: Emitter, self: Value, dim: int, index: Value, source: Value, *, alpha: Scalar) -> Value:
    if alpha == 0:
        return self
    source = emit.cast(source, emit.out.dtype)
    source = source if alpha == 1 else emit.typed(emit.infix("*", source, alpha), like=source)
    return _rows_written(emit, "ops.TensorScatterAdd", self, dim, index, source)


@lowers("aten.index_copy.default", primitive="ops.TensorScatterUpdate")
def _rows_written(emit: Emitter, primitive: str, self: Value, dim: int, index: Value, source: Value) -> Value:
    if any(size == 0 for size in index.shape) or any(size == 0 for size in source.shape):
        return self
    if self.rank == 0:
        self, source = _one(emit, self), _one(emit, source)
        made = emit.typed(_rows_written(emit, primitive, self, 0, index, source), dtype=self.dtype, shape=(1,))
        return emit.call("ops.reshape", made, ())
    dim = dim % self.rank
    order = _front(self, [dim])
    if index.rank == 0:
        index = _one(emit, index)
    source = source if source.rank else _one(emit, source)
    kind = {"bool": "int32"}.get(emit.out.dtype, emit.out.dtype)
    places = emit.call("ops.expand_dims", emit.infix("%", index, emit.size(self.shape[dim])), -1)
    out = emit.prim(primitive)(
        permuted(emit, emit.cast(self, kind), order), places, permuted(emit, emit.cast(source, kind), order)
    )
    turned = permuted(emit, out, [order.index(a) for a in range(self.rank)])
    return emit.cast(emit.typed(turned, dtype=kind), emit.out.dtype)


def _one(emit: Emitter, x: Value) -> Value:
    """A 0-d tensor as one of one dimension."""
    return emit.typed(emit.call("ops.reshape", x, (1,)), dtype=x.dtype, shape=(1,))


# --- among edges ---


@lowers("aten.bucketize.Tensor", edges=Arg("boundaries"), values=Arg("self"))
def _searched(emit: Emitter, edges: Value, values: Value, right: bool, **_: object) -> Value:
    """How many edges lie below each value: exact for any shape, and models have few edges."""
    # Counted from above: every edge lies below NaN.
    above = ">" if right else ">="
    larger = emit.infix(above, edges, emit.call("ops.expand_dims", values, -1))
    counted = emit.prim("ops.ReduceSum")(emit.cast(emit.typed(larger, dtype="bool"), "int64"), -1)
    below = emit.infix("-", emit.size(edges.shape[-1]), counted)
    return emit.cast(emit.typed(below, dtype="int64"), emit.out.dtype)


@lowers("aten.searchsorted.Tensor")
def searchsorted(
    emit: Emitter,
    sorted_sequence: Value,
    self: Value,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Value | None = None,
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if any(size == 0 for size in sorted_sequence.shape):
        return filled(emit, 0)
    edges = sorted_sequence
    if sorter is not None:
        edges = emit.typed(emit.call("ops.gather_elements", edges, -1, sorter), like=edges)
    if edges.rank > 1:  # rows of edges, each for a row of values
        shape = (*edges.shape[:-1], 1, edges.shape[-1])
        edges = emit.typed(emit.call("ops.expand_dims", edges, -2), dtype=edges.dtype, shape=shape)
    return _searched(emit, edges, self, right or side == "right")


@lowers("aten.searchsorted.Scalar")
def searchsorted_scalar(
    emit: Emitter,
    sorted_sequence: Value,
    self: Scalar,
    *,
    out_int32: bool,
    right: bool,
    side: str | None,
    sorter: Value | None,
) -> Value:
    value = number(emit, self, sorted_sequence.dtype)
    return searchsorted(emit, sorted_sequence, value, out_int32=out_int32, right=right, side=side, sorter=sorter)
