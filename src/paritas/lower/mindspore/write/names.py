# SPDX-License-Identifier: Apache-2.0
"""What the original's source calls things: the statement that a node comes from, and the names it assigns."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import keyword
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from torch.fx import Node

from paritas.capture.origin import frames
from paritas.lower.mindspore.prelude.library import NAMES
from paritas.lower.mindspore.write.source import printable
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
    node: ast.stmt

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.line

    @property
    def value(self) -> ast.expr | None:
        found: ast.expr | None = getattr(self.node, "value", None)
        return found

    @property
    def callee(self) -> str | None:
        """The last name of what the statement's value is a call of: "dense" of `x = self.dense(y)`; None if of nothing.

        "" for a call of something without a name: `self.layers[0](x)`.
        """
        value = self.value
        if not isinstance(value, ast.Call) or any(isinstance(n, ast.Call) for n in ast.walk(value.func)):
            return None
        function = value.func
        return str(getattr(function, "attr", getattr(function, "id", "")))

    def computes(self, operator: str) -> bool:
        """Whether the statement's value is this operator's result, and no further one's: "aten.add.Tensor"."""
        base = operator.split(".")[1].strip("_") if operator.count(".") else operator
        value = self.value
        if isinstance(self.node, ast.AugAssign):
            return base in _OPERATORS.get(type(self.node.op), ())
        if isinstance(value, ast.BinOp):
            return base in _OPERATORS.get(type(value.op), ())
        if isinstance(value, ast.Call):
            function = value.func
            return str(getattr(function, "attr", getattr(function, "id", ""))).strip("_") == base
        return False


_OPERATORS: dict[type[ast.operator], tuple[str, ...]] = {
    ast.Add: ("add",),
    ast.Sub: ("sub", "rsub"),
    ast.Mult: ("mul",),
    ast.Div: ("div",),
    ast.MatMult: ("matmul", "mm", "bmm"),
    ast.Pow: ("pow",),
    ast.BitAnd: ("and", "bitwise_and", "logical_and"),
    ast.BitOr: ("or", "bitwise_or", "logical_or"),
}


def statements(node: Node, depth: int = 0, inside: int = 0) -> list[Statement]:
    """The statements that were being executed when `node` was recorded, innermost first.

    Only those of the module at `depth` of the module tree (0 is the model) and of what it called.
    inside: how many functions of that module are left out.
    """
    kept = frames(node)
    starts = forwards(kept)
    if depth >= len(starts):
        return [] if depth else _known(kept)
    return _known(kept[starts[depth] + inside :])


def calling_statements(node: Node, depth: int, inside: int = 0, function: int | None = None) -> list[Statement]:
    """The statements by which the module at `depth` called what computed `node`, innermost first.

    That is the module below it, or, where `function` is given, the function so many functions inside.
    """
    kept = frames(node)
    starts = forwards(kept)
    if depth >= len(starts):
        return [] if depth else _known(kept)[:1]
    end = starts[depth + 1] if depth + 1 < len(starts) else len(kept)
    if function is not None:
        end = starts[depth] + function
    return _known(kept[starts[depth] + inside : end])


def forwards(kept: tuple[Frame, ...]) -> list[int]:
    """Where in a node's frames modules begin."""
    return [position for position, frame in enumerate(kept) if frame.function == "forward"]


def _known(kept: tuple[Frame, ...]) -> list[Statement]:
    found = [statement_at(frame.file, frame.line) for frame in reversed(kept)]
    return [statement for statement in found if statement is not None]


def comment_of(statement: Statement) -> str:
    """ "# modeling_bert.py:290  hidden_states = self.dense(hidden_states)" """
    return printable(f"# {statement.file.rsplit('/', 1)[-1]}:{statement.line}  {statement.text}")


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
def _tree(file: str) -> ast.Module:
    try:
        with open(file, encoding="utf-8") as stream:
            return ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


@functools.lru_cache(maxsize=256)
def _index(file: str) -> dict[int, ast.stmt]:
    """line -> the innermost simple statement that covers it."""
    index: dict[int, ast.stmt] = {}
    for node in ast.walk(_tree(file)):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                index[line] = node
    return index


@functools.lru_cache(maxsize=4096)
def statement_at(file: str, line: int) -> Statement | None:
    """The innermost simple statement that covers a line."""
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
    returns = isinstance(node, (ast.Return, ast.Expr))
    return Statement(file, node.lineno, text, tuple(names), returns, node)


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """One function of the original's source."""

    name: str
    file: str
    line: int
    parameters: tuple[str, ...]
    returned: tuple[str, ...]  # the names in its last return statement, "" for what is none
    bound: frozenset[str]  # what it assigns
    callables: frozenset[str]  # what it calls
    statements: tuple[ast.stmt, ...]
    around: frozenset[str]  # what it reads of the functions around it
    aliases: tuple[tuple[str, str, int], ...]  # ("residual", "hidden_states", its line)
    unpacked: Mapping[str, tuple[str, ...]]  # "position_embeddings" -> ("cos", "sin")
    #: What it calls the sizes of some tensor, from the first dimension on.
    sizes: tuple[tuple[str, ...], ...]


@functools.lru_cache(maxsize=256)
def _functions(file: str) -> list[Function]:
    return [_function(file, n) for n in ast.walk(_tree(file)) if isinstance(n, ast.FunctionDef)]


@functools.lru_cache(maxsize=4096)
def function_at(file: str, line: int) -> Function | None:
    """The innermost function around a line."""
    around = [f for f in _functions(file) if f.line <= line <= (f.statements[-1].end_lineno or 0)]
    return max(around, key=lambda function: function.line, default=None)


def definition_at(file: str, line: int) -> ast.FunctionDef | None:
    """The function that is defined at a line, or decorated there."""
    for node in ast.walk(_tree(file)):
        first = min([getattr(node, "lineno", 0), *(d.lineno for d in getattr(node, "decorator_list", ()))])
        if isinstance(node, ast.FunctionDef) and line in (first, node.lineno):
            return node
    return None


def _function(file: str, node: ast.FunctionDef) -> Function:
    parameters = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    inner = list(ast.walk(node))
    returned: tuple[str, ...] = ()
    for one in inner:
        if isinstance(one, ast.Return) and one.value is not None:
            values = one.value.elts if isinstance(one.value, ast.Tuple) else [one.value]
            returned = tuple(v.id if isinstance(v, ast.Name) else "" for v in values)
    unpacked, sizes = {}, []
    for one in inner:
        if not (isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Tuple)):
            continue
        elements = one.targets[0].elts
        names = tuple(e.id if isinstance(e, ast.Name) else "_" for e in elements)
        if isinstance(one.value, ast.Name):
            unpacked[one.value.id] = names
        if _SHAPE.search(ast.unparse(one.value)) and all(isinstance(e, ast.Name) for e in elements):
            sizes.append(names)
    statements = [s for s in node.body if not _is_docstring(s)] or node.body
    return Function(
        node.name,
        file,
        node.lineno,
        tuple(parameters),
        returned,
        frozenset(n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)),
        frozenset(n.func.id for n in inner if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)),
        tuple(statements),
        _free(file, inner),
        tuple(
            (one.targets[0].id, one.value.id, one.lineno)
            for one in inner
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name) and isinstance(one.value, ast.Name)
        ),
        unpacked,
        tuple(sizes),
    )


def _free(file: str, inner: list[ast.AST]) -> frozenset[str]:
    outside = _names_of_file(file)
    read = {n.id for n in inner if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    return frozenset(name for name in read if name not in outside)


@functools.lru_cache(maxsize=256)
def _names_of_file(file: str) -> frozenset[str]:
    """What a file defines or imports for all of its functions."""
    found = set(dir(builtins))
    for node in _tree(file).body:
        for one in ast.walk(node) if isinstance(node, (ast.If, ast.Try)) else [node]:
            if isinstance(one, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).partition(".")[0] for alias in one.names}
            elif isinstance(one, (ast.FunctionDef, ast.ClassDef)):
                found.add(one.name)
            elif isinstance(one, ast.Assign):
                found |= {n.id for n in ast.walk(one) if isinstance(n, ast.Name)}
    return frozenset(found)


#: What is a tensor's shape, or its beginning.
_SHAPE = re.compile(r"(\.shape|\.size\(\)|input_shape)(\[:-?\d\])?$")


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@functools.lru_cache(maxsize=4096)
def loaded(file: str, line: int) -> tuple[str, ...]:
    """The names that the statement at a line reads, from left to right."""
    statement = statement_at(file, line)
    if statement is None or statement.value is None:
        return ()
    names = [
        n
        for n in ast.walk(statement.node)
        if isinstance(n, ast.Name) and (isinstance(n.ctx, ast.Load) or isinstance(statement.node, ast.AugAssign))
    ]
    names.sort(key=lambda n: (n.lineno, n.col_offset))
    return tuple(dict.fromkeys(n.id for n in names))
