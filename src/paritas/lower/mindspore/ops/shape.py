# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without changing them: the views of torch, joining and cutting."""

import sympy

from paritas.capture.normalise import WHOLE_DIMENSION
from paritas.lower.mindspore.write.source import Value, operand
from paritas.lower.registry import lowers


def reshaped(emit, self, *_):
    return emit.call("ops.reshape", self, emit.dims(emit.out.shape, free=True))


@lowers("mindspore", "aten.view.default")
def view(emit, self, size):
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten._unsafe_view.default")
def unsafe_view(emit, self, size):
    """_unsafe_view(Tensor self, SymInt[] size) -> Tensor"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.reshape.default")
def reshape(emit, self, shape):
    """reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.view_as.default")
def view_as(emit, self, other):
    """view_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.reshape_as.default")
def reshape_as(emit, self, other):
    """reshape_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.flatten.using_ints")
def flatten(emit, self, start_dim=0, end_dim=-1):
    """flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.ravel.default")
def ravel(emit, self):
    """ravel(Tensor(a) self) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.unflatten.int")
def unflatten(emit, self, dim, sizes):
    """unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.unsqueeze.default")
def unsqueeze(emit, self, dim):
    """unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    return emit.call("ops.expand_dims", self, dim)


@lowers("mindspore", "aten.squeeze.default")
def squeeze(emit, self):
    """squeeze(Tensor(a) self) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.squeeze.dim")
def squeeze_dim(emit, self, dim):
    """squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)"""
    return reshaped(emit, self)


@lowers("mindspore", "aten.squeeze.dims")
def squeeze_dims(emit, self, dim):
    """squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)"""
    return reshaped(emit, self)


def _wide(size):
    return isinstance(size, (int, sympy.Integer)) and size >= 16


def permuted(emit, self, order):
    order = tuple(order)
    # Heads to the front and back again. Narrow rows are not worth a look-up each.
    if (
        order == (0, 2, 1, 3)
        and emit.target == "cpu"
        and self.dtype == "float32"
        and _wide(self.shape[3])
    ):
        return emit.help("swap_middle", self)
    return self if order == tuple(range(len(order))) else emit.call("ops.transpose", self, order)


def _swapped(emit, self, dim0, dim1):
    order = list(range(self.rank))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(emit, self, order)


@lowers("mindspore", "aten.transpose.int")
def transpose(emit, self, dim0, dim1):
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    return _swapped(emit, self, dim0, dim1)


@lowers("mindspore", "aten.swapaxes.default")
def swapaxes(emit, self, axis0, axis1):
    """swapaxes(Tensor(a) self, int axis0, int axis1) -> Tensor(a)"""
    return _swapped(emit, self, axis0, axis1)


@lowers("mindspore", "aten.swapdims.default")
def swapdims(emit, self, dim0, dim1):
    """swapdims(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    return _swapped(emit, self, dim0, dim1)


@lowers("mindspore", "aten.t.default")
def t(emit, self):
    """t(Tensor(a) self) -> Tensor(a)"""
    return _swapped(emit, self, 0, -1)


@lowers("mindspore", "aten.mT.default")
def m_t(emit, self):
    """mT(Tensor(a) self) -> Tensor(a)"""
    return _swapped(emit, self, -2, -1)


@lowers("mindspore", "aten.permute.default")
def permute(emit, self, dims):
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    return permuted(emit, self, [d % self.rank for d in dims])


def _moved(emit, self, source, destination):
    source, destination = [d % self.rank for d in source], [d % self.rank for d in destination]
    order = [d for d in range(self.rank) if d not in source]
    for place, dim in sorted(zip(destination, source, strict=True)):
        order.insert(place, dim)
    return permuted(emit, self, order)


@lowers("mindspore", "aten.movedim.int")
def movedim(emit, self, source, destination):
    """movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)"""
    return _moved(emit, self, [source], [destination])


@lowers("mindspore", "aten.movedim.intlist")
def movedim_list(emit, self, source, destination):
    """movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)"""
    return _moved(emit, self, source, destination)


def broadcast(emit, self):
    return emit.call("ops.broadcast_to", self, emit.dims(emit.out.shape))


@lowers("mindspore", "aten.expand.default")
def expand(emit, self, size, *, implicit=False):
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    return broadcast(emit, self)


@lowers("mindspore", "aten.expand_as.default")
def expand_as(emit, self, other):
    """expand_as(Tensor(a) self, Tensor other) -> Tensor(a)"""
    return broadcast(emit, self)


@lowers("mindspore", "aten.broadcast_to.default")
def broadcast_to(emit, self, size):
    """broadcast_to(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    return broadcast(emit, self)


def tuple_of(texts):
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")


@lowers("mindspore", "aten.broadcast_tensors.default")
def broadcast_tensors(emit, tensors):
    """broadcast_tensors(Tensor[] tensors) -> Tensor[]"""
    pieces = zip(tensors, emit.out, strict=True)
    return tuple_of(
        [emit.call("ops.broadcast_to", x, emit.dims(piece.shape)).text for x, piece in pieces]
    )


def joined(emit, tensors, dim):
    # torch lets empty tensors of rank 1 take part.
    parts = [
        emit.cast(x, emit.out.dtype)
        for x in tensors
        if x.rank == len(emit.out.shape) and not is_empty(x)
    ]
    return parts[0] if len(parts) == 1 else emit.call("ops.cat", tuple(parts), dim)


def is_empty(value):
    return any(size == 0 for size in value.shape)


@lowers("mindspore", "aten.cat.default")
def cat(emit, tensors, dim=0):
    """cat(Tensor[] tensors, int dim=0) -> Tensor"""
    return joined(emit, tensors, dim)


@lowers("mindspore", "aten.concat.default")
def concat(emit, tensors, dim=0):
    """concat(Tensor[] tensors, int dim=0) -> Tensor"""
    return joined(emit, tensors, dim)


@lowers("mindspore", "aten.concatenate.default")
def concatenate(emit, tensors, dim=0):
    """concatenate(Tensor[] tensors, int dim=0) -> Tensor"""
    return joined(emit, tensors, dim)


@lowers("mindspore", "aten.stack.default")
def stack(emit, tensors, dim=0):
    """stack(Tensor[] tensors, int dim=0) -> Tensor"""
    return emit.call("ops.stack", tuple(emit.cast(x, emit.out.dtype) for x in tensors), dim)


def indexed(emit, self, dim, text):
    """`x[:, :, text]`"""
    index = ", ".join([":"] * (dim % self.rank) + [text])
    return f"{operand(emit.let(self, 'x'))}[{index}]"


@lowers("mindspore", "aten.slice.Tensor")
def slice_(emit, self, dim=0, start=None, end=None, step=1):
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)"""
    # Both bounds may be negative or beyond the end, in torch as in Python.
    bounds = [
        "" if start in (None, 0) else str(start),
        "" if end is None or _is_whole(end) else str(end),
    ]
    text = ":".join(bounds if step == 1 else [*bounds, str(step)])
    return Value(indexed(emit, self, dim, text), self.dtype, emit.out.shape)


def _is_whole(end):
    return isinstance(end, int) and end >= WHOLE_DIMENSION


@lowers("mindspore", "aten.narrow.default")
def narrow(emit, self, dim, start, length):
    """narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)"""
    low = operand(start) if isinstance(start, Value) else str(start)
    end = (
        f"{low} + {length}"
        if not isinstance(start, int) or not isinstance(length, int)
        else str(start + length)
    )
    if isinstance(start, int) and start < 0:
        end = emit.size(self.shape[dim]).text if start + int(length) == 0 else end
    return Value(indexed(emit, self, dim, f"{start}:{end}"), self.dtype, emit.out.shape)


@lowers("mindspore", "aten.select.int")
def select(emit, self, dim, index):
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    return Value(indexed(emit, self, dim, str(index)), self.dtype, emit.out.shape)


def slices_of(emit, self, dim):
    """The pieces that `emit.out` describes, by slices: ops.StridedSlice and ops.split are slower or choosier."""
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


@lowers("mindspore", "aten.split.Tensor")
def split(emit, self, split_size, dim=0):
    """split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]"""
    return slices_of(emit, self, dim % self.rank)


@lowers("mindspore", "aten.split_with_sizes.default")
def split_with_sizes(emit, self, split_sizes, dim=0):
    """split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    return slices_of(emit, self, dim % self.rank)


@lowers("mindspore", "aten.chunk.default")
def chunk(emit, self, chunks, dim=0):
    """chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]"""
    return slices_of(emit, self, dim % self.rank)


@lowers("mindspore", "aten.tensor_split.sections")
def tensor_split(emit, self, sections, dim=0):
    """tensor_split.sections(Tensor(a -> *) self, SymInt sections, int dim=0) -> Tensor(a)[]"""
    return slices_of(emit, self, dim % self.rank)


@lowers("mindspore", "aten.unbind.int")
def unbind(emit, self, dim=0):
    """unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    if not emit.out:
        return Value("()")
    self = emit.let(self, "x")
    return tuple_of([indexed(emit, self, dim, str(i)) for i in range(len(emit.out))])
