# SPDX-License-Identifier: Apache-2.0
"""Norms of vectors and matrices, distances, triangular systems."""

import math
from collections.abc import Sequence
from typing import Any

import sympy

from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.reduce import extreme, linalg_vector_norm, reduced_by, shape_without
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.linalg_norm.default")
def linalg_norm(emit: Emitter, self: Value, ord: Scalar | None, dim: Sequence[int] | None, keepdim: bool) -> Value:
    dim = [dim] if isinstance(dim, int) else dim
    if ord is None:  # of all elements, however many dimensions they have
        return linalg_vector_norm(emit, self, 2, dim, keepdim)
    if len(dim or range(self.rank)) == 1 or self.rank == 0:
        return linalg_vector_norm(emit, self, ord, dim, keepdim)
    return matrix_norm(emit, self, ord, dim, keepdim)


#: Of a triangular system whose size is known at run time only; the solution of a larger one is NaN.
_MOST_ROWS = 1024


@lowers("aten.linalg_solve_triangular.default")
def linalg_solve_triangular(
    emit: Emitter, self: Value, B: Value, *, upper: bool, left: bool, unitriangular: bool
) -> Value:
    if is_empty(self) or is_empty(B):
        return filled(emit, 0)
    rows = self.shape[-1]
    known = isinstance(rows, int)
    # x A = b is A^T x^T = b^T, and an upper triangle is a lower one from the other end.
    turned = [*range(self.rank - 2), self.rank - 1, self.rank - 2]
    a, b = self, B
    if not left:
        a, b, upper = permuted(emit, a, turned), permuted(emit, b, turned), not upper
    if upper:
        a = emit.call("ops.flip", a, (-2, -1))
        b = emit.call("ops.flip", b, (-2,))
    a = emit.let(emit.typed(a, dtype=self.dtype, shape=self.shape), "triangle")
    places = emit.let(emit.call("ops.arange", emit.size(rows)), "places")
    same = emit.infix("==", emit.call("ops.expand_dims", places, -1), places)
    unit = emit.cast(emit.typed(same, dtype="bool", shape=(rows, rows)), self.dtype)
    if not unitriangular:
        unit = emit.let(unit, "unit")
        ones = emit.infix("*", a, unit)
        diagonal = emit.let(emit.call("ops.expand_dims", emit.prim("ops.ReduceSum")(ones, -1), -1), "diagonal")
        a, b = emit.let(emit.infix("/", a, diagonal), "triangle"), emit.infix("/", b, diagonal)
    size, inverse = 1, unit
    while size < (rows if known else _MOST_ROWS):
        inverse, size = emit.prelude("blocks_inverted", inverse, a, size), 2 * size
    if not known:
        inverse = emit.prelude("nan_beyond", inverse, _MOST_ROWS)
    x = emit.call("ops.matmul", inverse, b)
    if upper:
        x = emit.call("ops.flip", x, (-2,))
    return x if left else permuted(emit, emit.typed(x, dtype=self.dtype, shape=B.shape), turned)


@lowers("aten.linalg_matrix_norm.default", "aten.linalg_matrix_norm.str_ord", "aten.linalg_norm.ord_str")
def matrix_norm(emit: Emitter, self: Value, ord: Any, dim: Sequence[int] | None, keepdim: bool) -> Value:
    dim = dim or [0, 1]
    if ord == "fro":
        return linalg_vector_norm(emit, self, 2, list(dim), keepdim)
    if is_empty(self):
        return filled(emit, 0)
    rows, columns = (d % self.rank for d in dim)
    if ord in (2, -2, "nuc"):
        return _of_singular_values(emit, self, ord, rows, columns, keepdim)
    added, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    x = emit.cast(self, emit.out.dtype)
    half = x.dtype == "float16"
    x = emit.cast(x, "float32") if half else x
    sizes = emit.typed(emit.call("ops.abs", x), like=x)
    totals = reduced_by(emit, "ops.ReduceSum", sizes, (added,), True)
    found = emit.let(extreme(emit, totals, (chosen,), True, ord > 0), "found")
    if not keepdim:
        shape = shape_without(self, (rows, columns), False)
        found = emit.typed(emit.call("ops.reshape", found, emit.dims(shape, free=True)), dtype=x.dtype, shape=shape)
    return emit.cast(emit.typed(found, dtype=x.dtype), emit.out.dtype)


def _of_singular_values(emit: Emitter, self: Value, ord: Any, rows: Any, columns: Any, keepdim: bool) -> Any:
    rest = [d for d in range(self.rank) if d not in (rows, columns)]
    x = emit.cast(permuted(emit, self, [*rest, rows, columns]), "float64")
    count = sympy.Min(self.shape[rows], self.shape[columns])
    count = int(count) if count.is_Integer else count
    shape = (*(self.shape[d] for d in rest), count)
    found = emit.typed(emit.call("ops.svd", x, False, False), dtype="float64", shape=shape)
    last = (len(shape) - 1,)
    if ord == "nuc":
        total = reduced_by(emit, "ops.ReduceSum", found, last, False)
    else:
        total = extreme(emit, found, last, False, ord == 2)
    total = emit.cast(emit.typed(total, dtype="float64"), emit.out.dtype)
    if not keepdim:
        return total
    return emit.call("ops.reshape", total, emit.dims(emit.out.shape, free=True))


#: Above this many differences, cdist works with a product instead of all of them at once.
_DIFFERENCES = 1 << 22


@lowers("aten.cdist.default")
def cdist(emit: Emitter, x1: Value, x2: Value, p: float, **_: object) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if is_empty(x1) or is_empty(x2):  # rows of no elements
        return filled(emit, 0)
    batch = emit.out.shape[:-2]
    x1, x2 = (_batched(emit, x, batch) for x in (x1, x2))
    count = math.prod((*emit.out.shape, x1.shape[-1]))
    if p == 2 and not (isinstance(count, int) and count <= _DIFFERENCES):
        wide = emit.prelude("distances", emit.cast(x1, "float64"), emit.cast(x2, "float64"))
        return emit.cast(emit.typed(wide, dtype="float64"), emit.out.dtype)
    shape = (*emit.out.shape, x1.shape[-1])
    apart = emit.infix("-", emit.call("ops.expand_dims", x1, -2), emit.call("ops.expand_dims", x2, -3))
    apart = emit.typed(apart, dtype=x1.dtype, shape=shape)
    return linalg_vector_norm(emit, apart, p, [-1])


def _batched(emit: Emitter, x: Value, batch: Sequence[int]) -> Value:
    shape = (*batch, *x.shape[-2:])
    if tuple(x.shape) == tuple(shape):
        return x
    return emit.typed(emit.call("ops.broadcast_to", x, emit.dims(shape)), dtype=x.dtype, shape=shape)
