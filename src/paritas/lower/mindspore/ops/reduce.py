# SPDX-License-Identifier: Apache-2.0
"""Reductions."""

from paritas.lower.registry import lowers


def _axes(self, dim):
    if dim is None or dim == []:
        return tuple(range(self.rank))
    return tuple(d % self.rank for d in dim) if isinstance(dim, (list, tuple)) else (dim % self.rank,)


@lowers("mindspore", "aten.mean.dim")
def mean(emit, self, dim, keepdim=False, *, dtype=None):
    """mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    axes = _axes(self, dim)
    axes = axes[0] if len(axes) == 1 else axes
    return emit.prim("ops.ReduceMean", keep_dims=keepdim)(emit.cast(self, emit.out.dtype), axes)


@lowers("mindspore", "aten.sum.dim_IntList")
def sum_(emit, self, dim, keepdim=False, *, dtype=None):
    """sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor"""
    return emit.prim("ops.ReduceSum", keep_dims=keepdim)(emit.cast(self, emit.out.dtype), _axes(self, dim))


@lowers("mindspore", "aten.argmax.default")
def argmax(emit, self, dim=None, keepdim=False):
    """argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor"""
    if dim is None:
        raise emit.refuse("argmax over all dimensions")
    value = emit.cast(self, "int32") if self.dtype in ("bool", "int64") else self
    found = emit.prim("ops.Argmax", dim, emit.dtype("int64"))(value)
    return emit.call("ops.expand_dims", found, dim) if keepdim else found
