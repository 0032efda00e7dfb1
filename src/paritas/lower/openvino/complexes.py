# SPDX-License-Identifier: Apache-2.0
"""Complex numbers, which OpenVINO has not: a complex tensor is a float32 one with a last axis of 2.

What only moves or adds is done to both parts by the rule for real tensors; a product of two is four products of real
ones. All else has a rule of its own, marked by `complex_numbers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Output, concatenated, is_tensor, out, rank_of
from paritas.lower.registry import Lowering

#: Each part goes through the rule by itself; whatever is not complex among the arguments is the same for both.
_MOVING = """
    reshape.default view.default _unsafe_view.default view_as.default reshape_as.default flatten.using_ints
    unflatten.int unsqueeze.default squeeze.dim squeeze.dims squeeze.default permute.default transpose.int
    swapaxes.default movedim.int movedim.intlist t.default numpy_T.default mT.default expand.default
    expand_as.default broadcast_to.default slice.Tensor narrow.default select.int unbind.int split.Tensor
    split_with_sizes.default chunk.default repeat.default tile.default flip.default roll.default index.Tensor
    index_select.default gather.default clone.default alias.default contiguous.default detach.default
    neg.default sum.dim_IntList sum.default mean.dim mean.default cumsum.default repeat_interleave.self_int
    tril.default triu.default constant_pad_nd.default take.default masked_select.default lift_fresh_copy.default
""".split()  # noqa: SIM905
#: Real tensors and numbers among the arguments have an imaginary part of 0.
_ADDING = """
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar rsub.Tensor cat.default stack.default where.self
    where.ScalarOther where.ScalarSelf masked_fill.Scalar masked_fill.Tensor
""".split()  # noqa: SIM905
#: Linear in each of two operands.
_MULTIPLYING = """
    mul.Tensor mul.Scalar multiply.Tensor matmul.default mm.default bmm.default mv.default dot.default
    outer.default einsum.default linear.default
""".split()  # noqa: SIM905


#: What else is known of complex numbers, by overloads that real numbers have rules for too.
OTHERS: dict[str, Lowering] = {}


def also_complex(*targets: str) -> Callable[[Lowering], Lowering]:
    """Registers what lowers these overloads where there are complex numbers in it."""

    def register(rule: Lowering) -> Lowering:
        OTHERS.update(dict.fromkeys(targets, rule))
        return rule

    return register


def of_complex(name: str, rule: Lowering) -> Lowering | None:
    """What lowers the operator where complex numbers are among its arguments or results; None if nothing does."""
    if getattr(rule, "complex", False):
        return rule
    if name in OTHERS:
        return OTHERS[name]
    short = name.removeprefix("aten.")
    if short in _MOVING:
        return _in_parts(rule, None)
    if short in _ADDING:
        return _in_parts(rule, _zero)
    if short in _MULTIPLYING:
        return _product(rule)
    return None


def parts(emit: Emitter, value: Any) -> tuple[Any, Any]:
    """(real, imaginary) of a tensor or number; a real one's imaginary part is 0."""
    if is_tensor(value):
        known = emit.meta(value)
        if known is None or not known.is_complex():
            return value, _zero(emit, value)
        pair = tuple(out(ops.gather(value, np.int64(part), np.int64(-1))) for part in range(2))
        for part in pair:
            emit.learn(part, known.real)
        return pair[0], pair[1]
    if isinstance(value, complex):
        return value.real, value.imag
    return value, 0


def _zero(emit: Emitter, value: Any) -> Any:
    if not is_tensor(value):
        return 0
    kind = out(value).get_element_type().to_dtype()
    found = out(ops.broadcast(np.array(0, kind), emit.shape_of(value)))
    known = emit.meta(value)
    if known is not None:
        emit.learn(found, known)
    return found


def paired(emit: Emitter, real: Any, imaginary: Any) -> Output:
    """Both parts as one tensor."""
    real, imaginary = emit.cast(real, torch.float32), emit.cast(imaginary, torch.float32)
    rank = rank_of(real)
    return concatenated([emit.unsqueeze(x, rank) for x in (real, imaginary)], rank)


def _is_complex(emit: Emitter, value: Any) -> bool:
    if isinstance(value, complex):
        return True
    known = emit.meta(value) if is_tensor(value) else None
    return known is not None and known.is_complex()


def _part(emit: Emitter, value: Any, which: int, zero: Callable[..., Any] | None) -> Any:
    if isinstance(value, (list, tuple)):
        return [_part(emit, item, which, zero) for item in value]
    if _is_complex(emit, value):
        return parts(emit, value)[which]
    if which and zero is not None and is_tensor(value) and emit.dtype_of(value) != torch.bool:
        return zero(emit, value)
    return value


def _in_parts(rule: Lowering, zero: Callable[..., Any] | None) -> Lowering:
    def lowering(emit: Emitter, *arguments: Any, **options: Any) -> Any:
        found = []
        for which in range(2):
            given = [_part(emit, value, which, zero) for value in arguments]
            if zero is not None and which:
                given = [
                    0.0 if isinstance(value, (int, float)) and not isinstance(value, bool) and _is_number(emit, i)
                    else value
                    for i, value in enumerate(given)
                ]  # fmt: skip
            found.append(rule(emit.of_parts(), *given, **options))
        if isinstance(found[0], (list, tuple)):
            return [paired(emit, real, imaginary) for real, imaginary in zip(*found, strict=True)]
        return paired(emit, *found)

    return lowering


def _is_number(emit: Emitter, place: int) -> bool:
    """Whether the argument at this place is an operand, and no axis or the like."""
    return emit.node.target._schema.arguments[place].name in ("self", "other", "value")  # type: ignore[union-attr]


def _product(rule: Lowering) -> Lowering:
    def lowering(emit: Emitter, *arguments: Any, **options: Any) -> Any:
        listed = next((i for i, value in enumerate(arguments) if isinstance(value, (list, tuple))), None)
        operands: Sequence[Any] = arguments[:2] if listed is None else arguments[listed]
        if len(operands) != 2 or (listed is None and len(arguments) != 2):
            raise emit.refuse("there are complex numbers in it, and no rule for so many operands")
        (a, b), (c, d) = (parts(emit, value) for value in operands)
        both = [_is_complex(emit, value) for value in operands]

        def times(x: Any, y: Any) -> Any:
            if listed is None:
                return rule(emit.of_parts(), x, y, **options)
            given = [[x, y] if i == listed else value for i, value in enumerate(arguments)]
            return rule(emit.of_parts(), *given, **options)

        if not both[1]:
            return paired(emit, times(a, c), times(b, c))
        if not both[0]:
            return paired(emit, times(a, c), times(a, d))
        return paired(emit, ops.subtract(times(a, c), times(b, d)), ops.add(times(a, d), times(b, c)))

    return lowering
