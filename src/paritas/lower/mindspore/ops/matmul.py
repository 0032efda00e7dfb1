# SPDX-License-Identifier: Apache-2.0
"""Linear layers and matrix products. Weights keep the checkpoint's layout: [out, in]."""

from collections.abc import Sequence
from typing import Any

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.ops.statistics import diagonal_of
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Scalar, Value


@lowers("aten.linear.default")
def linear(emit: Emitter, input: Value, weight: Value, bias: Value | None) -> Value:
    if is_empty(input) or is_empty(weight):
        nothing = filled(emit, 0)
        return nothing if bias is None else emit.infix("+", nothing, bias)
    if weight.rank == 1:
        product = emit.call("ops.matmul", input, weight)
        return product if bias is None else emit.infix("+", product, bias)
    # Dense takes any rank and transposes inside the kernel; ops.matmul(x, weight.T) copies the weight every call.
    return dense(emit, input, weight, bias)


def dense(emit: Emitter, input: Value, weight: Value, bias: Value | None) -> Value:
    if bias is None:
        return emit.call("ops.dense", input, weight)
    if emit.target == "cpu":
        return emit.prelude("dense", input, weight, bias)
    return emit.call("ops.dense", input, weight, bias)


def _scaled(emit: Emitter, value: Value, factor: float) -> Value:
    return value if factor == 1 else emit.infix("*", value, factor)


def plus_product(emit: Emitter, self: Value, product: Value, beta: float, alpha: float) -> Value:
    """beta * self + alpha * product. With beta=0 torch ignores self outright, NaN included; 0 * self would not."""
    if emit.out.dtype not in FLOATS:  # torch takes both factors as integers then
        alpha, beta = int(alpha), int(beta)
    product = _scaled(emit, product, alpha)
    return product if beta == 0 else emit.infix("+", product, _scaled(emit, self, beta))


def _nothing(*operands: Any) -> bool:
    return any(is_empty(x) for x in operands)


@lowers("aten.addmm.default")
def addmm(emit: Emitter, self: Value, mat1: Value, mat2: Value, *, beta: Scalar, alpha: Scalar) -> Value:
    if _nothing(mat1, mat2):
        return plus_product(emit, self, filled(emit, 0), beta, 1)
    product = emit.prim("ops.MatMul")(mat1, mat2)
    if beta == 1 and alpha == 1 and self.rank == 1 and self.shape == emit.out.shape[1:]:
        return emit.prim("ops.BiasAdd")(product, self)  # broadcasting is 3 times slower on CPU
    return plus_product(emit, self, product, beta, alpha)


@lowers("aten.baddbmm.default")
def baddbmm(emit: Emitter, self: Value, batch1: Value, batch2: Value, *, beta: Scalar, alpha: Scalar) -> Value:
    if _nothing(batch1, batch2):
        return plus_product(emit, self, filled(emit, 0), beta, 1)
    return plus_product(emit, self, emit.prim("ops.BatchMatMul")(batch1, batch2), beta, alpha)


@lowers("aten.mm.default")
def mm(emit: Emitter, self: Value, mat2: Value) -> Value:
    return filled(emit, 0) if _nothing(self, mat2) else emit.prim("ops.MatMul")(self, mat2)


@lowers("aten.bmm.default")
def bmm(emit: Emitter, self: Value, mat2: Value) -> Value:
    return filled(emit, 0) if _nothing(self, mat2) else emit.prim("ops.BatchMatMul")(self, mat2)


@lowers("aten.matmul.default", "aten.linalg_matmul.default")
def matmul(emit: Emitter, self: Value, other: Value) -> Value:
    return filled(emit, 0) if _nothing(self, other) else emit.call("ops.matmul", self, other)


@lowers("aten.mv.default")
def mv(emit: Emitter, self: Value, vec: Value) -> Value:
    return filled(emit, 0) if _nothing(self, vec) else emit.call("ops.matmul", self, vec)


@lowers("aten.dot.default")
def dot(emit: Emitter, self: Value, tensor: Value) -> Value:
    return filled(emit, 0) if _nothing(self, tensor) else emit.call("ops.matmul", self, tensor)


@lowers("aten.outer.default", "aten.ger.default")
def outer(emit: Emitter, self: Value, vec2: Value) -> Value:
    return emit.infix("*", emit.call("ops.expand_dims", self, -1), vec2)


@lowers("aten.einsum.default")
def einsum(emit: Emitter, equation: str, tensors: Sequence[Value], **_: object) -> Value:
    terms, output = _parsed_equation(equation, [x.rank for x in tensors])
    whole = [_diagonal_of_repeated(emit, term, x) for term, x in zip(terms, tensors, strict=True)]
    terms, tensors = [term for term, _ in whole], [x for _, x in whole]
    sizes: dict = {}
    for term, x in zip(terms, tensors, strict=True):
        for name, size in zip(term, x.shape, strict=True):
            # Two expressions for one size need not look alike; a size of 1 beside another does broadcast.
            if sizes.setdefault(name, size) != size and 1 in (size, sizes[name]):
                raise emit.refuse(f"einsum {equation!r} with a size that broadcasts")
    if any(is_empty(x) for x in tensors):
        return filled(emit, 0)
    kept = list(zip(terms, tensors, strict=True))
    term, x = kept[0]
    for place, (other, y) in enumerate(kept[1:], 1):
        later = output + "".join(t for t, _ in kept[place + 1 :])
        term, x = _contracted(emit, term, x, other, y, sizes, later)
    term, x = _summed_out(emit, term, x, output, sizes)
    return permuted(emit, x, [term.index(name) for name in output])


def _parsed_equation(equation: str, ranks: Sequence[int]) -> tuple[Any, Any]:
    """The terms and the output with a letter for every dimension that "..." stands for."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    widths = [r - len(t.replace("...", "")) if "..." in t else 0 for t, r in zip(terms, ranks, strict=True)]
    wide = "".join(spare[: max(widths)])
    terms = [t.replace("...", wide[len(wide) - w :]) for t, w in zip(terms, widths, strict=True)]
    if not arrow:  # the letters that occur once, in order
        letters = "".join(terms)
        output = wide + "".join(c for c in sorted(set(letters)) if letters.count(c) == 1 and c not in wide)
    output = output.replace("...", wide)
    return terms, output


def _diagonal_of_repeated(emit: Emitter, term: str, x: Value) -> tuple[str, Value]:
    """An operand that names an index twice is read along its diagonal, which becomes the last dimension."""
    for name in dict.fromkeys(term):
        while term.count(name) > 1:
            first = term.index(name)
            second = term.index(name, first + 1)
            x = diagonal_of(emit, x, 0, first, second)
            term = "".join(c for i, c in enumerate(term) if i not in (first, second)) + name
    return term, x


def _summed_out(emit: Emitter, term: str, x: Value, needed: str, sizes: dict[str, Any]) -> tuple[str, Value]:
    """`x` summed over the indices that nobody needs."""
    alone = [axis for axis, name in enumerate(term) if name not in needed]
    if not alone:
        return term, x
    left = "".join(name for name in term if name in needed)
    total = emit.prim("ops.ReduceSum")(x, tuple(alone))
    return left, emit.typed(total, dtype=x.dtype, shape=[sizes[n] for n in left])


def _contracted(
    emit: Emitter, left: str, a: Value, right: str, b: Value, sizes: dict[str, Any], later: str
) -> tuple[str, Value]:
    """The product of two operands, summed over what neither `later` operands nor the output name."""
    left, a = _summed_out(emit, left, a, right + later, sizes)
    right, b = _summed_out(emit, right, b, left + later, sizes)
    batch = [n for n in left if n in right and n in later]
    inner = [n for n in left if n in right and n not in later]
    rows, columns = [n for n in left if n not in right], [n for n in right if n not in left]
    a, b = (_blocks(emit, a, left, sizes, batch, rows, inner), _blocks(emit, b, right, sizes, batch, inner, columns))
    product = emit.prim("ops.BatchMatMul")(a, b)
    names = "".join([*batch, *rows, *columns])
    shape = [sizes[n] for n in names]
    product = emit.call("ops.reshape", product, emit.dims(shape))
    return names, emit.typed(product, dtype=a.dtype, shape=shape)


def _blocks(emit: Emitter, x: Value, term: str, sizes: dict[str, Any], *groups: Any) -> Value:
    """`x` as [batch, rows, columns], each group of indices made one dimension."""
    turned = permuted(emit, x, [term.index(name) for group in groups for name in group])
    shape = []
    for group in groups:
        total = 1
        for name in group:
            total = total * sizes[name]
        shape.append(total)
    return emit.call("ops.reshape", turned, emit.dims(shape))
