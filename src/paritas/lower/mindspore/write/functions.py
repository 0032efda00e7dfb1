# SPDX-License-Identifier: Apache-2.0
"""Calls of the original's functions within one module: what each computed becomes a function of the generated file.

torch.export's graph is flat. The frames of its nodes say which function computed them; consecutive nodes of one call
are a region, as the nodes of a module's call are. What needs the cell itself (weights, modules) stays in its method.
"""

from __future__ import annotations

import ast
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch.fx import Node

from paritas.capture.modules import Region, is_size, is_user_input
from paritas.capture.origin import frames
from paritas.lower.mindspore.write.names import Function, Statement, forwards, function_at, loaded, statement_at, usable
from paritas.program import Frame


@dataclasses.dataclass(eq=False)
class FunctionRegion(Region):
    """One call of one function: the nodes that it computed, and the functions that it called.

    inside: how many functions stand between the module's forward and this one's own lines.
    """

    function: Function | None = None
    inside: int = 0
    caller: Statement | None = None


def function_names(nodes: Sequence[Node]) -> frozenset[str]:
    """What functions of the original are called: no variable of generated code may hide one."""
    return frozenset(frame.function for node in nodes for frame in frames(node))


def with_functions(items: Sequence[Node | Region], region: Region, depth: int, inside: int = 0) -> list[Node | Region]:
    """The items of a module's region, those of one function's call as one. depth: of the module in the tree."""
    found: list[Node | Region] = []
    for callee, caller, group in _calls(items, depth, inside):
        if callee is None:
            found += group
            continue
        inner = with_functions(group, region, depth, inside + 1)
        if not _can_be_one(callee, group):
            found += inner
            continue
        # No other call at this depth has this node.
        key = f"{region.key}>{next(iter(n.name for n in group if isinstance(n, Node)))}:{inside}"
        one = FunctionRegion(key, region.path, callee.name, 0, region, inner)
        one.function, one.inside, one.caller = callee, inside + 1, caller
        for nested in inner:
            if isinstance(nested, FunctionRegion):
                nested.parent = one
        found.append(one)
    return found


def _can_be_one(function: Function, group: Sequence[Node | Region]) -> bool:
    """Whether a group is a function of tensors alone, and more than one operator."""
    nodes = [item for item in group if isinstance(item, Node)]
    return (
        usable(function.name) is not None
        and len(nodes) == len(group) > 1
        and all(isinstance(node.meta.get("val"), torch.Tensor) for node in nodes if _leaves(node, nodes))
    )


def _leaves(node: Node, nodes: Sequence[Node]) -> bool:
    return any(user not in nodes for user in node.users)


def _calls(
    items: Sequence[Node | Region], depth: int, inside: int
) -> Iterator[tuple[Function | None, Statement | None, list[Node | Region]]]:
    """Runs of items of one call: which function, by which statement it was called, and the items."""
    group: list[Node | Region] = []
    known: tuple[Function | None, Statement | None] = (None, None)
    lines: list[int] = []
    for item in items:
        chain = _chain(item, depth, inside)
        callee, caller = None, None
        if len(chain) > 1 and chain[1].function != "forward":
            callee = function_at(chain[1].file, chain[1].line)
            caller = statement_at(chain[0].file, chain[0].line)
            if callee is not None and callee.name != chain[1].function:
                callee = None
        if callee is None or caller is None:
            if group:
                yield from _split(*known, group)
            yield None, None, [item]
            group, lines = [], []
            continue
        line = chain[1].line
        again = bool(lines) and line < lines[-1] and line <= lines[0]  # from the top: another call
        if group and ((callee, caller) != known or again):
            yield from _split(*known, group)
            group, lines = [], []
        known = callee, caller
        group.append(item)
        lines.append(line)
    if group:
        yield from _split(*known, group)


def _split(
    callee: Function | None, caller: Statement | None, group: list[Node | Region]
) -> Iterator[tuple[Function | None, Statement | None, list[Node | Region]]]:
    """Several calls by one statement, of a function that has only one: as many equal parts."""
    times = 1
    if callee is not None and caller is not None and len(callee.statements) == 1:
        called = [n for n in ast.walk(caller.node) if isinstance(n, ast.Call) and _name_of(n.func) == callee.name]
        times = max(len(called), 1)
    length = len(group) // times if len(group) % times == 0 else len(group)
    for start in range(0, len(group), length):
        yield callee, caller, group[start : start + length]


def _name_of(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _chain(item: Node | Region, depth: int, inside: int) -> tuple[Frame, ...]:
    """The frames from the level's own line on, as far as the module itself goes."""
    kept = frames(item if isinstance(item, Node) else item.outputs[0])
    starts = forwards(kept)
    if depth >= len(starts):
        return ()
    inner = starts[depth + 1] if depth + 1 < len(starts) else len(kept)
    end = len(kept) if isinstance(item, Node) else inner
    # A module below that has no region: its forward is a frame of ours, and ends what is a function of this one.
    return kept[min(starts[depth] + inside, inner) : end]


def own_function(region: Region, depth: int, inside: int) -> Function | None:
    """The source of a module's forward, or of a function."""
    inner = next(iter(region.nodes()), None)
    chain = _chain(inner, depth, inside) if inner is not None else ()
    return function_at(chain[0].file, chain[0].line) if chain else None


def names_of_sizes(function: Function | None, dims: Sequence[object]) -> tuple[str, ...]:
    """What a function calls the sizes of a tensor of these dimensions, "" where it does not."""
    for names in function.sizes if function is not None else ():
        free = [not isinstance(dim, int) and not getattr(dim, "is_Integer", False) for dim in dims]
        if len(names) == len(dims) or (len(names) == len(dims) - 1 and all(free[: len(names)])):
            known = tuple("" if name == "_" else usable(name) or "" for name in names)
            return (*known, *[""] * (len(dims) - len(known)))
    return ("",) * len(dims)


# --- what enters and leaves --------------------------------------------------------------------


def find_borders(region: FunctionRegion, consumed: Mapping[Node | Region, Sequence[Node]]) -> None:
    """Fill `inputs` and `outputs`, in the order in which they are needed and made."""
    inside = set(region.nodes())
    region.inputs = list(
        dict.fromkeys(
            node
            for item in region.items
            for node in consumed[item]
            if node not in inside and (node.op == "call_function" or is_user_input(node))
        )
    )
    region.outputs = [
        node for node in region.nodes() if any(user not in inside and not is_size(user) for user in node.users)
    ]


def parameters(
    region: FunctionRegion,
    consumed: Mapping[Node | Region, Sequence[Node]],
    called: Mapping[Region, Sequence[str]],
    depth: int,
) -> dict[Node, str]:
    """What the function's source calls each input, in the order of its parameters: by the statements that read them.

    called: what the functions that it calls call what they read.
    """
    function = region.function
    assert function is not None
    found: dict[Node, str] = {}
    for item in region.items:
        chain = _chain(item, depth, region.inside)
        if isinstance(item, FunctionRegion):
            chain = chain[: item.inside - region.inside + 1]
            read = list(zip(consumed[item], called[item], strict=False))
        elif chain:
            taken = {*found.values()}
            names = [n for n in loaded(chain[-1].file, chain[-1].line) if _is_read(n, chain[-1])]
            new = [n for n in dict.fromkeys(consumed[item]) if n in region.inputs and n not in found]
            names = [n for n in names if len(chain) > 1 or n not in taken]
            read = list(zip(new, names, strict=False))
        for node, name in read if chain else ():
            if node in region.inputs and node not in found:
                known = _outward(name, chain)
                if known and known not in found.values():
                    found[node] = known
    order = {name: place for place, name in enumerate(function.parameters)}
    last = len(order)
    return {
        node: found.get(node, "") for node in sorted(region.inputs, key=lambda n: order.get(found.get(n, ""), last))
    }


def _is_read(name: str, frame: Frame) -> bool:
    """Whether a name that a statement of a function reads can be one of its inputs: a parameter, or from around it."""
    function = function_at(frame.file, frame.line)
    if function is None or usable(name) is None or name in function.callables:
        return False
    return name in function.parameters or (name in function.around and name not in function.bound)


def _outward(name: str, chain: Sequence[Frame]) -> str:
    """What the outermost of some frames calls the value that the innermost reads as `name`: by the calls between."""
    for outer, inner in reversed(list(itertools.pairwise(chain))):
        function, statement = (function_at(inner.file, inner.line), statement_at(outer.file, outer.line))
        if function is None or statement is None:
            return ""
        if name not in function.parameters:
            continue  # of a function around this one, which has no other name for it
        calls = [n for n in ast.walk(statement.node) if isinstance(n, ast.Call)]
        named = [c for c in calls if _name_of(c.func) == function.name]
        given = {_given(call, function, name) for call in named or calls}
        given.discard("")
        name = given.pop() if len(given) == 1 else name
    return name


def _given(call: ast.Call, function: Function, parameter: str) -> str:
    """The variable that a call hands over as a parameter, "" if it is none."""
    for keyword in call.keywords:
        if keyword.arg == parameter:
            return keyword.value.id if isinstance(keyword.value, ast.Name) else ""
    place = function.parameters.index(parameter) - (function.parameters[:1] == ("self",))
    given = call.args[place] if 0 <= place < len(call.args) else None
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    return given.id if isinstance(given, ast.Name) and not starred else ""


def results(region: FunctionRegion, variables: Mapping[Node, str]) -> dict[Node, int]:
    """Which of the values that the function returns each output is, by the names in its return statement."""
    function = region.function
    assert function is not None
    found: dict[Node, int] = {}
    for node in region.outputs:
        name = variables.get(node, "")
        if name in function.returned:
            found[node] = function.returned.index(name)
    if len(found) == len(region.outputs):
        return found
    return {node: place for place, node in enumerate(region.outputs)}
