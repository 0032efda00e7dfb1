# SPDX-License-Identifier: Apache-2.0
"""The same elements in another shape or order of axes."""

from collections.abc import Sequence
from typing import Any

import openvino.opset16 as ops

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, out, rank_of
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten.reshape.default")
@lowers("aten.view.default", "aten._unsafe_view.default", shape=Arg("size"))
def reshape(emit: Emitter, self: Tensor, shape: Sizes) -> Tensor:
    return emit.reshape(self, shape, like=emit.out)


@lowers("aten.view_as.default", "aten.reshape_as.default")
def view_as(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    return emit.reshape(self, emit.sizes(other), like=emit.out)


@lowers("aten.flatten.using_ints")
def flatten(emit: Emitter, self: Tensor, start_dim: int, end_dim: int) -> Tensor:
    rank = rank_of(self)
    if rank == 0:
        return emit.unsqueeze(self, 0)
    first, last = start_dim % rank, end_dim % rank
    sizes = emit.sizes(self)
    whole = 1
    for size in sizes[first : last + 1]:
        whole = emit.times(size, whole)
    return emit.reshape(self, [*sizes[:first], whole, *sizes[last + 1 :]], like=emit.out)


@lowers("aten.unflatten.int")
def unflatten(emit: Emitter, self: Tensor, dim: int, sizes: Sizes) -> Tensor:
    own = emit.sizes(self)
    dim %= len(own)
    return emit.reshape(self, [*own[:dim], *sizes, *own[dim + 1 :]], like=emit.out)


@lowers("aten.unsqueeze.default")
def unsqueeze(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    return emit.unsqueeze(self, dim % (rank_of(self) + 1))


@lowers("aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default")
def squeeze(emit: Emitter, self: Tensor, dim: Any = None) -> Tensor:
    rank = rank_of(self)
    known = emit.meta(self)
    own: Sequence[Any] = known.shape if known is not None else emit.sizes(self)
    wanted = range(rank) if dim is None else dim if isinstance(dim, (list, tuple)) else [dim]
    named = [axis % rank for axis in wanted if rank]
    axes = [axis for axis in named if isinstance(own[axis], int) and own[axis] == 1]
    # A free size is not 1 here, or a guard says that it always is: then the result has an axis less.
    always = rank - len(emit.shape) - len(axes)
    if always:
        free = [axis for axis in named if not isinstance(own[axis], int)]
        axes += free if len(free) == always else [axis for axis in free if own[axis].node.hint == 1]
    return emit.squeeze(self, *axes) if axes else self


@lowers("aten.permute.default")
def permute(emit: Emitter, self: Tensor, dims: Sequence[int]) -> Tensor:
    rank = rank_of(self)
    return emit.transpose(self, [dim % rank for dim in dims])


@lowers("aten.transpose.int", "aten.swapdims.default")
@lowers("aten.swapaxes.default", dim0=Arg("axis0"), dim1=Arg("axis1"))
def transpose(emit: Emitter, self: Tensor, dim0: int, dim1: int) -> Tensor:
    rank = rank_of(self)
    if rank == 0:
        return self
    order = list(range(rank))
    order[dim0 % rank], order[dim1 % rank] = dim1 % rank, dim0 % rank
    return emit.transpose(self, order)


@lowers("aten.t.default", "aten.numpy_T.default", "aten.mT.default")
def t(emit: Emitter, self: Tensor) -> Tensor:
    rank = rank_of(self)
    if rank < 2:
        return self
    order = list(range(rank))
    return emit.transpose(self, [*order[:-2], order[-1], order[-2]] if "mT" in str(emit.node.target) else order[::-1])


@lowers("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def movedim(emit: Emitter, self: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    rank = rank_of(self)
    source, destination = ([d] if isinstance(d, int) else list(d) for d in (source, destination))
    source, destination = [d % rank for d in source], [d % rank for d in destination]
    rest = iter(axis for axis in range(rank) if axis not in source)
    order = [source[destination.index(a)] if a in destination else next(rest) for a in range(rank)]
    return emit.transpose(self, order)


@lowers("aten.expand_as.default")
def expand_as(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    return expanded(emit, self, emit.sizes(other))


@lowers("aten.expand.default", "aten.broadcast_to.default", x=Arg("self"))
def expanded(emit: Emitter, x: Tensor, size: Sizes) -> Tensor:
    """`x` in a wider shape, where -1 is the size that it has."""
    own = emit.sizes(x)
    new = len(size) - len(own)
    sizes = [own[i - new] if isinstance(s, int) and s == -1 else s for i, s in enumerate(size)]
    return emit.broadcast(x, sizes)


@lowers("aten.broadcast_tensors.default")
def broadcast_tensors(emit: Emitter, tensors: Sequence[Tensor]) -> list[Tensor]:
    sizes = shared_sizes(emit, tensors)
    return [emit.broadcast(x, sizes) for x in tensors]


def shared_sizes(emit: Emitter, tensors: Sequence[Tensor]) -> list[Size]:
    """The sizes of what `tensors` are together, by broadcasting."""
    found: list = []
    for x in tensors:
        own = emit.sizes(x)
        longer = max(len(own), len(found))
        own = [1] * (longer - len(own)) + own
        found = [1] * (longer - len(found)) + found
        found = [_shared(emit, a, b) for a, b in zip(found, own, strict=True)]
    return found


def _shared(emit: Emitter, a: Size, b: Size) -> Size:
    if isinstance(a, int) and a != 1:
        return a
    if isinstance(b, int):
        return a if b == 1 else b
    if isinstance(a, int):
        return b
    return out(ops.select(ops.equal(a, emit.number(1)), b, a))
