# SPDX-License-Identifier: Apache-2.0
"""Products of matrices."""

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Scalar, Tensor, is_tensor, out, rank_of
from paritas.lower.openvino.integers import chosen
from paritas.lower.openvino.ops.reduce import summed
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten.matmul.default", a=Arg("self"), b=Arg("other"))
@lowers("aten.mm.default", "aten.bmm.default", a=Arg("self"), b=Arg("mat2"))
@lowers("aten.mv.default", a=Arg("self"), b=Arg("vec"))
@lowers("aten.dot.default", a=Arg("self"), b=Arg("tensor"))
def product(emit: Emitter, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    """A matrix product as NumPy has it. Whole numbers by exact sums: the plugin multiplies matrices of floats only."""
    dtype = emit.dtype
    a, b = emit.wide(a, dtype), emit.wide(b, dtype)
    return emit.result(multiplied(emit, a, b, transpose_b))


def multiplied(emit: Emitter, a: Tensor, b: Tensor, transpose_b: bool = False) -> Tensor:
    if out(a).get_element_type().is_real():
        return out(ops.matmul(a, b, False, transpose_b))
    if transpose_b:
        rank = rank_of(b)
        b = emit.transpose(b, [*range(rank - 2), rank - 1, rank - 2])
    left, right = rank_of(a) == 1, rank_of(b) == 1
    a = emit.unsqueeze(a, 0) if left else a
    b = emit.unsqueeze(b, 1) if right else b
    each = ops.multiply(emit.unsqueeze(a, rank_of(a)), emit.unsqueeze(b, rank_of(b) - 2))
    rank = rank_of(each)
    found = summed(emit, each, [rank - 2], False)  # [.., rows, columns]
    gone = [rank_of(found) - 2] * left + [rank_of(found) - 1] * right
    return emit.squeeze(found, *gone) if gone else found


@lowers("aten.linear.default")
def linear(emit: Emitter, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found = product(emit, input, weight, transpose_b=rank_of(weight) == 2)
    return found if bias is None else ops.add(found, emit.cast(bias, emit.dtype))


def _scaled(emit: Emitter, x: Tensor, factor: float) -> Tensor:
    if not is_tensor(factor) and factor == 1:
        return x
    return ops.multiply(x, emit.wide(factor, emit.dtype))


@lowers("aten.baddbmm.default", mat1=Arg("batch1"), mat2=Arg("batch2"))
@lowers("aten.addmm.default")
@lowers("aten.addmv.default", mat1=Arg("mat"), mat2=Arg("vec"))
def addmm(emit: Emitter, self: Tensor, mat1: Tensor, mat2: Tensor, beta: Scalar, alpha: Scalar) -> Tensor:
    found = _scaled(emit, product(emit, mat1, mat2), alpha)
    if not is_tensor(beta) and beta == 0:  # then what is not a number in it does not count
        return found
    return emit.result(ops.add(found, _scaled(emit, emit.wide(self, emit.dtype), beta)))


@lowers("aten.outer.default", "aten.ger.default")
def outer(emit: Emitter, self: Tensor, vec2: Tensor) -> Tensor:
    a, b = emit.wide(self, emit.dtype), emit.wide(vec2, emit.dtype)
    times = ops.logical_and if emit.dtype == torch.bool else ops.multiply
    return emit.result(times(emit.unsqueeze(a, 1), emit.unsqueeze(b, 0)))


@lowers("aten.einsum.default")
def einsum(emit: Emitter, equation: str, tensors: Sequence[Tensor], **_: object) -> Tensor:
    dtype = emit.dtype
    tensors = [emit.wide(x, dtype) for x in tensors]
    terms, result = parsed_equation(equation.replace(" ", ""), [rank_of(x) for x in tensors])
    found, have = tensors[0], terms[0]
    found, have = diagonal_free(emit, found, have)
    for i, (x, term) in enumerate(zip(tensors[1:], terms[1:], strict=True), 1):
        x, term = diagonal_free(emit, x, term)
        wanted = set(result).union(*terms[i + 1 :])
        found, have = contracted(emit, found, have, x, term, wanted)
    gone = [have.index(letter) for letter in have if letter not in result]
    if gone:
        found = summed(emit, found, gone, False)
        have = "".join(letter for letter in have if letter in result)
    return emit.result(emit.transpose(found, [have.index(letter) for letter in result]))


def parsed_equation(equation: str, ranks: Sequence[int]) -> tuple[Any, Any]:
    """The letters of each operand's axes and of the result's; "..." stands for capital letters from the end."""
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    free = [letter for letter in string.ascii_letters[::-1] if letter not in equation]
    most = max(
        (rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term),
        default=0,
    )
    dots = "".join(free[:most])
    terms = [
        term.replace("...", dots[most - (rank - len(term.replace("...", ""))) :] if "..." in term else "")
        for term, rank in zip(terms, ranks, strict=True)
    ]
    if not arrow:
        letters = "".join(terms)
        once = sorted(letter for letter in set(letters) - set(dots) if letters.count(letter) == 1)
        return terms, dots + "".join(once)
    return terms, result.replace("...", dots)


def diagonal_free(emit: Emitter, x: Tensor, term: str) -> tuple[Tensor | str, Tensor | str]:
    """An operand in which no letter comes twice: of two axes with one letter the diagonal is left."""
    while len(set(term)) != len(term):
        letter = next(letter for letter in term if term.count(letter) > 1)
        first = term.index(letter)
        second = term.index(letter, first + 1)
        rank = len(term)
        # The second axis goes to the end, and what is not on the diagonal is taken for 0 and summed up.
        x = emit.transpose(x, [axis for axis in range(rank) if axis not in (first, second)] + [first, second])
        size = emit.size(x, rank - 1)
        places = emit.arange(0, size)
        same = ops.equal(emit.unsqueeze(places, 1), emit.unsqueeze(places, 0))
        kind = out(x).get_element_type().to_dtype()
        x = summed(emit, chosen(same, x, np.array(0, kind)), [rank - 1], False)
        term = "".join(t for t in term if t != letter) + letter
    return x, term


def contracted(
    emit: Emitter, a: Tensor, left: str, b: Tensor, right: str, wanted: set[str]
) -> tuple[Tensor | str, Tensor | str]:
    """Two operands as one matrix product: axes of both that are wanted again are its batch."""
    shared = [letter for letter in left if letter in right]
    batch = [letter for letter in shared if letter in wanted]
    summed_over = [letter for letter in shared if letter not in wanted]
    # What only one of them has and nobody wants is summed up before.
    a, left = _summed_out(emit, a, left, set(left) - set(right) - wanted)
    b, right = _summed_out(emit, b, right, set(right) - set(left) - wanted)
    rows = [letter for letter in left if letter not in shared]
    columns = [letter for letter in right if letter not in shared]
    size_a = dict(zip(left, emit.sizes(a), strict=True))
    size_b = dict(zip(right, emit.sizes(b), strict=True))
    if not summed_over:
        letters = [*batch, *rows, *columns]
        x = emit.transpose(a, [left.index(letter) for letter in [*batch, *rows]])
        y = emit.transpose(b, [right.index(letter) for letter in [*batch, *columns]])
        if columns:
            x = emit.unsqueeze(x, *range(len(batch) + len(rows), len(letters)))
        if rows:
            y = emit.unsqueeze(y, *range(len(batch), len(batch) + len(rows)))
        return out(ops.multiply(x, y)), "".join(letters)
    x = emit.transpose(a, [left.index(letter) for letter in [*batch, *rows, *summed_over]])
    y = emit.transpose(b, [right.index(letter) for letter in [*batch, *summed_over, *columns]])
    x = _grouped(emit, x, [size_a[letter] for letter in batch], len(rows), len(summed_over))
    y = _grouped(emit, y, [size_b[letter] for letter in batch], len(summed_over), len(columns))
    found = multiplied(emit, x, y)
    letters = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        lead = [_larger(size_a[letter], size_b[letter]) for letter in batch]
        sizes = [*lead, *(size_a[letter] for letter in rows), *(size_b[letter] for letter in columns)]
        found = emit.reshape(found, sizes)
    return found, "".join(letters)


def _larger(a: int, b: int) -> int:
    return b if isinstance(a, int) and a == 1 else a


def _summed_out(emit: Emitter, x: Tensor, term: str, gone: set[str]) -> tuple[Tensor | str, Tensor | str]:
    if not gone:
        return x, term
    axes = [term.index(letter) for letter in gone]
    return summed(emit, x, axes, False), "".join(t for t in term if t not in gone)


def _grouped(emit: Emitter, x: Tensor, batch: Sequence[int], first: int, second: int) -> Tensor:
    """`x` as [*batch, first axes merged, second axes merged]."""
    if first == 1 and second == 1:
        return x
    sizes = emit.sizes(x)
    lead = len(batch)
    merged = []
    for part in (sizes[lead : lead + first], sizes[lead + first :]):
        whole = 1
        for size in part:
            whole = emit.times(size, whole)
        merged.append(whole)
    return emit.reshape(x, [*sizes[:lead], *merged])


@lowers("aten.inverse.default")
@lowers("aten.linalg_inv.default", self=Arg("A"))
def inverse(emit: Emitter, self: Tensor) -> Tensor:
    return ops.inverse(self)


@lowers("aten.linalg_inv_ex.default")
def linalg_inv_ex(emit: Emitter, A: Tensor, **_: object) -> list[Tensor]:
    return [ops.inverse(A), emit.full(emit.sizes(A)[:-2], 0, torch.int32)]
