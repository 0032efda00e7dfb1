# SPDX-License-Identifier: Apache-2.0
"""What generated code may consist of: written by the emitter, checked again before a port is loaded.

A port's module is executed only if every node of its syntax tree is one that the generator can have
written: cells with `__init__` and `construct`, assignments, arithmetic, and calls of the MindSpore
functions named here. None of them reads or writes files, runs code, or reaches Python's own internals.
"""

from __future__ import annotations

import ast
import re

from paritas.errors import TamperedPort
from paritas.lower.mindspore.emit_names import DTYPE_NAMES, FUNCTIONS, METHODS

__all__ = ["check", "require", "require_method"]

_IMPORTS = re.compile(
    r"import mindspore as ms"
    r"|from mindspore import (Parameter|Tensor|nn|ops)(, (Parameter|Tensor|nn|ops))*"
    r"|from mindspore\.common\.initializer import initializer"
)
_BASES = {"nn.Cell", "nn.CellList"}
_BUILTINS = {"super", "range", "max", "min", "float", "int", "Parameter", "Tensor", "initializer"}
_EXPRESSIONS = (
    ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.IfExp, ast.List, ast.ListComp,
    ast.Name, ast.Slice, ast.Starred, ast.Subscript, ast.Tuple, ast.UnaryOp, ast.comprehension, ast.keyword,
    ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context, ast.arg, ast.arguments,
)  # fmt: skip


def require(function: str) -> None:
    """Refuse to generate a call that the check below would not let through."""
    if function not in FUNCTIONS:
        raise AssertionError(f"add {function!r} to FUNCTIONS in lower/mindspore/emit_names.py")


def require_method(name: str) -> None:
    if name not in METHODS:
        raise AssertionError(f"add {name!r} to METHODS in lower/mindspore/emit_names.py")


def check(source: str, file: str) -> None:
    """Raise `TamperedPort`, naming the line, unless the generator can have written `source`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise TamperedPort(f"{file} is not Python: {error}. Nothing of it was executed.") from None
    _Check(file).module(tree)


class _Check:
    def __init__(self, file: str) -> None:
        self.file = file
        self.defined: set[str] = set()

    def refuse(self, node: ast.AST, what: str) -> TamperedPort:
        return TamperedPort(
            f"{self.file}:{getattr(node, 'lineno', '?')}: {what} is nothing that Paritas generates. Nothing of it "
            "was executed. If you edited the file yourself and trust it: --allow-modified (allow_modified=True)."
        )

    def module(self, tree: ast.Module) -> None:
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                self.defined.add(node.name)
            elif isinstance(node, ast.Assign):
                self.defined |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                if not _IMPORTS.fullmatch(ast.unparse(node)):
                    raise self.refuse(node, ast.unparse(node))
            elif isinstance(node, ast.ClassDef):
                self.cell(node)
            elif isinstance(node, ast.FunctionDef):
                self.function(node)
            elif isinstance(node, (ast.Assign, ast.Expr)):
                self.statement(node, set())
            else:
                raise self.refuse(node, type(node).__name__)

    def cell(self, node: ast.ClassDef) -> None:
        if (
            [ast.unparse(b) for b in node.bases] not in ([b] for b in _BASES)
            or node.keywords
            or node.decorator_list
        ):
            raise self.refuse(node, f"class {node.name} with these bases")
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                if item.name != "__init__" and not item.name.startswith("construct"):
                    raise self.refuse(item, f"a method {item.name}")
                self.function(item)
            elif not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
                raise self.refuse(item, f"{type(item).__name__} in a class")

    def function(self, node: ast.FunctionDef) -> None:
        if node.decorator_list or node.name in _BUILTINS:
            raise self.refuse(node, f"function {node.name} with decorators")
        for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]:
            self.expression(default, set())
        arguments = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
        if node.args.vararg or node.args.kwarg or any(a.startswith("__") for a in arguments):
            raise self.refuse(node, "variable arguments")
        local = arguments | {
            n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        for statement in node.body:
            self.statement(statement, local)

    def statement(self, node: ast.stmt, local: set[str]) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self.target(target)
            self.expression(node.value, local)
        elif isinstance(node, (ast.Expr, ast.Return)):
            if node.value is not None:
                self.expression(node.value, local)
        elif isinstance(node, ast.For):  # over the cells of a list
            if not isinstance(node.target, ast.Name) or not _is_cell(node.iter) or node.orelse:
                raise self.refuse(node, ast.unparse(node).splitlines()[0])
            self.target(node.target)
            self.expression(node.iter, local)
            for inner in node.body:
                self.statement(inner, local | {node.target.id})
        elif isinstance(node, ast.If):
            self.expression(node.test, local)
            for inner in [*node.body, *node.orelse]:
                self.statement(inner, local)
        else:
            raise self.refuse(node, type(node).__name__)

    def target(self, node: ast.expr) -> None:
        if isinstance(node, ast.Tuple):
            for element in node.elts:
                self.target(element)
        elif isinstance(node, ast.Attribute):
            if not (
                isinstance(node.value, ast.Name) and node.value.id == "self"
            ) or node.attr.startswith("_"):
                raise self.refuse(node, f"assigning to {ast.unparse(node)}")
        elif (
            not isinstance(node, ast.Name)
            or node.id in _BUILTINS | {"ms", "ops", "nn"}
            or node.id.startswith("__")
        ):
            raise self.refuse(node, f"assigning to {ast.unparse(node)}")

    def expression(self, node: ast.expr, local: set[str]) -> None:
        for part in ast.walk(node):
            if not isinstance(part, _EXPRESSIONS):
                raise self.refuse(node, type(part).__name__)
            if isinstance(part, ast.Name):
                known = local | self.defined | _BUILTINS | {"self", "ms", "ops", "nn"}
                comprehended = {
                    n.id
                    for n in ast.walk(node)
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                }
                if part.id not in known | comprehended:
                    raise self.refuse(part, f"the name {part.id}")
            elif isinstance(part, ast.Attribute):
                self.attribute(part)
            elif isinstance(part, ast.Call):
                self.call(part)

    def attribute(self, node: ast.Attribute) -> None:
        if node.attr == "__init__" and ast.unparse(node.value) == "super()":
            return
        if node.attr.startswith("_"):
            raise self.refuse(node, f"the attribute {node.attr}")
        root = node.value
        if isinstance(root, ast.Name) and root.id in ("ms", "ops", "nn"):
            name = f"{root.id}.{node.attr}"
            if name not in FUNCTIONS and name not in DTYPE_NAMES:
                raise self.refuse(node, name)

    def call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Name):
            return  # a builtin of the list, a class, a function, a cell of a loop: checked as a name
        if isinstance(function, ast.Attribute):
            if isinstance(function.value, ast.Name) and function.value.id in ("ms", "ops", "nn"):
                return  # checked as an attribute
            if function.attr in METHODS or function.attr == "__init__" or _is_cell(function):
                return
            raise self.refuse(node, f"calling {ast.unparse(function)}")
        if isinstance(function, ast.Subscript) and _is_cell(function):
            return
        raise self.refuse(node, f"calling {ast.unparse(function)}")


def _is_cell(node: ast.expr) -> bool:
    """`self.a.b[0].c`: a cell or a primitive of our own."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "self"
