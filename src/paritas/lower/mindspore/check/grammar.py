# SPDX-License-Identifier: Apache-2.0
"""What generated code may consist of: written by the emitter, checked again before a port is loaded.

A port's module is executed only if every node of its syntax tree is one that the generator can have written:
cells with `__init__` and `construct`, assignments, arithmetic, and calls. What may be called is known by what
it is, never by its name alone: a MindSpore function named in `allowed_names.py`, a function, class or primitive
of this file, or a cell that `self` demonstrably holds. No module, function or method is ever a value, so none
can be reached under another name. None of what is left reads or writes files, runs code, or reaches Python's
own internals.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import TypeGuard

from paritas.errors import TamperedPort
from paritas.lower.mindspore.check import bounds
from paritas.lower.mindspore.check.allowed_names import DTYPE_NAMES, FUNCTIONS, METHODS
from paritas.lower.mindspore.write.cell_names import is_free

__all__ = ["check", "decode", "require", "require_method"]

_IMPORTS = re.compile(
    r"import mindspore as ms"
    r"|from mindspore import (Parameter|Tensor|nn|ops)(, (Parameter|Tensor|nn|ops))*"
    r"|from mindspore\.common\.initializer import initializer"
)
#: Of a module's file; the largest that were seen have some megabytes.
_LARGEST = 1 << 24
#: Control characters but for the line feed, what `str.splitlines` takes for the end of a line, and a byte order mark.
_ODD = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
#: How PEP 263 finds the encoding in one of the first two lines.
_COOKIE = re.compile(r"[ \t\f]*#.*?coding[:=][ \t]*[-\w.]+")
_BASES = {"nn.Cell", "nn.CellList"}
_MODULES = {"ms", "ops", "nn"}
_BUILTINS = {"range", "max", "min", "float", "int", "Parameter", "Tensor", "initializer"}
#: Nothing may bind these: every rule below trusts that they are what they are called.
_RESERVED = _MODULES | _BUILTINS | {"self", "super"}
#: What may be read off any value. Everything else that a value has can only be a method, see METHODS.
_FACTS = {"shape", "dtype", "ndim"}
#: What a check may take where cells are looked up in lists of cells, whose cost is a product of two lengths.
_STEPS = 5_000_000
_EXPRESSIONS = (
    ast.Attribute, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant, ast.IfExp, ast.List, ast.ListComp,
    ast.Name, ast.Slice, ast.Starred, ast.Subscript, ast.Tuple, ast.UnaryOp,
)  # fmt: skip


def require(function: str) -> None:
    """Refuse to generate a call that the check below would not let through."""
    if function not in FUNCTIONS:
        raise AssertionError(f"add {function!r} to FUNCTIONS in lower/mindspore/check/allowed_names.py")


def require_method(name: str) -> None:
    if name not in METHODS:
        raise AssertionError(f"add {name!r} to METHODS in lower/mindspore/check/allowed_names.py")


def decode(data: bytes, file: str, *, trusted: bool = False) -> str:
    """A module's bytes as the text that Python is given: UTF-8, in lines that everybody counts alike.

    Raises `TamperedPort` for what another reader could take for another text: an encoding of its own, a mark at its
    beginning, characters that some take for the end of a line. trusted: edited by its user; only UTF-8 is asked for.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TamperedPort(f"{file} is not UTF-8: {error}. Nothing of it was executed.") from None
    if trusted:
        return text.replace("\r\n", "\n").removeprefix("\ufeff")
    if len(data) > _LARGEST:
        raise TamperedPort(f"{file} has {len(data)} bytes, more than any module. Nothing of it was executed.")
    if odd := _ODD.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise TamperedPort(
            f"{file}:{line}: the character {odd[0]!r} is nothing that Paritas generates. Nothing of it was executed."
        )
    for number, line_text in enumerate(text.split("\n", 2)[:2], 1):
        if _COOKIE.match(line_text):
            raise TamperedPort(
                f"{file}:{number}: an encoding of its own is nothing that Paritas generates: {line_text[:60]!r}. "
                "Nothing of it was executed."
            )
    return text


def check(source: str, file: str, *, elements: int | None = None) -> None:
    """Raise `TamperedPort`, naming the line, unless the generator can have written `source`.

    elements: of its weights in all, which bounds what it may make; any number if None.
    """
    try:
        tree = ast.parse(source)
        checker = _Check(file)
        checker.module(tree)
        bounds.check(tree, checker.refuse, 1 << 62 if elements is None else elements)
    except (SyntaxError, ValueError) as error:
        raise TamperedPort(f"{file} is not Python: {error}. Nothing of it was executed.") from None
    except (RecursionError, MemoryError):
        raise TamperedPort(f"{file} is nested too deeply. Nothing of it was executed.") from None


@dataclasses.dataclass(frozen=True)
class _Held:
    """What an attribute of a cell holds. classes: what the cell may be; "" is nn.Identity. items: of a list."""

    kind: str  # "tensor" | "primitive" | "cell" | "list"
    classes: frozenset[str] = frozenset()
    items: tuple[_Held, ...] = ()
    repeated: bool = False  # a list of any length, of the one item

    def item(self, index: int) -> _Held | None:
        if self.repeated:
            return self.items[0]
        return self.items[index] if 0 <= index < len(self.items) else None


@dataclasses.dataclass
class _Class:
    held: dict[str, _Held] = dataclasses.field(default_factory=dict)
    methods: set[str] = dataclasses.field(default_factory=set)
    items: _Held | None = None  # of a subclass of nn.CellList


@dataclasses.dataclass(frozen=True)
class _Scope:
    """Where an expression stands: in a method of which class, with which local variables and cells of loops."""

    cls: str = ""
    local: frozenset[str] = frozenset()
    cells: tuple[tuple[str, _Held], ...] = ()
    loops: tuple[str, ...] = ()  # what comprehensions count with
    init: bool = False  # in `__init__`

    def cell(self, name: str) -> _Held | None:
        return next((held for known, held in reversed(self.cells) if known == name), None)


class _Check:
    def __init__(self, file: str) -> None:
        self.file = file
        self.functions: set[str] = set()  # and primitives made at the top of the file
        self.numbers: set[str] = set()
        self.classes: dict[str, _Class] = {}
        self.left = _STEPS

    def spend(self, node: ast.AST, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise self.refuse(node, "so much to look up")

    def refuse(self, node: ast.AST, what: str) -> TamperedPort:
        return TamperedPort(
            f"{self.file}:{getattr(node, 'lineno', '?')}: {what} is nothing that Paritas generates. Nothing of it "
            "was executed. If you edited the file yourself and trust it: --allow-modified (allow_modified=True)."
        )

    # --- the file ---

    def module(self, tree: ast.Module) -> None:
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self.declare(node, node.name)
                self.classes[node.name] = _Class()
            elif isinstance(node, ast.FunctionDef):
                self.declare(node, node.name)
                self.functions.add(node.name)
            elif isinstance(node, ast.Assign):
                self.assigned(node)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                self.survey(node)
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                if not _IMPORTS.fullmatch(ast.unparse(node)):
                    raise self.refuse(node, ast.unparse(node))
            elif isinstance(node, ast.ClassDef):
                self.cell(node)
            elif isinstance(node, ast.FunctionDef):
                self.function(node, "")
            elif not isinstance(node, ast.Assign) and not _is_text(node):
                raise self.refuse(node, type(node).__name__)

    def declare(self, node: ast.AST, name: str) -> None:
        if (
            name in _RESERVED
            or name.startswith("__")
            or any(name in known for known in (self.functions, self.numbers, self.classes))
        ):
            raise self.refuse(node, f"defining {name} here")

    def assigned(self, node: ast.Assign) -> None:
        """`softmax_last = ops.Softmax(-1)` or `least = -65504.0`."""
        target, value = node.targets[0], node.value
        if len(node.targets) > 1 or not isinstance(target, ast.Name):
            raise self.refuse(node, f"the assignment {ast.unparse(node)}")
        self.declare(node, target.id)
        if _is_number(value):
            self.numbers.add(target.id)
        elif isinstance(value, ast.Call) and _module_name(value.func) in FUNCTIONS:
            self.functions.add(target.id)
            self.values(value, _Scope())
        else:
            raise self.refuse(node, f"the assignment {ast.unparse(node)}")

    # --- classes ---

    def survey(self, node: ast.ClassDef) -> None:
        """What the class's `__init__` makes `self` hold, and which methods there are."""
        found = self.classes[node.name]
        for item in node.body:
            if not isinstance(item, ast.FunctionDef):
                continue
            found.methods.add(item.name)
            for statement in item.body if item.name == "__init__" else []:
                if isinstance(statement, ast.Assign):
                    for target in statement.targets:
                        if isinstance(target, ast.Attribute) and not _names_a_parameter(statement):
                            self.hold(found, target, target.attr, self.kind(statement.value))
                elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                    call = statement.value
                    if ast.unparse(call.func) == "self.register_buffer" and call.args:
                        name = call.args[0]
                        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                            raise self.refuse(call, ast.unparse(call))
                        self.hold(found, call, name.value, _Held("tensor"))
                    elif ast.unparse(call.func) == "super().__init__" and call.args:
                        if found.items is not None:
                            raise self.refuse(call, "making a list twice")
                        found.items = self.items(call)

    def hold(self, cls: _Class, node: ast.AST, name: str, held: _Held) -> None:
        if not is_free(name) or cls.held.setdefault(name, held) != held:
            raise self.refuse(node, f"holding {name!r}")

    def kind(self, value: ast.expr) -> _Held:
        """What an expression of `__init__` makes."""
        if not isinstance(value, ast.Call):
            return _Held("tensor")
        name = ast.unparse(value.func)
        if name == "nn.CellList":
            return self.items(value)
        if name == "nn.Identity":
            return _Held("cell", frozenset({""}))
        if name in self.classes:
            return _Held("cell", frozenset({name}))
        return _Held("primitive" if name.startswith("ops.") and name[4].isupper() else "tensor")

    def items(self, call: ast.Call) -> _Held:
        """What `nn.CellList([A(), B()])` or `nn.CellList([A() for _ in range(6)])` holds; lists in lists too."""
        if len(call.args) != 1 or call.keywords:
            raise self.refuse(call, ast.unparse(call))
        made = call.args[0]
        elements = made.elts if isinstance(made, ast.List) else [made.elt] if isinstance(made, ast.ListComp) else []
        held = tuple(self.kind(element) for element in elements)
        if not held or any(h.kind not in ("cell", "list") for h in held):
            raise self.refuse(call, ast.unparse(call))
        return _Held("list", items=held, repeated=isinstance(made, ast.ListComp))

    def cell(self, node: ast.ClassDef) -> None:
        bases = [ast.unparse(base) for base in node.bases]
        if len(bases) != 1 or bases[0] not in _BASES or node.keywords or node.decorator_list:
            raise self.refuse(node, f"class {node.name} with these bases")
        names = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
        if len(set(names)) < len(names):
            raise self.refuse(node, f"class {node.name} with a method twice")
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                if item.name != "__init__" and not re.fullmatch(r"construct(_\d+)?", item.name):
                    raise self.refuse(item, f"a method {item.name}")
                self.function(item, node.name)
            elif not _is_text(item) and not isinstance(item, ast.Pass):
                raise self.refuse(item, f"{type(item).__name__} in a class")

    # --- functions and statements ---

    def function(self, node: ast.FunctionDef, cls: str) -> None:
        spec = node.args
        arguments = [*spec.args, *spec.kwonlyargs]
        # Annotations are expressions that Python evaluates while it defines the function.
        if node.decorator_list or node.returns or any(a.annotation for a in arguments):
            raise self.refuse(node, f"function {node.name} with decorators or annotations")
        if spec.vararg or spec.kwarg or spec.posonlyargs:
            raise self.refuse(node, "variable arguments")
        for default in [*spec.defaults, *(d for d in spec.kw_defaults if d is not None)]:
            self.expression(default, _Scope())
        names = [a.arg for a in arguments]
        if cls and names[:1] != ["self"]:
            raise self.refuse(node, f"a method {node.name} without self")
        stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        local = {*names[1 if cls else 0 :], *stored}
        if wrong := sorted(name for name in local if name in _RESERVED or name.startswith("__")):
            raise self.refuse(node, f"binding {wrong[0]}")
        scope = _Scope(cls, frozenset(local), init=bool(cls) and node.name == "__init__")
        for before, statement in zip([None, *node.body], node.body, strict=False):
            if isinstance(statement, ast.While):
                self.count(statement, before, scope)
            else:
                self.statement(statement, scope, top=True)

    def count(self, node: ast.While, before: ast.stmt | None, scope: _Scope) -> None:
        """A loop that ends: `step = Tensor(0, ms.int64)`, `while step < x.shape[0]:`, .., `step = step + 1`."""
        test = ast.unparse(node.test)
        found = re.fullmatch(r"(\w+) < (\w+)\.shape\[\d+\]", test)
        if found is None or node.orelse or scope.init:
            raise self.refuse(node, f"while {test}")
        step, counted = found.groups()
        *body, last = node.body
        bound = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        if (
            before is None
            or ast.unparse(before) != f"{step} = Tensor(0, ms.int64)"
            or ast.unparse(last) != f"{step} = {step} + 1"
            or bound & {step, counted}
            or step == counted
        ):
            raise self.refuse(node, f"while {test}")
        self.expression(node.test, scope)
        for inner in node.body:
            self.statement(inner, scope)

    def statement(self, node: ast.stmt, scope: _Scope, top: bool = False) -> None:
        if isinstance(node, ast.Assign):
            if scope.init and top and _names_a_parameter(node):
                held = self.resolve(node.targets[0].value, scope)  # type: ignore[attr-defined]
                if held is None or held.kind != "tensor":
                    raise self.refuse(node, f"assigning to {ast.unparse(node.targets[0])}")
                return
            for target in node.targets:
                self.target(target, scope.init and top)
            self.expression(node.value, scope)
        elif isinstance(node, ast.Return) and scope.init:
            raise self.refuse(node, "returning from __init__")  # before it has made what `survey` has read
        elif isinstance(node, ast.Expr) and scope.init and top and _prepares(node.value):
            # Nowhere else: what `self` holds could then be another thing than `survey` has read.
            self.values(node.value, scope)
        elif isinstance(node, (ast.Expr, ast.Return)):
            if node.value is not None:
                self.expression(node.value, scope)
        elif isinstance(node, ast.For):  # over the cells of a list
            held = self.resolve(node.iter, scope)
            self.spend(node, len(held.items) if held is not None else 1)
            cell = _merged({*held.items}) if held is not None and held.kind == "list" else None
            if not isinstance(node.target, ast.Name) or cell is None or cell.kind != "cell" or node.orelse:
                raise self.refuse(node, ast.unparse(node).splitlines()[0])
            name = node.target.id
            rebound = [n for s in node.body for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name]
            if any(isinstance(n.ctx, ast.Store) for n in rebound):
                raise self.refuse(node, f"binding {name} again")
            inside = dataclasses.replace(scope, cells=(*scope.cells, (name, cell)))
            for inner in node.body:
                self.statement(inner, inside)
        elif isinstance(node, ast.If):
            self.expression(node.test, scope)
            for inner in [*node.body, *node.orelse]:
                self.statement(inner, scope)
        else:
            raise self.refuse(node, type(node).__name__)

    def target(self, node: ast.expr, holds: bool) -> None:
        if isinstance(node, ast.Tuple):
            for element in node.elts:
                self.target(element, False)
        elif isinstance(node, ast.Attribute):
            # Only in __init__, whose first level `survey` has read: what `self` holds is then known for good.
            if not (holds and isinstance(node.value, ast.Name) and node.value.id == "self"):
                raise self.refuse(node, f"assigning to {ast.unparse(node)}")
        elif not isinstance(node, ast.Name):  # whose name `function` has checked
            raise self.refuse(node, f"assigning to {ast.unparse(node)}")

    # --- expressions ---

    def expression(self, node: ast.expr, scope: _Scope) -> None:
        if not isinstance(node, _EXPRESSIONS) or isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
            raise self.refuse(node, ast.unparse(node)[:60])
        if isinstance(node, ast.Call):
            self.call(node, scope)
        elif isinstance(node, ast.Attribute):
            self.attribute(node, scope)
        elif isinstance(node, ast.Name):
            # A module, class, function or cell as a value could be called under another name.
            known = node.id in scope.local or node.id in self.numbers or node.id in scope.loops
            if not known or scope.cell(node.id) is not None:
                raise self.refuse(node, f"{node.id} as a value")
        elif isinstance(node, ast.ListComp):
            self.comprehension(node, scope)
        else:
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.expr):
                    self.expression(part, scope)

    def comprehension(self, node: ast.ListComp, scope: _Scope) -> None:
        if len(node.generators) != 1:
            raise self.refuse(node, ast.unparse(node))
        loop = node.generators[0]
        over_range = isinstance(loop.iter, ast.Call) and ast.unparse(loop.iter.func) == "range"
        if not over_range or not isinstance(loop.target, ast.Name) or loop.ifs or loop.is_async:
            raise self.refuse(node, ast.unparse(node))
        self.expression(loop.iter, scope)
        if len(scope.loops) > 20:
            raise self.refuse(node, "a comprehension that deep")
        if loop.target.id in _RESERVED or loop.target.id.startswith("__"):
            raise self.refuse(node, f"binding {loop.target.id}")
        inside = dataclasses.replace(scope, loops=(*scope.loops, loop.target.id))
        self.expression(node.elt, inside)

    def attribute(self, node: ast.Attribute, scope: _Scope) -> None:
        """An attribute that is read, not called: a dtype, a parameter, a shape."""
        training = isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("self", "training")
        if training or _module_name(node) in DTYPE_NAMES:
            return
        held = self.resolve(node, scope)
        if held is not None and held.kind == "tensor":
            return
        if held is not None or node.attr not in _FACTS:
            raise self.refuse(node, f"the attribute {ast.unparse(node)}")
        self.expression(node.value, scope)

    def call(self, node: ast.Call, scope: _Scope) -> None:
        if not self.callable(node.func, scope):
            raise self.refuse(node, f"calling {ast.unparse(node.func)}")
        # max(..., key=) and min(..., key=) call what they are given.
        if _plain_function(node.func) and node.keywords:
            raise self.refuse(node, ast.unparse(node))
        self.values(node, scope)

    def values(self, node: ast.Call, scope: _Scope) -> None:
        if any(k.arg is None for k in node.keywords):
            raise self.refuse(node, ast.unparse(node))
        for value in [*node.args, *(k.value for k in node.keywords)]:
            self.expression(value, scope)

    def callable(self, function: ast.expr, scope: _Scope) -> bool:
        if isinstance(function, ast.Name):
            if scope.cell(function.id) is not None:
                return True
            callables = (_BUILTINS, self.functions, self.classes)
            local = function.id in scope.local or function.id in scope.loops
            return not local and any(function.id in names for names in callables)
        held = self.resolve(function, scope)
        if held is not None:
            return held.kind in ("cell", "primitive") and not scope.init  # it may not be there yet
        if not isinstance(function, ast.Attribute):
            return False
        if isinstance(function.value, ast.Name) and function.value.id in _MODULES:
            return _module_name(function) in FUNCTIONS
        owner = self.resolve(function.value, scope)
        if owner is not None and owner.kind == "cell":
            known = [self.classes[name].methods for name in owner.classes if name]
            return function.attr.startswith("construct") and all(function.attr in methods for methods in known)
        if function.attr in METHODS and function.attr != "register_buffer":
            self.expression(function.value, scope)
            return True
        return False

    def resolve(self, node: ast.expr, scope: _Scope) -> _Held | None:
        """What `self.a.b[0].c`, or the same from a loop's cell, holds; None for anything else."""
        if isinstance(node, ast.Name):
            if node.id == "self" and scope.cls:
                return _Held("cell", frozenset({scope.cls}))
            return scope.cell(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value, scope)
            self.spend(node, 1 if owner is None else 1 + len(owner.classes))
            if owner is None or owner.kind != "cell" or "" in owner.classes:
                return None
            found = {self.classes[name].held.get(node.attr) for name in owner.classes}
            return _merged(found)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and type(node.slice.value) is int:
            owner = self.resolve(node.value, scope)
            if owner is not None and owner.kind == "cell" and len(owner.classes) == 1 and "" not in owner.classes:
                owner = self.classes[next(iter(owner.classes))].items
            if owner is not None and owner.kind == "list":
                return owner.item(node.slice.value)
        return None


def _merged(found: set[_Held | None]) -> _Held | None:
    """One attribute of several cells, or one cell of several: what is known of it whichever it is."""
    if len(found) == 1:
        return next(iter(found))
    known = [held for held in found if held is not None and held.kind != "list"]
    if len(known) < len(found) or len({held.kind for held in known}) != 1:
        return None
    return _Held(known[0].kind, frozenset().union(*(held.classes for held in known)))


def _module_name(node: ast.expr) -> str:
    """ "ops.gelu" for that attribute of a module, "" for anything else."""
    plain = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _MODULES
    return ast.unparse(node) if plain else ""


def _names_a_parameter(node: ast.Assign) -> bool:
    """`self.heads.a_b.weight.name = "heads.a b.weight"`: what the checkpoint calls it."""
    target = node.targets[0]
    return (
        len(node.targets) == 1
        and isinstance(target, ast.Attribute)
        and target.attr == "name"
        and not (isinstance(target.value, ast.Name) and target.value.id == "self")
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(inner, ast.Constant) and type(inner.value) in (int, float, bool)


def _plain_function(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("max", "min", "range", "float", "int")


def _prepares(node: ast.expr) -> TypeGuard[ast.Call]:
    """`super().__init__(...)` or `self.register_buffer(...)`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("super().__init__", "self.register_buffer")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
