# SPDX-License-Identifier: Apache-2.0
"""Where in a generated module each node is computed: statement by statement, and which part of a statement.

The lowering writes it into `port.json`; `paritas.run.mindspore.nodes` finds the expressions in the module's syntax
tree again, which does not depend on how the source is laid out.
"""

from __future__ import annotations

import ast
import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: The text of an expression and the name of the node that it computes, inner ones first. A call of another cell
#: computes no node itself: CALL and the key of what it calls is its name.
Parts = list[tuple[str, str]]

CALL = "@"


@dataclasses.dataclass(frozen=True)
class Step:
    """A statement: its checksum, and where in the expression's tree which nodes are."""

    checksum: int
    nodes: tuple[tuple[str, str], ...]  # (place: "" or "args.0.left", name), inner ones first
    #: The keys of the cells' calls in it, in the order in which they are made.
    calls: tuple[str, ...] = ()

    def to_json(self) -> list[Any]:
        return [self.checksum, [list(pair) for pair in self.nodes]]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Step:
        return cls(int(data[0]), tuple((str(place), str(name)) for place, name in data[1]))


def step_of(line: str, parts: Parts) -> Step:
    """The step that a line of source is: an assignment, or a return."""
    statement = ast.parse(f"def f():\n {line}").body[0].body[0]  # type: ignore[attr-defined]
    value = expression_of(statement)
    assert value is not None
    found: list[tuple[str, str]] = []
    places: dict[str, list[str]] = {}
    if parts:
        for place, node in walk(value):
            places.setdefault(ast.dump(node), []).append(place)
    for text, name in parts:
        free = places.get(ast.dump(ast.parse(text, mode="eval").body), [])
        if free:  # else it was folded into another one's text
            found.append((free.pop(0), name))
    order = {place: number for number, place in enumerate(_evaluated(value))}
    calls = sorted((order[place], name) for place, name in found if name.startswith(CALL))
    nodes = tuple((place, name) for place, name in found if not name.startswith(CALL))
    return Step(checksum(statement), nodes, tuple(name.removeprefix(CALL) for _, name in calls))


def expression_of(statement: ast.stmt) -> ast.expr | None:
    """What a statement of `construct` computes; None for statements that are neither assignment nor return."""
    return statement.value if isinstance(statement, (ast.Assign, ast.Return)) else None


def walk(node: ast.AST, place: str = "") -> Iterator[tuple[str, ast.expr]]:
    """Every expression within one, and the way to it."""
    if isinstance(node, ast.expr):
        yield place, node
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield from walk(value, f"{place}.{field}".lstrip("."))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from walk(item, f"{place}.{field}.{index}".lstrip("."))


def _evaluated(node: ast.AST, place: str = "") -> Iterator[str]:
    """The places in the order in which Python evaluates them: what is inside an expression comes before it."""
    for field, value in ast.iter_fields(node):
        for index, item in enumerate(value) if isinstance(value, list) else [("", value)]:
            if isinstance(item, ast.AST):
                yield from _evaluated(item, f"{place}.{field}.{index}".strip("."))
    yield place


def in_order(first: str, called: Mapping[str, Sequence[Step]]) -> Iterator[str]:
    """The keys of all calls that the call `first` leads to, itself first, in the order in which they are made."""
    yield first
    for step in called[first]:
        for key in step.calls:
            yield from in_order(key, called)


def of_function(name: str) -> str:
    """Where the steps of a function of the file are, beside those of cells: no path of a cell ends so."""
    return f"{name}()"


def checksum(statement: ast.stmt) -> int:
    return zlib.crc32(ast.dump(statement).encode())


def to_json(steps: Mapping[str, Sequence[Sequence[Step]]]) -> dict[str, Any]:
    """path of a cell -> the steps of each of its calls, as JSON."""
    return {path: [[step.to_json() for step in call] for call in calls] for path, calls in steps.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, list[list[Step]]]:
    return {path: [[Step.from_json(step) for step in call] for call in calls] for path, calls in data.items()}
