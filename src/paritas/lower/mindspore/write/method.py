# SPDX-License-Identifier: Apache-2.0
"""The module tree as MindSpore cells: one class per distinct module, one `construct` per distinct call.

`Methods` writes the body of one region; `lower` in `module.py` puts bodies into classes and classes into a file.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import sympy
import torch
from torch.fx import Node

from paritas.capture.modules import Region, is_size
from paritas.capture.normalise import expression, name_of
from paritas.dtypes import dtype_name
from paritas.errors import LoweringError
from paritas.lower.mindspore.widen import holds_bfloat16, in_float32
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.loops import fold_loops
from paritas.lower.mindspore.write.names import (
    Statement,
    calling_statement,
    name_hint,
    statements,
    usable,
)
from paritas.lower.mindspore.write.places import Places, is_index
from paritas.lower.mindspore.write.source import Value, literal, printable
from paritas.lower.mindspore.write.steps import CALL, Parts, Step, step_of
from paritas.lower.placed import placed
from paritas.lower.registry import Lowering
from paritas.program import Program


@dataclasses.dataclass
class Method:
    """One `construct`: what it takes, what it says, what it needs of its cell."""

    name: str = "construct"
    nodes: list[Node] = dataclasses.field(default_factory=list)  # tensor arguments
    weights: list[str] = dataclasses.field(
        default_factory=list
    )  # weights of other modules, passed in by name
    sizes: list[sympy.Expr] = dataclasses.field(default_factory=list)  # sizes that no argument has
    arguments: list[str] = dataclasses.field(default_factory=list)  # the names of all of these
    lines: list[str] = dataclasses.field(default_factory=list)  # statements and comments, unwrapped
    primitives: dict[str, str] = dataclasses.field(default_factory=dict)  # attribute -> expression
    helpers: set[str] = dataclasses.field(default_factory=set)
    outputs: list[Node] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)  # where its nodes are computed

    @property
    def body(self) -> tuple:
        """What makes two methods the same."""
        return tuple(self.arguments), tuple(self.lines), tuple(sorted(self.primitives.items()))


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parameters, buffers and constants of a program, by placeholder and by name."""

    names: Mapping[
        str, str
    ]  # placeholder -> the name under which the checkpoint has it, or the buffer's own
    values: Mapping[str, torch.Tensor]
    persistent_order: tuple[str, ...]  # names in the checkpoint

    @functools.cached_property
    def persistent(self) -> frozenset[str]:
        return frozenset(self.persistent_order)

    def owner(self, name: str) -> tuple[str, str]:
        """ "encoder.layer.0.weight" is ("encoder.layer.0", "weight")."""
        path, _, attribute = name.rpartition(".")
        return path, attribute


class MethodWriter:
    """Writes one region's `construct`. Called regions must have been written before."""

    def __init__(
        self,
        program: Program,
        region: Region,
        lowerings: Mapping[str, Lowering],
        weights: Weights,
        written: Mapping[str, Method],  # region key -> the method that does it
        lists: Mapping[
            str, int
        ],  # paths that become CellLists, and so have no construct -> their lengths
        unnamed: frozenset[str],  # paths that become nothing: their callers do what they do
        constants: dict[str, torch.Tensor],  # filled with tensors made while lowering
        places: Places,  # to which they are added
        primitives: Mapping[
            str, str
        ],  # what other methods of its cell have: attribute -> expression
        target: str,
    ) -> None:
        self.program, self.region, self.lowerings, self.weights = (
            program,
            region,
            lowerings,
            weights,
        )
        self.written, self.lists, self.constants, self.target = written, lists, constants, target
        self.unnamed, self.places, self.primitives = unnamed, places, primitives
        positions = program.results.get(region.key, {})
        self.method = Method(
            outputs=sorted(region.outputs, key=lambda n: positions.get(n.name, len(positions)))
        )
        self.scope: dict[Node, Value] = {}
        self.bound: dict[str, Node | None] = {}  # variable -> the node it holds now
        self.outside: dict[str, str] = {}  # weight of another module -> the argument that it is
        self.uses: dict[Node, int] = {}
        self.pending: dict[
            Node, frozenset[str]
        ] = {}  # expressions not yet written out -> the names they read
        self.parts: dict[Node, Parts] = {}  # those that are parts of an unwritten node's text
        self.taken: Parts = []  # those that are parts of the text now in the making
        # Variables that the texts now in a lowering's hands read: it must not bind one of them again.
        self.in_flight: set[str] = set()
        self.where = ""  # the node in the making, and its source line
        self.comment: tuple | None = None
        self._after: list[Node | Region] = []  # what is still to be written
        self._own_nodes: set[Node] = set()
        self.depth = len(self._levels())

    def _levels(self) -> list[Region]:
        found, region = [], self.region.parent
        while region is not None:
            found.append(region)
            region = region.parent
        return found

    # --- the whole method ---

    def write(self) -> Method:
        items = list(self._items(self.region))
        self._own_nodes = {item for item in items if isinstance(item, Node)}
        self._count_uses(items)
        self._open_arguments()
        for position, item in enumerate(items):
            self._after = items[position + 1 :]
            if isinstance(item, Region):
                self._call(item)
            else:
                self._node(item)
        self._return()
        lengths = {
            f"self{self._access(path)}": length
            for path, length in self.lists.items()
            if self._inside(path)
        }
        self.method.arguments += [self.outside[name] for name in self.method.weights]
        self.method.arguments += [size_argument(size) for size in self.method.sizes]
        taken = {*self.bound, *self.method.arguments}
        self.method.lines = fold_loops(self.method.lines, lengths, taken)
        return self.method

    def _items(self, region: Region) -> Iterator[Node | Region]:
        for item in region.items:
            if isinstance(item, Region) and (item.path in self.lists or item.path in self.unnamed):
                yield from self._items(item)
            elif isinstance(item, Region) and not item.outputs:
                continue
            else:
                yield item

    def _count_uses(self, items: list[Node | Region]) -> None:
        for item in items:
            for node in self._consumed(item):
                self.uses[node] = self.uses.get(node, 0) + 1
        for node in self._returned():
            self.uses[node] = self.uses.get(node, 0) + 1

    def _returned(self) -> list[Node]:
        if self.region.parent is None:
            returned: Any = self.program.graph.output_node().args[0]
            return [n for n in returned if isinstance(n, Node)]
        return self.method.outputs

    def _open_arguments(self) -> None:
        names = self.program.arguments.get(self.region.key, {})
        if self.region.parent is None:
            nodes = [
                n
                for n in self.program.graph.nodes
                if n.op == "placeholder" and "paritas_input" in n.meta
            ]
            names = {node.name: node.meta["paritas_input"] for node in nodes}
        else:
            inside = [n for n in self.region.inputs if n in self.uses]
            known = [n for key in names for n in inside if n.name == key]
            nodes = known + [n for n in inside if n not in known]
        for node in nodes:
            hint = usable(names.get(node.name, "")) or _anonymous(node)
            name = self._fresh(hint)
            self.bound[name] = node
            self.scope[node] = _value(name, node)
            self.method.nodes.append(node)
            self.method.arguments.append(name)

    def _return(self) -> None:
        returned = [self._use(node) for node in self._returned()]
        self._flush_comment(None)
        text = ", ".join(literal(value) for value in returned)
        self._statement(f"return {text}")

    # --- one item ---

    def _node(self, node: Node) -> None:
        stack = statements(node, self.depth)
        name = name_of(node)
        self.taken = []
        if name == "getitem":
            self._bind(node, self._item(node), stack, name_hint(stack))
            return
        self.where = f"{name} at {self.program.origin(node.name)}"
        with placed("mindspore", self.where):
            args = [self._argument(a) for a in node.args]
            kwargs = {
                k: self._argument(v)
                for k, v in node.kwargs.items()
                if k not in ("device", "layout", "pin_memory", "memory_format")
            }
            emitter = Emitter(self, _outputs(node), self.where)
            self._flush_comment(stack[0] if stack else None)
            self.in_flight = {n for v in _values((args, kwargs)) for n in v.names}
            lowering = self.lowerings[name]
            if self.target == "cpu" and holds_bfloat16(emitter, args, kwargs):
                value = in_float32(lowering, emitter, args, kwargs)
            else:
                value = emitter.if_empty() or lowering(emitter, *args, **kwargs)
            self.in_flight = set()
        if isinstance(emitter.out, Value):
            value = dataclasses.replace(value, dtype=emitter.out.dtype, shape=emitter.out.shape)
        self._bind(node, value, stack, name_hint(stack))

    def _item(self, node: Node) -> Value:
        source, index = node.args
        held = self._use(source)  # type: ignore[arg-type]
        return dataclasses.replace(_outputs(node), text=f"{literal(held)}[{index}]")

    def _call(self, region: Region) -> None:
        method = self.written[region.key]
        caller = calling_statement(method.outputs[0], self.depth)
        positions = self.program.results.get(region.key, {})
        self.taken = []
        self._flush_comment(caller)
        args = [literal(self._use(node)) for node in method.nodes]
        args += [literal(self._weight(name)) for name in method.weights]
        args += [str(self._size(size)) for size in method.sizes]
        cell = f"self{self._access(region.path)}"
        if method.name != "construct":
            cell += f".{method.name}"
        call = Value(f"{cell}({', '.join(args)})")
        if len(method.outputs) == 1:
            node = method.outputs[0]
            value = dataclasses.replace(_outputs(node), text=call.text)
            self._bind(
                node,
                value,
                [caller] if caller else [],
                self._result_hint(caller, positions.get(node.name, 0)),
                CALL + region.key,
            )
            return
        names = []
        for position, node in enumerate(method.outputs):
            hint = self._result_hint(caller, positions.get(node.name, position))
            name = self._fresh(hint or _anonymous(node), node)
            names.append(name)
            self.bound[name] = node
        self.taken.append((call.text, CALL + region.key))
        self._statement(f"{', '.join(names)} = {call.text}")
        for name, node in zip(names, method.outputs, strict=True):
            self.scope[node] = _value(name, node)

    def _result_hint(self, caller: Statement | None, position: int) -> str | None:
        if caller is None or position >= len(caller.targets):
            return None
        return usable(caller.targets[position])

    # --- names, uses, comments ---

    def _bind(
        self,
        node: Node,
        value: Value,
        stack: list[Statement],
        hint: str | None,
        part: str = "",
    ) -> None:
        """Keep the expression to be written inside its only user, or give it a variable now.

        part: what the expression computes, the node if "".
        """
        # What a decomposition put there is no node of the program.
        own = [] if "paritas_of" in node.meta else [(value.text, part or node.name)]
        if (
            self.uses.get(node, 0) == 1
            and self._same_statement(node, stack)
            and len(value.text) < 70
        ):
            self.scope[node] = value
            self.pending[node] = value.names
            self.parts[node] = [*self.taken, *own]
            return
        name = self._fresh(hint or _hint_of(node), node)
        if value.text != name:
            self.taken += own
            self._statement(f"{name} = {value.text}")
        self.bound[name] = node
        self.scope[node] = _value(name, node) if value.shape is not None else Value(name)

    def _same_statement(self, node: Node, stack: list[Statement]) -> bool:
        if node in self._returned():
            return not stack or stack[0].returns  # used once, so it is returned and nothing else
        user = next((item for item in self._after if node in self._consumed(item)), None)
        if user is None or not stack:
            return False
        if isinstance(user, Region):
            if name_of(node) == "" or node not in self._own_nodes:
                return False  # one module's result is another's argument: a statement each, as layers in a loop
            other = calling_statement(self.written[user.key].outputs[0], self.depth)
        else:
            other = next(iter(statements(user, self.depth)), None)
        return other is not None and other.key == stack[0].key

    def _consumed(self, item: Node | Region) -> list[Node]:
        return self.written[item.key].nodes if isinstance(item, Region) else _tensor_arguments(item)

    def _fresh(self, hint: str, node: Node | None = None) -> str:
        """`hint`, if what that name holds is not needed once it holds `node`; else hint_1, hint_2, .."""
        name, count = hint, 0
        while not self._may_bind(name, node):
            count += 1
            name = f"{hint}_{count}"
        return name

    def _may_bind(self, name: str, node: Node | None) -> bool:
        if name in self.in_flight or any(name in names for names in self.pending.values()):
            return False
        if name not in self.bound:
            return True
        holder = self.bound[name]
        if holder is None or self.uses.get(holder, 0) > 0:
            return False
        # Sizes are read off variables: the last one that shows a dimension must stay.
        others = {
            s
            for n, held in self.bound.items()
            if n != name and held is not None
            for s in _symbols(held)
        }
        return _symbols(holder) <= others | (_symbols(node) if node is not None else set())

    def _use(self, node: Node) -> Value:
        if node not in self.scope:
            if node.op == "placeholder":
                return self._weight(self.weights.names[node.name])
            raise LoweringError(
                f"{node.name} is used before it is made; the graph is not in normal form."
            )
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

    def _flush_comment(self, statement: Statement | None) -> None:
        if statement is None or statement.key == self.comment:
            return
        self.comment = statement.key
        self.method.lines.append(
            printable(f"# {statement.file.rsplit('/', 1)[-1]}:{statement.line}  {statement.text}")
        )

    # --- arguments ---

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Node):
            if is_size(value):
                return self._size(expression(value.meta["val"]))
            return self._use(value)
        if isinstance(value, (list, tuple)):
            return (
                type(value)(self._argument(v) for v in value)
                if isinstance(value, tuple)
                else [self._argument(v) for v in value]
            )
        return value

    def _weight(self, name: str) -> Value:
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
        return (
            not self.region.path
            or path == self.region.path
            or path.startswith(self.region.path + ".")
        )

    def _access(self, path: str) -> str:
        if not self._inside(path):
            raise LoweringError(
                f"{path} is called by {self.region.path}, which does not contain it."
            )
        return self.places.access(path, self.region.path)

    def _size(self, size: object) -> Value:
        return Emitter(self, Value(""), "a size").size(size)

    # --- what `Emitter` needs (emit.Scope) ---

    def let(self, value: Value, hint: str) -> Value:
        name = self._fresh(usable(hint) or "value")
        self._statement(f"{name} = {value.text}")
        self.bound[name] = None
        return dataclasses.replace(value, text=name, atomic=True)

    def primitive(self, expression: str, hint: str) -> str:
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
        for name, node in self.bound.items():
            if node is None or not isinstance(node.meta.get("val"), torch.Tensor):
                continue
            for axis, size in enumerate(node.meta["val"].shape):
                if expression(size) == symbol:
                    self.in_flight.add(name)
                    return f"{name}.shape[{axis}]"
        if self.region.parent is None:
            raise LoweringError(
                f"mindspore cannot lower {self.where}: the size {symbol} depends on values and cannot be read off any "
                "tensor."
            )
        if symbol not in self.method.sizes:
            self.method.sizes.append(symbol)
            self.bound[size_argument(symbol)] = None
        return size_argument(symbol)

    def constant(self, value: torch.Tensor, hint: str) -> Value:
        path = f"{self.region.path}." if self.region.path else ""
        for name, known in self.constants.items():
            if (
                name.startswith(path + hint)
                and known.shape == value.shape
                and known.dtype == value.dtype
                and torch.equal(known, value)
            ):
                break
        else:
            count = sum(name.startswith(path + hint) for name in self.constants)
            while self._taken(f"{hint}_{count}"):
                count += 1
            name = f"{path}{hint}_{count}"
            self.constants[name] = value
            self.places.add(name)
        return Value(
            f"self.{name.removeprefix(path)}",
            dtype_name(value.dtype),
            tuple(value.shape),
        )


def size_argument(size: sympy.Expr) -> str:
    return f"size_{size}"


def _tensor_arguments(node: Node) -> list[Node]:
    """Every use of a tensor, with repetition."""
    found: list[Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, Node):
            if not is_size(value):
                found.append(value)
        elif isinstance(value, (list, tuple)):
            for v in value:
                visit(v)
        elif isinstance(value, dict):
            for v in value.values():
                visit(v)

    visit(node.args)
    visit(dict(node.kwargs))
    return found


def _values(argument: Any) -> Iterator[Value]:
    """Every `Value` in a nest of arguments."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for inner in argument:
            yield from _values(inner)
    elif isinstance(argument, dict):
        yield from _values(list(argument.values()))


def _value(text: str, node: Node) -> Value:
    described = _outputs(node)
    return (
        dataclasses.replace(described, text=text) if isinstance(described, Value) else Value(text)
    )


def _outputs(node: Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return Value("", dtype_name(value.dtype), tuple(expression(s) for s in value.shape))
    if isinstance(value, (tuple, list)):
        return tuple(
            Value("", dtype_name(v.dtype), tuple(expression(s) for s in v.shape))
            if isinstance(v, torch.Tensor)
            else None
            for v in value
        )
    return Value("")


def _symbols(node: Node) -> set:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return set()
    return {e for e in map(expression, value.shape) if isinstance(e, sympy.Symbol)}


def _anonymous(node: Node) -> str:
    """A name for an argument that the original does not name: by what it looks like."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
        return "mask"
    return "x"


def _hint_of(node: Node) -> str:
    """ "layer_norm_3" is layer_norm."""
    return usable(re.sub(r"_\d+$", "", node.name).lstrip("_")) or "x"
