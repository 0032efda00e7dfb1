# SPDX-License-Identifier: Apache-2.0
"""How a case is written down, and how it becomes tensors and a `Program` of one node."""

from __future__ import annotations

import dataclasses
import operator
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._export.verifier import Verifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from paritas.capture.normalise import expression
from paritas.program import Frame, Origin, Program, Source, TensorSpec

nan, inf = float("nan"), float("inf")

GROWTH = 3  # how much larger a dynamic dimension is when the case runs a second time


@dataclasses.dataclass(frozen=True)
class Given:
    """A tensor argument. Floats are normal, integers lie in [low, high), unless `data` says what they are."""

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: float = -9
    high: float = 10
    data: Any = None
    specials: tuple[float, ...] = ()  # put into places spread over the tensor
    order: tuple[int, ...] = ()  # a permutation: the tensor is a strided view
    free: tuple[int, ...] = ()  # dynamic dimensions
    positive: bool = False
    fill: float | None = None

    def as_(self, dtype: str) -> Given:
        return dataclasses.replace(self, dtype=dtype)

    def filled(self, value: float) -> Given:
        return dataclasses.replace(self, fill=value)

    def with_(self, *specials: float) -> Given:
        return dataclasses.replace(self, specials=specials)

    def strided(self, *order: int) -> Given:
        return dataclasses.replace(self, order=order or tuple(reversed(range(len(self.shape)))))

    def dynamic(self, *dims: int) -> Given:
        return dataclasses.replace(self, free=dims)

    def above_zero(self) -> Given:
        return dataclasses.replace(self, positive=True)

    def make(self, generator: torch.Generator, grown: bool = False) -> torch.Tensor:
        dtype = getattr(torch, self.dtype)
        if self.data is not None:
            return torch.tensor(self.data, dtype=dtype)
        shape = tuple(size + GROWTH * (grown and axis in self.free) for axis, size in enumerate(self.shape))
        stored = [shape[self.order.index(axis)] for axis in range(len(shape))] if self.order else list(shape)
        if dtype is torch.bool:
            value = torch.rand(stored, generator=generator) > 0.5
        elif not dtype.is_floating_point:
            value = torch.randint(int(self.low), int(self.high), stored, generator=generator).to(dtype)
        else:
            value = (torch.randn(stored, generator=generator, dtype=torch.float64) * 2).to(dtype)
            value = value.abs() + 0.25 if self.positive else value
        if self.fill is not None:
            value = torch.full(stored, self.fill, dtype=dtype)
        if self.specials and value.numel():
            flat = value.reshape(-1)
            places = np.linspace(1, flat.numel() - 1, len(self.specials)).astype(int)
            flat[torch.from_numpy(places)] = torch.tensor(self.specials, dtype=dtype)
            value = flat.reshape(stored)
        return value.permute(self.order) if self.order else value


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a tensor argument's dimension, plus a number: what a model writes as x.shape[1] - 1."""

    argument: int  # counts the tensors among the arguments
    dim: int
    plus: int = 0

    def __add__(self, number: int) -> Size:
        return dataclasses.replace(self, plus=self.plus + number)

    def __sub__(self, number: int) -> Size:
        return self + -number


def tensor(*shape: int, **options: Any) -> Given:
    return Given(shape, **options)


def scalar(value: float, dtype: str = "float32") -> Given:
    return Given((), dtype, data=value)


vector = matrix = tensor


def ints(*shape: int, low: int = -9, high: int = 10, dtype: str = "int64") -> Given:
    return Given(shape, dtype, low, high)


def bools(*shape: int) -> Given:
    return Given(shape, "bool")


def values(data: Any, dtype: str = "float32") -> Given:
    return Given(tuple(np.asarray(data).shape), dtype, data=data)


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of one overload. The name tells it from the other cases of its operator."""

    target: str
    args: tuple
    kwargs: Mapping[str, Any]
    within: Any = None  # a Tolerance instead of the dtype's

    def __str__(self) -> str:
        told = [*map(_short, self.args), *(f"{name}={_short(value)}" for name, value in self.kwargs.items())]
        return f"{self.target}({', '.join(told)})"

    @property
    def overload(self) -> torch._ops.OpOverload:
        namespace, name, overload = self.target.split(".")
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)

    @property
    def is_dynamic(self) -> bool:
        return any(leaf.free for leaf in self.leaves if isinstance(leaf, Given))

    @property
    def leaves(self) -> list:
        return pytree.tree_leaves((self.args, dict(self.kwargs)), is_leaf=lambda x: isinstance(x, (Given, Size)))

    def tensors(self, grown: bool = False) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(str(self).encode()))
        return [leaf.make(generator, grown) for leaf in self.leaves if isinstance(leaf, Given)]

    def with_givens(self, change: Callable[[Given], Given]) -> Case:
        """The case with `change` of each tensor argument, in order."""
        args, kwargs = pytree.tree_map(
            lambda leaf: change(leaf) if isinstance(leaf, Given) else leaf,
            (self.args, dict(self.kwargs)),
            is_leaf=lambda x: isinstance(x, (Given, Size)),
        )
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def fill(self, tensors: list, size: Any) -> tuple[tuple, dict]:
        """The call's arguments, with `tensors` for its tensors and `size(Size)` for its sizes."""
        remaining = iter(tensors)

        def place(leaf: Any) -> Any:
            if isinstance(leaf, Given):
                return next(remaining)
            return size(leaf) if isinstance(leaf, Size) else leaf

        return pytree.tree_map(place, (self.args, dict(self.kwargs)), is_leaf=lambda x: isinstance(x, (Given, Size)))

    def eager(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        args, kwargs = self.fill(tensors, lambda s: tensors[s.argument].shape[s.dim] + s.plus)
        with torch.no_grad():
            out = self.overload(*args, **kwargs)
        return list(out) if isinstance(out, (tuple, list)) else [out]


def case(target: str, *args: Any, within: Any = None, **kwargs: Any) -> Case:
    return Case(target, args, kwargs, within)


def _short(value: Any) -> str:
    if isinstance(value, Given):
        if value.data is not None:
            return f"{value.dtype}:{value.data}".replace(" ", "")
        text = f"{value.dtype}{list(value.shape)}".replace(" ", "")
        text += "".join(f":{s}" for s in value.specials) + (f"={value.fill}" if value.fill is not None else "")
        text += f":strided{value.order}" if value.order else ""
        text += f":dynamic{value.free}" if value.free else ""
        return text.replace(" ", "")
    if isinstance(value, Size):
        return f"size({value.argument},{value.dim}){value.plus:+d}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_short, value))}]"
    return str(value).removeprefix("torch.")


def program_of(*cases: Case) -> Program:
    """A graph with a node for each case. Built by hand: torch.export would rewrite some overloads into others."""
    graph = torch.fx.Graph()
    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=False)
    inputs: list[torch.fx.Node] = []
    # Placeholders come first in a graph.
    opened = [_placeholders(graph, mode, case, inputs) for case in cases]
    outputs: list[torch.fx.Node] = []
    origins: dict[str, Origin] = {}
    for case, held in zip(cases, opened, strict=True):
        known = {node.name for node in graph.nodes}
        outputs += _node(graph, mode, case, held)
        new = [node.name for node in graph.nodes if node.name not in known]
        origins |= {name: Origin("", "Case", (Frame(FILE, 1, "forward", str(case)),)) for name in new}
    graph.output(tuple(outputs))
    signature = ExportGraphSignature(
        [InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None) for node in inputs],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in outputs],
    )
    module = torch.fx.GraphModule({}, graph)
    exported = ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict={},
        range_constraints={},
        module_call_graph=[],
        constants={},
        verifiers=[Verifier],
    )
    return Program(
        exported=exported,
        inputs=tuple(_spec(node, node.name) for node in inputs),
        outputs=tuple(_spec(node, f"out{i}") for i, node in enumerate(outputs)),
        structure={},
        origins=origins,
        modules=(),
        constants={},
        source=Source("module", model_class="Case"),
    )


#: What an error calls the source file of a case.
FILE = "case.py"


def _spec(node: torch.fx.Node, name: str) -> TensorSpec:
    value = node.meta["val"]
    sizes = [expression(size) for size in value.shape]
    dims = tuple(int(size) if isinstance(size, (int, sympy.Integer)) else str(size) for size in sizes)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), dims)


def as_free_as_torch_keeps_it(case: Case) -> Case:
    """The case with every size of its tensors free but those of which torch makes constants.

    Raises what torch raises.
    """
    free = [tuple(range(len(g.shape))) for g in case.leaves if isinstance(g, Given)]
    while True:
        remaining = iter(free)
        opened = case.with_givens(lambda given: dataclasses.replace(given, free=next(remaining)))  # noqa: B023
        graph = torch.fx.Graph()
        mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=False)
        placeholders = _placeholders(graph, mode, opened, [])
        _node(graph, mode, opened, placeholders, checks=False)
        found = [
            tuple(dim for dim in dims if not _is_fixed(node.meta["val"].shape[dim]))
            for dims, node in zip(free, placeholders, strict=True)
        ]
        if found == free:
            return opened
        free = found


def _is_fixed(size: Any) -> bool:
    return isinstance(expression(size), (int, sympy.Integer))


def _placeholders(
    graph: torch.fx.Graph, mode: FakeTensorMode, case: Case, inputs: list[torch.fx.Node]
) -> list[torch.fx.Node]:
    """The inputs of one case, x0, x1, .. in order over all cases; they are added to `inputs`."""
    placeholders = []
    assert mode.shape_env is not None
    mode.shape_env.val_to_var.clear()  # equal sizes of two cases are two sizes
    givens = [leaf for leaf in case.leaves if isinstance(leaf, Given)]
    for given, value in zip(givens, case.tensors(), strict=True):
        node = graph.placeholder(f"x{len(inputs)}")
        sizes = [DimDynamic.DYNAMIC if d in given.free else DimDynamic.STATIC for d in range(value.dim())]
        context = StatelessSymbolicContext(dynamic_sizes=sizes)
        node.meta["val"] = mode.from_tensor(value, symbolic_context=context)
        node.meta["paritas_input"] = node.name
        placeholders.append(node)
        inputs.append(node)
    return placeholders


def _node(
    graph: torch.fx.Graph,
    mode: FakeTensorMode,
    case: Case,
    placeholders: list[torch.fx.Node],
    checks: bool = True,
) -> list[torch.fx.Node]:
    """The call of one case; its outputs. checks: that every size that should be free is."""

    def size(wanted: Size) -> torch.fx.Node:
        node = graph.call_function(torch.ops.aten.sym_size.int, (placeholders[wanted.argument], wanted.dim))
        node.meta["val"] = placeholders[wanted.argument].meta["val"].shape[wanted.dim]
        if wanted.plus:
            more = graph.call_function(operator.add, (node, wanted.plus))
            more.meta["val"] = node.meta["val"] + wanted.plus
            return more
        return node

    args, kwargs = case.fill(placeholders, size)
    node = graph.call_function(case.overload, args, kwargs)
    with mode, torch.no_grad(), enable_python_dispatcher():  # as torch.export: keeps sizes symbolic
        fake = pytree.tree_map_only(torch.fx.Node, lambda n: n.meta["val"], (args, kwargs))
        node.meta["val"] = case.overload(*fake[0], **fake[1])
    givens = [leaf for leaf in case.leaves if isinstance(leaf, Given)]
    for given, placeholder in zip(givens, placeholders, strict=True):
        sizes = placeholder.meta["val"].shape
        fixed = [dim for dim in given.free if _is_fixed(sizes[dim])]
        assert not checks or not fixed, (
            f"{case}: torch made dimensions {fixed} of {placeholder} constant; take other sizes"
        )
    if not isinstance(node.meta["val"], (tuple, list)):
        return [node]
    outputs: list[torch.fx.Node] = []
    for position, part in enumerate(node.meta["val"]):
        item = graph.call_function(operator.getitem, (node, position))
        item.meta["val"] = part
        outputs.append(item)
    return outputs
