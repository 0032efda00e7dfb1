# SPDX-License-Identifier: Apache-2.0
"""Look-ups by index."""

from paritas.lower.mindspore.source import Value
from paritas.lower.registry import lowers


@lowers("mindspore", "aten.embedding.default")
def embedding(emit, weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """embedding(Tensor weight, Tensor indices, SymInt padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False) -> Tensor"""  # noqa: E501
    return emit.call("ops.gather", weight, indices, 0)


@lowers("mindspore", "aten.index_select.default")
def index_select(emit, self, dim, index):
    """index_select(Tensor self, int dim, Tensor index) -> Tensor"""
    return emit.call("ops.gather", self, index, dim)


@lowers("mindspore", "aten.gather.default")
def gather(emit, self, dim, index, *, sparse_grad=False):
    """gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor"""
    return emit.call("ops.gather_elements", self, dim, emit.cast(index, "int64"))


@lowers("mindspore", "aten.index.Tensor")
def index(emit, self, indices):
    """index.Tensor(Tensor self, Tensor?[] indices) -> Tensor"""
    given = [i for i in indices if i is not None]
    if any(i.dtype in ("bool", "uint8") for i in given):
        raise emit.refuse("the size of the result depends on the values of a mask")
    if len(given) == 1:
        axis = next(position for position, i in enumerate(indices) if i is not None)
        return emit.call("ops.gather", self, given[0], axis)
    text = ", ".join(":" if i is None else str(i) for i in indices)
    return Value(f"{emit.let(self, 'x')}[{text}]", self.dtype, emit.out.shape)
