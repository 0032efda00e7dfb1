# SPDX-License-Identifier: Apache-2.0
"""Orders: sort, topk and their kin."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import is_tensor, out, rank_of
from paritas.lower.openvino.integers import less, less_equal
from paritas.lower.openvino.ops.reduce import orderable
from paritas.lower.registry import lowers


def ordered(emit, x, count, dim, descending):
    """(values, places) of the first `count` in order; of equal ones the earlier comes first."""
    if rank_of(x) == 0:
        return [out(x), emit.const(0, torch.int64)]
    kind = emit.dtype_of(x)
    wide = emit.cast(x, torch.int32) if kind == torch.bool else emit.wide(x, kind)
    mode, dim = "max" if descending else "min", dim % rank_of(x)
    if kind.is_floating_point:  # a NaN is larger than all numbers
        found = ops.topk(orderable(wide, np.inf), emit.number(count), dim, mode, "value", "i64", stable=True)
        return [out(ops.gather_elements(wide, found.output(1), dim)), found.output(1)]
    found = ops.topk(wide, emit.number(count), dim, mode, "value", "i64", stable=True)
    return [emit.cast(found.output(0), kind), found.output(1)]


@lowers("openvino", "aten.topk.default")
def topk(emit, self, k, dim=-1, largest=True, sorted=True):
    """topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)"""  # noqa: E501
    return ordered(emit, self, k, dim, largest)


@lowers("openvino", "aten.sort.default", "aten.sort.stable")
def sort(emit, self, dim=-1, descending=False, stable=None):
    """sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)"""
    return ordered(emit, self, emit.size(self, dim) if rank_of(self) else 1, dim, descending)


@lowers("openvino", "aten.argsort.default", "aten.argsort.stable")
def argsort(emit, self, dim=-1, descending=False, stable=None):
    """argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor"""
    return ordered(emit, self, emit.size(self, dim) if rank_of(self) else 1, dim, descending)[1]


@lowers("openvino", "aten.histc.default")
def histc(emit, self, bins=100, min=0, max=0):
    """histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor"""
    if min == max and bins == 1:
        total = 1
        for size in emit.sizes(self):
            total = emit.times(size, total)
        return emit.cast(emit.dims([total]), emit.dtype)
    if min == max:
        raise emit.refuse("the range of the histogram depends on the values")
    x = ops.reshape(emit.cast(self, torch.float32), emit.array([-1, 1]), False)
    part = ops.floor(ops.multiply(ops.subtract(x, np.float32(min)), np.float32(bins / (max - min))))
    part = ops.minimum(part, np.float32(bins - 1))
    inside = ops.logical_and(ops.less_equal(np.float32(min), x), ops.less_equal(x, np.float32(max)))
    hit = ops.logical_and(inside, ops.equal(part, np.arange(bins, dtype=np.float32)))
    return emit.cast(ops.reduce_sum(ops.convert(hit, "f32"), emit.array([0]), False), emit.dtype)


def placed(emit, ends, x, right):
    """How many of the sorted `ends`, [.., n], lie before each of `x`: a NaN is after all, as torch sorts it."""
    dtype = emit.promoted(ends, x)
    floats = dtype.is_floating_point
    ends, x = emit.wide(ends, dtype), emit.wide(x, dtype)
    rank = rank_of(x)
    if rank_of(ends) > 1:
        ends = emit.unsqueeze(ends, rank_of(ends) - 1)
    x = emit.unsqueeze(x, rank)
    below = (less_equal if right else less)(ends, x)
    if floats:
        below = ops.logical_or(below, ops.is_nan(x))
    count = ops.reduce_sum(ops.convert(below, "f32"), emit.array([rank]), False)
    return emit.cast(count, emit.dtype)


@lowers("openvino", "aten.bucketize.Tensor")
def bucketize(emit, self, boundaries, out_int32=False, right=False):
    """bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor"""
    return placed(emit, boundaries, self, right)


@lowers("openvino", "aten.searchsorted.Tensor", "aten.searchsorted.Scalar")
def searchsorted(emit, sorted_sequence, self, out_int32=False, right=False, side=None, sorter=None):
    """searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None) -> Tensor"""  # noqa: E501
    ends = sorted_sequence
    if sorter is not None:
        ends = ops.gather_elements(ends, sorter, rank_of(ends) - 1).output(0)
    if not is_tensor(self):
        self = emit.const(self, emit.dtype_of(sorted_sequence) if isinstance(self, int) else torch.float32)
    return placed(emit, ends, self, right or side == "right")
