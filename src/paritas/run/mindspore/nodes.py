# SPDX-License-Identifier: Apache-2.0
"""Every node of a generated MindSpore module by itself: its statements, each value replaced once it was seen."""

from __future__ import annotations

import ast
import contextlib
import difflib
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from paritas.lower.mindspore.write.steps import Step, checksum, expression_of, of_function, walk

_SEE, _ENTER, _CALL = "__paritas_see__", "__paritas_enter__", "__paritas_call__"


def names(steps: Mapping[str, list[list[Step]]]) -> set[str]:
    """The nodes that some statement computes. What was fused into another node is none."""
    return {name for calls in steps.values() for call in calls for step in call for _, name in step.nodes}


@contextlib.contextmanager
def watched(
    module: types.ModuleType,
    source: str,
    cell: Any,
    steps: Mapping[str, list[list[Step]]],
    replace: Callable[[str, Any], Any],
) -> Iterator[None]:
    """While it is open, the cells of `module` hand `replace(node, value)` what they compute and go on with its result.

    For PyNative mode. A statement that was edited since it was generated is matched by its place.
    """
    paths = {id(one): path for path, one in cell.cells_and_names()}
    counts: dict[str, int] = {}
    matched: dict[tuple[str, int, str], dict[int, Step]] = {}
    tree = ast.parse(source)
    places = {place for calls in steps.values() for call in calls for step in call for place, _ in step.nodes}
    bodies = {}
    for definition in tree.body:
        if isinstance(definition, ast.ClassDef):
            for item in definition.body:
                if isinstance(item, ast.FunctionDef) and item.name != "__init__":
                    key = f"{definition.name}.{item.name}"
                    bodies[key] = [checksum(s) for s in item.body if expression_of(s) is not None]
                    _instrument(item, key, places, "self")
        elif isinstance(definition, ast.FunctionDef) and of_function(definition.name) in steps:
            key = of_function(definition.name)
            bodies[key] = [checksum(s) for s in definition.body if expression_of(s) is not None]
            _instrument(definition, key, places, "None")

    def enter(self: Any, key: str) -> dict[int, Step]:
        path = paths.get(id(self), "") if self is not None else key  # a function is of no cell
        call = counts[path] = counts.get(path, -1) + 1
        calls = steps.get(path, [])
        if call >= len(calls):
            return {}
        known = matched.get((path, call, key))
        if known is None:
            known = matched[path, call, key] = _matched(calls[call], bodies[key])
        return known

    def see(steps_of_call: dict[int, Step], statement: int, place: str, value: Any) -> Any:
        step = steps_of_call.get(statement)
        for at, name in step.nodes if step is not None else ():
            if at == place:
                value = replace(name, value)
        return value

    space = {**vars(module), _SEE: see, _ENTER: enter}
    exec(compile(ast.fix_missing_locations(tree), str(module.__file__), "exec"), space)  # noqa: S102 - checked source
    saved = []
    try:
        for key in bodies:
            name, _, method = key.partition(".")
            if not method:
                continue  # the methods below call it by what `space` has under its name
            cls = getattr(module, name)
            saved.append((cls, method, vars(cls)[method]))
            setattr(cls, method, vars(space[name])[method])
        yield
    finally:
        for cls, method, original in saved:
            setattr(cls, method, original)


def _instrument(function: ast.FunctionDef, key: str, places: set[str], cell: str) -> None:
    number = 0
    for statement in function.body:
        value = expression_of(statement)
        if value is None:
            continue
        statement.value = _Wrapper(value, number, places).visit(value)  # type: ignore[attr-defined]
        number += 1
    function.body[:0] = ast.parse(f"{_CALL} = {_ENTER}({cell}, {key!r})").body


class _Wrapper(ast.NodeTransformer):
    """Puts calls of `see` around the expressions at some places of a statement."""

    def __init__(self, whole: ast.expr, statement: int, places: set[str]) -> None:
        self.statement = statement
        self.place = {id(node): place for place, node in walk(whole) if place in places}

    def visit(self, node: ast.AST) -> Any:
        place = self.place.get(id(node))
        visited = self.generic_visit(node)
        if place is None or not isinstance(visited, ast.expr):
            return visited
        given = [ast.Name(_CALL, ast.Load()), ast.Constant(self.statement), ast.Constant(place), visited]
        return ast.Call(ast.Name(_SEE, ast.Load()), given, [])


def _matched(steps: list[Step], checksums: list[int]) -> dict[int, Step]:
    """Number of a statement in the source -> the step that it is, which it may be in other words by now."""
    found: dict[int, Step] = {}
    matcher = difflib.SequenceMatcher(None, [step.checksum for step in steps], checksums, autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        old = steps[first:last]
        if len(old) > end - start:  # calls of cells, which a loop does together, are steps of no nodes
            old = [step for step in old if step.nodes]
        if kind in ("equal", "replace"):
            found |= dict(zip(range(start, end), old, strict=False))
    return found


def replacing(
    given: Mapping[str, np.ndarray],
    seen: Callable[[str, np.ndarray], None],
    to_numpy: Any,
    to_tensor: Any,
    shown: Collection[str] | None = None,
) -> Callable[[str, Any], Any]:
    """A `replace` for `watched`: shows what was computed, and goes on with what is given.

    shown: the nodes to show; those that are given, if None.
    """

    def replace(name: str, value: Any) -> Any:
        show = name in (given if shown is None else shown)
        if not (show or name in given) or not hasattr(value, "asnumpy"):
            return value
        got = to_numpy(value)
        if show:
            seen(name, got)
        return to_tensor(given[name].astype(got.dtype, copy=False)) if name in given else value

    return replace
