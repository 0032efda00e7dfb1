# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without changing them: the views of torch, joining and cutting."""

import dataclasses
import math
import re
from collections.abc import Sequence

import sympy

from paritas.capture.normalise import WHOLE_DIMENSION
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Value, operand
from paritas.lower.registry import Arg


@lowers("aten.view.default", "aten._unsafe_view.default", "aten.view_as.default")
@lowers("aten.reshape.default", "aten.reshape_as.default")
@lowers("aten.flatten.using_ints", "aten.ravel.default", "aten.unflatten.int")
@lowers("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims")
@lowers("aten.atleast_1d.default", "aten.atleast_2d.default", "aten.atleast_3d.default")
def reshaped(emit: Emitter, self: Value, **_: object) -> Value:
    """The result's shape says all."""
    return emit.call("ops.reshape", self, emit.dims(emit.out.shape, free=True))


@lowers("aten.unsqueeze.default")
def unsqueeze(emit: Emitter, self: Value, dim: int) -> Value:
    return emit.call("ops.expand_dims", self, dim)


def _wide(size: int) -> bool:
    return isinstance(size, (int, sympy.Integer)) and size >= 16


@lowers("aten.permute.default", order=Arg("dims"))
def permuted(emit: Emitter, self: Value, order: Sequence[int]) -> Value:
    order = tuple(d % len(order) for d in order)
    # Heads to the front and back again. Narrow rows are not worth a look-up each.
    if order == (0, 2, 1, 3) and emit.target == "cpu" and self.dtype == "float32" and _wide(self.shape[3]):
        return emit.prelude("swap_heads", self)
    return self if order == tuple(range(len(order))) else emit.call("ops.transpose", self, order)


@lowers("aten.transpose.int", "aten.swapdims.default")
@lowers("aten.swapaxes.default", dim0=Arg("axis0"), dim1=Arg("axis1"))
@lowers("aten.t.default", dim0=0, dim1=-1)
@lowers("aten.mT.default", dim0=-2, dim1=-1)
def swapped(emit: Emitter, self: Value, dim0: int, dim1: int) -> Value:
    order = list(range(self.rank))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(emit, self, order)


@lowers("aten.movedim.int", "aten.moveaxis.int", "aten.movedim.intlist", "aten.moveaxis.intlist")
def moved(emit: Emitter, self: Value, source: int | Sequence[int], destination: int | Sequence[int]) -> Value:
    source, destination = (
        [d % self.rank for d in ([dims] if isinstance(dims, int) else dims)] for dims in (source, destination)
    )
    order = [d for d in range(self.rank) if d not in source]
    for place, dim in sorted(zip(destination, source, strict=True)):
        order.insert(place, dim)
    return permuted(emit, self, order)


@lowers("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def broadcast(emit: Emitter, self: Value, **_: object) -> Value:
    return emit.call("ops.broadcast_to", self, emit.dims(emit.out.shape))


def tuple_of(texts: Sequence[str]) -> Value:
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")


@lowers("aten.broadcast_tensors.default")
def broadcast_tensors(emit: Emitter, tensors: Sequence[Value]) -> Value:
    pieces = zip(tensors, emit.out, strict=True)
    return tuple_of([emit.call("ops.broadcast_to", x, emit.dims(piece.shape)).text for x, piece in pieces])


@lowers("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def joined(emit: Emitter, tensors: Sequence[Value], dim: int) -> Value:
    # torch lets empty tensors of rank 1 take part.
    parts = [emit.cast(x, emit.out.dtype) for x in tensors if x.rank == len(emit.out.shape) and not is_empty(x)]
    return parts[0] if len(parts) == 1 else emit.call("ops.cat", tuple(parts), dim)


def is_empty(value: Value) -> bool:
    return any(size == 0 for size in value.shape)


def may_be_empty(value: Value) -> bool:
    """Whether a size depends on values: as many as a mask shows, which may be none."""
    symbols = {s for size in value.shape for s in getattr(size, "free_symbols", ())}
    return any(str(symbol).startswith("u") for symbol in symbols)


@lowers("aten.stack.default")
def stack(emit: Emitter, tensors: Sequence[Value], dim: int) -> Value:
    return emit.call("ops.stack", tuple(emit.cast(x, emit.out.dtype) for x in tensors), dim)


def indexed(emit: Emitter, self: Value, dim: int, text: str) -> str:
    """`x[:, :, text]`"""
    index = ", ".join([":"] * (dim % self.rank) + [text])
    return f"{operand(emit.let(self, 'x'))}[{index}]"


def slice_of(bounds: Sequence[str]) -> str:
    """ "2:5", and ": x.shape[0]" with the space that a formatter gives what is no name and no number."""
    if all(re.fullmatch(r"-?\w*", bound) for bound in bounds):
        return ":".join(bounds)
    return re.sub(r" +", " ", " : ".join(bounds)).strip()


@lowers("aten.slice.Tensor")
def slice_(emit: Emitter, self: Value, dim: int, start: Size | None, end: Size | None, step: Size) -> Value:
    # Both bounds may be negative or beyond the end, in torch as in Python.
    bounds = ["" if start in (None, 0) else str(start), "" if end is None or _is_whole(end) else str(end)]
    text = slice_of(bounds if step == 1 else [*bounds, str(step)])
    return Value(indexed(emit, self, dim, text), self.dtype, emit.out.shape)


def _is_whole(end: Size) -> bool:
    return isinstance(end, int) and end >= WHOLE_DIMENSION


def from_front(emit: Emitter, bound: Size, size: Size) -> Size:
    """A bound of a slice, counted from the front: what is computed of sizes may be negative in some calls only."""
    if isinstance(bound, int) and bound < 0:
        return emit.size(sympy.Max(size + bound, 0))
    if isinstance(bound, Value) and not bound.atomic:
        return emit.let(emit.prelude("from_front", bound, emit.size(size)), "bound")
    return bound


@lowers("aten.narrow.default")
def narrow(emit: Emitter, self: Value, dim: int, start: Size, length: Size) -> Value:
    start = start if isinstance(start, int) else from_front(emit, start, self.shape[dim])
    low = operand(start) if isinstance(start, Value) else str(start)
    end = f"{low} + {length}" if not isinstance(start, int) or not isinstance(length, int) else str(start + length)
    if isinstance(start, int) and start < 0:
        end = emit.size(self.shape[dim]).text if start + int(length) == 0 else end
    return Value(indexed(emit, self, dim, f"{start}:{end}"), self.dtype, emit.out.shape)


@lowers("aten.select.int")
def select(emit: Emitter, self: Value, dim: int, index: Size) -> Value:
    return _place(emit, self, dim, index, emit.out)


#: Fewer values than this are taken by an index, which reads better, and takes no time; and, where it is not known how
#: many there are, one place of more than so many: a token of a text, not the queries of queries, keys and values.
_FEW, _PLACES = 1 << 15, 8


def _place(emit: Emitter, self: Value, dim: int, index: Size, out: Value) -> Value:
    """What is at one place of a dimension: x[2]. Of much on a CPU by ops.slice, as an index copies value by value."""
    dim, size = dim % self.rank, self.shape[dim % self.rank]
    known = isinstance(index, int) and isinstance(size, int)
    fixed = all(isinstance(one, int) for one in out.shape)
    few = math.prod(out.shape) < _FEW if fixed else known and size > _PLACES
    refused = self.dtype == "bfloat16" or may_be_empty(self)  # by ops.slice
    if emit.target != "cpu" or not known or few or refused:
        return Value(indexed(emit, self, dim, str(index)), out.dtype, out.shape)
    begin, sizes = [0] * self.rank, list(self.shape)
    begin[dim], sizes[dim] = index % size, 1
    part = emit.call("ops.slice", emit.let(self, "x"), tuple(begin), emit.dims(sizes))
    return dataclasses.replace(emit.call("ops.squeeze", part, dim), dtype=out.dtype, shape=out.shape)


@lowers("aten.split.Tensor", "aten.split_with_sizes.default", "aten.unsafe_split.Tensor")
@lowers("aten.chunk.default", "aten.unsafe_chunk.default", "aten.tensor_split.sections")
def slices_of(emit: Emitter, self: Value, dim: int, **_: object) -> Value:
    """The pieces that `emit.out` describes, by slices: ops.StridedSlice and ops.split are slower or choosier."""
    dim = dim % self.rank
    self = emit.let(self, "x")
    texts, start = [], 0
    for piece in emit.out:
        end = start + piece.shape[dim]
        low, high = ("" if start == 0 else str(emit.size(start))), str(emit.size(end))
        text = indexed(emit, self, dim, f"{low}:{high}")
        if is_empty(piece):
            text = emit.call("ops.zeros", emit.dims(piece.shape), emit.dtype(piece.dtype)).text
        texts.append(text)
        start = end
    return tuple_of(texts)


@lowers("aten.unbind.int")
def unbind(emit: Emitter, self: Value, dim: int) -> Value:
    if not emit.out:
        return Value("()")
    self = emit.let(self, "x")
    return tuple_of([_place(emit, self, dim, i, out).text for i, out in enumerate(emit.out)])
