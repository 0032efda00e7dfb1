# SPDX-License-Identifier: Apache-2.0
"""What the methods of one generated module share: the program, what was written before, functions of the file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import sympy
import torch
from torch.fx import Node

from paritas.lower.mindspore.write.names import Statement
from paritas.lower.mindspore.write.places import Places
from paritas.lower.mindspore.write.source import printable
from paritas.lower.mindspore.write.steps import Step
from paritas.lower.registry import Lowering
from paritas.program import Program, TensorSpec


@dataclasses.dataclass
class Method:
    """One `construct`: what it takes, what it says, what it needs of its cell."""

    name: str = "construct"
    nodes: list[Node] = dataclasses.field(default_factory=list)  # tensor arguments
    #: Weights of other modules, passed in by name.
    weights: list[str] = dataclasses.field(default_factory=list)
    sizes: list[sympy.Expr] = dataclasses.field(default_factory=list)  # sizes that no argument has
    arguments: list[str] = dataclasses.field(default_factory=list)  # the names of all of these
    lines: list[str] = dataclasses.field(default_factory=list)  # statements and comments, unwrapped
    primitives: dict[str, str] = dataclasses.field(default_factory=dict)  # attribute -> expression
    helpers: set[str] = dataclasses.field(default_factory=set)
    outputs: list[Node] = dataclasses.field(default_factory=list)
    steps: list[Step] = dataclasses.field(default_factory=list)  # where its nodes are computed
    returned: list[str] = dataclasses.field(default_factory=list)  # the names of what it returns
    #: Of its outputs among them.
    positions: dict[Node, int] = dataclasses.field(default_factory=dict)
    called: set[str] = dataclasses.field(default_factory=set)  # functions of the file
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)  # that the constructor takes
    comments: dict[str, Statement] = dataclasses.field(default_factory=dict)  # line -> of what

    @property
    def body(self) -> tuple:
        """What makes two methods the same."""
        return tuple(self.arguments), tuple(self.lines), tuple(sorted(self.primitives.items()))


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parameters, buffers and constants of a program, by placeholder and by name."""

    #: Placeholder -> the name under which the checkpoint has it, or the buffer's own.
    names: Mapping[str, str]
    values: Mapping[str, torch.Tensor]
    persistent_order: tuple[str, ...]  # names in the checkpoint

    @functools.cached_property
    def persistent(self) -> frozenset[str]:
        return frozenset(self.persistent_order)

    def owner(self, name: str) -> tuple[str, str]:
        """ "encoder.layer.0.weight" is ("encoder.layer.0", "weight")."""
        path, _, attribute = name.rpartition(".")
        return path, attribute


class Functions:
    """The functions of the file, each distinct text once."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, object], str] = {}
        self.methods: dict[str, Method] = {}

    def named(self, wanted: str, method: Method) -> str:
        """What the function is called in the file: as in the original, unless another one has that name."""
        known = self._names.get((wanted, method.body))
        if known is None:
            known, count = wanted, 1
            while known in self.methods:
                count += 1
                known = f"{wanted}_{count}"
            self._names[wanted, method.body] = known
            self.methods[known] = method
        return known


@dataclasses.dataclass
class Context:
    """lists: paths that become CellLists, and so have no construct -> their lengths. unnamed: paths that become
    nothing, whose callers do what they do. constants: filled with tensors that are made while lowering. functions:
    None where every call of a function is written out. reserved: names that no variable may have.
    """

    program: Program
    lowerings: Mapping[str, Lowering]
    weights: Weights
    lists: Mapping[str, int]
    unnamed: frozenset[str]
    places: Places
    target: str
    functions: Functions | None
    reserved: frozenset[str] = frozenset()
    constants: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    #: Region key -> the method that does it.
    written: dict[str, Method] = dataclasses.field(default_factory=dict)

    def size_name(self, symbol: sympy.Symbol) -> str:
        """What a free size is called where the original has no name for it."""
        return self._size_names.get(str(symbol), f"size_{symbol}")

    @functools.cached_property
    def _size_names(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for spec in self.program.inputs:
            for dim, name in zip(spec.dims, _AXES.get(len(spec.dims), ()), strict=False):
                if isinstance(dim, str) and dim.isidentifier() and dim not in found:
                    taken = name in found.values()
                    found[dim] = f"{spec.name}_{name}" if taken and spec.name.isidentifier() else name
        return found

    def described(self, spec: TensorSpec) -> str:
        """ "# input_ids: int64 [batch, length]" """
        dims = (self._size_names.get(str(dim), str(dim)) for dim in spec.dims)
        return printable(f"# {spec.name}: {spec.dtype} [{', '.join(dims)}]")


#: What the dimensions of an input are called, by their number.
_AXES = {
    1: ("length",),
    2: ("batch", "length"),
    3: ("batch", "length", "width"),
    4: ("batch", "channels", "height", "width"),
}
