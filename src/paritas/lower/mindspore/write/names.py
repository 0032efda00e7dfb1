# SPDX-License-Identifier: Apache-2.0
"""What the original's source calls things: the statement that a node comes from, and the names it assigns."""

from __future__ import annotations

import ast
import functools
import keyword
import re
import unicodedata
from typing import NamedTuple

from torch.fx import Node

from paritas.capture.origin import frames
from paritas.lower.mindspore.prelude.library import NAMES
from paritas.program import Frame

#: Names that generated code uses for itself.
RESERVED = (
    frozenset(
        [
            "self",
            "ms",
            "ops",
            "nn",
            "Parameter",
            "Tensor",
            "initializer",
            "float",
            "int",
            "range",
            "max",
            "min",
            "super",
        ]
    )
    | NAMES
)


#: A longer name is no help to a reader.
_LONGEST = 80


class Statement(NamedTuple):
    """One statement of the original's source."""

    file: str
    line: int
    text: str  # on one line
    targets: tuple[str, ...]  # plain names that it assigns
    returns: bool  # a return statement, or a bare expression

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.line


def statements(node: Node, depth: int = 0) -> list[Statement]:
    """The statements that were being executed when `node` was recorded, innermost first.

    Only those of the module at `depth` of the module tree (0 is the model) and of what it called.
    """
    kept = frames(node)
    if depth:
        forwards = _forwards(kept)
        if depth >= len(forwards):
            return []
        kept = kept[forwards[depth] :]
    return _known(kept)


def calling_statement(node: Node, depth: int) -> Statement | None:
    """The statement by which the module at `depth`, or a function of its own, called the module below it."""
    kept = frames(node)
    forwards = _forwards(kept)
    if depth >= len(forwards):
        return next(iter(_known(kept)), None) if not depth else None
    end = forwards[depth + 1] if depth + 1 < len(forwards) else len(kept)
    return next(iter(_known(kept[forwards[depth] : end])), None)


def _forwards(kept: tuple[Frame, ...]) -> list[int]:
    return [position for position, frame in enumerate(kept) if frame.function == "forward"]


def _known(kept: tuple[Frame, ...]) -> list[Statement]:
    found = [_statement(frame.file, frame.line) for frame in reversed(kept)]
    return [statement for statement in found if statement is not None]


def name_hint(stack: list[Statement]) -> str | None:
    """The variable that the innermost statement assigns; for a `return`, the caller's."""
    for statement in stack:
        if statement.returns:
            continue
        return usable(statement.targets[0]) if statement.targets else None
    return None


def usable(name: str) -> str | None:
    """`name` if a variable of generated code may be called so."""
    hidden = name == "_" or name.startswith("__") or len(name) > _LONGEST
    if hidden or keyword.iskeyword(name) or name in RESERVED or not name.isidentifier():
        return None
    return unicodedata.normalize("NFKC", name)  # as Python reads it


def class_name(qualified: str, path: str) -> str:
    """What to call the class of the module at `path`, whose own class is `qualified`."""
    name = qualified.rpartition(".")[-1] or path.rpartition(".")[-1].title() or "Model"
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)[:_LONGEST]
    if not plain.strip("_") or usable(plain) is None:
        plain = f"Module{plain}"
    return plain


@functools.lru_cache(maxsize=256)
def _index(file: str) -> dict[int, ast.stmt]:
    """line -> the innermost simple statement that covers it."""
    try:
        with open(file, encoding="utf-8") as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    index: dict[int, ast.stmt] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                index[line] = node
    return index


@functools.lru_cache(maxsize=4096)
def _statement(file: str, line: int) -> Statement | None:
    node = _index(file).get(line)
    if node is None:
        return None
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    names: list[str] = []
    for target in targets[:1]:
        for element in target.elts if isinstance(target, ast.Tuple) else [target]:
            names.append(element.id if isinstance(element, ast.Name) else "_")
    text = " ".join(ast.unparse(node).split())
    return Statement(
        file, node.lineno, text, tuple(names), isinstance(node, (ast.Return, ast.Expr))
    )
