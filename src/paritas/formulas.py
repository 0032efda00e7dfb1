# SPDX-License-Identifier: Apache-2.0
"""Sizes as formulas of other sizes, as a capture writes them: "s0//2 + 1", "Max(1, s0)", "s0 > s1"."""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.BitAnd: lambda a, b: a and b,
    ast.BitOr: lambda a, b: a or b,
}
_UNARY: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.not_,
}
_COMPARED: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
#: What torch and sympy write as calls.
_CALLED: dict[str, Callable[..., Any]] = {
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "ToFloat": float,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "Max": max,
    "Min": min,
    "Abs": abs,
    "Eq": operator.eq,
    "Ne": operator.ne,
}
_MOST = 3  # the largest power, so that no formula of a file takes long


class NoFormula(ValueError):
    """The text says something else than arithmetic on known sizes."""


@functools.lru_cache(maxsize=4096)
def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise NoFormula(text) from None


def names(text: str) -> tuple[str, ...]:
    """The sizes that a formula is made of. Raises `NoFormula`."""
    tree = _tree(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return tuple(sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called}))


def value(text: str, sizes: Mapping[str, int]) -> Any:
    """What the formula is for these sizes: a number or a bool. Raises `NoFormula`."""
    try:
        return _value(_tree(text), sizes)
    except (ZeroDivisionError, OverflowError, TypeError, RecursionError):
        raise NoFormula(text) from None


def _value(node: ast.AST, sizes: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        return node.value
    if isinstance(node, ast.Name) and node.id in sizes:
        return sizes[node.id]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand, sizes))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        power = _value(node.right, sizes)
        if type(power) is int and 0 <= power <= _MOST:
            return _value(node.left, sizes) ** power
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
        left, right = _value(node.left, sizes), _value(node.comparators[0], sizes)
        return _COMPARED[type(node.ops[0])](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        known = _CALLED.get(node.func.id)
        if known is not None:
            return known(*(_value(argument, sizes) for argument in node.args))
    raise NoFormula(ast.unparse(node)[:80])
