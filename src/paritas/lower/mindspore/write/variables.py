# SPDX-License-Identifier: Apache-2.0
"""The variables of one method: what they hold, what may be bound anew, how sizes, weights and constants are read."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

from paritas.capture.modules import Region
from paritas.dtypes import dtype_name
from paritas.errors import LoweringError
from paritas.lower.mindspore.write import functions
from paritas.lower.mindspore.write.context import Context, Method
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.functions import FunctionRegion
from paritas.lower.mindspore.write.names import Function, usable
from paritas.lower.mindspore.write.nodes import dims_of, symbols_of
from paritas.lower.mindspore.write.places import is_index
from paritas.lower.mindspore.write.source import Value
from paritas.lower.mindspore.write.steps import Parts, step_of


class Variables:
    """What a method's statements read and bind. It is the `Scope` that lowerings write into."""

    def __init__(self, module: Context, region: Region, primitives: Mapping[str, str], named: frozenset[Any]) -> None:
        """primitives: what other methods of its cell have, by attribute. named: sizes that get a variable."""
        self.module, self.named = module, named
        self.program, self.weights, self.target = module.program, module.weights, module.target
        self.written, self.places = module.written, module.places
        self.region, self.primitives = region, primitives
        positions = self.program.results.get(region.key, {})
        self.method = Method(outputs=sorted(region.outputs, key=lambda n: positions.get(n.name, len(positions))))
        self.scope: dict[Node, Value] = {}
        self.bound: dict[str, Node | None] = {}  # variable -> the node it holds now
        self.outside: dict[str, str] = {}  # weight of another module -> the argument that it is
        self.uses: dict[Node, int] = {}
        self.pending: dict[Node, frozenset[str]] = {}  # expressions not yet written out -> the names they read
        self.parts: dict[Node, Parts] = {}  # those that are parts of an unwritten node's text
        self.taken: Parts = []  # those that are parts of the text now in the making
        # Variables that the texts now in a lowering's hands read: it must not bind one of them again.
        self.in_flight: set[str] = set()
        self.where = ""  # the node in the making, and its source line
        self.comment: tuple | None = None
        self._after: list[Node | Region] = []  # what is still to be written
        self._own_nodes: set[Node] = set()
        self.depth = _depth(region)
        self.inside = region.inside if isinstance(region, FunctionRegion) else 0
        self.asked: dict[sympy.Symbol, int] = {}  # how often each size was read off a tensor
        self.sizes: dict[sympy.Symbol, str] = {}  # those that have a variable

    @functools.cached_property
    def function(self) -> Function | None:
        """The original's source of what the method computes."""
        return functions.own_function(self.region, self.depth, self.inside)

    def _fresh(self, hint: str, node: Node | None = None) -> str:
        """`hint`, if what that name holds is not needed once it holds `node`; else hint_1, hint_2, .."""
        name, count = hint, 0
        while not self._may_bind(name, node):
            count += 1
            name = f"{hint}_{count}"
        return name

    def _may_bind(self, name: str, node: Node | None) -> bool:
        if name in self.module.reserved:
            return False
        if name in self.in_flight or any(name in names for names in self.pending.values()):
            return False
        if name not in self.bound:
            return True
        holder = self.bound[name]
        if holder is None or self.uses.get(holder, 0) > 0:
            return False
        # Sizes are read off variables: the last one that shows a dimension must stay.
        others = {
            symbol for n, held in self.bound.items() if n != name and held is not None for symbol in symbols_of(held)
        }
        kept = others | set(self.sizes) | (symbols_of(node) if node is not None else set())
        return symbols_of(holder) <= kept or (node is not None and not self._after)

    def _use(self, node: Node) -> Value:
        if node not in self.scope:
            if node.op == "placeholder":
                return self._weight(self.weights.names[node.name])
            raise LoweringError(f"{node.name} is used before it is made; the graph is not in normal form.")
        self.uses[node] = self.uses.get(node, 1) - 1
        value = self.scope[node]
        if self.uses[node] <= 0:
            self.pending.pop(node, None)
            self.taken += self.parts.pop(node, [])
        return value

    def _statement(self, line: str) -> None:
        """A line, and which nodes it computes."""
        self.method.lines.append(line)
        self.method.steps.append(step_of(line, self.taken))
        self.taken = []

    # --- weights and sizes ---

    def _weight(self, name: str) -> Value:
        self._needs_cell()
        tensor = self.weights.values[name]
        if self._inside(self.weights.owner(name)[0]):
            text = f"self{self._access(name)}"
        else:
            if name not in self.outside:
                self.method.weights.append(name)
                parts = [part for part in name.split(".") if not is_index(part)][-2:]
                hint = usable(re.sub(r"\W", "_", ".".join(parts)))
                self.outside[name] = self._fresh(hint or "weight")
                self.bound[self.outside[name]] = None  # for good
            text = self.outside[name]
        return Value(text, dtype_name(tensor.dtype), tuple(tensor.shape))

    def _inside(self, path: str) -> bool:
        return not self.region.path or path == self.region.path or path.startswith(self.region.path + ".")

    def _access(self, path: str) -> str:
        if not self._inside(path):
            raise LoweringError(f"{path} is called by {self.region.path}, which does not contain it.")
        return self.places.access(path, self.region.path)

    def _size(self, size: object) -> Value:
        return Emitter(self, Value(""), "a size").size(size)

    # --- what `Emitter` needs (emit.Scope) ---

    def let(self, value: Value, hint: str) -> Value:
        name = self._fresh(usable(hint) or "value")
        self._statement(f"{name} = {value.text}")
        self.bound[name] = None
        return dataclasses.replace(value, text=name, atomic=True)

    def _needs_cell(self) -> None:
        if isinstance(self.region, FunctionRegion):
            raise LoweringError(f"{self.where} needs its cell.")

    def primitive(self, expression: str, hint: str) -> str:
        self._needs_cell()
        base = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", hint).lower()
        for name, known in {**self.primitives, **self.method.primitives}.items():
            if known == expression:
                self.method.primitives[name] = expression
                return f"self.{name}"
        name, count = base, 1
        while (
            name in self.method.primitives
            or name in self.primitives
            or hasattr(torch.nn.Module, name)
            or self._taken(name)
        ):
            count += 1
            name = f"{base}_{count}"
        self.method.primitives[name] = expression
        return f"self.{name}"

    def _taken(self, name: str) -> bool:
        full = f"{self.region.path}.{name}".lstrip(".")
        return full in self.program.module_classes or self.places.is_taken(self.region.path, name)

    def helper(self, name: str) -> None:
        self.method.helpers.add(name)

    def resolve(self, symbol: sympy.Symbol) -> str:
        if symbol in self.sizes:
            return self.sizes[symbol]
        self.asked[symbol] = self.asked.get(symbol, 0) + 1
        for name, node in self.bound.items():
            for axis, size in enumerate(dims_of(node)):
                if size == symbol:
                    self.in_flight.add(name)
                    if symbol in self.named:
                        return self._named_size(symbol, name, dims_of(node))
                    return f"{name}.shape[{axis}]"
        if self.region.parent is None:
            raise LoweringError(
                f"mindspore cannot lower {self.where}: the size {symbol} depends on values and cannot be read off any "
                "tensor."
            )
        self.method.sizes.append(symbol)
        self.sizes[symbol] = self._new(self.module.size_name(symbol))
        return self.sizes[symbol]

    def _named_size(self, symbol: sympy.Symbol, tensor: str, dims: Sequence[Any]) -> str:
        """A variable for a size that is read more than once, and for others: `batch, length, _ = x.shape`."""
        own = functions.names_of_sizes(self.function, dims)
        targets = []
        for size, hint in zip(dims, own, strict=True):
            if isinstance(size, sympy.Symbol) and size in self.named and size not in self.sizes:
                self.sizes[size] = self._new(hint or self.module.size_name(size))
                targets.append(self.sizes[size])
            else:
                targets.append("_")
        taken, self.taken = self.taken, []
        if targets.count("_") == len(targets) - 1:
            axis = next(i for i, target in enumerate(targets) if target != "_")
            self._statement(f"{targets[axis]} = {tensor}.shape[{axis}]")
        else:
            self._statement(f"{', '.join(targets)} = {tensor}.shape")
        self.taken = taken
        return self.sizes[symbol]

    def _new(self, hint: str) -> str:
        """A variable that no statement of the method binds again."""
        name, count = hint, 0
        while name in self.bound or not self._may_bind(name, None):
            count += 1
            name = f"{hint}_{count}"
        self.bound[name] = None
        return name

    def number(self, name: str, value: int) -> Value | None:
        leaf = self.region.parent is not None and not any(isinstance(i, Region) for i in self.region.items)
        if isinstance(self.region, FunctionRegion) or not leaf or self._taken(name):
            return None
        if any(path.startswith(f"{self.region.path}.") for path in self.program.module_classes):
            return None
        self.method.numbers[name] = value
        return Value(f"self.{name}")

    def constant(self, value: torch.Tensor, hint: str) -> Value:
        self._needs_cell()
        path = f"{self.region.path}." if self.region.path else ""
        for name, known in self.module.constants.items():
            if (
                name.startswith(path + hint)
                and known.shape == value.shape
                and known.dtype == value.dtype
                and torch.equal(known, value)
            ):
                break
        else:
            count = sum(name.startswith(path + hint) for name in self.module.constants)
            while self._taken(f"{hint}_{count}"):
                count += 1
            name = f"{path}{hint}_{count}"
            self.module.constants[name] = value
            self.places.add(name)
        return Value(f"self.{name.removeprefix(path)}", dtype_name(value.dtype), tuple(value.shape))


def _depth(region: Region) -> int:
    """How many modules are around the one that a region is in."""
    depth, around = -1, region
    while around is not None:
        depth += not isinstance(around, FunctionRegion)
        around = around.parent  # type: ignore[assignment]
    return depth
