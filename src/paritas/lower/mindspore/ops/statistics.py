# SPDX-License-Identifier: Apache-2.0
"""Reductions beside the common ones: of what is not NaN, of both extremes, of mean and spread together."""

import math
from collections.abc import Sequence
from typing import Any

import sympy

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.logic import truth
from paritas.lower.mindspore.ops.reduce import axes_of, extreme, reduced_by, summed
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import Arg


def _present(emit: Emitter, self: Value) -> tuple[Value, Value]:
    """`self` with 0 for NaN, and where it is not NaN."""
    x = emit.let(self, "x")
    there = emit.typed(emit.infix("==", x, x), dtype="bool", shape=self.shape)
    nothing = emit.call("ops.zeros_like", x)
    return emit.typed(emit.call("ops.where", there, x, nothing), like=self), there


@lowers("aten.nansum.default")
def nansum(emit: Emitter, self: Value, dim: Sequence[int] | None, keepdim: bool) -> Value:
    if self.dtype in FLOATS and not is_empty(self):
        self, _ = _present(emit, self)
    return summed(emit, self, dim, keepdim)


@lowers("aten.nanmean.default")
def nanmean(emit: Emitter, self: Value, dim: Sequence[int] | None, keepdim: bool) -> Value:
    if is_empty(self):
        return filled(emit, math.nan)
    x, there = _present(emit, emit.cast(self, "float32") if self.dtype == "float16" else self)
    axes = axes_of(self, dim)
    if not axes:
        return self
    count = reduced_by(emit, "ops.ReduceSum", emit.cast(there, x.dtype), axes, keepdim)
    total = emit.infix("/", reduced_by(emit, "ops.ReduceSum", x, axes, keepdim), count)
    return emit.cast(emit.typed(total, dtype=x.dtype), emit.out.dtype)


@lowers("aten.count_nonzero.default", "aten.count_nonzero.dim_IntList")
def _counted(emit: Emitter, self: Value, dim: int | Sequence[int] | None) -> Value:
    if is_empty(self):
        return filled(emit, 0)
    flags = emit.cast(emit.typed(truth(emit, self), like=self, dtype="bool"), "int64")
    axes = axes_of(self, dim)
    return reduced_by(emit, "ops.ReduceSum", flags, axes, False) if axes else flags


@lowers("aten.aminmax.default")
def aminmax(emit: Emitter, self: Value, *, dim: int | None, keepdim: bool) -> Value:
    x = emit.let(self, "x")
    low, high = (extreme(emit, x, dim, keepdim, largest) for largest in (False, True))
    return Value(f"({low}, {high})")


@lowers("aten.trace.default")
def trace(emit: Emitter, self: Value) -> Value:
    if not all(isinstance(size, int) for size in self.shape):  # without its length
        rows, columns = (emit.call("ops.arange", emit.size(size)) for size in self.shape)
        on = emit.infix("==", emit.call("ops.expand_dims", rows, -1), columns)
        x = emit.let(self, "x")
        kept = emit.call("ops.where", on, x, emit.call("ops.zeros_like", x))
        return summed(emit, emit.typed(kept, like=self), None, False)
    return summed(emit, diagonal_of(emit, self, 0, 0, 1), None, False)


@lowers("aten.diagonal.default")
@lowers("aten.linalg_diagonal.default", self=Arg("A"))
def diagonal_of(emit: Emitter, self: Value, offset: int, dim1: int, dim2: int) -> Value:
    """The diagonal of two dimensions, as the last dimension."""
    dim1, dim2 = dim1 % self.rank, dim2 % self.rank
    rest = [d for d in range(self.rank) if d not in (dim1, dim2)]
    rows, columns = self.shape[dim1], self.shape[dim2]
    if not all(isinstance(size, int) or getattr(size, "is_Integer", False) for size in (rows, columns)):
        return _free_diagonal(emit, self, offset, dim1, dim2)
    rows, columns = int(rows), int(columns)
    low, high = max(-offset, 0), max(offset, 0)
    length = max(min(rows - low, columns - high), 0)
    shape = (*(self.shape[d] for d in rest), length)
    if is_empty(self) or length == 0:
        return emit.typed(filled(emit, 0, shape=shape, dtype=self.dtype), dtype=self.dtype, shape=shape)
    turned = permuted(emit, self, [*rest, dim1, dim2])
    flat = emit.call("ops.reshape", turned, (*emit.dims([self.shape[d] for d in rest]), rows * columns))
    places = emit.call("ops.arange", 0, length)
    places = emit.infix("+", emit.infix("*", places, columns + 1), low * columns + high)
    found = emit.call("ops.gather", flat, places, len(rest))
    return emit.typed(found, dtype=self.dtype, shape=shape)


def _free_diagonal(emit: Emitter, self: Value, offset: Any, dim1: Any, dim2: Any) -> Any:
    """Where a size is free: how long the diagonal is, only the result says."""
    out = emit.out.shape
    if not isinstance(emit.out, Value) or out is None or len(out) != self.rank - 1:
        raise emit.refuse("the diagonal of a matrix of unknown size")
    rest = [d for d in range(self.rank) if d not in (dim1, dim2)]
    turned = permuted(emit, self, [*rest, dim1, dim2])
    flat = emit.call("ops.reshape", turned, (*emit.dims([self.shape[d] for d in rest]), -1))
    columns = emit.size(self.shape[dim2])
    places = emit.call("ops.arange", emit.size(out[-1]))
    start = emit.size(max(-offset, 0) * sympy.sympify(self.shape[dim2]) + max(offset, 0))
    step = emit.infix("*", places, emit.infix("+", columns, 1))
    found = emit.call("ops.gather", flat, emit.infix("+", step, start), len(rest))
    return emit.typed(found, dtype=self.dtype, shape=out)


@lowers("aten.diag.default")
def diag(emit: Emitter, self: Value, diagonal: int) -> Value:
    if self.rank == 2:
        return diagonal_of(emit, self, diagonal, 0, 1)
    return embedded(emit, self, diagonal, 0, 1)


def embedded(emit: Emitter, self: Value, offset: int, dim1: int, dim2: int) -> Value:
    """A matrix of zeros with the last dimension of `self` on its diagonal; then the two dimensions in place."""
    rank = self.rank + 1
    dim1, dim2 = dim1 % rank, dim2 % rank
    size = self.shape[-1] + abs(offset)
    rows = emit.call("ops.expand_dims", emit.call("ops.arange", emit.size(size)), -1)
    columns = emit.call("ops.arange", emit.size(size))
    on = emit.infix("==", emit.infix("+", rows, offset), columns)
    x = self
    if offset:
        # As many places as the matrix has columns, with the elements where their columns are.
        edge = filled(emit, 0, shape=(*self.shape[:-1], abs(offset)), dtype=self.dtype)
        x = emit.call("ops.cat", (edge, x) if offset > 0 else (x, edge), -1)
    wide = emit.call("ops.expand_dims", x, -2)
    nothing = emit.call("ops.full", (), bool(0) if self.dtype == "bool" else 0, dtype=emit.dtype(self.dtype))
    shape = (*self.shape[:-1], size, size)
    made = emit.typed(emit.call("ops.where", on, wide, nothing), dtype=self.dtype, shape=shape)
    order = list(range(rank - 2))
    for place, axis in sorted([(dim1, rank - 2), (dim2, rank - 1)]):
        order.insert(place, axis)
    return permuted(emit, made, order)


@lowers("aten.diag_embed.default")
def diag_embed(emit: Emitter, self: Value, offset: int, dim1: int, dim2: int) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if is_empty(self):
        return filled(emit, 0)
    return embedded(emit, self, offset, dim1, dim2)
