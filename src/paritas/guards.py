# SPDX-License-Identifier: Apache-2.0
"""What a port asks of the sizes of a call: the ways that the model's code took while it was captured.

A guard is an expression over the names of the dynamic dimensions, in a small part of Python's own grammar. It is read
without being executed, since whoever writes a `port.json` may be anyone.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paritas.program import Guard, TensorSpec

#: More than a model's code asks, and few enough to be read and checked in no time.
MOST_GUARDS, MOST_CHARACTERS, MOST_NODES, DEEPEST, MOST_BITS = 512, 10_000, 2000, 100, 4096

Sizes = Mapping[str, int]
_Value = Callable[[Sizes], Any]


class NotAGuard(ValueError):
    """A text is not in the grammar of guards; says what is wrong."""


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and abs(base).bit_length() * abs(exponent) > MOST_BITS:
        raise OverflowError("a power too large")
    return base**exponent


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "round": round,
    "float": float,
    "sqrt": math.sqrt,
}


@functools.lru_cache(maxsize=4096)
def parsed(text: str) -> tuple[tuple[str, ...], _Value]:
    """The names in an expression, and a function of their sizes. Raises `NotAGuard`.

    The function raises `ArithmeticError` or `ValueError` where there is no value.
    """
    if len(text) > MOST_CHARACTERS:
        raise NotAGuard(f"it has {len(text)} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotAGuard("it is no expression") from None
    level: list[ast.AST] = [tree]
    nodes = depth = 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MOST_NODES or depth > DEEPEST:
            raise NotAGuard("it is too long")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    names: dict[str, None] = {}
    value = _compiled(tree, names)
    return tuple(names), value


def _compiled(node: ast.AST, names: dict[str, None]) -> _Value:
    match node:
        case ast.Constant(value=constant) if type(constant) in (int, float, bool):
            if isinstance(constant, int) and constant.bit_length() > 64:
                raise NotAGuard("a number is too large")
            return lambda sizes: constant
        case ast.Name(id=name):
            names[name] = None
            return operator.itemgetter(name)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            minus = _compiled(inner, names)
            return lambda sizes: -minus(sizes)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            denied = _compiled(inner, names)
            return lambda sizes: not denied(sizes)
        case ast.BoolOp(op=op, values=inner):
            parts = [_compiled(part, names) for part in inner]
            if isinstance(op, ast.And):
                return lambda sizes: all(part(sizes) for part in parts)
            return lambda sizes: any(part(sizes) for part in parts)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _of_two(_OPERATORS[type(op)], left, right, names)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _of_two(_COMPARISONS[type(op)], left, right, names)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _FUNCTIONS and arguments
        ):
            function, given = _FUNCTIONS[name], [_compiled(argument, names) for argument in arguments]
            return lambda sizes: function(*[value(sizes) for value in given])
    raise NotAGuard(f"it has a {type(node).__name__}, which no guard has")


def _of_two(
    function: Callable[[Any, Any], Any], left: ast.AST, right: ast.AST, names: dict[str, None]
) -> _Value:
    one, other = _compiled(left, names), _compiled(right, names)
    return lambda sizes: function(one(sizes), other(sizes))


def can_be_read(text: str) -> bool:
    """Whether an expression is in the grammar of guards, and short enough to be one."""
    try:
        parsed(text)
    except NotAGuard:
        return False
    return True


def names_in(guard: Guard) -> set[str]:
    """The dynamic dimensions that a guard is about."""
    return set(parsed(guard.holds)[0])


def holds(guard: Guard, sizes: Sizes) -> bool:
    """Whether a guard holds of these sizes; not where one of them is unknown, or where it has no value."""
    try:
        return bool(parsed(guard.holds)[1](sizes))
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return False


def broken(guards: Sequence[Guard], sizes: Sizes) -> list[Guard]:
    """The guards that do not hold of these sizes."""
    return [guard for guard in guards if not holds(guard, sizes)]


def complaint(guard: Guard, specs: Sequence[TensorSpec], sizes: Sizes) -> str:
    """What a caller is told: what was asked of which size, which size came, where the model asks, what to do."""
    names = parsed(guard.holds)[0]
    places = {name: place_of(name, specs) for name in names}
    came = ", ".join(f"{places[name]} is {sizes[name]}" for name in names if name in sizes)
    asked = f", which the model's code asks at {guard.where}" if guard.where else ""
    return (
        f"{came or 'sizes'}: this port was made for {in_words(guard.holds, places)}{asked}. "
        "Make another port with an example of such sizes"
    )


def place_of(name: str, specs: Sequence[TensorSpec]) -> str:
    """Where a caller finds a dynamic dimension: "x.shape[1]"."""
    for spec in specs:
        if name in spec.dims:
            return f"{spec.name}.shape[{spec.dims.index(name)}]"
    return name


def in_words(text: str, places: Mapping[str, str]) -> str:
    """An expression with the places of its sizes instead of their names."""
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in places:
            node.id = places[node.id]
    return ast.unparse(tree)


def remaining(
    guards: Sequence[Guard], before: Sequence[TensorSpec], after: Sequence[TensorSpec]
) -> tuple[Guard, ...]:
    """The guards where some dimensions of the inputs have become constants since: those that still ask something."""
    known: dict[str, int] = {}
    for one, other in zip(before, after, strict=True):
        known |= {
            str(dim): now
            for dim, now in zip(one.dims, other.dims, strict=True)
            if isinstance(now, int) and not isinstance(dim, int)
        }
    found = []
    for guard in guards:
        names, _ = parsed(guard.holds)
        if set(names) <= known.keys() and holds(guard, known):
            continue
        found.append(Guard(_with_numbers(guard.holds, known), guard.where))
    return tuple(found)


def _with_numbers(text: str, known: Sizes) -> str:
    if not known:
        return text
    return in_words(text, {name: str(size) for name, size in known.items()})
