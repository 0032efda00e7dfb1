# SPDX-License-Identifier: Apache-2.0
"""Linear layers and matrix products. Weights keep the checkpoint's layout: [out, in]."""

from paritas.lower.mindspore.ops.create import filled
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.registry import lowers


@lowers("mindspore", "aten.linear.default")
def linear(emit, input, weight, bias=None):
    """linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor"""
    if is_empty(input) or is_empty(weight):
        nothing = filled(emit, 0)
        return nothing if bias is None else emit.infix("+", nothing, bias)
    if weight.rank == 1:
        product = emit.call("ops.matmul", input, weight)
        return product if bias is None else emit.infix("+", product, bias)
    # Dense takes any rank and transposes inside the kernel; ops.matmul(x, weight.T) copies the weight every call.
    if bias is None:
        return emit.call("ops.dense", input, weight)
    return emit.call("ops.dense", input, weight, bias)


def _scaled(emit, value, factor):
    return value if factor == 1 else emit.infix("*", value, factor)


def _added(emit, self, product, beta, alpha):
    """beta * self + alpha * product. With beta=0 torch ignores self outright, NaN included; 0 * self would not."""
    product = _scaled(emit, product, alpha)
    return product if beta == 0 else emit.infix("+", product, _scaled(emit, self, beta))


def _nothing(*operands):
    return any(is_empty(x) for x in operands)


@lowers("mindspore", "aten.addmm.default")
def addmm(emit, self, mat1, mat2, *, beta=1, alpha=1):
    """addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    if _nothing(mat1, mat2):
        return _added(emit, self, filled(emit, 0), beta, 1)
    product = emit.prim("ops.MatMul")(mat1, mat2)
    if beta == 1 and alpha == 1 and self.rank == 1 and self.shape == emit.out.shape[1:]:
        return emit.prim("ops.BiasAdd")(product, self)  # broadcasting is 3 times slower on CPU
    return _added(emit, self, product, beta, alpha)


@lowers("mindspore", "aten.baddbmm.default")
def baddbmm(emit, self, batch1, batch2, *, beta=1, alpha=1):
    """baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"""
    if _nothing(batch1, batch2):
        return _added(emit, self, filled(emit, 0), beta, 1)
    return _added(emit, self, emit.prim("ops.BatchMatMul")(batch1, batch2), beta, alpha)


@lowers("mindspore", "aten.mm.default")
def mm(emit, self, mat2):
    """mm(Tensor self, Tensor mat2) -> Tensor"""
    return filled(emit, 0) if _nothing(self, mat2) else emit.prim("ops.MatMul")(self, mat2)


@lowers("mindspore", "aten.bmm.default")
def bmm(emit, self, mat2):
    """bmm(Tensor self, Tensor mat2) -> Tensor"""
    return filled(emit, 0) if _nothing(self, mat2) else emit.prim("ops.BatchMatMul")(self, mat2)


@lowers("mindspore", "aten.matmul.default")
def matmul(emit, self, other):
    """matmul(Tensor self, Tensor other) -> Tensor"""
    return filled(emit, 0) if _nothing(self, other) else emit.call("ops.matmul", self, other)


@lowers("mindspore", "aten.mv.default")
def mv(emit, self, vec):
    """mv(Tensor self, Tensor vec) -> Tensor"""
    return filled(emit, 0) if _nothing(self, vec) else emit.call("ops.matmul", self, vec)


@lowers("mindspore", "aten.dot.default")
def dot(emit, self, tensor):
    """dot(Tensor self, Tensor tensor) -> Tensor"""
    return filled(emit, 0) if _nothing(self, tensor) else emit.call("ops.matmul", self, tensor)


@lowers("mindspore", "aten.outer.default")
def outer(emit, self, vec2):
    """outer(Tensor self, Tensor vec2) -> Tensor"""
    return emit.infix("*", emit.call("ops.expand_dims", self, -1), vec2)


@lowers("mindspore", "aten.einsum.default")
def einsum(emit, equation, tensors, *, path=None):
    """einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor"""
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if (
        "." in equation
        or "->" not in equation
        or len(terms) > 2
        or any(len(set(t)) < len(t) for t in terms)
    ):
        raise emit.refuse(
            f"einsum {equation!r}: it takes one or two operands, no repeated index and no ellipsis"
        )
    sizes = {
        name: size
        for term, x in zip(terms, tensors, strict=True)
        for name, size in zip(term, x.shape, strict=True)
    }
    kept = []
    for place, (term, x) in enumerate(zip(terms, tensors, strict=True)):
        elsewhere = output + "".join(t for other, t in enumerate(terms) if other != place)
        alone = [axis for axis, name in enumerate(term) if name not in elsewhere]
        if alone:
            x = emit.prim("ops.ReduceSum")(x, tuple(alone))
            term = "".join(name for name in term if name in elsewhere)
        kept.append(
            (term, emit.typed(x, dtype=tensors[place].dtype, shape=[sizes[n] for n in term]))
        )
    if len(kept) == 1:
        term, x = kept[0]
        return permuted(emit, x, [term.index(name) for name in output])
    (left, a), (right, b) = kept
    batch = [n for n in left if n in right and n in output]
    inner = [n for n in left if n in right and n not in output]
    rows, columns = [n for n in left if n not in right], [n for n in right if n not in left]
    a, b = (
        _blocks(emit, a, left, sizes, batch, rows, inner),
        _blocks(emit, b, right, sizes, batch, inner, columns),
    )
    product = emit.prim("ops.BatchMatMul")(a, b)
    names = [*batch, *rows, *columns]
    product = emit.call("ops.reshape", product, emit.dims([sizes[n] for n in names]))
    return permuted(emit, product, [names.index(name) for name in output])


def _blocks(emit, x, term, sizes, *groups):
    """`x` as [batch, rows, columns], each group of indices made one dimension."""
    turned = permuted(emit, x, [term.index(name) for group in groups for name in group])
    shape = []
    for group in groups:
        total = 1
        for name in group:
            total = total * sizes[name]
        shape.append(total)
    return emit.call("ops.reshape", turned, emit.dims(shape))
