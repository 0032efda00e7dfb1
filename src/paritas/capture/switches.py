# SPDX-License-Identifier: Apache-2.0
"""Switches and counters among the buffers of a model, whose values its code asks for: `if self.initialised`.

What a buffer holds is a constant of a port, as weights are, and so is the answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import _trace
from torch.export.graph_signature import InputKind
from torch.fx import Node

from paritas.capture.normalise import name_of
from paritas.capture.symbolic_sizes import ITEM
from paritas.errors import CaptureError


def _is_switch(buffer: torch.Tensor) -> bool:
    return buffer.dim() == 0 and not buffer.is_floating_point() and not buffer.is_complex()


@contextlib.contextmanager
def known() -> Iterator[None]:
    """While a model is traced, such a buffer has its value; torch forgets it where the model writes to the buffer."""
    trace: Any = _trace
    original = trace._fakify_params_buffers

    def with_values(mode: Any, module: torch.nn.Module) -> dict[str, Any]:
        made = original(mode, module)
        for name, buffer in module.named_buffers():
            if _is_switch(buffer) and name in made:
                made[name].constant = buffer.detach().clone()
        return made

    trace._fakify_params_buffers = with_values
    try:
        yield
    finally:
        trace._fakify_params_buffers = original


def remarks(program: torch.export.ExportedProgram) -> list[str]:
    """A sentence on the buffers whose values the code asked for while the program was captured.

    Raises `CaptureError` where it also writes to one: the answer may be another in the next call.
    """
    names = {
        spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.kind is InputKind.BUFFER
    }
    asked: set[str] = set()
    written: set[str] = set()
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        if name_of(node) in ITEM and (sources := _sources(node)) <= names.keys():
            asked |= sources
        elif isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            written |= _sources(node.all_input_nodes[0])
    told = ", ".join(sorted(names[source] for source in asked)[:5])
    if asked & written:
        raise CaptureError(
            f"The model writes to its buffers {told}, and goes the way that they tell it: a port keeps nothing from "
            "one call to the next. Return the new value as an output instead."
        )
    return [f"the code asks for the values of its buffers {told}: the port goes the way of now"] if asked else []


def _sources(node: Node) -> set[str]:
    """The graph's inputs that a node depends on."""
    found, seen, left = set(), set(), [node]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        if one.op == "placeholder":
            found.add(one.name)
        left.extend(one.all_input_nodes)
    return found
