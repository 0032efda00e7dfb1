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

import torch
from torch.fx import Node
from torch.utils._sympy.symbol import SymT, symbol_is_type

from paritas.capture.modules import Region, is_size
from paritas.capture.normalise import expression, name_of
from paritas.errors import LoweringError
from paritas.lower.mindspore.widen import holds_bfloat16, in_float32
from paritas.lower.mindspore.write import functions, hints
from paritas.lower.mindspore.write.context import Context, Method
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.functions import FunctionRegion
from paritas.lower.mindspore.write.loops import fold_loops
from paritas.lower.mindspore.write.names import Statement, calling_statements, comment_of, statements, usable
from paritas.lower.mindspore.write.nodes import (
    anonymous,
    described,
    symbols_of,
    tensor_arguments,
    unchanged,
    value_of,
    values_in,
)
from paritas.lower.mindspore.write.places import is_index
from paritas.lower.mindspore.write.source import Value, literal
from paritas.lower.mindspore.write.steps import CALL
from paritas.lower.mindspore.write.variables import Variables
from paritas.lower.placed import placed


class MethodWriter(Variables):
    """Writes one region's `construct`, or a function. Called regions must have been written before."""

    # --- the whole method ---

    def write(self) -> Method:
        self.targets = hints.Targets()
        items = list(self._items(self.region))
        if not isinstance(self.region, FunctionRegion) and self.module.functions is not None:
            items = functions.with_functions(items, self.region, self.depth)
        items = self._with_methods(items)
        self._own_nodes = {item for item in items if isinstance(item, Node)}
        self._called = [item for item in items if isinstance(item, Region)]
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
            f"self{self._access(path)}": length for path, length in self.module.lists.items() if self._inside(path)
        }
        self.method.arguments += [self.outside[name] for name in self.method.weights]
        self.method.arguments += [self.sizes[size] for size in self.method.sizes]
        taken = {*self.bound, *self.method.arguments}
        self.method.lines = fold_loops(self.method.lines, lengths, taken)
        return self.method

    def _items(self, region: Region) -> Iterator[Node | Region]:
        for item in region.items:
            if isinstance(item, FunctionRegion):
                yield item
            elif isinstance(item, Region) and (item.path in self.module.lists or item.path in self.module.unnamed):
                yield from self._items(item)
            elif isinstance(item, Region) and not item.outputs:
                continue
            else:
                yield item

    def _with_methods(self, items: list[Node | Region]) -> list[Node | Region]:
        """The functions among the items, written; what can be none is computed where it is called."""
        found: list[Node | Region] = []
        for item in items:
            if not isinstance(item, FunctionRegion):
                found.append(item)
                continue
            item.items = self._with_methods(item.items)
            found += [item] if self._is_function(item) else item.items
        return found

    def _is_function(self, region: FunctionRegion) -> bool:
        """Write a function, unless it needs the cell or something else that a function does not have."""
        consumed = {item: self._consumed(item) for item in region.items}
        functions.find_borders(region, consumed)
        if not region.outputs or not all(
            isinstance(node.meta.get("val"), torch.Tensor) for node in (*region.inputs, *region.outputs)
        ):
            return False
        try:
            method = write(self.module, region, {})
        except LoweringError:
            return False
        if any(re.search(r"\bself\b", line) for line in method.lines if not line.startswith("#")):
            return False
        assert region.function is not None and self.module.functions is not None
        method.name = self.module.functions.named(region.function.name, method)
        self.module.written[region.key] = method
        return True

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
            nodes = [n for n in self.program.graph.nodes if n.op == "placeholder" and "paritas_input" in n.meta]
            names = {node.name: node.meta["paritas_input"] for node in nodes}
            self.method.lines += [self.module.described(spec) for spec in self.program.inputs]
        elif isinstance(self.region, FunctionRegion):
            consumed = {item: self._consumed(item) for item in self.region.items}
            called = {i: self.written[i.key].arguments for i in self._called}
            known_as = functions.parameters(self.region, consumed, called, self.depth)
            nodes, names = list(known_as), {node.name: name for node, name in known_as.items()}
        else:
            inside = [n for n in self.region.inputs if n in self.uses]
            known = [n for key in names for n in inside if n.name == key]
            nodes = known + [n for n in inside if n not in known]
        for node in nodes:
            hint = usable(names.get(node.name, "")) or hints.of_input(node) or anonymous(node)
            name = self._fresh(self._unpacked(hint))
            self.bound[name] = node
            self.scope[node] = value_of(name, node)
            self.method.nodes.append(node)
            self.method.arguments.append(name)

    def _unpacked(self, argument: str) -> str:
        """ "position_embeddings_1" is `sin` where forward says `cos, sin = position_embeddings`."""
        name, _, index = argument.rpartition("_")
        names = self.function.unpacked.get(name, ()) if self.function is not None else ()
        known = usable(names[int(index)]) if index.isdigit() and int(index) < len(names) else None
        return known or argument

    def _return(self) -> None:
        if isinstance(self.region, FunctionRegion):
            variables = {node: self.scope[node].text for node in self.method.outputs}
            places = functions.results(self.region, variables)
            self.method.outputs.sort(key=places.__getitem__)
            self.method.positions = places
        returned = [self._use(node) for node in self._returned()]
        self.method.returned = [value.text if value.text.isidentifier() else "" for value in returned]
        self._flush_comment(None)
        text = ", ".join(literal(value) for value in returned)
        self._statement(f"return {text}")

    # --- one item ---

    def _node(self, node: Node) -> None:
        stack = statements(node, self.depth, self.inside)
        name = name_of(node)
        self.taken = []
        if name == "getitem":
            self._bind(node, self._item(node), stack, self._hint(node, stack))
            return
        self.where = f"{name} at {self.program.origin(node.name)}"
        with placed("mindspore", self.where):
            args = [self._argument(a) for a in node.args]
            kwargs = {
                k: self._argument(v)
                for k, v in node.kwargs.items()
                if k not in ("device", "layout", "pin_memory", "memory_format")
            }
            emitter = Emitter(self, described(node), self.where)
            self._flush_comment(stack[0] if stack else None)
            self.in_flight = {n for v in values_in((args, kwargs)) for n in v.names}
            lowering = self.module.lowerings[name]
            if self.target == "cpu" and holds_bfloat16(emitter, args, kwargs):
                value = in_float32(lowering, emitter, args, kwargs)
            else:
                known = emitter.if_empty() or unchanged(name, args, emitter.out)
                value = known or lowering(emitter, *args, **kwargs)
            self.in_flight = set()
        if isinstance(emitter.out, Value):
            value = dataclasses.replace(value, dtype=emitter.out.dtype, shape=emitter.out.shape)
        self._bind(node, value, stack, self._hint(node, stack))

    def _item(self, node: Node) -> Value:
        source, index = node.args
        held = self._use(source)  # type: ignore[arg-type]
        return dataclasses.replace(described(node), text=f"{literal(held)}[{index}]")

    def _hint(self, node: Node, stack: list[Statement]) -> str:
        return hints.of_node(
            node,
            stack,
            self.targets,
            lambda statement: self._goes_on(node, statement),
            lambda n: str(self.scope.get(n, "")),
        )

    def _goes_on(self, node: Node, statement: Statement) -> bool:
        """Whether `statement` computes further with the node at once, and nothing behind it reads the node."""
        inside = True
        for position, item in enumerate(self._after):
            inside = inside and any(s.key == statement.key for s in self._stack(item))
            if not inside and position == 0:
                return False
            if not inside and node in self._consumed(item):
                return False
        return bool(self._after) and node not in self._returned()

    def _stack(self, item: Node | Region) -> list[Statement]:
        """The statements of this method that run an item, innermost first."""
        if isinstance(item, Node):
            return statements(item, self.depth, self.inside)
        end = item.inside if isinstance(item, FunctionRegion) else None
        return calling_statements(self.written[item.key].outputs[0], self.depth, self.inside, end)

    def _call(self, region: Region) -> None:
        method = self.written[region.key]
        stack = self._stack(region)
        if isinstance(region, FunctionRegion):
            positions = method.positions
            self.method.called.add(method.name)
        else:
            positions = {
                node: self.program.results.get(region.key, {}).get(node.name, place)
                for place, node in enumerate(method.outputs)
            }
        self.taken = []
        self._flush_comment(stack[0] if stack else None)
        args = [literal(self._use(node)) for node in method.nodes]
        args += [literal(self._weight(name)) for name in method.weights]
        args += [str(self._size(size)) for size in method.sizes]
        callee = method.name
        if not isinstance(region, FunctionRegion):
            callee = f"self{self._access(region.path)}"
            if method.name != "construct":
                callee += f".{method.name}"
        call = Value(f"{callee}({', '.join(args)})")
        several = len(method.outputs) > 1
        wanted = [
            hints.of_call(
                region, stack, self.targets, positions[node], own, several, functools.partial(self._goes_on, node)
            )
            for node, own in zip(method.outputs, method.returned, strict=True)
        ]
        if len(method.outputs) == 1:
            node = method.outputs[0]
            value = dataclasses.replace(described(node), text=call.text)
            self._bind(node, value, stack[:1], wanted[0], CALL + region.key)
            return
        names = []
        for hint, node in zip(wanted, method.outputs, strict=True):
            name = self._fresh(hint or anonymous(node), node)
            names.append(name)
            self.bound[name] = node
        self.taken.append((call.text, CALL + region.key))
        self._statement(f"{', '.join(names)} = {call.text}")
        for name, node in zip(names, method.outputs, strict=True):
            self.scope[node] = value_of(name, node)

    # --- names, uses, comments ---

    def _bind(self, node: Node, value: Value, stack: list[Statement], hint: str | None, part: str = "") -> None:
        """Keep the expression to be written inside its only user, or give it a variable now.

        part: what the expression computes, the node if "".
        """
        # What a decomposition put there is no node of the program.
        own = [] if "paritas_of" in node.meta else [(value.text, part or node.name)]
        if (
            self.uses.get(node, 0) == 1
            and self._same_statement(node, stack)
            and not self._brings_a_size(node)
            and (len(value.text) < _LONGEST_PART or self._returned() == [node])
        ):
            self.scope[node] = value
            self.pending[node] = value.names
            self.parts[node] = [*self.taken, *own]
            return
        self._keep_as_alias(hint, node, stack, value.names)
        name = self._fresh(hint or anonymous(node), node)
        if value.text != name:
            self.taken += own
            self._statement(f"{name} = {value.text}")
        self.bound[name] = node
        self.scope[node] = value_of(name, node) if value.shape is not None else Value(name)

    def _brings_a_size(self, node: Node) -> bool:
        """Whether the node is the first to have a size that depends on values: others read it off its variable."""
        known = set(self.sizes).union(*(symbols_of(held) for held in self.bound.values() if held is not None))
        return any(symbol_is_type(symbol, SymT.UNBACKED_INT) for symbol in symbols_of(node) - known)

    def _keep_as_alias(self, hint: str | None, node: Node, stack: list[Statement], read: frozenset[str]) -> None:
        """`residual = hidden_states`, where the original says so and `hidden_states` is about to be another value.

        read: the names in that other value's expression, which is written after the alias.
        """
        held = self.bound.get(hint or "")
        if held is None or hint is None or not stack or self._may_bind(hint, node) or hint in self.in_flight:
            return
        if any(hint in names for names in self.pending.values()) or str(self.scope.get(held)) != hint:
            return
        lines = [
            (line, alias)
            for alias, name, line in self._aliases
            if name == hint and alias not in read and line < stack[-1].line
        ]
        _, alias = max(lines, default=(0, ""))
        if usable(alias) and self._may_bind(alias, held):
            taken, self.taken = self.taken, []
            self._statement(f"{alias} = {hint}")
            self.taken = taken
            self.bound[alias], self.bound[hint] = held, held
            self.scope[held] = dataclasses.replace(self.scope[held], text=alias)
            del self.bound[hint]

    @property
    def _aliases(self) -> tuple[tuple[str, str, int], ...]:
        return self.function.aliases if self.function is not None else ()

    def _same_statement(self, node: Node, stack: list[Statement]) -> bool:
        if node in self._returned():
            return not stack or stack[0].returns  # used once, so it is returned and nothing else
        user = next((item for item in self._after if node in self._consumed(item)), None)
        if user is None or not stack:
            return False
        if isinstance(user, Region) and not isinstance(user, FunctionRegion):
            made = next((r for r in self._called if node in self.written[r.key].outputs), None)
            if name_of(node) == "" or (made is None and node not in self._own_nodes):
                return False
            ends = [r.path.rpartition(".")[2] for r in (user, made) if r is not None]
            if made is not None and any(map(is_index, ends)):
                return False  # a statement for each layer of a loop
        other = next(iter(self._stack(user)), None)
        if other is None or isinstance(user, Region):
            return other is not None and other.key == stack[0].key
        return any(statement.key == other.key for statement in stack)  # a function's whose call is in it, too

    def _consumed(self, item: Node | Region) -> list[Node]:
        return self.written[item.key].nodes if isinstance(item, Region) else tensor_arguments(item)

    def _flush_comment(self, statement: Statement | None) -> None:
        if statement is None or statement.key == self.comment:
            return
        self.comment = statement.key
        line = comment_of(statement)
        self.method.comments[line] = statement
        self.method.lines.append(line)

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


#: Longer expressions have a statement of their own.
_LONGEST_PART = 80


def write(context: Context, region: Region, primitives: Mapping[str, str]) -> Method:
    """The method of a region. Sizes that it reads more than once have a variable.

    primitives: what other methods of its cell have. Raises `LoweringError`, also where a function needs its cell.
    """
    writer = MethodWriter(context, region, primitives, frozenset())
    method = writer.write()
    often = frozenset(size for size, times in writer.asked.items() if times > 1)
    while often:
        writer = MethodWriter(context, region, primitives, often)
        method = writer.write()
        text = "\n".join(line for line in method.lines if line not in method.comments)
        rare = {
            size for size, name in writer.sizes.items() if size in often and len(re.findall(rf"\b{name}\b", text)) < 3
        }
        if not rare:  # what lowerings asked for is what they wrote
            break
        often -= rare
        if not often:
            method = MethodWriter(context, region, primitives, often).write()
    return method
