# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without changing them, and those that make tensors from sizes."""

from paritas.capture.normalise import WHOLE_DIMENSION
from paritas.lower.mindspore.source import Value
from paritas.lower.registry import lowers


def _reshape(emit, self, *_):
    return emit.call("ops.reshape", self, emit.dims(emit.out.shape, free=True))


@lowers("mindspore", "aten.view.default")
def view(emit, self, size):
    """view(Tensor(a) self, SymInt[] size) -> Tensor(a)"""
    return _reshape(emit, self)


@lowers("mindspore", "aten._unsafe_view.default")
def unsafe_view(emit, self, size):
    """_unsafe_view(Tensor self, SymInt[] size) -> Tensor"""
    return _reshape(emit, self)


@lowers("mindspore", "aten.reshape.default")
def reshape(emit, self, shape):
    """reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)"""
    return _reshape(emit, self)


@lowers("mindspore", "aten.flatten.using_ints")
def flatten(emit, self, start_dim=0, end_dim=-1):
    """flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)"""
    return _reshape(emit, self)


@lowers("mindspore", "aten.unsqueeze.default")
def unsqueeze(emit, self, dim):
    """unsqueeze(Tensor(a) self, int dim) -> Tensor(a)"""
    return emit.call("ops.expand_dims", self, dim)


@lowers("mindspore", "aten.squeeze.dim")
def squeeze(emit, self, dim):
    """squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)"""
    return _reshape(emit, self)


@lowers("mindspore", "aten.squeeze.dims")
def squeeze_dims(emit, self, dim):
    """squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)"""
    return _reshape(emit, self)


def _permute(emit, self, order):
    return emit.call("ops.transpose", self, tuple(order))


@lowers("mindspore", "aten.transpose.int")
def transpose(emit, self, dim0, dim1):
    """transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)"""
    order = list(range(self.rank))
    if not order:
        return self
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(emit, self, order)


@lowers("mindspore", "aten.permute.default")
def permute(emit, self, dims):
    """permute(Tensor(a) self, int[] dims) -> Tensor(a)"""
    return _permute(emit, self, [d % self.rank for d in dims])


@lowers("mindspore", "aten.t.default")
def t(emit, self):
    """t(Tensor(a) self) -> Tensor(a)"""
    return self if self.rank < 2 else _permute(emit, self, (1, 0))


@lowers("mindspore", "aten.expand.default")
def expand(emit, self, size, *, implicit=False):
    """expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)"""
    return emit.call("ops.broadcast_to", self, emit.dims(emit.out.shape))


@lowers("mindspore", "aten.cat.default")
def cat(emit, tensors, dim=0):
    """cat(Tensor[] tensors, int dim=0) -> Tensor"""
    # torch lets empty tensors of rank 1 take part.
    parts = [emit.cast(x, emit.out.dtype) for x in tensors if x.rank == len(emit.out.shape)]
    return parts[0] if len(parts) == 1 else emit.call("ops.cat", tuple(parts), dim)


@lowers("mindspore", "aten.stack.default")
def stack(emit, tensors, dim=0):
    """stack(Tensor[] tensors, int dim=0) -> Tensor"""
    return emit.call("ops.stack", tuple(emit.cast(x, emit.out.dtype) for x in tensors), dim)


@lowers("mindspore", "aten.slice.Tensor")
def slice_(emit, self, dim=0, start=None, end=None, step=1):
    """slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)"""
    bounds = ["" if start in (None, 0) else str(start), "" if end in (None, WHOLE_DIMENSION) else str(end)]
    text = ":".join(bounds if step == 1 else [*bounds, str(step)])
    index = ", ".join([":"] * (dim % self.rank) + [text])
    return Value(f"{emit.let(self, 'x')}[{index}]", self.dtype, emit.out.shape)


@lowers("mindspore", "aten.select.int")
def select(emit, self, dim, index):
    """select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)"""
    text = ", ".join([":"] * (dim % self.rank) + [str(index)])
    return Value(f"{emit.let(self, 'x')}[{text}]", self.dtype, emit.out.shape)


def _parts(emit, self, dim):
    """The pieces that `emit.out` describes, by slices: ops.StridedSlice and ops.split are slower or choosier."""
    self = emit.let(self, "x")
    texts, start = [], 0
    for piece in emit.out:
        end = start + piece.shape[dim]
        low, high = ("" if start == 0 else str(emit.size(start))), str(emit.size(end))
        texts.append(f"{self}[{', '.join([':'] * dim + [f'{low}:{high}'])}]")
        start = end
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")


@lowers("mindspore", "aten.split.Tensor")
def split(emit, self, split_size, dim=0):
    """split.Tensor(Tensor(a -> *) self, SymInt split_size, int dim=0) -> Tensor(a)[]"""
    return _parts(emit, self, dim % self.rank)


@lowers("mindspore", "aten.split_with_sizes.default")
def split_with_sizes(emit, self, split_sizes, dim=0):
    """split_with_sizes(Tensor(a -> *) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]"""
    return _parts(emit, self, dim % self.rank)


@lowers("mindspore", "aten.chunk.default")
def chunk(emit, self, chunks, dim=0):
    """chunk(Tensor(a -> *) self, int chunks, int dim=0) -> Tensor(a)[]"""
    return _parts(emit, self, dim % self.rank)


@lowers("mindspore", "aten.unbind.int")
def unbind(emit, self, dim=0):
    """unbind.int(Tensor(a -> *) self, int dim=0) -> Tensor(a)[]"""
    self = emit.let(self, "x")
    before = [":"] * (dim % self.rank)
    texts = [f"{self}[{', '.join([*before, str(i)])}]" for i in range(len(emit.out))]
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")


# --- made from sizes ---


def _arange(emit, start, end, step):
    floating = emit.out.dtype.startswith("float")
    dtype = emit.out.dtype if floating else "int64"
    made = emit.typed(emit.call("ops.arange", start, end, step, dtype=emit.dtype(dtype)), dtype=dtype)
    return emit.cast(made, emit.out.dtype)


@lowers("mindspore", "aten.arange.default")
def arange(emit, end, *, dtype=None, layout=None, device=None, pin_memory=None):
    """arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    if emit.out.dtype == "int64":
        return emit.call("ops.arange", end)
    return _arange(emit, 0, end, 1)


@lowers("mindspore", "aten.arange.start")
def arange_start(emit, start, end, *, dtype=None, layout=None, device=None, pin_memory=None):
    """arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _arange(emit, start, end, 1)


@lowers("mindspore", "aten.arange.start_step")
def arange_start_step(emit, start, end, step=1, *, dtype=None, layout=None, device=None, pin_memory=None):
    """arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _arange(emit, start, end, step)


def _full(emit, value):
    shape, dtype = emit.dims(emit.out.shape), emit.dtype(emit.out.dtype)
    if isinstance(value, (int, float)) and value in (0, 1):
        return emit.call("ops.ones" if value else "ops.zeros", shape, dtype)
    return emit.call("ops.full", shape, value, dtype=dtype)


@lowers("mindspore", "aten.full.default")
def full(emit, size, fill_value, *, dtype=None, layout=None, device=None, pin_memory=None):
    """full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, fill_value)


@lowers("mindspore", "aten.full_like.default")
def full_like(emit, self, fill_value, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    """full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    return _full(emit, fill_value)


@lowers("mindspore", "aten.zeros.default")
def zeros(emit, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, 0)


@lowers("mindspore", "aten.zeros_like.default")
def zeros_like(emit, self, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    """zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    return _full(emit, 0)


@lowers("mindspore", "aten.ones.default")
def ones(emit, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, 1)


@lowers("mindspore", "aten.ones_like.default")
def ones_like(emit, self, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    """ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    return _full(emit, 1)


@lowers("mindspore", "aten.new_ones.default")
def new_ones(emit, self, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, 1)


@lowers("mindspore", "aten.new_zeros.default")
def new_zeros(emit, self, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, 0)


@lowers("mindspore", "aten.scalar_tensor.default")
def scalar_tensor(emit, s, *, dtype=None, layout=None, device=None, pin_memory=None):
    """scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    return _full(emit, s)
