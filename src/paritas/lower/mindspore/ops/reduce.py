# SPDX-License-Identifier: Apache-2.0
"""Reductions: over some dimensions, over all where none is named, and of nothing."""

import math

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.logic import truth
from paritas.lower.mindspore.ops.shape import is_empty
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import lowers


def axes_of(self, dim):
    if dim is None or dim == [] or self.rank == 0:
        return tuple(range(self.rank))
    return (
        tuple(d % self.rank for d in dim) if isinstance(dim, (list, tuple)) else (dim % self.rank,)
    )


def shape_without(self, axes, keepdim):
    if keepdim:
        return tuple(1 if a in axes else size for a, size in enumerate(self.shape))
    return tuple(size for a, size in enumerate(self.shape) if a not in axes)


def reduced_by(emit, primitive, self, axes, keepdim, dtype=None):
    out = emit.prim(primitive, keep_dims=bool(keepdim))(self, axes[0] if len(axes) == 1 else axes)
    return emit.typed(out, dtype=dtype or self.dtype, shape=shape_without(self, axes, keepdim))


def _may_be_empty(self):
    """Whether a size depends on values: as many as a mask shows, which may be none."""
    symbols = {s for size in self.shape for s in getattr(size, "free_symbols", ())}
    return any(str(symbol).startswith("u") for symbol in symbols)


def summed(emit, self, dim, keepdim, primitive="ops.ReduceSum", nothing=0):
    axes = axes_of(self, dim)
    x = emit.cast(self, emit.out.dtype)
    if is_empty(self):
        return filled(emit, nothing)
    if not axes:
        return x
    if (
        primitive == "ops.ReduceSum"
        and len(axes) == self.rank
        and not keepdim
        and _may_be_empty(self)
    ):
        # MindSpore 2.10 leaves the sum of nothing unwritten: a zero more changes no sum.
        rows = emit.call("ops.reshape", x, (-1,))
        zero = emit.call("ops.zeros", (1,), emit.dtype(x.dtype))
        x = emit.typed(emit.call("ops.cat", (rows, zero)), dtype=x.dtype, shape=("?",))
        self, axes = x, (0,)
    if x.dtype == "float16":  # MindSpore would add in float16
        return emit.cast(
            reduced_by(emit, primitive, emit.cast(x, "float32"), axes, keepdim), "float16"
        )
    if primitive == "ops.ReduceSum" and self.dtype == "int64" and x.dtype == "int64":
        helper = "whole_sum_kept" if keepdim else "whole_sum"
        total = emit.help(helper, x, axes[0] if len(axes) == 1 else axes)
        return emit.typed(total, dtype="int64", shape=shape_without(self, axes, keepdim))
    return reduced_by(emit, primitive, x, axes, keepdim)


@lowers("mindspore", "aten.sum.default")
def sum_(emit, self, *, dtype=None):
    """sum(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, None, False)


@lowers("mindspore", "aten.sum.dim_IntList")
def sum_dim(emit, self, dim, keepdim=False, *, dtype=None):
    """sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, dim, keepdim)


@lowers("mindspore", "aten.mean.default")
def mean(emit, self, *, dtype=None):
    """mean(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, None, False, "ops.ReduceMean", math.nan)


@lowers("mindspore", "aten.mean.dim")
def mean_dim(emit, self, dim, keepdim=False, *, dtype=None):
    """mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, dim, keepdim, "ops.ReduceMean", math.nan)


@lowers("mindspore", "aten.prod.default")
def prod(emit, self, *, dtype=None):
    """prod(Tensor self, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, None, False, "ops.ReduceProd", 1)


@lowers("mindspore", "aten.prod.dim_int")
def prod_dim(emit, self, dim, keepdim=False, *, dtype=None):
    """prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return summed(emit, self, dim, keepdim, "ops.ReduceProd", 1)


def _count(emit, self, axes):
    total = 1
    for axis in axes:
        total = total * self.shape[axis]
    return total if isinstance(total, int) else emit.size(total)


def nan_of(emit):
    """The result, or the first of two, filled with NaN."""
    out = emit.out if isinstance(emit.out, Value) else emit.out[0]
    return emit.typed(filled(emit, math.nan, shape=out.shape, dtype=out.dtype), like=out)


def variance(emit, self, dim, correction, keepdim, root):
    if self.dtype.startswith("complex"):
        raise emit.refuse("it is written for real numbers, and these are complex")
    axes = axes_of(self, dim)
    correction = 1 if correction is None else correction
    if is_empty(self):
        return nan_of(emit)
    x = emit.let(emit.cast(self, "float32") if self.dtype == "float16" else self, "x")
    if not axes:
        return nan_of(emit) if correction else emit.infix("-", self, self)
    centred = emit.let(
        emit.typed(emit.infix("-", x, reduced_by(emit, "ops.ReduceMean", x, axes, True)), like=x),
        "centred",
    )
    squares = emit.typed(emit.infix("*", centred, centred), like=centred)
    if correction == 0:
        result = reduced_by(emit, "ops.ReduceMean", squares, axes, keepdim)
    else:
        count = _count(emit, self, axes)
        below = (
            max(count - correction, 0)
            if isinstance(count, int)
            else Value(f"({count} - {correction})")
        )
        total = reduced_by(emit, "ops.ReduceSum", squares, axes, keepdim)
        result = emit.typed(
            emit.infix("/", total, float(below) if isinstance(below, (int, float)) else below),
            like=total,
        )
    result = emit.typed(emit.call("ops.sqrt", result), like=result) if root else result
    return emit.cast(result, self.dtype)


@lowers("mindspore", "aten.var.correction")
def var(emit, self, dim=None, *, correction=None, keepdim=False):
    """var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    return variance(emit, self, dim, correction, keepdim, False)


@lowers("mindspore", "aten.var.dim")
def var_dim(emit, self, dim, unbiased=True, keepdim=False):
    """var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor"""
    return variance(emit, self, dim, int(unbiased), keepdim, False)


@lowers("mindspore", "aten.std.correction")
def std(emit, self, dim=None, *, correction=None, keepdim=False):
    """std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor"""
    return variance(emit, self, dim, correction, keepdim, True)


@lowers("mindspore", "aten.std.dim")
def std_dim(emit, self, dim, unbiased=True, keepdim=False):
    """std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor"""
    return variance(emit, self, dim, int(unbiased), keepdim, True)


@lowers("mindspore", "aten.var_mean.correction")
def var_mean(emit, self, dim=None, *, correction=None, keepdim=False):
    """var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)"""  # noqa: E501
    return spread_and_mean(emit, self, dim, correction, keepdim, False)


def spread_and_mean(emit, self, dim, correction, keepdim, root):
    x = emit.let(self, "x")
    average = _averaged(emit, x, axes_of(self, dim), keepdim)
    return Value(f"({variance(emit, x, dim, correction, keepdim, root)}, {average})")


def _averaged(emit, x, axes, keepdim):
    if is_empty(x):
        return nan_of(emit)
    if not axes:
        return x
    if x.dtype != "float16":
        return reduced_by(emit, "ops.ReduceMean", x, axes, keepdim)
    wide = reduced_by(emit, "ops.ReduceMean", emit.cast(x, "float32"), axes, keepdim)
    return emit.cast(wide, "float16")


@lowers("mindspore", "aten.linalg_vector_norm.default")
def linalg_vector_norm(emit, self, ord=2, dim=None, keepdim=False, *, dtype=None):
    """linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""  # noqa: E501
    axes = axes_of(self, dim)
    x = emit.cast(self, emit.out.dtype)
    if is_empty(self):
        return filled(emit, 0)
    if not axes:
        return emit.cast(truth(emit, x), x.dtype) if ord == 0 else emit.call("ops.abs", x)
    x = emit.let(emit.cast(x, "float32") if x.dtype == "float16" else x, "x")
    like = {"dtype": x.dtype, "shape": x.shape}
    if ord == 2:
        total = reduced_by(
            emit, "ops.ReduceSum", emit.typed(emit.infix("*", x, x), **like), axes, keepdim
        )
        found = emit.typed(emit.call("ops.sqrt", total), like=total)
    elif ord == 0:
        counted = emit.cast(truth(emit, x), x.dtype)
        found = reduced_by(emit, "ops.ReduceSum", counted, axes, keepdim)
    else:
        sizes = emit.typed(emit.call("ops.abs", x), **like)
        if ord in (math.inf, -math.inf):
            found = extreme(emit, sizes, axes, keepdim, ord > 0)
        elif ord == 1:
            found = reduced_by(emit, "ops.ReduceSum", sizes, axes, keepdim)
        else:
            wide = emit.cast(sizes, "float64")
            powers = emit.typed(emit.call("ops.pow", wide, float(ord)), like=wide)
            total = reduced_by(emit, "ops.ReduceSum", powers, axes, keepdim)
            found = emit.typed(emit.call("ops.pow", total, 1.0 / ord), like=total)
    return emit.cast(found, emit.out.dtype)


# --- the largest and the smallest ---


def extreme(emit, self, axes, keepdim, largest):
    if not axes:
        return self
    if self.dtype == "bool":
        return reduced_by(
            emit, "ops.ReduceAny" if largest else "ops.ReduceAll", self, axes, keepdim
        )
    primitive = "ops.ReduceMax" if largest else "ops.ReduceMin"
    if self.dtype not in FLOATS:
        return reduced_by(emit, primitive, self, axes, keepdim)
    x = emit.let(self, "x")
    kept = emit.help("spread_nan", reduced_by(emit, primitive, x, axes, True), x, axes)
    out = emit.typed(kept, dtype=self.dtype, shape=shape_without(self, axes, True))
    if keepdim:
        return out
    left = shape_without(self, axes, False)
    return emit.typed(
        emit.call("ops.reshape", out, emit.dims(left, free=True)), dtype=self.dtype, shape=left
    )


@lowers("mindspore", "aten.amax.default")
def amax(emit, self, dim=(), keepdim=False):
    """amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return extreme(emit, self, axes_of(self, list(dim)), keepdim, True)


@lowers("mindspore", "aten.amin.default")
def amin(emit, self, dim=(), keepdim=False):
    """amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor"""
    return extreme(emit, self, axes_of(self, list(dim)), keepdim, False)


@lowers("mindspore", "aten.max.default")
def max_(emit, self):
    """max(Tensor self) -> Tensor"""
    return extreme(emit, self, axes_of(self, None), False, True)


@lowers("mindspore", "aten.min.default")
def min_(emit, self):
    """min(Tensor self) -> Tensor"""
    return extreme(emit, self, axes_of(self, None), False, False)


def _position(emit, self, dim, keepdim, largest):
    """torch says where the first NaN is; MindSpore's Argmax steps over it."""
    if self.rank == 0:
        return emit.call("ops.zeros", (), emit.dtype("int64"))
    if dim is None:
        self = emit.typed(emit.call("ops.reshape", self, (-1,)), dtype=self.dtype, shape=(-1,))
        found = _first(emit, self, 0, largest)
        return emit.call("ops.reshape", found, emit.dims(emit.out.shape)) if keepdim else found
    found = _first(emit, self, dim % self.rank, largest)
    return emit.call("ops.expand_dims", found, dim % self.rank) if keepdim else found


def _first(emit, self, axis, largest):
    if self.dtype in ("float32", "float16", "float64"):
        return emit.help("first_largest" if largest else "first_smallest", self, axis)
    x = self if self.dtype in ("int64", "int32") else emit.cast(self, "int32")
    return emit.prim("ops.Argmax" if largest else "ops.Argmin", axis, emit.dtype("int64"))(x)


@lowers("mindspore", "aten.argmax.default")
def argmax(emit, self, dim=None, keepdim=False):
    """argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    return _position(emit, self, dim, keepdim, True)


@lowers("mindspore", "aten.argmin.default")
def argmin(emit, self, dim=None, keepdim=False):
    """argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    return _position(emit, self, dim, keepdim, False)


def _extreme_and_position(emit, self, dim, keepdim, largest):
    x = emit.let(self, "x")
    value = extreme(emit, x, axes_of(self, dim), keepdim, largest)
    return Value(f"({value}, {_position(emit, x, dim, keepdim, largest)})")


@lowers("mindspore", "aten.max.dim")
def max_dim(emit, self, dim, keepdim=False):
    """max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _extreme_and_position(emit, self, dim, keepdim, True)


@lowers("mindspore", "aten.min.dim")
def min_dim(emit, self, dim, keepdim=False):
    """min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)"""
    return _extreme_and_position(emit, self, dim, keepdim, False)


# --- logic ---


def _truth(emit, self, dim, keepdim, some):
    axes = axes_of(self, dim)
    if is_empty(self):
        return filled(emit, not some)
    flags = truth(emit, self)
    if axes:
        flags = reduced_by(emit, "ops.ReduceAny" if some else "ops.ReduceAll", flags, axes, keepdim)
    return emit.cast(flags, emit.out.dtype)  # torch answers in uint8 where it is asked in uint8


@lowers("mindspore", "aten.any.default")
def any_(emit, self):
    """any(Tensor self) -> Tensor"""
    return _truth(emit, self, None, False, True)


@lowers("mindspore", "aten.any.dim")
def any_dim(emit, self, dim, keepdim=False):
    """any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor"""
    return _truth(emit, self, dim, keepdim, True)


@lowers("mindspore", "aten.any.dims")
def any_dims(emit, self, dim=None, keepdim=False):
    """any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor"""
    return _truth(emit, self, dim, keepdim, True)


@lowers("mindspore", "aten.all.default")
def all_(emit, self):
    """all(Tensor self) -> Tensor"""
    return _truth(emit, self, None, False, False)


@lowers("mindspore", "aten.all.dim")
def all_dim(emit, self, dim, keepdim=False):
    """all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor"""
    return _truth(emit, self, dim, keepdim, False)


@lowers("mindspore", "aten.all.dims")
def all_dims(emit, self, dim=None, keepdim=False):
    """all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor"""
    return _truth(emit, self, dim, keepdim, False)


# --- running ---


def _running(emit, primitive, self, dim):
    x = emit.cast(self, emit.out.dtype)
    if self.rank == 0:
        return x
    if x.dtype == "float16":
        wide = emit.typed(
            emit.prim(primitive)(emit.cast(x, "float32"), dim % self.rank), dtype="float32"
        )
        return emit.cast(wide, "float16")
    return emit.prim(primitive)(x, dim % self.rank)


@lowers("mindspore", "aten.cumsum.default")
def cumsum(emit, self, dim, *, dtype=None):
    """cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _running(emit, "ops.CumSum", self, dim)


@lowers("mindspore", "aten.cumprod.default")
def cumprod(emit, self, dim, *, dtype=None):
    """cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor"""
    return _running(emit, "ops.CumProd", self, dim)


@lowers("mindspore", "aten.diff.default")
def diff(emit, self, n=1, dim=-1, prepend=None, append=None):
    """diff(Tensor self, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor"""
    dim = dim % self.rank
    if (nothing := emit.nothing()) is not None:
        return nothing
    if n == 0:
        return self
    parts = [x for x in (prepend, self, append) if x is not None and not is_empty(x)]
    x = emit.call("ops.cat", tuple(parts), dim) if len(parts) > 1 else parts[0]
    colons = ":, " * dim
    for _ in range(n):
        x = emit.let(x, "x")
        left, right = Value(f"{x}[{colons}1:]"), Value(f"{x}[{colons}:-1]")
        x = (
            emit.call("ops.logical_xor", left, right)
            if emit.out.dtype == "bool"
            else emit.infix("-", left, right)
        )
    return x


@lowers("mindspore", "aten.logsumexp.default")
def logsumexp(emit, self, dim, keepdim=False):
    """logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor"""
    axes = axes_of(self, dim)
    x = emit.let(emit.cast(self, emit.out.dtype), "x")
    highest = reduced_by(emit, "ops.ReduceMax", x, axes, True)
    # An infinite maximum would give inf - inf.
    bounded = emit.call("ops.minimum", 3e38, emit.call("ops.maximum", -3e38, highest))
    highest = emit.let(
        emit.typed(bounded, dtype=x.dtype, shape=shape_without(self, axes, True)), "highest"
    )
    weights = emit.typed(
        emit.call("ops.exp", emit.infix("-", x, highest)), dtype=x.dtype, shape=x.shape
    )
    total = emit.call("ops.log", reduced_by(emit, "ops.ReduceSum", weights, axes, True))
    out = emit.infix("+", total, highest)
    return out if keepdim else emit.call("ops.reshape", out, emit.dims(emit.out.shape, free=True))
