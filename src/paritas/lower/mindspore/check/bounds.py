# SPDX-License-Identifier: Apache-2.0
"""How much a generated module may compute and hold before its first tensor: for code that may be anyone's.

The grammar lets through nothing that reaches out of the module, but `9**9**9` or a list of 10**12 cells keeps a
process busy for ever all the same. Numbers are followed from where they are written to where they are used, as far as
one function goes; sizes of tensors are added up over all the cells that a cell makes. What the generator writes stays
far below every bound.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

#: Numbers that are written down fit into a tensor's element; numbers that are computed may have so many bits.
_WRITTEN_BITS, _COMPUTED_BITS = 64, 4096

#: Turns of a comprehension, and cells of a model.
_TURNS, _CELLS = 1 << 16, 1 << 20

#: Elements that one call in `construct` may ask for by number, and that all of `__init__` may beside the weights.
_ASKED, _SPARE = 1 << 31, 1 << 28

_LONGEST_TEXT, _LARGEST_EXPONENT = 10_000, 64

#: Operators that Python computes on numbers. Shifts are none that the generator writes.
_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor,
    ast.MatMult,
)  # fmt: skip

#: Functions of a size.
_MAKERS = {"arange", "zeros", "ones", "full", "Range", "initializer", "broadcast_to", "tile", "BroadcastTo"}

#: Functions that one call may run, those that they call included; and kinds of cells, by what they are given.
_CALLS, _KINDS = 1 << 20, 1 << 16

#: What a class is given: a number or a shape.
Given = int | tuple[int, ...]

#: node, what is wrong with it -> the error to raise
Refuse = Callable[[ast.AST, str], Exception]


def check(tree: ast.Module, refuse: Refuse, weights: int) -> None:
    """Raise what `refuse` makes of the first node that is beyond a bound. weights: elements of all of them."""
    _Bounds(tree, refuse).check(weights)


class _Bounds:
    def __init__(self, tree: ast.Module, refuse: Refuse) -> None:
        self.tree, self.refuse = tree, refuse
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        # (class, what it is given) -> (cells, elements) that one of it makes
        self.cost: dict[tuple[str, tuple[Given, ...]], tuple[int, int]] = {}
        self.calls: dict[str, int] = {}  # function -> how many functions one call of it runs
        self.open: set[str] = set()  # classes whose cost is being added up
        self.numbers: dict[str, int | None] = {}  # at the top of the file -> how many bits they have
        self.counting = any(_is_call_of(node, "range") for node in ast.walk(tree))

    def check(self, weights: int) -> None:
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign):
                self.statement(statement, self.numbers, False)
                self.allow(statement, self.asked(statement.value), _ASKED)
            elif isinstance(statement, ast.FunctionDef):
                self.function(statement)
            elif isinstance(statement, ast.ClassDef):
                for item in statement.body:
                    if isinstance(item, ast.FunctionDef):
                        self.function(item)
        for name, function in self.functions.items():
            self.run(name, function)
        for node in self.classes.values():
            if self.ran(node) > _CALLS:
                raise self.refuse(node, f"class {node.name}, which calls {self.ran(node)} functions,")
        for name, node in self.classes.items():
            cells, elements = self.made(name, node, ())
            if cells > _CELLS:
                raise self.refuse(node, f"class {name}, which makes {cells} cells,")
            self.allow(node, elements, 2 * weights + _SPARE)

    def allow(self, node: ast.AST, elements: int, most: int) -> None:
        if elements > most:
            raise self.refuse(node, f"asking for {elements} elements")

    # --- numbers ---

    def function(self, node: ast.FunctionDef) -> None:
        """Every expression of a function, with what is known of its local numbers."""
        own: dict[str, int | None] = dict.fromkeys(argument.arg for argument in node.args.args)
        for part in ast.walk(node) if node.name == "__init__" else ():
            if isinstance(part, ast.BinOp) and any(isinstance(n, ast.Name) for n in (part.left, part.right)):
                raise self.refuse(part, ast.unparse(part)[:60])  # of a tuple, it could be one without end
        for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
            self.bits(default, own)
        for statement in node.body:
            self.statement(statement, own, False)

    def statement(self, node: ast.stmt, known: dict[str, int | None], repeated: bool) -> None:
        if isinstance(node, ast.Assign):
            bits = self.bits(node.value, known)
            grows = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, (ast.Mult, ast.Pow))
            if bits is not None and grows and repeated:
                raise self.refuse(node, "a number that grows in a loop")
            if isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
                bits = 63  # of each size
            for target in node.targets:
                sizes = isinstance(target, ast.Tuple) and bits == 63
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        known[name.id] = bits if name is target or sizes else None
        elif isinstance(node, (ast.While, ast.For)):
            self.bits(node.test if isinstance(node, ast.While) else node.iter, known)
            for inner in node.body:
                self.statement(inner, known, True)
        elif isinstance(node, ast.If):
            self.bits(node.test, known)
            for inner in [*node.body, *node.orelse]:
                self.statement(inner, known, repeated)
        else:
            for part in ast.iter_child_nodes(node):
                if isinstance(part, ast.expr):
                    self.bits(part, known)

    def bits(self, node: ast.expr, known: dict[str, int | None], turns: int = 1) -> int | None:
        """How many bits a value has at most; None where it is no number of Python, as far as is known."""
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.Name):
            return known.get(node.id, self.numbers.get(node.id))
        if isinstance(node, ast.ListComp):
            self.comprehension(node, known, turns)
            return None
        inner = [self.bits(part, known, turns) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            self.bits(keyword.value, known, turns)
        if isinstance(node, ast.BinOp):
            return self.operation(node, inner[0], inner[1])
        if isinstance(node, ast.Attribute):
            return 63 if node.attr == "ndim" else None
        if isinstance(node, ast.Subscript):
            return 63 if isinstance(node.value, ast.Attribute) and node.value.attr == "shape" else None
        if isinstance(node, ast.Call):
            return self.call(node, inner[1:])
        if isinstance(node, (ast.UnaryOp, ast.IfExp, ast.BoolOp)):
            return None if None in inner else max(bits for bits in inner if bits is not None)
        return None

    def constant(self, node: ast.Constant) -> int | None:
        value = node.value
        if isinstance(value, (str, bytes)):
            if len(value) > _LONGEST_TEXT:
                raise self.refuse(node, f"a text of {len(value)} characters")
            return None
        if type(value) is int and value.bit_length() > _WRITTEN_BITS:
            raise self.refuse(node, f"a number of {value.bit_length()} bits")
        return max(value.bit_length(), 1) if isinstance(value, int) else _WRITTEN_BITS

    def operation(self, node: ast.BinOp, left: int | None, right: int | None) -> int | None:
        if not isinstance(node.op, _OPERATORS):
            raise self.refuse(node, ast.unparse(node)[:60])
        sides = (node.left, node.right)
        if any(_is_sequence(side) for side in sides) and not isinstance(node.op, ast.Add):
            raise self.refuse(node, ast.unparse(node)[:60])
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Pow):
            exponent = _written(node.right)
            if exponent is None or not exponent <= _LARGEST_EXPONENT:  # NaN is not either
                raise self.refuse(node, ast.unparse(node)[:60])
            bits = left * max(math.ceil(exponent), 1)
        elif isinstance(node.op, ast.Mult):
            bits = left + right
        else:
            bits = max(left, right) + 1
        if bits > _COMPUTED_BITS:
            raise self.refuse(node, f"a number of {bits} bits")
        return bits

    def call(self, node: ast.Call, arguments: list[int | None]) -> int | None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "range":
            self.turns(node, 1)
        if name in ("max", "min", "int", "float") and arguments and None not in arguments:
            return max(bits for bits in arguments if bits is not None)
        own = name and name not in ("max", "min", "int", "float", "range", "Tensor", "Parameter", "initializer")
        if own and self.counting and name not in self.classes:  # it may count up to what it is given
            for argument in node.args:
                for number in [argument, *(argument.elts if isinstance(argument, ast.Tuple) else ())]:
                    if (value := _whole(number)) is not None and abs(value) > _ASKED:
                        raise self.refuse(node, f"{name} of {value}")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _MAKERS:
            self.allow(node, self.asked(node), _ASKED)
        return None

    def comprehension(self, node: ast.ListComp, known: dict[str, int | None], turns: int) -> None:
        loop = node.generators[0]
        turns = self.turns(loop.iter, turns)
        self.bits(loop.iter, known, turns)
        if isinstance(loop.target, ast.Name):
            known[loop.target.id] = _WRITTEN_BITS  # bound in the whole function, which the grammar sees to
        self.bits(node.elt, known, turns)

    def turns(self, node: ast.expr, before: int) -> int:
        """How many turns a loop within as many takes, where that is written down."""
        numbers = [_whole(argument) for argument in node.args] if isinstance(node, ast.Call) else []
        most = max((abs(number) for number in numbers if number is not None), default=1)
        if not all(_is_plain(argument) for argument in getattr(node, "args", ())):
            raise self.refuse(node, ast.unparse(node)[:60])
        if most * before > _TURNS:
            raise self.refuse(node, f"{most * before} turns")
        return most * before

    # --- sizes ---

    def made(self, name: str, node: ast.ClassDef, given: tuple[Given, ...]) -> tuple[int, int]:
        """(cells, elements) that making one cell of this class makes, from what it is given."""
        if (name, given) in self.cost:
            return self.cost[name, given]
        if name in self.open:
            raise self.refuse(node, f"class {name}, which makes itself,")
        if len(self.cost) > _KINDS:
            raise self.refuse(node, f"class {name} in {_KINDS} kinds")
        self.open.add(name)
        cells, elements = 1, 0
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                names = [argument.arg for argument in item.args.args[1:]]
                known = dict(zip(names, given, strict=False))
                for statement in item.body:
                    more = self.makes(statement, known)
                    cells, elements = cells + more[0], elements + more[1]
        self.open.discard(name)
        self.cost[name, given] = cells, elements
        return cells, elements

    def makes(self, node: ast.AST, known: Mapping[str, Given]) -> tuple[int, int]:
        cells, elements, times = 0, 0, 1
        if isinstance(node, ast.ListComp):
            times = self.turns(node.generators[0].iter, 1)
        elif isinstance(node, ast.Tuple):
            return 0, _elements(node, known)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if name in self.classes:
                return self.made(name, self.classes[name], self.given(node, known))
            if getattr(node.func, "attr", name) in _MAKERS:
                elements = sum(_asked(argument, known) for argument in node.args)
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr | ast.keyword):
                more = self.makes(part, known)
                cells, elements = cells + more[0] * times, elements + more[1] * times
        return cells, elements

    def given(self, node: ast.Call, known: Mapping[str, Given]) -> tuple[Given, ...]:
        """What a class is given: numbers and shapes, written down or handed on."""
        found: list[Given] = []
        for argument in node.args:
            if isinstance(argument, ast.Name) and argument.id in known:
                found.append(known[argument.id])
                continue
            parts = argument.elts if isinstance(argument, ast.Tuple) else [argument]
            plain = all(isinstance(part, (ast.Constant, ast.UnaryOp)) for part in parts)
            numbers = [number for number in map(_whole, parts) if number is not None]
            if not plain or len(numbers) < len(parts):
                raise self.refuse(node, ast.unparse(node)[:60])
            found.append(tuple(numbers) if isinstance(argument, ast.Tuple) else numbers[0])
        if node.keywords:
            raise self.refuse(node, ast.unparse(node)[:60])
        return tuple(found)

    # --- calls ---

    def run(self, name: str, node: ast.FunctionDef) -> int:
        """How many functions of the file one call of a function runs, itself included."""
        if name not in self.calls:
            if name in self.open:
                raise self.refuse(node, f"function {name}, which calls itself,")
            self.open.add(name)
            self.calls[name] = 1 + self.ran(node)
            self.open.discard(name)
            if self.calls[name] > _CALLS:
                raise self.refuse(node, f"function {name}, which calls {self.calls[name]} functions,")
        return self.calls[name]

    def ran(self, node: ast.AST) -> int:
        """How many functions of the file run where `node` does."""
        count = 0
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            count = self.run(node.func.id, self.functions[node.func.id])
        inner = sum(self.ran(part) for part in ast.iter_child_nodes(node))
        return count + inner * (self.turns(node.generators[0].iter, 1) if isinstance(node, ast.ListComp) else 1)

    def asked(self, node: ast.expr) -> int:
        """The elements that a call asks for by number: `ops.zeros((2, 3))`, `ops.arange(6)`."""
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") not in _MAKERS:
            return 0
        sizes = [_elements(part) for part in node.args if isinstance(part, ast.Tuple)]
        numbers = [value for value in map(_whole, node.args) if value is not None]
        return max([*sizes, *(abs(number) for number in numbers)], default=0)


def _is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_sequence(node: ast.expr) -> bool:
    """Whether Python would repeat it, or write numbers into it."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Slice) and _is_sequence(node.value)
    if isinstance(node, ast.Attribute):
        return node.attr == "shape"
    return isinstance(node, (ast.Tuple, ast.List, ast.ListComp)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _is_plain(node: ast.expr) -> bool:
    """A number, or what depends on a size or an argument: sums and products of such, without a large number in it."""
    return not any(
        isinstance(part, ast.Constant) and isinstance(part.value, int) and abs(part.value) > _TURNS
        for part in ast.walk(node)
    )


def _written(node: ast.expr) -> float | None:
    """How large a number is that stands there as it is, with or without a sign."""
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    plain = isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float))
    return abs(inner.value) if plain else None  # type: ignore[attr-defined]


def _whole(node: ast.expr) -> int | None:
    """The value of a whole number as it is written, with powers and products of such."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _whole(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.BinOp):
        left, right = _whole(node.left), _whole(node.right)
        if left is None or right is None or max(abs(left), abs(right)) > 1 << 64:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Pow) and 0 <= right <= _LARGEST_EXPONENT:
            return left**right
        if isinstance(node.op, (ast.Add, ast.Sub)):
            return left + right if isinstance(node.op, ast.Add) else left - right
    return None


def _asked(node: ast.expr, known: Mapping[str, Given]) -> int:
    """The elements that an argument asks for: a number, or a name of one or of a shape."""
    value: Given | None = known.get(node.id) if isinstance(node, ast.Name) else _whole(node)
    return math.prod(value) if isinstance(value, tuple) else max(value or 0, 0)


def _elements(node: ast.Tuple, known: Mapping[str, Given] | None = None) -> int:
    """Of a tensor of this shape; 0 where it is none."""
    sizes: list[int] = []
    unknown = False
    for element in node.elts:
        inner = element.value if isinstance(element, ast.Starred) else element
        value: Given | None = _whole(inner)
        if isinstance(inner, ast.Name):
            value = (known or {}).get(inner.id)
        unknown = unknown or value is None
        sizes += value if isinstance(value, tuple) else [] if value is None else [value]
    if unknown or any(size < 0 for size in sizes):
        return max((abs(size) for size in sizes), default=0) if unknown else 0
    return math.prod(sizes)
