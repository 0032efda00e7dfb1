# SPDX-License-Identifier: Apache-2.0
"""Sums, extremes and their kin, along axes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.empties import may_be_empty
from paritas.lower.openvino.emit import Emitter, Scalar, Tensor, out, rank_of
from paritas.lower.openvino.ops.arithmetic import exp_of
from paritas.lower.openvino.ops.move import END
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


def axes_of(x: Tensor, dim: Sequence[int] | int | None) -> list[int]:
    """The axes, from the front; all of them if none is given."""
    rank = rank_of(x)
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted(axis % rank for axis in dims) if rank else []


def _nothing_to_do(x: Tensor, axes: Sequence[int]) -> bool:
    return rank_of(x) == 0 or not axes


def summed(emit: Emitter, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """A sum. Whole numbers by running sums, since OpenVINO 2026.4 adds them up in float32."""
    if _nothing_to_do(x, axes):
        return out(x)
    if out(x).get_element_type().is_real():
        return out(ops.reduce_sum(x, emit.array(axes), keepdim))
    for axis in axes:
        size = emit.size(x, axis)
        if isinstance(size, int) and size == 1:
            continue
        # A zero in front, so that there is a last one in an empty axis too.
        sizes = [1 if a == axis else s for a, s in enumerate(emit.sizes(x))]
        zero = ops.broadcast(np.array(0, out(x).get_element_type().to_dtype()), emit.dims(sizes))
        running = ops.cum_sum(ops.concat([zero, x], axis), np.int64(axis))
        x = emit.slice(running, -1, END, axis)
    return out(x) if keepdim else emit.squeeze(x, *axes)


@lowers("aten.sum.dim_IntList", "aten.sum.default")
def sum_dim(emit: Emitter, self: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    return emit.result(summed(emit, emit.wide(self, emit.dtype), axes_of(self, dim), keepdim))


@lowers("aten.mean.dim", "aten.mean.default")
def mean_dim(emit: Emitter, self: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    x, axes = emit.cast(self, emit.dtype), axes_of(self, dim)
    return x if _nothing_to_do(x, axes) else _mean(emit, self, x, axes, keepdim)


def _mean(emit: Emitter, self: Tensor, x: Tensor, axes: Sequence[int], keepdim: bool) -> Tensor:
    """Of `x`, which is `self` in the type of the result."""
    if not _may_be_empty(emit, self, axes):
        return ops.reduce_mean(x, emit.array(axes), keepdim)
    # The plugin's mean of nothing is 0, torch's is NaN: 0 / 0.
    count = 1
    for axis in axes:
        count = emit.times(emit.size(x, axis), count)
    return ops.divide(ops.reduce_sum(x, emit.array(axes), keepdim), emit.number(count, emit.dtype))


def _may_be_empty(emit: Emitter, x: Tensor, axes: Sequence[int]) -> bool:
    known = emit.meta(x)
    sizes = known.shape if known is not None else ()
    return any(may_be_empty(sizes[axis]) for axis in axes if axis < len(sizes))


@lowers("aten.prod.dim_int", "aten.prod.default")
def prod(emit: Emitter, self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    x, axes = emit.wide(self, emit.dtype), axes_of(self, dim if isinstance(dim, int) else None)
    if _nothing_to_do(x, axes):
        return emit.result(x)
    if emit.dtype.is_floating_point:
        return ops.reduce_prod(x, emit.array(axes), keepdim)
    for axis in axes:
        x = multiplied_up(emit, x, axis)
    return emit.result(x if keepdim else emit.squeeze(x, *axes))


#: How often an axis of free size is halved until one element is left.
HALVINGS = 24


def multiplied_up(emit: Emitter, x: Tensor, axis: int) -> Tensor:
    """The product of whole numbers along an axis, by halves; ones fill what is missing."""
    size = emit.size(x, axis)
    sizes = [1 if a == axis else s for a, s in enumerate(emit.sizes(x))]
    one = ops.broadcast(np.array(1, out(x).get_element_type().to_dtype()), emit.dims(sizes))
    if isinstance(size, int):
        if size == 0:
            return out(one)
        while size > 1:
            if size % 2:
                x, size = ops.concat([x, one], axis), size + 1
            size //= 2
            x = ops.multiply(emit.slice(x, 0, size, axis), emit.slice(x, size, END, axis))
        return out(x)
    x = out(ops.concat([one, x], axis))
    for _ in range(HALVINGS):
        first = emit.slice(x, 0, END, axis, 2)
        second = emit.slice(ops.concat([x, one], axis), 1, END, axis, 2)
        # Of an odd number the last pair is an element and the one; of an even number the one is left over.
        second = emit.slice(second, 0, emit.size(first, axis), axis)
        x = out(ops.multiply(first, second))
    return x


@lowers("aten.amax.default", "aten.max.default", x=Arg("self"), largest=True)
@lowers("aten.amin.default", "aten.min.default", x=Arg("self"), largest=False)
def extreme(
    emit: Emitter, x: Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, largest: bool = True
) -> Tensor:
    """The largest or smallest along axes. Whole numbers through TopK: OpenVINO 2026.4 compares them as float32."""
    axes = axes_of(x, dim)
    if _nothing_to_do(x, axes):
        return out(x)
    kind = out(x).get_element_type()
    if kind.is_real():
        found = (ops.reduce_max if largest else ops.reduce_min)(x, emit.array(axes), keepdim)
        # The plugin (2026.4) steps over NaN.
        lost = ops.reduce_logical_or(ops.is_nan(x), emit.array(axes), keepdim)
        return out(ops.select(lost, np.float32(np.nan), found))
    if kind.to_string() == "boolean":
        reduce = ops.reduce_logical_or if largest else ops.reduce_logical_and
        return out(reduce(x, emit.array(axes), keepdim))
    wide = ops.convert(x, "i32") if kind.bitwidth < 32 else x
    for axis in axes:
        wide = ops.topk(wide, np.int64(1), axis, "max" if largest else "min", "value", "i64").output(0)
    found = wide if keepdim else emit.squeeze(wide, *axes)
    return out(ops.convert(found, kind.to_string()) if kind.bitwidth < 32 else found)


@lowers("aten.aminmax.default")
def aminmax(emit: Emitter, self: Tensor, dim: int | None, keepdim: bool) -> list[Tensor]:
    axes = axes_of(self, dim)
    return [extreme(emit, self, axes, keepdim, largest) for largest in (False, True)]


#: Stands for an infinity where NaN has its place in an order.
MOST = np.finfo(np.float32).max


def orderable(x: Tensor, nan: float) -> Tensor:
    """Floats for a TopK (2026.4), which has no place for NaN: it is the infinity `nan`, that one the largest float."""
    held = ops.minimum(x, MOST) if nan > 0 else ops.maximum(x, -MOST)
    return out(ops.select(ops.is_nan(x), np.float32(nan), held))


def found_extreme(emit: Emitter, x: Tensor, axis: int, keepdim: bool, largest: bool) -> tuple[Tensor, Tensor]:
    """(value, place) of the first of the largest or smallest."""
    if rank_of(x) == 0:
        return out(x), emit.const(0, torch.int64)
    kind = out(x).get_element_type()
    narrow = kind.bitwidth < 32 or kind.to_string() == "boolean"
    wide = ops.convert(x, "i32") if narrow else x
    if kind.is_real():
        wide = orderable(x, np.inf if largest else -np.inf)
    found = ops.topk(wide, np.int64(1), axis, "max" if largest else "min", "value", "i64", stable=True)
    values, places = found.output(0), found.output(1)
    if kind.to_string() == "boolean":  # the plugin cannot convert one of several outputs to it
        values = out(ops.not_equal(values, np.int32(0)))
    elif narrow:
        values = out(ops.convert(values, kind.to_string()))
    elif kind.is_real():
        values = out(ops.gather_elements(x, places, axis))
    return (values, places) if keepdim else (emit.squeeze(values, axis), emit.squeeze(places, axis))


@lowers("aten.max.dim", largest=True)
@lowers("aten.min.dim", largest=False)
def extreme_and_place(emit: Emitter, self: Tensor, dim: int, keepdim: bool, largest: bool) -> list[Tensor]:
    return list(found_extreme(emit, self, dim % max(rank_of(self), 1), keepdim, largest))


@lowers("aten.argmax.default", largest=True)
@lowers("aten.argmin.default", largest=False)
def place_of_extreme(emit: Emitter, self: Tensor, dim: int | None, keepdim: bool, largest: bool) -> Tensor:
    if dim is None:
        flat = ops.reshape(self, emit.array([-1]), False)
        found = found_extreme(emit, flat, 0, False, largest)[1]
        return emit.reshape(found, [1] * rank_of(self)) if keepdim else found
    return found_extreme(emit, self, dim % max(rank_of(self), 1), keepdim, largest)[1]


@lowers("aten.all.default", "aten.all.dim", "aten.all.dims", reduce=ops.reduce_logical_and)
@lowers("aten.any.default", "aten.any.dim", "aten.any.dims", reduce=ops.reduce_logical_or)
def all_or_any(
    emit: Emitter,
    self: Tensor,
    reduce: Callable[..., Any],
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Tensor:
    x, axes = emit.cast(self, torch.bool), axes_of(self, dim)
    return emit.cast(x if _nothing_to_do(x, axes) else reduce(x, emit.array(axes), keepdim), emit.dtype)


@lowers("aten.cumsum.default")
def cumsum(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    x = emit.wide(self, emit.dtype)
    rank = rank_of(self)
    return emit.result(ops.cum_sum(x, np.int64(dim % rank)) if rank else x)


def varied(emit: Emitter, x: Tensor, axes: Sequence[int], correction: float, keepdim: bool) -> Tensor:
    """The variance of floats along axes."""
    mean = ops.reduce_mean(x, emit.array(axes), True)
    off = ops.subtract(x, mean)
    total = ops.reduce_sum(ops.multiply(off, off), emit.array(axes), keepdim)
    count = 1
    for axis in axes:
        count = emit.times(emit.size(x, axis), count)
    if isinstance(count, int):
        left = np.float32(max(count - correction, 0))
    else:
        left = ops.maximum(ops.subtract(emit.number(count, torch.float32), np.float32(correction)), np.float32(0))
    return out(ops.divide(total, left))


@lowers("aten.var.correction", root=False)
@lowers("aten.var.default", "aten.var.dim", root=False, correction=Arg("unbiased"))
@lowers("aten.std.correction", root=True)
@lowers("aten.std.default", "aten.std.dim", root=True, correction=Arg("unbiased"))
def spread(
    emit: Emitter,
    self: Tensor,
    correction: float | None,
    root: bool,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
) -> Tensor:
    """The variance, or its root. torch's `unbiased` is a correction of 1."""
    correction = 1 if correction is None else correction
    found = varied(emit, emit.cast(self, emit.dtype), axes_of(self, dim), correction, keepdim)
    return ops.sqrt(found) if root else found


@lowers("aten.var_mean.correction", root=False)
@lowers("aten.var_mean.default", "aten.var_mean.dim", root=False, correction=Arg("unbiased"))
@lowers("aten.std_mean.correction", root=True)
@lowers("aten.std_mean.default", "aten.std_mean.dim", root=True, correction=Arg("unbiased"))
def spread_and_mean(
    emit: Emitter,
    self: Tensor,
    correction: float | None,
    root: bool,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
) -> list[Tensor]:
    axes, correction = axes_of(self, dim), 1 if correction is None else correction
    variance, mean = varied(emit, self, axes, correction, keepdim), _mean(emit, self, self, axes, keepdim)
    return [ops.sqrt(variance) if root else variance, mean]


@lowers("aten.logsumexp.default")
def logsumexp(emit: Emitter, self: Tensor, dim: Sequence[int], keepdim: bool) -> Tensor:
    x, axes = emit.cast(self, emit.dtype), axes_of(self, dim)
    if _nothing_to_do(x, axes):
        return x
    most = ops.reduce_max(x, emit.array(axes), True)
    most = ops.select(ops.less(ops.abs(most), np.float32(3.4e38)), most, np.float32(0))
    total = ops.reduce_sum(exp_of(ops.subtract(x, most)), emit.array(axes), keepdim)
    return ops.add(ops.log(total), most if keepdim else emit.squeeze(most, *axes))


@lowers("aten.linalg_vector_norm.default", x=Arg("self"))
@lowers("aten.norm.Scalar", "aten.norm.ScalarOpt_dim", x=Arg("self"), ord=Arg("p"))
def normed(emit: Emitter, x: Tensor, ord: Scalar, dim: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """Of a vector, or of all that the axes hold; by the root of the squares where `ord` is None."""
    ord = 2 if ord is None else ord
    x, axes = ops.abs(emit.cast(x, emit.dtype)), axes_of(x, dim)
    if _nothing_to_do(x, axes):
        return x if ord else ops.convert(ops.not_equal(x, np.float32(0)), "f32")
    if ord in (float("inf"), float("-inf")):
        return extreme(emit, x, axes, keepdim, ord > 0)
    if ord == 0:
        there = ops.convert(ops.not_equal(x, np.float32(0)), "f32")
        return ops.reduce_sum(there, emit.array(axes), keepdim)
    if ord == 1:
        return ops.reduce_sum(x, emit.array(axes), keepdim)
    if ord == 2:
        return ops.sqrt(ops.reduce_sum(ops.multiply(x, x), emit.array(axes), keepdim))
    total = ops.reduce_sum(ops.power(x, np.float32(ord)), emit.array(axes), keepdim)
    return ops.power(total, np.float32(1 / ord))


@lowers("aten.linalg_norm.default", "aten.linalg_norm.ord_str")
def linalg_norm(
    emit: Emitter, self: Tensor, ord: float | str | None, dim: Sequence[int] | None, keepdim: bool
) -> Tensor:
    x, axes = emit.cast(self, emit.dtype), axes_of(self, dim)
    dims = [dim] if isinstance(dim, int) else dim
    if ord is not None and len(axes) == 2:
        return matrix_norm(emit, x, ord, [axis % rank_of(x) for axis in dims or axes], keepdim)
    return normed(emit, x, ord, axes, keepdim)


@lowers("aten.linalg_matrix_norm.default", "aten.linalg_matrix_norm.str_ord")
def linalg_matrix_norm(emit: Emitter, self: Tensor, ord: float | str, dim: Sequence[int], keepdim: bool) -> Tensor:
    x = emit.cast(self, emit.dtype)
    return matrix_norm(emit, x, ord, [axis % rank_of(x) for axis in dim], keepdim)


def matrix_norm(emit: Emitter, x: Tensor, ord: float | str, axes: Sequence[int], keepdim: bool) -> Tensor:
    """The largest or smallest sum of a row or a column, or the root of the sum of squares."""
    if ord == "fro":
        return normed(emit, x, 2, sorted(axes), keepdim)
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise emit.refuse(f"the norm {ord!r} of matrices is one of singular values")
    added, picked = axes if abs(ord) == 1 else reversed(axes)
    sums = ops.reduce_sum(ops.abs(x), emit.array([added]), True)
    found = extreme(emit, sums, [picked], True, ord > 0)
    return found if keepdim else emit.squeeze(found, *axes)


@lowers("aten.count_nonzero.dim_IntList", "aten.count_nonzero.default")
def count_nonzero(emit: Emitter, self: Tensor, dim: int | Sequence[int] | None) -> Tensor:
    there = emit.cast(emit.cast(self, torch.bool), torch.int64)
    return summed(emit, there, axes_of(self, dim), False)
