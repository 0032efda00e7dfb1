# SPDX-License-Identifier: Apache-2.0
"""NumPy's names for joining, cutting and turning: hstack and its kin."""

from collections.abc import Callable, Sequence
from typing import Any

from paritas.lower.mindspore.ops.pad_roll_repeat import flip
from paritas.lower.mindspore.ops.reduce import summed
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import joined, permuted, slices_of, tuple_of
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Sizes, Value


def _shaped(emit: Emitter, x: Value, shape: Sizes) -> Value:
    if list(x.shape) == list(shape):
        return x
    return emit.typed(emit.call("ops.reshape", x, emit.dims(shape, free=True)), dtype=x.dtype, shape=shape)


def at_least_1d(shape: Sizes) -> list[int]:
    return list(shape) or [1]


def at_least_2d(shape: Sizes) -> list[int]:
    return list(shape) if len(shape) >= 2 else [1, *at_least_1d(shape)]


def at_least_3d(shape: Sizes) -> list[int]:
    return list(shape) if len(shape) >= 3 else [*at_least_2d(shape), 1]


@lowers("aten.hstack.default", widen=at_least_1d, dim=1)
@lowers("aten.vstack.default", "aten.row_stack.default", widen=at_least_2d, dim=0)
@lowers("aten.dstack.default", widen=at_least_3d, dim=2)
@lowers("aten.column_stack.default", widen=lambda s: list(s) if len(s) >= 2 else [*at_least_1d(s), 1], dim=1)
def stacked(emit: Emitter, tensors: Sequence[Value], widen: Callable[..., Any], dim: int) -> Value:
    parts = [_shaped(emit, x, widen(x.shape)) for x in tensors]
    return joined(emit, parts, 0 if len(emit.out.shape) == 1 else dim)


@lowers("aten.atleast_1d.Sequence", "aten.atleast_2d.Sequence", "aten.atleast_3d.Sequence")
def atleast_each(emit: Emitter, tensors: Sequence[Value]) -> Value:
    pieces = zip(tensors, emit.out, strict=True)
    return tuple_of([str(_shaped(emit, x, piece.shape)) for x, piece in pieces])


lowers("aten.fliplr.default", dims=[1])(flip)
lowers("aten.flipud.default", dims=[0])(flip)


@lowers("aten.rot90.default")
def rot90(emit: Emitter, self: Value, k: int, dims: Sequence[int]) -> Value:
    first, second = (d % self.rank for d in dims)
    order = list(range(self.rank))
    order[first], order[second] = second, first
    if k % 4 == 0:
        return self
    if k % 4 == 2:
        return flip(emit, self, [first, second])
    if k % 4 == 1:
        turned = emit.typed(flip(emit, self, [second]), like=self)
        return permuted(emit, turned, order)
    shape = [self.shape[d] for d in order]
    turned = emit.typed(permuted(emit, self, order), dtype=self.dtype, shape=shape)
    return flip(emit, turned, [second])


@lowers("aten.numpy_T.default")
def numpy_t(emit: Emitter, self: Value) -> Value:
    return permuted(emit, self, range(self.rank - 1, -1, -1))


@lowers("aten.mH.default", "aten.matrix_H.default", "aten.adjoint.default")
def adjoint(emit: Emitter, self: Value) -> Value:
    if self.dtype.startswith("complex"):
        raise emit.refuse("the conjugate of a complex matrix")
    if self.rank < 2:
        return self
    return permuted(emit, self, [*range(self.rank - 2), self.rank - 1, self.rank - 2])


@lowers("aten.tensor_split.indices")
def tensor_split_indices(emit: Emitter, self: Value, indices: Sizes, dim: int) -> Value:
    dim = dim % self.rank
    x = emit.let(self, "x")
    texts = []
    for start, end, piece in zip([0, *indices], [*indices, None], emit.out, strict=True):
        if any(size == 0 for size in piece.shape):
            made = emit.call("ops.zeros", emit.dims(piece.shape), emit.dtype(piece.dtype))
            texts.append(made.text)
            continue
        bounds = f"{start or ''}:{'' if end is None else end}"
        texts.append(f"{x}[{':, ' * dim}{bounds}]")
    return tuple_of(texts)


@lowers("aten.hsplit.int", "aten.vsplit.int", "aten.dsplit.int")
def hsplit(emit: Emitter, self: Value, **_: object) -> Value:
    return slices_of(emit, self, _split_dim(self, emit))


def _split_dim(self: Value, emit: Emitter) -> int:
    """The dimension along which the pieces differ from the whole; the first if there is but one piece."""
    piece = emit.out[0]
    differing = [d for d in range(self.rank) if piece.shape[d] != self.shape[d]]
    return differing[0] if differing else 0


@lowers("aten.sum_to_size.default")
def sum_to_size(emit: Emitter, self: Value, size: Sizes) -> Value:
    missing = self.rank - len(size)
    axes = [
        axis for axis in range(self.rank) if axis < missing or (size[axis - missing] == 1 and self.shape[axis] != 1)
    ]
    if not axes:
        return emit.cast(self, emit.out.dtype)
    total = summed(emit, self, axes, True)
    return emit.call("ops.reshape", total, emit.dims(emit.out.shape, free=True))
