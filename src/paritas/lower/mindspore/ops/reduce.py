# SPDX-License-Identifier: Apache-2.0
"""Reductions: over some dimensions, over all where none is named, and of nothing."""

import math
from collections.abc import Sequence
from typing import Any

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.logic import truth
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, may_be_empty
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Size, Value
from paritas.lower.registry import Arg


def axes_of(self: Value, dim: Any) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim) or self.rank == 0:
        return tuple(range(self.rank))
    return tuple(d % self.rank for d in dim) if isinstance(dim, (list, tuple)) else (dim % self.rank,)


def shape_without(self: Value, axes: Sequence[int], keepdim: bool) -> tuple[Size, ...]:
    if keepdim:
        return tuple(1 if a in axes else size for a, size in enumerate(self.shape))
    return tuple(size for a, size in enumerate(self.shape) if a not in axes)


def reduced_by(
    emit: Emitter, primitive: str, self: Value, axes: Sequence[int], keepdim: bool, dtype: Any = None
) -> Value:
    out = emit.prim(primitive, keep_dims=bool(keepdim))(self, axes[0] if len(axes) == 1 else axes)
    return emit.typed(out, dtype=dtype or self.dtype, shape=shape_without(self, axes, keepdim))


@lowers("aten.sum.default", dim=None, keepdim=False)
@lowers("aten.sum.dim_IntList")
@lowers("aten.mean.default", dim=None, keepdim=False, primitive="ops.ReduceMean", nothing=math.nan)
@lowers("aten.mean.dim", primitive="ops.ReduceMean", nothing=math.nan)
@lowers("aten.prod.default", dim=None, keepdim=False, primitive="ops.ReduceProd", nothing=1)
@lowers("aten.prod.dim_int", primitive="ops.ReduceProd", nothing=1)
def summed(
    emit: Emitter,
    self: Value,
    dim: Sequence[int] | int | None,
    keepdim: bool,
    primitive: str = "ops.ReduceSum",
    nothing: float = 0,
) -> Value:
    axes = axes_of(self, dim)
    x = emit.cast(self, emit.out.dtype)
    if is_empty(self):
        return filled(emit, nothing)
    if not axes:
        return x
    if primitive == "ops.ReduceSum" and len(axes) == self.rank and not keepdim and may_be_empty(self):
        # MindSpore 2.10 leaves the sum of nothing unwritten: a zero more changes no sum.
        rows = emit.call("ops.reshape", x, (-1,))
        zero = emit.call("ops.zeros", (1,), emit.dtype(x.dtype))
        x = emit.typed(emit.call("ops.cat", (rows, zero)), dtype=x.dtype, shape=("?",))
        self, axes = x, (0,)
    if x.dtype == "float16":  # MindSpore would add in float16
        return emit.cast(reduced_by(emit, primitive, emit.cast(x, "float32"), axes, keepdim), "float16")
    if primitive == "ops.ReduceSum" and self.dtype == "int64" and x.dtype == "int64":
        helper = "whole_sum_kept" if keepdim else "whole_sum"
        total = emit.prelude(helper, x, axes[0] if len(axes) == 1 else axes)
        return emit.typed(total, dtype="int64", shape=shape_without(self, axes, keepdim))
    return reduced_by(emit, primitive, x, axes, keepdim)


def _count(emit: Emitter, self: Value, axes: Sequence[int]) -> Size:
    total = 1
    for axis in axes:
        total = total * self.shape[axis]
    return total if isinstance(total, int) else emit.size(total)


def nan_of(emit: Emitter) -> Value:
    """The result, or the first of two, filled with NaN."""
    out = emit.out if isinstance(emit.out, Value) else emit.out[0]
    return emit.typed(filled(emit, math.nan, shape=out.shape, dtype=out.dtype), like=out)


@lowers("aten.var.correction", root=False)
@lowers("aten.var.dim", root=False, correction=Arg("unbiased"))
@lowers("aten.var.default", root=False, correction=Arg("unbiased"), dim=None, keepdim=False)
@lowers("aten.std.correction", root=True)
@lowers("aten.std.dim", root=True, correction=Arg("unbiased"))
@lowers("aten.std.default", root=True, correction=Arg("unbiased"), dim=None, keepdim=False)
def variance(
    emit: Emitter, self: Value, dim: Sequence[int] | None, correction: float | None, keepdim: bool, root: bool
) -> Value:
    if self.dtype.startswith("complex"):
        raise emit.refuse("it is written for real numbers, and these are complex")
    axes = axes_of(self, dim)
    correction = 1 if correction is None else +correction  # torch's `unbiased` is a correction of 1
    if is_empty(self):
        return nan_of(emit)
    x = emit.let(emit.cast(self, "float32") if self.dtype == "float16" else self, "x")
    if not axes:
        return nan_of(emit) if correction else emit.infix("-", self, self)
    centred = emit.let(
        emit.typed(emit.infix("-", x, reduced_by(emit, "ops.ReduceMean", x, axes, True)), like=x), "centred"
    )
    squares = emit.typed(emit.infix("*", centred, centred), like=centred)
    if correction == 0:
        result = reduced_by(emit, "ops.ReduceMean", squares, axes, keepdim)
    else:
        count = _count(emit, self, axes)
        below = max(count - correction, 0) if isinstance(count, int) else Value(f"({count} - {correction})")
        total = reduced_by(emit, "ops.ReduceSum", squares, axes, keepdim)
        result = emit.typed(
            emit.infix("/", total, float(below) if isinstance(below, (int, float)) else below), like=total
        )
    result = emit.typed(emit.call("ops.sqrt", result), like=result) if root else result
    return emit.cast(result, self.dtype)


@lowers("aten.var_mean.correction", root=False)
@lowers("aten.var_mean.dim", root=False, correction=Arg("unbiased"))
@lowers("aten.var_mean.default", root=False, correction=Arg("unbiased"), dim=None, keepdim=False)
@lowers("aten.std_mean.correction", root=True)
@lowers("aten.std_mean.dim", root=True, correction=Arg("unbiased"))
@lowers("aten.std_mean.default", root=True, correction=Arg("unbiased"), dim=None, keepdim=False)
def spread_and_mean(
    emit: Emitter, self: Value, dim: Sequence[int] | None, correction: float | None, keepdim: bool, root: bool
) -> Value:
    x = emit.let(self, "x")
    average = _averaged(emit, x, axes_of(self, dim), keepdim)
    return Value(f"({variance(emit, x, dim, correction, keepdim, root)}, {average})")


def _averaged(emit: Emitter, x: Value, axes: Sequence[int], keepdim: bool) -> Value:
    if is_empty(x):
        return nan_of(emit)
    if not axes:
        return x
    if x.dtype != "float16":
        return reduced_by(emit, "ops.ReduceMean", x, axes, keepdim)
    wide = reduced_by(emit, "ops.ReduceMean", emit.cast(x, "float32"), axes, keepdim)
    return emit.cast(wide, "float16")


@lowers("aten.norm.Scalar", "aten.norm.ScalarOpt_dim", ord=Arg("p"))
@lowers("aten.linalg_vector_norm.default")
def linalg_vector_norm(
    emit: Emitter, self: Value, ord: Scalar = 2, dim: Sequence[int] | None = None, keepdim: bool = False
) -> Value:
    ord = 2 if ord is None else ord  # of `norm`
    axes = axes_of(self, dim)
    x = emit.cast(self, emit.out.dtype)
    if is_empty(self):
        return filled(emit, 0)
    if not axes:
        return emit.cast(truth(emit, x), x.dtype) if ord == 0 else emit.call("ops.abs", x)
    x = emit.let(emit.cast(x, "float32") if x.dtype == "float16" else x, "x")
    like = {"dtype": x.dtype, "shape": x.shape}
    if ord == 2:
        total = reduced_by(emit, "ops.ReduceSum", emit.typed(emit.infix("*", x, x), **like), axes, keepdim)
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


@lowers("aten.amax.default", largest=True)
@lowers("aten.amin.default", largest=False)
@lowers("aten.max.default", largest=True, dim=None, keepdim=False)
@lowers("aten.min.default", largest=False, dim=None, keepdim=False)
def extreme(emit: Emitter, self: Value, dim: Sequence[int] | int | None, keepdim: bool, largest: bool) -> Value:
    axes = axes_of(self, dim)
    if not axes:
        return self
    if self.dtype == "bool":
        return reduced_by(emit, "ops.ReduceAny" if largest else "ops.ReduceAll", self, axes, keepdim)
    primitive = "ops.ReduceMax" if largest else "ops.ReduceMin"
    if self.dtype not in FLOATS:
        return reduced_by(emit, primitive, self, axes, keepdim)
    x = emit.let(self, "x")
    kept = emit.prelude("spread_nan", reduced_by(emit, primitive, x, axes, True), x, axes)
    out = emit.typed(kept, dtype=self.dtype, shape=shape_without(self, axes, True))
    if keepdim:
        return out
    left = shape_without(self, axes, False)
    return emit.typed(emit.call("ops.reshape", out, emit.dims(left, free=True)), dtype=self.dtype, shape=left)


@lowers("aten.argmax.default", largest=True)
@lowers("aten.argmin.default", largest=False)
def _position(emit: Emitter, self: Value, dim: int | None, keepdim: bool, largest: bool) -> Value:
    """torch says where the first NaN is; MindSpore's Argmax steps over it."""
    if self.rank == 0:
        return emit.call("ops.zeros", (), emit.dtype("int64"))
    if dim is None:
        self = emit.typed(emit.call("ops.reshape", self, (-1,)), dtype=self.dtype, shape=(-1,))
        found = _first(emit, self, 0, largest)
        return emit.call("ops.reshape", found, emit.dims(emit.out.shape)) if keepdim else found
    found = _first(emit, self, dim % self.rank, largest)
    return emit.call("ops.expand_dims", found, dim % self.rank) if keepdim else found


def _first(emit: Emitter, self: Value, axis: int, largest: bool) -> Value:
    if self.dtype in ("float32", "float16", "float64"):
        return emit.prelude("first_largest" if largest else "first_smallest", self, axis)
    x = self if self.dtype in ("int64", "int32") else emit.cast(self, "int32")
    return emit.prim("ops.Argmax" if largest else "ops.Argmin", axis, emit.dtype("int64"))(x)


@lowers("aten.max.dim", largest=True)
@lowers("aten.min.dim", largest=False)
def _extreme_and_position(emit: Emitter, self: Value, dim: int, keepdim: bool, largest: bool) -> Value:
    x = emit.let(self, "x")
    value = extreme(emit, x, dim, keepdim, largest)
    return Value(f"({value}, {_position(emit, x, dim, keepdim, largest)})")


# --- logic ---


@lowers("aten.any.default", dim=None, keepdim=False, some=True)
@lowers("aten.any.dim", "aten.any.dims", some=True)
@lowers("aten.all.default", dim=None, keepdim=False, some=False)
@lowers("aten.all.dim", "aten.all.dims", some=False)
def any_or_all(emit: Emitter, self: Value, dim: Sequence[int] | int | None, keepdim: bool, some: bool) -> Value:
    axes = axes_of(self, dim)
    if is_empty(self):
        return filled(emit, not some)
    flags = truth(emit, self)
    if axes:
        flags = reduced_by(emit, "ops.ReduceAny" if some else "ops.ReduceAll", flags, axes, keepdim)
    return emit.cast(flags, emit.out.dtype)  # torch answers in uint8 where it is asked in uint8


# --- running ---


@lowers("aten.cumsum.default", primitive="ops.CumSum")
@lowers("aten.cumprod.default", primitive="ops.CumProd")
def _running(emit: Emitter, primitive: str, self: Value, dim: int) -> Value:
    x = emit.cast(self, emit.out.dtype)
    if self.rank == 0:
        return x
    if x.dtype == "float16":
        wide = emit.typed(emit.prim(primitive)(emit.cast(x, "float32"), dim % self.rank), dtype="float32")
        return emit.cast(wide, "float16")
    return emit.prim(primitive)(x, dim % self.rank)


@lowers("aten.diff.default")
def diff(emit: Emitter, self: Value, n: int, dim: int, prepend: Value | None, append: Value | None) -> Value:
    dim = dim % self.rank
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if n == 0:
        return self
    parts = [x for x in (prepend, self, append) if x is not None and not is_empty(x)]
    x = emit.call("ops.cat", tuple(parts), dim) if len(parts) > 1 else parts[0]
    colons = ":, " * dim
    for _ in range(n):
        x = emit.let(x, "x")
        left, right = Value(f"{x}[{colons}1:]"), Value(f"{x}[{colons}:-1]")
        x = emit.call("ops.logical_xor", left, right) if emit.out.dtype == "bool" else emit.infix("-", left, right)
    return x


@lowers("aten.logsumexp.default", "aten.special_logsumexp.default")
def logsumexp(emit: Emitter, self: Value, dim: Sequence[int], keepdim: bool) -> Value:
    axes = axes_of(self, dim)
    x = emit.let(emit.cast(self, emit.out.dtype), "x")
    highest = reduced_by(emit, "ops.ReduceMax", x, axes, True)
    # An infinite maximum would give inf - inf.
    bounded = emit.call("ops.minimum", 3e38, emit.call("ops.maximum", -3e38, highest))
    highest = emit.let(emit.typed(bounded, dtype=x.dtype, shape=shape_without(self, axes, True)), "highest")
    weights = emit.typed(emit.call("ops.exp", emit.infix("-", x, highest)), dtype=x.dtype, shape=x.shape)
    total = emit.call("ops.log", reduced_by(emit, "ops.ReduceSum", weights, axes, True))
    out = emit.infix("+", total, highest)
    return out if keepdim else emit.call("ops.reshape", out, emit.dims(emit.out.shape, free=True))
