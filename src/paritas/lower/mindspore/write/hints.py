# SPDX-License-Identifier: Apache-2.0
"""What a value is called: by the statement that made it, and by its place among that statement's results."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence

from torch.fx import Node

from paritas.capture.modules import Region
from paritas.capture.normalise import name_of
from paritas.lower.mindspore.write.functions import FunctionRegion
from paritas.lower.mindspore.write.names import Statement, statements, usable
from paritas.lower.mindspore.write.nodes import hint_of
from paritas.lower.mindspore.write.places import is_index

#: Operators whose result is the same elements: it goes by the name of what it is made of.
_SAME_ELEMENTS = frozenset(
    f"aten.{name}"
    for name in """
    expand.default expand_as.default reshape.default view.default transpose.int permute.default unsqueeze.default
    squeeze.dim _to_copy.default clone.default contiguous.default
    """.split()  # noqa: SIM905
)


def assigning(stack: Sequence[Statement]) -> Statement | None:
    """The innermost statement that assigns; for a `return`, the caller's."""
    return next((statement for statement in stack if not statement.returns), None)


class Targets:
    """Which target of `query, key = f(x), g(x)` is next: its values are made from left to right."""

    def __init__(self) -> None:
        self._next: dict[tuple[str, int], int] = {}

    def next(self, statement: Statement) -> str | None:
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else []
        if len(statement.targets) < 2 or len(values) != len(statement.targets):
            return None
        place = self._next.get(statement.key, 0)
        self._next[statement.key] = (place + 1) % len(values)
        return statement.targets[place]


def of_node(
    node: Node,
    stack: Sequence[Statement],
    targets: Targets,
    goes_on: Callable[[Statement], bool],
    variable: Callable[[Node], str],
) -> str:
    """A name for what an operator made.

    goes_on: whether a statement computes further with it, and nothing else does. variable: what holds another node.
    """
    statement = assigning(stack)
    if statement is not None and statement.targets:
        operator = name_of(node)
        named = _target(statement, node.args[1]) if operator == "getitem" else None  # type: ignore[arg-type]
        if named is None and len(statement.targets) > 1 and not goes_on(statement):
            named = targets.next(statement)
        if named is None and len(statement.targets) == 1:
            own = statement is stack[0] and statement.computes(operator)
            named = statement.targets[0] if own or not goes_on(statement) else None
        if named is not None and usable(named):
            return usable(named) or ""
    source = node.args[0] if node.args else None
    if name_of(node) in _SAME_ELEMENTS and isinstance(source, Node):
        held = variable(source)
        if held.isidentifier():
            return re.sub(r"_\d+$", "", held)
    return hint_of(node)


def of_input(node: Node) -> str | None:
    """A name for an argument that the module's forward does not name: what it was called where it was made."""
    statement = assigning(statements(node))
    single = statement is not None and len(statement.targets) == 1 and not node.meta.get("paritas_input")
    return usable(statement.targets[0]) if statement is not None and single else None


def of_call(
    region: Region,
    stack: Sequence[Statement],
    targets: Targets,
    position: int,
    own: str,
    several: bool,
    goes_on: Callable[[Statement], bool],
) -> str | None:
    """A name for a result of a module's or function's call: the target at its position, else what the callee calls it.

    position: among the results that the call has. several: whether it has more than one. own: the callee's name for it.
    """
    statement = assigning(stack)
    if statement is None or not statement.targets:
        return usable(own)
    called = statement.callee
    names = [part for part in region.path.split(".") if not is_index(part)][-1:]
    if isinstance(region, FunctionRegion):
        names = [region.class_name]
    direct = called is not None and (called in ("", *names) or not _is_of_self(statement))
    named: str | None = own
    if len(statement.targets) > 1:
        named = (_target(statement, position) if direct else None) or own
        if isinstance(statement.value, ast.Tuple) and not several and not goes_on(statement):
            named = targets.next(statement) or named
    elif not several:
        named = statement.targets[0] if direct or not goes_on(statement) else own or next(iter(names), "")
    return usable(named or "") or usable(own)


def _target(statement: Statement, position: int) -> str | None:
    several = len(statement.targets) > 1
    return statement.targets[position] if several and position < len(statement.targets) else None


def _is_of_self(statement: Statement) -> bool:
    """Whether what is called is an attribute of the module: `self.dense(x)`, not `layer(x)`."""
    return statement.text.partition("(")[0].rpartition("= ")[2].startswith("self.")
