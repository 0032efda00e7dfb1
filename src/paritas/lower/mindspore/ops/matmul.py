# SPDX-License-Identifier: Apache-2.0
"""Linear layers and matrix products. Weights keep the checkpoint's layout: [out, in]."""

from paritas.lower.registry import lowers


@lowers("mindspore", "aten.linear.default")
def linear(emit, input, weight, bias=None):
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    if weight.rank == 1:
        product = emit.call("ops.matmul", input, weight)
        return product if bias is None else emit.infix("+", product, bias)
    # Dense takes any rank and transposes inside the kernel; ops.matmul(x, weight.T) copies the weight every call.
    if bias is None:
        return emit.call("ops.dense", input, weight)
    return emit.call("ops.dense", input, weight, bias)


@lowers("mindspore", "aten.addmm.default")
def addmm(emit, self, mat1, mat2, *, beta=1, alpha=1):
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    product = emit.prim("ops.MatMul")(mat1, mat2)
    if alpha != 1:
        product = emit.infix("*", product, alpha)
    # With beta=0 torch ignores `self` outright, NaN included; 0 * self would let the NaN through.
    if beta == 0:
        return product
    if beta == 1 and self.rank == 1:
        return emit.prim("ops.BiasAdd")(product, self)  # broadcasting is 3 times slower on CPU
    return emit.infix("+", product, self if beta == 1 else emit.infix("*", self, beta))


@lowers("mindspore", "aten.mm.default")
def mm(emit, self, mat2):
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return emit.prim("ops.MatMul")(self, mat2)


@lowers("mindspore", "aten.bmm.default")
def bmm(emit, self, mat2):
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return emit.prim("ops.BatchMatMul")(self, mat2)


@lowers("mindspore", "aten.matmul.default")
def matmul(emit, self, other):
    """matmul(Tensor self, Tensor other) -> Tensor"""
    return emit.call("ops.matmul", self, other)


