# SPDX-License-Identifier: Apache-2.0
"""Gradients in PyTorch: of an original in eager mode, of a captured graph at any precision, of its nodes one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from paritas.arguments import invoke, nest
from paritas.errors import EngineError, first_line
from paritas.program import Program
from paritas.run.session import Gradients
from paritas.run.torch.walk import Walk, captured_dtype
from paritas.run.values import describe_output, to_numpy

Feed = Mapping[str, np.ndarray]


def eager_gradients(
    model: torch.nn.Module,
    feed: Feed,
    cotangents: Sequence[np.ndarray | None],
    nesting: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> Gradients:
    """See `run.session.Differentiates`, under the names of `named_parameters`. Raises `EngineError`."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    inputs = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    inputs = {n: t.to(dtype).requires_grad_() if t.is_floating_point() else t for n, t in inputs.items()}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    floats = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    try:
        with torch.enable_grad():
            # Copies, since a leaf may not be written to, which some models do with their inputs.
            copies = {n: t.clone() if t.requires_grad else t for n, t in inputs.items()}
            flat, _ = describe_output(invoke(model, {**nest(copies, nesting), **constants}))
        found = _differentiated(_pairs(flat, cotangents), [*parameters.values(), *floats.values()])
    except Exception as error:
        raise EngineError(f"torch could not differentiate {type(model).__name__}: {first_line(error)}") from error
    return Gradients(
        dict(zip(parameters, found, strict=False)), dict(zip(floats, found[len(parameters) :], strict=True))
    )


def graph_gradients(
    program: Program, dtype: torch.dtype, feed: Feed, cotangents: Sequence[np.ndarray | None]
) -> Gradients:
    """See `run.session.Differentiates`: by the parameters that require gradients, and by the floating inputs."""
    walk = _Differentiable(program, dtype)
    flat = walk.differentiably(feed)
    return walk.gradients(_pairs(flat, cotangents))


def node_vjps(program: Program, dtype: torch.dtype, feed: Feed, given: Feed, cotangents: Feed) -> Gradients:
    """See `run.session.TakesVjps`."""
    walk = _EachNode(program, dtype, given, cotangents)
    walk.differentiably(feed)
    return walk.gradients(walk.terms)


def weight_names(program: Program) -> dict[str, str]:
    """Each name of a weight -> the one name that tied weights have in a port."""
    by_storage = {_storage(tensor): name for name, tensor in program.weights.items() if tensor.numel()}
    stored = {**program.exported.constants, **program.exported.state_dict}
    names = {name: name for name in program.weights}
    for name, tensor in stored.items():
        if isinstance(tensor, torch.Tensor):
            names.setdefault(name, by_storage.get(_storage(tensor), name))
    return names


def _storage(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype


def differentiable(program: Program) -> dict[str, tuple[str, ...]]:
    """The nodes through which gradients flow, each with the names of what it uses of them.

    Those are nodes, floating inputs, and parameters that require gradients, the latter under the port's names;
    in the graph's order.
    """
    names = weight_names(program)
    trainable = {names.get(name, name) for name in program.trainable}
    known: dict[Node, str] = {}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    inputs = iter(program.inputs)
    for node, spec in zip(placeholders, program.exported.graph_signature.input_specs, strict=True):
        weight = names.get(spec.target or "", spec.target)
        if spec.kind.name == "PARAMETER" and weight in trainable:
            known[node] = str(weight)
        elif spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ != "ConstantArgument":
            name = next(inputs).name
            if _is_float(node.meta.get("val")):
                known[node] = name
    found: dict[str, tuple[str, ...]] = {}
    for node in program.graph.nodes:
        used = tuple(dict.fromkeys(known[a] for a in node.all_input_nodes if a in known))
        if node.op == "call_function" and used and _is_float(node.meta.get("val")):
            known[node] = node.name
            found[node.name] = used
    return found


def _is_float(value: Any) -> bool:
    tensors = [t for t in pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
    return any(t.is_floating_point() or t.is_complex() for t in tensors)


def _pairs(outputs: Sequence[Any], cotangents: Sequence[np.ndarray | None]) -> list[tuple[torch.Tensor, np.ndarray]]:
    pairs = zip(outputs, cotangents, strict=True)
    return [(output, cotangent) for output, cotangent in pairs if cotangent is not None]


def _differentiated(
    terms: Sequence[tuple[torch.Tensor, np.ndarray]], by: Sequence[torch.Tensor]
) -> list[np.ndarray | None]:
    """Gradients of the sum of the terms' products. Its value, infinite for a mask's fill, is never computed."""
    connected = [(value, cotangent) for value, cotangent in terms if value.requires_grad]
    if not connected or not by:
        return [None] * len(by)
    found = torch.autograd.grad(
        [value for value, _ in connected],
        list(by),
        [torch.from_numpy(np.array(cotangent)).to(value.dtype) for value, cotangent in connected],
        allow_unused=True,
    )
    return [None if value is None else to_numpy("a gradient", value) for value in found]


class _Differentiable(Walk):
    """A walk that remembers: every trainable parameter and floating input is a variable at the walk's precision."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__(program, dtype if captured_dtype(program) != dtype else None)
        self.names = frozenset()
        self.precision = dtype
        self.parameters: dict[str, torch.Tensor] = {}
        self.inputs: dict[str, torch.Tensor] = {}
        self.nodes: dict[str, torch.Tensor] = {}

    def differentiably(self, feed: Feed) -> list[Any]:
        """The outputs, as tensors. Raises `EngineError` naming the node and its source line."""
        arguments = list(self._variables(feed))
        try:
            with torch.enable_grad():
                return self._user_outputs(self.run(*arguments, enable_io_processing=False))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"torch could not run {self._where()}: {first_line(error)}") from error

    def _variables(self, feed: Feed) -> Iterator[Any]:
        names = weight_names(self.program)
        trainable = {names.get(name, name) for name in self.program.trainable}
        inputs = iter(self.program.inputs)
        specs = self.program.exported.graph_signature.input_specs
        for spec, value in zip(specs, self._arguments(feed), strict=True):
            if spec.kind.name == "PARAMETER":
                name = names.get(str(spec.target), str(spec.target))
                if name in trainable:  # tied ones are one variable, so that their gradients add up
                    value = self.parameters.setdefault(name, self._variable(value))
            elif spec.kind.name == "USER_INPUT" and isinstance(value, torch.Tensor):
                name = next(inputs).name
                if value.is_floating_point():
                    value = self.inputs[name] = self._variable(value)
            yield value.detach() if isinstance(value, torch.nn.Parameter) else value

    def _variable(self, value: torch.Tensor) -> torch.Tensor:
        value = value.detach()
        return (value if self.dtype is None else value.to(self.precision)).requires_grad_()

    def gradients(self, terms: Sequence[tuple[torch.Tensor, np.ndarray]]) -> Gradients:
        groups = (self.parameters, self.inputs, self.nodes)
        try:
            found = iter(_differentiated(terms, [tensor for group in groups for tensor in group.values()]))
        except RuntimeError as error:
            raise EngineError(f"torch could not differentiate the captured graph: {first_line(error)}") from error
        return Gradients(*({name: next(found) for name in group} for group in groups))


class _EachNode(_Differentiable):
    """A walk in which a node, once computed and weighed, is a variable with the value that it is given."""

    def __init__(self, program: Program, dtype: torch.dtype, given: Feed, cotangents: Feed) -> None:
        super().__init__(program, dtype)
        self.given, self.cotangents = given, cotangents
        self.flowing = differentiable(program)
        self.terms: list[tuple[torch.Tensor, np.ndarray]] = []

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name not in self.given or not isinstance(value, torch.Tensor):
            return value
        if n.name in self.cotangents:
            self.terms.append((value, self.cotangents[n.name]))
        given = torch.from_numpy(np.array(self.given[n.name])).to(value.dtype)
        if n.name in self.flowing and given.is_floating_point():
            self.nodes[n.name] = given.requires_grad_()
        return given
