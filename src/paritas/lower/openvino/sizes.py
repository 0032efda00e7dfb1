# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on sizes: Python numbers stay Python numbers, free sizes are i64 scalars read from shapes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, is_tensor, out
from paritas.lower.openvino.integers import division_of_sizes


def compute(emit: Emitter, name: str, arguments: Sequence[Any]) -> Any:
    """The value of a node that computes a size: a Python number, or a scalar output (i64, f32 or boolean).

    Raises `LoweringError` for what there is no translation of.
    """
    if name in _OF_TENSORS:
        return _OF_TENSORS[name](emit, *arguments)
    if name not in _RULES:
        raise emit.refuse(f"the size arithmetic {name} has no translation")
    python, rule = _RULES[name]
    if not any(is_tensor(value) for value in _flat(arguments)):
        return python(*arguments)
    return out(rule(emit, *arguments))


def _flat(values: Sequence[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]


def _kind(values: Sequence[Any]) -> torch.dtype:
    """float32 if one of them is no whole number."""

    def is_float(value: Any) -> bool:
        if is_tensor(value):
            return out(value).get_element_type().to_string() == "f32"
        return isinstance(value, float)

    return torch.float32 if any(map(is_float, values)) else torch.int64


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(emit: Emitter, a: Any, b: Any) -> Any:
        kind = _kind((a, b))
        return function(emit.number(a, kind), emit.number(b, kind))

    return rule


def _logical(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda emit, *values: function(*(emit.number(value, torch.bool) for value in values))


def _bits(truths: Callable[..., Any], numbers: Callable[..., Any]) -> Callable[..., Any]:
    """Of truths and of whole numbers."""

    def rule(emit: Emitter, a: Any, b: Any) -> Any:
        if all(_is_truth(value) for value in (a, b)):
            return truths(emit.number(a, torch.bool), emit.number(b, torch.bool))
        return numbers(emit.number(a), emit.number(b))

    return rule


def _is_truth(value: Any) -> bool:
    if is_tensor(value):
        return bool(out(value).get_element_type().to_string() == "boolean")
    return isinstance(value, bool)


def _shifted_left(emit: Emitter, a: Any, places: Any) -> Any:
    if not isinstance(places, int):
        raise emit.refuse("a size is shifted by another size")
    return ops.multiply(emit.number(a), emit.number(1 << places))


def _shifted_right(emit: Emitter, a: Any, places: Any) -> Any:
    if not isinstance(places, int):
        raise emit.refuse("a size is shifted by another size")
    return division_of_sizes(emit.number(a), emit.number(1 << places))[0]


def _rounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(emit: Emitter, a: Any) -> Any:
        if _kind((a,)) == torch.int64:
            return a
        return ops.convert(function(a), "i64")

    return rule


def _round(emit: Emitter, a: Any, ndigits: Any = None) -> Any:
    """`round`: a whole number without digits, and a float with them."""
    if _kind((a,)) == torch.int64:
        if ndigits is not None and ndigits < 0:
            raise emit.refuse("a size is rounded to tens or hundreds")
        return a
    if ndigits is None:
        return ops.convert(ops.round(a, "half_to_even"), "i64")
    if ndigits:
        raise emit.refuse("a number made of a size is rounded to decimal places")
    return ops.round(a, "half_to_even")


def _floordiv(emit: Emitter, a: Any, b: Any) -> Any:
    if _kind((a, b)) == torch.float32:
        return ops.floor(ops.divide(emit.number(a, torch.float32), emit.number(b, torch.float32)))
    return division_of_sizes(emit.number(a), emit.number(b))[0]


def _mod(emit: Emitter, a: Any, b: Any) -> Any:
    return division_of_sizes(emit.number(a), emit.number(b))[1]


def _truediv(emit: Emitter, a: Any, b: Any) -> Any:
    return ops.divide(emit.number(a, torch.float32), emit.number(b, torch.float32))


def _exact_quotient(emit: Emitter, a: Any, b: Any) -> Any:
    return _truediv(emit, a, b)


def _pow(emit: Emitter, a: Any, b: Any) -> Any:
    if isinstance(b, int) and 0 < b < 9 and _kind((a,)) == torch.int64:
        found = a
        for _ in range(b - 1):
            found = ops.multiply(found, a)
        return found
    return ops.power(emit.number(a, torch.float32), emit.number(b, torch.float32))


def _choose(emit: Emitter, condition: Any, a: Any, b: Any) -> Any:
    kind = _kind((a, b))
    return ops.select(emit.number(condition, torch.bool), emit.number(a, kind), emit.number(b, kind))


def _sum(emit: Emitter, values: Sequence[Any]) -> Any:
    total: Any = 0
    for value in values:
        total = emit.plus(value, total)
    return total


def _size(emit: Emitter, x: Any, axis: int) -> Any:
    return emit.size(x, axis)


def _numel(emit: Emitter, x: Any) -> Any:
    total: Any = 1
    for size in emit.sizes(x):
        total = emit.times(size, total)
    return total


def _item(emit: Emitter, x: Any) -> Any:
    value = emit.meta(x)
    kind = value.dtype if value is not None else torch.int64
    wanted = torch.bool if kind == torch.bool else torch.float32 if kind.is_floating_point else torch.int64
    return ops.reshape(emit.cast(x, wanted), emit.array([]), False).output(0)


_OF_TENSORS: dict[str, Callable[..., Any]] = {
    "aten.sym_size.int": _size,
    "aten.sym_numel.default": _numel,
    "aten.item.default": _item,
    "aten._local_scalar_dense.default": _item,
}

_RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (operator.add, _binary(ops.add)),
    "sub": (operator.sub, _binary(ops.subtract)),
    "mul": (operator.mul, _binary(ops.multiply)),
    "floordiv": (operator.floordiv, _floordiv),
    "mod": (operator.mod, _mod),
    "truediv": (operator.truediv, _truediv),
    "int_truediv": (operator.truediv, _exact_quotient),
    "pow": (operator.pow, _pow),
    "neg": (operator.neg, lambda emit, a: ops.negative(a)),
    "pos": (operator.pos, lambda emit, a: a),
    "abs": (operator.abs, lambda emit, a: ops.abs(a)),
    "eq": (operator.eq, _binary(ops.equal)),
    "ne": (operator.ne, _binary(ops.not_equal)),
    "lt": (operator.lt, _binary(ops.less)),
    "le": (operator.le, _binary(ops.less_equal)),
    "gt": (operator.gt, _binary(ops.greater)),
    "ge": (operator.ge, _binary(ops.greater_equal)),
    "and_": (operator.and_, _bits(ops.logical_and, ops.bitwise_and)),
    "or_": (operator.or_, _bits(ops.logical_or, ops.bitwise_or)),
    "lshift": (operator.lshift, _shifted_left),
    "rshift": (operator.rshift, _shifted_right),
    "sym_not": (operator.not_, _logical(ops.logical_not)),
    "sym_max": (max, _binary(ops.maximum)),
    "sym_min": (min, _binary(ops.minimum)),
    "max": (max, _binary(ops.maximum)),
    "min": (min, _binary(ops.minimum)),
    "sym_float": (float, lambda emit, a: emit.number(a, torch.float32)),
    "sym_int": (int, lambda emit, a: emit.number(a)),
    "sym_ite": (lambda c, a, b: a if c else b, _choose),
    "sym_sum": (sum, _sum),
    "ceil": (math.ceil, _rounded(ops.ceiling)),
    "floor": (math.floor, _rounded(ops.floor)),
    "trunc": (math.trunc, _rounded(lambda a: a)),
    "round": (round, _round),
    "_sym_sqrt": (math.sqrt, lambda emit, a: ops.sqrt(emit.number(a, torch.float32))),
    "sqrt": (math.sqrt, lambda emit, a: ops.sqrt(emit.number(a, torch.float32))),
}
