# SPDX-License-Identifier: Apache-2.0
"""Reductions by index: several elements written to one place are added, multiplied, or compared."""

import math

import torch

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.where_clamp import number
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


def flat_places(emit: Emitter, self: Value, dim: int, index: Value) -> Value:
    """For each element of `index`, the number of its place in self.flatten(); as [count, 1], for the scatters."""
    places = emit.infix("%", emit.cast(index, "int64"), emit.size(self.shape[dim]))
    step = 1
    total = None
    for axis in reversed(range(self.rank)):
        if axis == dim:
            part = places
        else:
            shape = [1] * self.rank
            shape[axis] = -1
            part = emit.call("ops.reshape", emit.call("ops.arange", emit.size(index.shape[axis])), tuple(shape))
        if step != 1:
            part = emit.infix("*", part, emit.size(step))
        total = part if total is None else emit.infix("+", total, part)
        step = step * self.shape[axis]
    return emit.call("ops.reshape", total, (-1, 1))


def sources(emit: Emitter, src: Value, index: Value) -> Value:
    """As much of `src` as there are indices: torch reads no more."""
    if list(src.shape) == list(index.shape):
        return src
    ends = ", ".join(f":{size}" for size in emit.dims(index.shape))
    return Value(f"{emit.let(src, 'source')}[{ends}]", src.dtype, index.shape)


def scattered(emit: Emitter, self: Value, places: Value, written: Value, reduce: str, include_self: bool) -> Value:
    """`self`, flat, with `written` reduced into its `places`; all three in one dtype."""
    like = {"dtype": self.dtype, "shape": self.shape}
    x = emit.let(self, "x")
    places = emit.let(emit.typed(places, dtype="int64"), "places")
    written = emit.let(written, "written")
    if not include_self:
        neutral = emit.constant(_neutral(self.dtype, reduce), "neutral")
        blank = emit.infix("+", emit.call("ops.zeros_like", written), neutral)
        x = emit.let(emit.typed(emit.prim("ops.TensorScatterUpdate")(x, places, blank), **like), "x")
    if reduce == "prod":
        return emit.prim("ops.TensorScatterMul")(x, places, written)
    if reduce in ("amax", "amin"):
        if self.dtype in FLOATS:
            name = "scatter_largest" if reduce == "amax" else "scatter_smallest"
            return emit.prelude(name, x, places, written)
        name = "ops.TensorScatterMax" if reduce == "amax" else "ops.TensorScatterMin"
        return emit.prim(name)(x, places, written)
    total = emit.typed(emit.prim("ops.TensorScatterAdd")(x, places, written), **like)
    if reduce == "sum":
        return total
    ones = emit.call("ops.ones_like", written)
    start = emit.call("ops.ones_like" if include_self else "ops.zeros_like", x)
    count = emit.typed(emit.prim("ops.TensorScatterAdd")(start, places, ones), **like)
    if not include_self:  # a place that nothing was written to keeps what it has
        count = emit.call("ops.maximum", 1, count)
    if self.dtype in FLOATS:
        return emit.infix("/", total, count)
    return emit.prim("ops.FloorDiv")(total, count)


def _neutral(dtype: str, reduce: str) -> torch.Tensor:
    """The element that changes nothing, as a tensor of one element: not every int64 can be written as a number."""
    kind = getattr(torch, dtype)
    if reduce in ("amax", "amin"):
        if kind.is_floating_point:
            number = -math.inf if reduce == "amax" else math.inf
        else:
            number = torch.iinfo(kind).min if reduce == "amax" else torch.iinfo(kind).max
    else:
        number = 1 if reduce == "prod" else 0
    return torch.tensor([number], dtype=kind)


@lowers("aten.scatter_reduce.two")
def scatter_reduce(
    emit: Emitter, self: Value, dim: int, index: Value, src: Value, reduce: str, *, include_self: bool = True
) -> Value:
    if any(size == 0 for size in index.shape):
        return self
    if self.rank == 0:
        self = emit.typed(emit.call("ops.reshape", self, (1,)), dtype=self.dtype, shape=(1,))
        src = emit.typed(emit.call("ops.reshape", src, (1,)), dtype=src.dtype, shape=(1,))
        index = emit.typed(emit.call("ops.reshape", index, (1,)), dtype=index.dtype, shape=(1,))
    dim = dim % self.rank
    kind = {"float16": "float32", "bool": "int32"}.get(emit.out.dtype, emit.out.dtype)
    places = flat_places(emit, self, dim, index)
    src = emit.cast(sources(emit, src, index), kind)
    written = emit.typed(emit.call("ops.reshape", src, (-1,)), dtype=kind)
    flat = emit.typed(emit.call("ops.reshape", emit.cast(self, kind), (-1,)), dtype=kind)
    found = scattered(emit, flat, places, written, reduce, include_self)
    found = emit.typed(emit.call("ops.reshape", found, emit.dims(emit.out.shape)), dtype=kind)
    return emit.cast(found, emit.out.dtype)


@lowers("aten.scatter.reduce")
def scatter_with(emit: Emitter, self: Value, dim: int, index: Value, src: Value, *, reduce: str) -> Value:
    how = {"add": "sum", "multiply": "prod"}[reduce]
    return scatter_reduce(emit, self, dim, index, src, how)


@lowers("aten.scatter.value_reduce")
def scatter_value_with(emit: Emitter, self: Value, dim: int, index: Value, value: Scalar, *, reduce: str) -> Value:
    spread = filled(emit, value, shape=index.shape)
    src = emit.typed(spread, dtype=emit.out.dtype, shape=index.shape)
    return scatter_with(emit, self, dim, index, src, reduce=reduce)


@lowers("aten.index_reduce.default")
def index_reduce(
    emit: Emitter, self: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool
) -> Value:
    if self.rank == 0 or source.rank == 0:
        index = emit.typed(emit.call("ops.reshape", index, ()), dtype="int64", shape=())
        source = emit.typed(emit.call("ops.reshape", source, ()), dtype=source.dtype, shape=())
        if self.rank:
            raise emit.refuse("index_reduce of a single number into a vector")
        return scatter_reduce(emit, self, 0, index, source, reduce, include_self=include_self)
    dim = dim % self.rank
    shape = [1] * self.rank
    shape[dim] = -1
    index = emit.call("ops.reshape", index, tuple(shape))
    index = emit.call("ops.broadcast_to", index, emit.dims(source.shape))
    index = emit.typed(index, dtype="int64", shape=source.shape)
    return scatter_reduce(emit, self, dim, index, source, reduce, include_self=include_self)


# --- taken from, or put into, the flat tensor or rows of it ---


@lowers("aten.take.default")
def take(emit: Emitter, self: Value, index: Value) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    return emit.prelude("picked", emit.call("ops.reshape", self, (-1,)), index, 0, emit.training)


@lowers("aten.take_along_dim.default")
def take_along_dim(emit: Emitter, self: Value, indices: Value, dim: int | None) -> Value:
    if dim is None:
        flat = emit.call("ops.reshape", self, (-1,))
        return emit.call("ops.gather", flat, emit.call("ops.reshape", indices, (-1,)), 0)
    dim = dim % self.rank
    parts = []
    for x in (self, indices):
        shape = [
            size if axis == dim else common
            for axis, (size, common) in enumerate(zip(x.shape, emit.out.shape, strict=True))
        ]
        if list(x.shape) != shape:
            x = emit.call("ops.broadcast_to", x, emit.dims(shape))
        parts.append(x)
    return emit.call("ops.gather_elements", parts[0], dim, parts[1])


def _marked(emit: Emitter, self: Value, dim: int, index: Value) -> Value:
    """Where the places of `index` are in dimension `dim`, broadcast against `self`."""
    shape = [1] * self.rank
    shape[dim] = -1
    flat = emit.call("ops.reshape", index, (-1, 1))
    flat = emit.infix("%", flat, emit.size(self.shape[dim]))
    equal = emit.infix("==", flat, emit.call("ops.arange", emit.size(self.shape[dim])))
    found = emit.prim("ops.ReduceAny")(equal, 0)
    return emit.typed(emit.call("ops.reshape", found, tuple(shape)), dtype="bool")


@lowers("aten.index_fill.int_Scalar")
def index_fill(emit: Emitter, self: Value, dim: int, index: Value, value: Scalar) -> Value:
    if self.rank == 0:
        return filled(emit, value)
    if any(size == 0 for size in index.shape):
        return self
    return emit.call("ops.where", _marked(emit, self, dim % self.rank, index), number(emit, value), self)


@lowers("aten.index_fill.int_Tensor")
def index_fill_tensor(emit: Emitter, self: Value, dim: int, index: Value, value: Value) -> Value:
    if self.rank == 0:
        return emit.cast(value, emit.out.dtype)
    if any(size == 0 for size in index.shape):
        return self
    value = emit.cast(value, emit.out.dtype)
    return emit.call("ops.where", _marked(emit, self, dim % self.rank, index), value, self)
