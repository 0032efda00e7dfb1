# SPDX-License-Identifier: Apache-2.0
"""Parts of a captured program in PyTorch: some of its nodes, computed from recorded values of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from paritas.errors import EngineError, first_line
from paritas.program import Program
from paritas.run.torch.walk import Walk, captured_dtype, dtype_of

#: What is no tensor: a size, a number that was read out of a tensor.
Number = int | float | bool


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One run of a program in fp32: what its nodes were, so that any part of it can be fed."""

    feed: Mapping[str, np.ndarray]  # the program's inputs, by name
    tensors: Mapping[str, np.ndarray]  # node or input's placeholder -> value; bfloat16 as float32
    numbers: Mapping[str, Number]  # sizes and such, by node


@dataclasses.dataclass(frozen=True)
class Part:
    """Some nodes of a program, and everything that lies at their border.

    nodes: what was chosen, in the graph's order. members: those, and the nodes between them that the engine does
    not have by themselves. inputs: nodes and placeholders of the program's inputs whose values are read. weights:
    placeholders of parameters, buffers and constants. outputs: those of `nodes` that something outside reads.
    """

    nodes: tuple[str, ...]
    members: tuple[str, ...]
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...]


def record(program: Program, feed: Mapping[str, np.ndarray]) -> Recorded:
    """Run `program` in float32. Raises `EngineError` naming the node that cannot be computed."""
    walk = _Recorder(program, None if captured_dtype(program) == torch.float32 else torch.float32)
    walk.outputs(feed)
    return Recorded(dict(feed), walk.tensors, walk.numbers)


def part_of(program: Program, nodes: Collection[str], others: Collection[str]) -> Part:
    """The part of `program` that computes `nodes` from `others`, the nodes whose values can be given.

    What is in neither (a node that the engine fuses away, one node of a tuple) is computed wherever it is needed.
    """
    order = {node.name: node for node in program.graph.nodes}
    users = set(program.exported.graph_signature.user_inputs)
    chosen, given = frozenset(nodes), frozenset(others) - frozenset(nodes)
    outputs = [name for name in order if name in chosen and _read_outside(order[name], chosen, given)]
    members: set[str] = set()
    inputs: set[str] = set()
    weights: set[str] = set()
    queue = [order[name] for name in outputs]
    while queue:
        node = queue.pop()
        if node.name in members | inputs | weights or _is_number(node):
            continue
        if node.op == "placeholder" and node.name not in users:
            weights.add(node.name)
        elif node.op == "placeholder" or node.name in given:
            inputs.add(node.name)
        else:
            members.add(node.name)
            queue += node.all_input_nodes

    def ordered(found: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in order if name in found)

    return Part(ordered(chosen), ordered(members), ordered(inputs), ordered(weights), tuple(outputs))


def _read_outside(node: Node, chosen: frozenset[str], given: frozenset[str]) -> bool:
    """Whether a node that is not of the part reads `node`, or the user does."""
    seen: set[Node] = set()
    queue = list(node.users)
    while queue:
        user = queue.pop()
        if user.op == "output" or user.name in given:
            return True
        if user not in seen and user.name not in chosen and not _is_number(user):
            seen.add(user)
            queue += user.users
    return False


def _is_number(node: Node) -> bool:
    return node.op == "call_function" and isinstance(
        node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)
    )


def compute(
    program: Program, part: Part, recorded: Recorded, precision: str, *, all_members: bool = False
) -> dict[str, Any]:
    """Node -> value, for the part's outputs, computed in `precision` from the recorded values at its border.

    all_members: every member instead, as torch tensors or tuples of them, instead of NumPy arrays. Raises
    `EngineError` naming the node that cannot be computed.
    """
    dtype = dtype_of(precision)
    cast = None if captured_dtype(program) == dtype else dtype
    return _PartWalk(program, cast, part, recorded, all_members).found()


class _Recorder(Walk):
    def __init__(self, program: Program, dtype: torch.dtype | None):
        super().__init__(program, dtype)
        self.inputs = set(program.exported.graph_signature.user_inputs)
        self.tensors: dict[str, np.ndarray] = {}
        self.numbers: dict[str, Number] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder" and n.name not in self.inputs:
            return value
        if isinstance(value, torch.Tensor):
            self.tensors[n.name] = self._leaving(n.name, value)
        elif isinstance(value, (int, float, bool)):
            self.numbers[n.name] = value
        return value


class _PartWalk(Walk):
    def __init__(self, program: Program, dtype: torch.dtype | None, part: Part, recorded: Recorded, all_members: bool):
        super().__init__(program, dtype)
        self.part, self.recorded, self.all_members = part, recorded, all_members
        self.members, self.given, self.shown = set(part.members), set(part.inputs), set(part.outputs)
        self.values: dict[str, Any] = {}

    def found(self) -> dict[str, Any]:
        try:
            with torch.no_grad():
                self.run(*self._arguments(self.recorded.feed), enable_io_processing=False)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"torch could not run {self._where()}: {first_line(error)}") from error
        return self.values

    def run_node(self, n: Node) -> Any:
        if n.op == "placeholder":
            return super().run_node(n)
        if n.name in self.recorded.numbers:
            return self.recorded.numbers[n.name]
        if n.name in self.given:
            return self._given(n)
        if n.op == "get_attr":
            return super().run_node(n)
        if n.name not in self.members:
            return None
        value = super().run_node(n)
        if self.all_members:
            self.values[n.name] = value
        elif n.name in self.shown:
            self.values[n.name] = self._leaving(n.name, value)
        return value

    def _given(self, n: Node) -> torch.Tensor:
        value = torch.from_numpy(np.array(self.recorded.tensors[n.name]))
        return self._converted(value.to(n.meta["val"].dtype))


def tensors_of(program: Program, part: Part) -> Iterator[tuple[str, torch.Tensor]]:
    """(placeholder, value) for the part's weights and constants."""
    exported = program.exported
    wanted = set(part.weights)
    for spec in exported.graph_signature.input_specs:
        name = getattr(spec.arg, "name", "")
        if name in wanted and spec.target is not None:
            held = exported.state_dict if spec.target in exported.state_dict else exported.constants
            yield name, held[spec.target]
