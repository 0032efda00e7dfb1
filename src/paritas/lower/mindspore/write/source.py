# SPDX-License-Identifier: Apache-2.0
"""Python source text: expressions with their precedence, and statements wrapped to the line length."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

LINE_LENGTH = 100

_NAME = re.compile(r"(?<![\w.])[^\W\d]\w*")


#: A size in a program: an int, a sympy expression of free sizes, or the `Value` that computes one.
Size: TypeAlias = Any
Sizes: TypeAlias = Sequence[Size]
#: A number: Python's, or the `Value` of one that is made of free sizes.
Scalar: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Value:
    """A Python expression in generated code, and what it evaluates to.

    `shape` holds ints and sympy expressions, `dtype` is torch's name ("float32"); what is no tensor has "" for a dtype
    and None for a shape. An expression that is not atomic is put in parentheses inside another one.
    """

    text: str
    dtype: str = ""
    shape: Any = None
    atomic: bool = True

    @property
    def rank(self) -> int:
        assert self.shape is not None, self.text
        return len(self.shape)

    @property
    def names(self) -> frozenset[str]:
        """The local variables that the text may read (and words that are none, which does no harm)."""
        return frozenset(_NAME.findall(self.text))

    def __str__(self) -> str:
        return self.text


def operand(value: object) -> str:
    """`value` as an operand of an infix operator or of an attribute access."""
    text = literal(value)
    if isinstance(value, Value) and not value.atomic:
        return f"({text})"
    return f"({text})" if text.startswith("-") else text


def literal(value: object) -> str:
    """The source text of a value, a constant, or a sequence of them."""
    if isinstance(value, Value):
        return value.text
    if isinstance(value, float):
        if value != value:
            return 'float("nan")'
        if value in (float("inf"), float("-inf")):
            return 'float("inf")' if value > 0 else '-float("inf")'
        return repr(value).replace("e+", "e")
    if isinstance(value, str):
        plain = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(plain)}"'
    if isinstance(value, tuple):
        inner = ", ".join(literal(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, list):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return repr(value)


def printable(text: str) -> str:
    """`text` on one line, and without what a terminal or an editor would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def arguments(args: Sequence[object], kwargs: dict[str, object]) -> str:
    return ", ".join([*(literal(a) for a in args), *(f"{k}={literal(v)}" for k, v in kwargs.items())])


def wrap(statement: str, indent: int) -> list[str]:
    """`statement` as lines of at most `LINE_LENGTH`, broken inside its outermost brackets, one element a line."""
    pad = " " * indent
    if len(pad) + len(statement) <= LINE_LENGTH:
        return [pad + statement]
    if statement.startswith("return ") and len(split_top_level(statement[7:])) > 1:
        return wrap(f"return ({statement[7:]})", indent)
    opening = _last_top_level_bracket(statement)
    if opening is None:
        return [pad + statement]
    closing = _matching(statement, opening)
    head, inner, tail = (statement[: opening + 1], statement[opening + 1 : closing], statement[closing:])
    if not inner.strip():
        return [pad + statement]
    earlier = _last_top_level_bracket(head[:-1])
    if len(pad + head) > LINE_LENGTH and earlier is not None:
        # "x = a(...) + b(...)": both pairs of brackets are opened.
        before = wrap(head[:-1].rstrip() if head[:-1].endswith(" ") else head[:-1], indent)
        last = statement[opening:]
        if len(f"{pad}{before[-1]}{last}") <= LINE_LENGTH:
            return [*before[:-1], before[-1] + last]
        rest = wrap(f"_{last}", indent)
        return [*before[:-1], before[-1] + rest[0].strip().removeprefix("_"), *rest[1:]]
    flat = pad + "    " + inner
    if len(flat) <= LINE_LENGTH and not inner.endswith(","):
        return [pad + head, flat, pad + tail]
    parts = split_top_level(inner)
    lines = [pad + head]
    for part in parts:
        lines += wrap(part + ("," if len(parts) > 1 or inner.rstrip().endswith(",") else ""), indent + 4)
    return [*lines, pad + tail]


def split_top_level(text: str) -> list[str]:
    """`text` cut at the commas that are inside no bracket and no string."""
    parts, depth, start, quoted = [], 0, 0, False
    for position, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        if quoted:
            continue
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    rest = text[start:].strip()
    return [*parts, rest] if rest else parts


def _last_top_level_bracket(text: str) -> int | None:
    depth, found, quoted = 0, None, False
    for position, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        if quoted:
            continue
        if char in "([{":
            if depth == 0:
                found = position
            depth += 1
        elif char in ")]}":
            depth -= 1
    return found


def _matching(text: str, opening: int) -> int:
    depth, quoted = 0, False
    for position in range(opening, len(text)):
        char = text[position]
        if char == '"':
            quoted = not quoted
        if quoted:
            continue
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return position
    raise ValueError(f"unbalanced brackets in {text!r}")
