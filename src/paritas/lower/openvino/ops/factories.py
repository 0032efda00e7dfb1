# SPDX-License-Identifier: Apache-2.0
"""Tensors that are made of sizes and numbers alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Scalar, Size, Sizes, Tensor, is_tensor, rank_of
from paritas.lower.openvino.integers import chosen
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten.arange.default", start=0, step=1)
@lowers("aten.arange.start", step=1)
@lowers("aten.arange.start_step")
def counted(emit: Emitter, start: float, end: Scalar, step: float) -> Tensor:
    dtype = emit.dtype
    if not any(is_tensor(bound) for bound in (start, end, step)):
        return emit.tensor(torch.arange(start, end, step, dtype=dtype))
    bounds = [torch.float32 if _is_float(bound) else torch.int64 for bound in (start, end, step)]
    if torch.float32 not in bounds:
        return emit.cast(emit.arange(start, end, step), dtype)
    first, last, width = (emit.number(bound, torch.float32) for bound in (start, end, step))
    count = ops.convert(ops.ceiling(ops.divide(ops.subtract(last, first), width)), "i64")
    places = ops.convert(emit.arange(0, count), "f32")
    return emit.cast(ops.add(first, ops.multiply(places, width)), dtype)


def _is_float(bound: Size) -> bool:
    if is_tensor(bound):
        return bound.get_element_type().to_string() == "f32"
    return isinstance(bound, float)


@lowers(
    "aten.linspace.default", "aten.linspace.Tensor_Tensor", "aten.linspace.Tensor_Scalar", "aten.linspace.Scalar_Tensor"
)
def linspace(emit: Emitter, start: Any, end: Any, steps: int) -> Tensor:
    if not any(is_tensor(bound) for bound in (start, end, steps)):
        return emit.tensor(torch.linspace(start, end, steps, dtype=emit.dtype))
    if not emit.dtype.is_floating_point:
        raise emit.refuse("whole numbers between free bounds")
    first, last, count = (emit.number(bound, torch.float32) for bound in (start, end, steps))
    one = np.float32(1)
    # From both ends, as torch does it, so that both are met.
    width = ops.divide(ops.subtract(last, first), ops.maximum(ops.subtract(count, one), one))
    places = ops.convert(emit.arange(0, steps), "f32")
    up = ops.add(first, ops.multiply(width, places))
    down = ops.subtract(last, ops.multiply(width, ops.subtract(ops.subtract(count, places), one)))
    return ops.select(ops.less(places, ops.divide(count, np.float32(2))), up, down)


@lowers("aten.zeros.default", "aten.new_zeros.default", fill_value=0)
@lowers("aten.ones.default", "aten.new_ones.default", fill_value=1)
@lowers("aten.empty.memory_format", "aten.new_empty.default", fill_value=0)
@lowers("aten.full.default", "aten.new_full.default")
def full(emit: Emitter, size: Sizes, fill_value: float, **_: object) -> Tensor:
    return emit.full(size, fill_value, emit.dtype)


@lowers("aten.zeros_like.default", "aten.empty_like.default", fill_value=0)
@lowers("aten.ones_like.default", fill_value=1)
@lowers("aten.full_like.default")
@lowers("aten.fill.Scalar", "aten.fill.Tensor", fill_value=Arg("value"))
def full_like(emit: Emitter, self: Tensor, fill_value: Any) -> Tensor:
    return emit.full(emit.sizes(self), fill_value, emit.dtype)


@lowers("aten.scalar_tensor.default")
def scalar_tensor(emit: Emitter, s: Scalar) -> Tensor:
    return emit.cast(s, emit.dtype)


def rows_and_columns(emit: Emitter, rows: Size, columns: Size) -> tuple[Tensor, Tensor]:
    """Row numbers [rows, 1] and column numbers [1, columns], i64."""
    return emit.unsqueeze(emit.arange(0, rows), 1), emit.unsqueeze(emit.arange(0, columns), 0)


@lowers("aten.eye.default", m=Arg("n"))
@lowers("aten.eye.m")
def eye(emit: Emitter, n: Size, m: Size) -> Tensor:
    rows, columns = rows_and_columns(emit, n, m)
    return emit.cast(ops.equal(rows, columns), emit.dtype)


@lowers("aten.tril.default", keeps=ops.less_equal)
@lowers("aten.triu.default", keeps=ops.greater_equal)
def triangle(emit: Emitter, self: Tensor, diagonal: Size, keeps: Callable[..., Any]) -> Tensor:
    rank = rank_of(self)
    rows, columns = rows_and_columns(emit, emit.size(self, rank - 2), emit.size(self, rank - 1))
    kept = keeps(ops.subtract(columns, rows), emit.number(diagonal))
    return chosen(kept, self, emit.const(0, emit.dtype))


@lowers("aten.one_hot.default")
def one_hot(emit: Emitter, self: Tensor, num_classes: int) -> Tensor:
    if isinstance(num_classes, int) and num_classes < 0:
        raise emit.refuse("the number of classes depends on the values")
    classes = emit.arange(0, num_classes)
    same = ops.equal(emit.unsqueeze(emit.cast(self, torch.int64), rank_of(self)), classes)
    return emit.cast(same, emit.dtype)


def _matrices(emit: Emitter, x: Tensor, dim1: int, dim2: int) -> tuple[Any, Any]:
    """(`x` with both axes at its end, the order that brings them there)."""
    rank = rank_of(x)
    first, second = dim1 % rank, dim2 % rank
    order = [axis for axis in range(rank) if axis not in (first, second)] + [first, second]
    return emit.transpose(x, order), order


def _diagonal_size(emit: Emitter, x: Tensor, offset: int) -> int:
    rows, columns = emit.sizes(x)[-2:]
    down, across = emit.minus(rows, max(-offset, 0)), emit.minus(columns, max(offset, 0))
    if isinstance(down, int) and isinstance(across, int):
        return max(min(down, across), 0)
    found = ops.minimum(emit.number(down), emit.number(across))
    return ops.maximum(found, np.int64(0)).output(0)


@lowers("aten.diagonal.default")
def diagonal(emit: Emitter, self: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    x, _ = _matrices(emit, self, dim1, dim2)
    *lead, rows, columns = emit.sizes(x)
    size = _diagonal_size(emit, x, offset)
    if isinstance(size, int) and size == 0:  # a gather of nothing crashes OpenVINO 2026.4
        return emit.squeeze(emit.slice(emit.slice(x, 0, 0, len(lead)), 0, 1, len(lead) + 1), len(lead) + 1)
    places = emit.arange(0, size)
    row = ops.add(places, np.int64(max(-offset, 0)))
    column = ops.add(places, np.int64(max(offset, 0)))
    flat = emit.reshape(x, [*lead, emit.times(rows, columns)])
    place = ops.add(ops.multiply(row, emit.number(columns)), column)
    return ops.gather(flat, place, np.int64(len(lead)))


@lowers("aten.diagonal_scatter.default")
def diagonal_scatter(emit: Emitter, self: Tensor, src: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
    x, order = _matrices(emit, self, dim1, dim2)
    rank, size = len(order), _diagonal_size(emit, x, offset)
    if isinstance(size, int) and size == 0:
        return self
    rows, columns = rows_and_columns(emit, *emit.sizes(x)[-2:])
    last = ops.subtract(emit.number(size), np.int64(1))
    # For each row, which element of the diagonal lies in it.
    place = ops.subtract(emit.arange(0, emit.size(x, rank - 2)), np.int64(max(-offset, 0)))
    held = ops.minimum(ops.maximum(place, np.int64(0)), last)
    values = ops.gather(emit.cast(src, emit.dtype), held, np.int64(rank - 2))
    there = ops.equal(ops.subtract(columns, rows), np.int64(offset))
    found = chosen(there, emit.unsqueeze(values, rank - 1), x)
    return emit.transpose(found, [order.index(axis) for axis in range(rank)])
