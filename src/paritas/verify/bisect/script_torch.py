# SPDX-License-Identifier: Apache-2.0
"""A part of a captured graph written out as PyTorch: one call per node, in whichever dtype `dtype` is."""

from __future__ import annotations

import keyword
import math
import operator
import re
from typing import Any

import torch
from torch.fx import Node

from paritas.errors import LoweringError
from paritas.program import Program
from paritas.run.torch.part import Part, Recorded

#: Operators of libraries that a script would have to import first are not among these.
_NAMESPACES = ("aten", "prims")


class Identifiers:
    """Variables for names from anywhere: ASCII letters, digits and underscores, each of them once."""

    def __init__(self, taken: frozenset[str]) -> None:
        self._taken = set(taken)
        self._known: dict[str, str] = {}

    def new(self, name: str) -> str:
        """A variable that nothing else has."""
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:60] or "value"
        if plain[0].isdigit() or keyword.iskeyword(plain) or keyword.issoftkeyword(plain):
            plain = f"v_{plain}"
        found, count = plain, 1
        while found in self._taken:
            count += 1
            found = f"{plain}_{count}"
        self._taken.add(found)
        return found

    def of(self, name: str) -> str:
        """The variable of this name, always the same."""
        if name not in self._known:
            self._known[name] = self.new(name)
        return self._known[name]


def one_line(text: str, limit: int = 100) -> str:
    """Text that stays in its comment: printable, in one line, not too long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= limit else plain[: limit - 4] + " ..."


def torch_lines(program: Program, part: Part, recorded: Recorded, names: Identifiers) -> list[str]:
    """The statements; inputs and weights are variables of `names`.

    Raises `LoweringError` for what one call does not say: graphs inside, operators of other libraries.
    """
    known = {node.name: node for node in program.graph.nodes}
    lines: list[str] = []
    comment = ""
    for name in part.members:
        node = known[name]
        said = str(program.origin(name)) if program.origin(name).file else ""
        if said != comment and said:
            lines.append(f"# {one_line(said)}")
        comment = said
        lines.append(f"{names.of(name)} = {_call(node, recorded, names)}")
    return lines


def _call(node: Node, recorded: Recorded, names: Identifiers) -> str:
    def text(value: Any) -> str:
        return _literal(value, recorded, names)

    if node.target is operator.getitem:
        return f"{text(node.args[0])}[{text(node.args[1])}]"
    target = node.target
    called = str(target)
    plain = re.fullmatch(r"(\w+)\.(\w+)\.(\w+)", called, re.ASCII)
    if not isinstance(target, torch._ops.OpOverload) or plain is None or plain[1] not in _NAMESPACES:
        raise LoweringError(f"{one_line(called)} is no operator that torch has by itself")
    if called == "aten.view.dtype":
        raise LoweringError("aten.view.dtype reads bits, which mean nothing in float64")
    given = [text(value) for value in node.args] + [f"{name}={text(v)}" for name, v in node.kwargs.items()]
    return f"torch.ops.{called}({', '.join(given)})"


def _literal(value: Any, recorded: Recorded, names: Identifiers) -> str:
    match value:
        case Node():
            number = recorded.numbers.get(value.name)
            return names.of(value.name) if number is None else _literal(number, recorded, names)
        case float() if not math.isfinite(value):
            return f"float({str(value)!r})"
        case None | bool() | int() | float() | str():
            return repr(value)
        case list() | tuple():
            return f"[{', '.join(_literal(item, recorded, names) for item in value)}]"
        case torch.dtype():
            if value.is_floating_point:
                return "dtype"
            return "torch.complex128 if dtype == torch.float64 else torch.complex64" if value.is_complex else str(value)
        case torch.device():
            return "torch.device('cpu')"
        case torch.memory_format() | torch.layout():
            return str(value)
    raise LoweringError(f"an argument is a {type(value).__name__}")
