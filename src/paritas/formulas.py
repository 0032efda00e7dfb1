# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on sizes as text: "s0//2 + 1", "Max(1, s0)", "s0 % 2 == 0". There is no other reader of such texts.

Dimensions, sizes among the outputs, lengths and guards are written so. They are read without being executed, in a
small part of Python's own grammar, since whoever writes a `port.json` may be anyone.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

#: More than a model's code asks, and few enough to be read and computed in no time.
MOST_CHARACTERS, MOST_NODES, DEEPEST, MOST_BITS = 10_000, 2000, 100, 4096

Sizes = Mapping[str, int]
_Value = Callable[[Sizes], Any]


class NoFormula(ValueError):
    """A text is no arithmetic on sizes, or has no value for these; says why."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(base).bit_length() * abs(exponent) > MOST_BITS:
        raise OverflowError("a power too large")
    return base**exponent


def _shifted(value: int, places: int) -> int:
    if not 0 <= places <= 64:
        raise OverflowError("a shift too wide")
    return value << places


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
#: Functions by the names that we write, then by those that torch and sympy print.
_CALLED: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "round": round,
    "float": float,
    "sqrt": math.sqrt,
    "bit_and": operator.and_,
    "bit_or": operator.or_,
    "bit_xor": operator.xor,
    "shift": _shifted,
    "Min": min,
    "Max": max,
    "Abs": abs,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "PowByNatural": _power,
    "ToFloat": float,
    "CeilToInt": math.ceil,
    "ceiling": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "RoundToInt": round,
    "BitwiseFn_bitwise_and": operator.and_,
    "BitwiseFn_bitwise_or": operator.or_,
    "BitwiseFn_bitwise_xor": operator.xor,
    "LShift": _shifted,
    "RShift": operator.rshift,
    "Eq": operator.eq,
    "Ne": operator.ne,
}
#: What is true or false: sympy prints "and", "or" and "not" of these as & | ~, which mean something else of numbers.
_TRUTHS = (ast.Compare, ast.BoolOp)


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[tuple[str, ...], _Value]:
    """The sizes that a formula is made of, in its order, and its function of them. Raises `NoFormula`.

    The function raises `ArithmeticError`, `ValueError` or `TypeError` where there is no value, and `KeyError` for a
    size that is not given.
    """
    if len(text) > MOST_CHARACTERS:
        raise NoFormula(f"it has {len(text)} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NoFormula("it is no expression") from None
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MOST_NODES or depth > DEEPEST:
            raise NoFormula("it is too long")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    names: dict[str, None] = {}
    function = _compiled(tree, names)
    return tuple(names), function


def _compiled(node: ast.AST, names: dict[str, None]) -> _Value:
    match node:
        case ast.Constant(value=constant) if type(constant) in (int, float, bool):
            if isinstance(constant, int) and constant.bit_length() > 64:
                raise NoFormula("a number is too large")
            return lambda sizes: constant
        case ast.Name(id=name):
            names[name] = None
            return operator.itemgetter(name)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _compiled(inner, names)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            minus = _compiled(inner, names)
            return lambda sizes: -minus(sizes)
        case ast.UnaryOp(op=op, operand=inner) if isinstance(op, ast.Not) or _is_truth(inner):
            denied = _compiled(inner, names)
            return lambda sizes: not denied(sizes)
        case ast.BoolOp(op=op, values=values):
            return _joined(isinstance(op, ast.And), values, names)
        case ast.BinOp(left=left, op=(ast.BitAnd() | ast.BitOr()) as op, right=right) if _is_truth(left) and _is_truth(
            right
        ):
            return _joined(isinstance(op, ast.BitAnd), [left, right], names)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _of_two(_BINARY[type(op)], left, right, names)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
            return _of_two(_COMPARED[type(op)], left, right, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLED and arguments:
            function, given = _CALLED[name], [_compiled(argument, names) for argument in arguments]
            return lambda sizes: function(*[value(sizes) for value in given])
    raise NoFormula(f"it has a {type(node).__name__}, which no formula has")


def _is_truth(node: ast.AST) -> bool:
    match node:
        case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=inner):
            return _is_truth(inner)
        case ast.BinOp(left=left, op=ast.BitAnd() | ast.BitOr(), right=right):
            return _is_truth(left) and _is_truth(right)
        case ast.Call(func=ast.Name(id=name)):
            return name in ("Eq", "Ne")
        case ast.Constant(value=constant):
            return isinstance(constant, bool)
    return isinstance(node, _TRUTHS)


def _joined(all_of: bool, values: list[ast.expr], names: dict[str, None]) -> _Value:
    parts = [_compiled(part, names) for part in values]
    if all_of:
        return lambda sizes: all(part(sizes) for part in parts)
    return lambda sizes: any(part(sizes) for part in parts)


def _of_two(function: Callable[[Any, Any], Any], left: ast.AST, right: ast.AST, names: dict[str, None]) -> _Value:
    one, other = _compiled(left, names), _compiled(right, names)
    return lambda sizes: function(one(sizes), other(sizes))


def can_be_read(text: str) -> bool:
    """Whether a text is arithmetic on sizes, and short enough."""
    try:
        parsed(text)
    except NoFormula:
        return False
    return True


def value(text: str | int, sizes: Sizes) -> Any:
    """What the formula is for these sizes: a number or a bool. Raises `NoFormula`."""
    if isinstance(text, int):
        return text
    try:
        return parsed(text)[1](sizes)
    except KeyError as missing:
        raise NoFormula(f"{text[:80]}: nobody knows {str(missing)[:40]}") from None
    except NoFormula:
        raise
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise NoFormula(f"{text[:80]}: {error}") from None


def whole(text: str | int, sizes: Sizes) -> int | None:
    """The size that a formula is for these sizes; None where they do not say, or it is none."""
    try:
        found = value(text, sizes)
    except NoFormula:
        return None
    if isinstance(found, float) and found.is_integer():
        return int(found)  # sympy prints divisions without a rest so
    return int(found) if isinstance(found, int) else None
