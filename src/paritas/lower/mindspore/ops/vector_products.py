# SPDX-License-Identifier: Apache-2.0
"""Products of vectors and matrices beside the common ones."""

import math
from collections.abc import Sequence

from paritas.lower.mindspore.ops.arithmetic import promote
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.matmul import matmul, plus_product
from paritas.lower.mindspore.ops.reduce import summed
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.addmv.default")
def addmv(emit: Emitter, self: Value, mat: Value, vec: Value, *, beta: Scalar, alpha: Scalar) -> Value:
    return plus_product(emit, self, matmul(emit, mat, vec), beta, alpha)


@lowers("aten.addr.default")
def addr(emit: Emitter, self: Value, vec1: Value, vec2: Value, *, beta: Scalar, alpha: Scalar) -> Value:
    if emit.out.dtype == "bool":
        both = emit.call("ops.logical_and", emit.call("ops.expand_dims", vec1, -1), vec2)
        both = both if alpha else emit.call("ops.zeros_like", both)
        return emit.call("ops.logical_or", self, both) if beta else both
    self, vec1, vec2 = promote(emit, self, vec1, vec2)
    product = emit.infix("*", emit.call("ops.expand_dims", vec1, -1), vec2)
    return plus_product(emit, self, product, beta, alpha)


@lowers("aten.inner.default")
def inner(emit: Emitter, self: Value, other: Value) -> Value:
    if self.rank == 0 or other.rank == 0:
        return emit.infix("*", self, other)
    if is_empty(self) or is_empty(other):
        return filled(emit, 0)
    return _contracted(emit, self, other, [self.rank - 1], [other.rank - 1])


@lowers("aten.vdot.default")
def vdot(emit: Emitter, self: Value, other: Value) -> Value:
    if emit.out.dtype.startswith("complex"):
        raise emit.refuse("vdot of complex numbers")
    return matmul(emit, self, other)


@lowers("aten.tensordot.default")
def tensordot(emit: Emitter, self: Value, other: Value, dims_self: Sequence[int], dims_other: Sequence[int]) -> Value:
    if is_empty(self) or is_empty(other):
        return filled(emit, 0)
    return _contracted(emit, self, other, dims_self, dims_other)


def _contracted(emit: Emitter, self: Value, other: Value, left: Sequence[int], right: Sequence[int]) -> Value:
    """The sum of products over the dimensions `left` of one and `right` of the other, as a matrix product."""
    left, right = [d % self.rank for d in left], [d % other.rank for d in right]
    for first, second in zip(left, right, strict=True):
        # A dimension of 1 stands for all of the other's.
        if self.shape[first] == 1 != other.shape[second]:
            other = _summed_over(emit, other, second)
        elif other.shape[second] == 1 != self.shape[first]:
            self = _summed_over(emit, self, first)
    rows = [d for d in range(self.rank) if d not in left]
    columns = [d for d in range(other.rank) if d not in right]
    count = math.prod([self.shape[d] for d in left])
    height = math.prod([self.shape[d] for d in rows])
    width = math.prod([other.shape[d] for d in columns])
    a = emit.call("ops.reshape", permuted(emit, self, [*rows, *left]), emit.dims([height, count]))
    b = emit.call("ops.reshape", permuted(emit, other, [*right, *columns]), emit.dims([count, width]))
    product = emit.prim("ops.MatMul")(a, b)
    return emit.call("ops.reshape", product, emit.dims(emit.out.shape))


def _summed_over(emit: Emitter, x: Value, dim: int) -> Value:
    shape = [1 if axis == dim else size for axis, size in enumerate(x.shape)]
    total = emit.prim("ops.ReduceSum", keep_dims=True)(x, dim)
    return emit.typed(total, dtype=x.dtype, shape=shape)


@lowers("aten.linalg_vecdot.default")
def linalg_vecdot(emit: Emitter, x: Value, y: Value, *, dim: int) -> Value:
    if emit.out.dtype.startswith("complex"):
        raise emit.refuse("vecdot of complex numbers")
    rank = max(x.rank, y.rank)
    shape = [1] * rank
    for v in (x, y):
        for axis, size in enumerate(reversed(v.shape)):
            if size != 1:
                shape[rank - 1 - axis] = size
    product = emit.typed(emit.infix("*", x, y), dtype=emit.out.dtype, shape=shape)
    return summed(emit, product, [dim], False)


@lowers("aten.kron.default")
def kron(emit: Emitter, self: Value, other: Value) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    rank = max(self.rank, other.rank)
    left = [1] * (rank - self.rank) + list(self.shape)
    right = [1] * (rank - other.rank) + list(other.shape)
    a, b = promote(emit, self, other)
    a = emit.call("ops.reshape", a, emit.dims([s for size in left for s in (size, 1)]))
    b = emit.call("ops.reshape", b, emit.dims([s for size in right for s in (1, size)]))
    product = emit.call("ops.logical_and", a, b) if emit.out.dtype == "bool" else emit.infix("*", a, b)
    return emit.call("ops.reshape", product, emit.dims(emit.out.shape))


def _cross(emit: Emitter, self: Value, other: Value, dim: int) -> Value:
    """Each component is a difference of two products of the others, turned by one and by two places."""
    rank = len(emit.out.shape)
    dim = dim % rank
    shape = emit.dims(emit.out.shape)
    first, second = [], []
    for x in promote(emit, self, other):
        x = emit.let(emit.call("ops.broadcast_to", x, shape), "x")
        colons = ":, " * dim
        parts = [f"{x}[{colons}{place}:{place + 1}]" for place in range(3)]
        first.append(f"ops.cat(({parts[1]}, {parts[2]}, {parts[0]}), {dim})")
        second.append(f"ops.cat(({parts[2]}, {parts[0]}, {parts[1]}), {dim})")
    return emit.typed(_difference(emit, first, second), like=emit.out)


def _difference(emit: Emitter, first: Sequence[str], second: Sequence[str]) -> Value:
    return Value(f"{first[0]} * {second[1]} - {second[0]} * {first[1]}", atomic=False)


@lowers("aten.linalg_cross.default")
def linalg_cross(emit: Emitter, self: Value, other: Value, *, dim: int) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    return _cross(emit, self, other, dim)


@lowers("aten.cross.default")
def cross(emit: Emitter, self: Value, other: Value, dim: int | None) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if dim is None:
        dim = next(axis for axis, size in enumerate(emit.out.shape) if size == 3)
    return _cross(emit, self, other, dim)
