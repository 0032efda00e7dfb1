# SPDX-License-Identifier: Apache-2.0
"""Gradients of a generated MindSpore module: of all of it in either mode, of each node by itself in PyNative mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paritas.run.mindspore.values import to_numpy
from paritas.run.session import Gradients


def whole(
    ms: Any, cell: Any, names: Sequence[str], tensors: Sequence[Any], cotangents: Sequence[np.ndarray | None]
) -> Gradients:
    """Gradients of the sum of the cell's outputs times `cotangents`, in the mode that is set.

    names, tensors: of the cell's inputs, in the order of its arguments. Frozen parameters have no gradient.
    """
    wanted = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]
    given = [ms.Tensor(cotangents[i]) for i in wanted]
    weighed = _weighed(ms, cell, len(tensors), wanted)
    return _gradients(ms, weighed, cell.trainable_params(), names, [*tensors, *given])


def _weighed(ms: Any, cell: Any, inputs: int, wanted: Sequence[int]) -> Any:
    """A cell of inputs and cotangents that computes the sum of the outputs at `wanted`, times the cotangents."""

    class Weighed(ms.nn.Cell):
        def __init__(self, cell: Any) -> None:
            super().__init__(auto_prefix=False)
            self.cell = cell
            self.inputs = inputs
            self.wanted = tuple(wanted)

        # Compiled from its source in Graph mode, so without annotations.
        def construct(self, *arguments):
            outputs = self.cell(*arguments[: self.inputs])
            if not isinstance(outputs, tuple):
                outputs = (outputs,)
            total = 0.0
            for place, output in enumerate(self.wanted):
                total = total + (outputs[output] * arguments[self.inputs + place]).sum()
            return total

    return Weighed(cell)


class Nodes:
    """Passes over the statements of a module, in which each node is a variable of its own from the second on.

    `replace` is for `nodes.watched`: it weighs what a node makes of the variables before it, and hands on
    a variable with the value that is given.
    """

    def __init__(self, ms: Any, given: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]) -> None:
        self.ms, self.given, self.cotangents = ms, given, cotangents
        self.variables: dict[str, Any] = {}
        self.terms: list[Any] = []

    def replace(self, name: str, value: Any) -> Any:
        given = self.given.get(name)
        if given is None or not hasattr(value, "asnumpy"):
            return value
        cotangent = self.cotangents.get(name)
        if cotangent is not None and tuple(value.shape) == cotangent.shape:
            self.terms.append((value * self._tensor(cotangent, value)).sum())
        if not value.is_floating_point():
            return self._tensor(given, value)
        if name not in self.variables:
            variable = self.ms.Parameter(self._tensor(given, value), name=f"paritas_node_{len(self.variables)}")
            self.variables[name] = variable
        return self.variables[name]

    def _tensor(self, array: np.ndarray, like: Any) -> Any:
        return self.ms.Tensor(np.ascontiguousarray(array), like.dtype)

    def gradients(self, cell: Any, names: Sequence[str], tensors: Sequence[Any]) -> Gradients:
        """Run the cell, whose statements must be watched as before, and differentiate the sum of the terms."""
        self.terms.clear()

        def total(*arguments: Any) -> Any:
            cell(*arguments)
            return sum(self.terms[1:], self.terms[0]) if self.terms else self.ms.Tensor(0.0)

        weights = [*cell.trainable_params(), *self.variables.values()]
        found = _gradients(self.ms, total, weights, names, tensors)
        nodes = {name: found.parameters[variable.name] for name, variable in self.variables.items()}
        kept = {name: value for name, value in found.parameters.items() if not name.startswith("paritas_node_")}
        return Gradients(kept, found.inputs, nodes)


def _gradients(
    ms: Any, function: Any, weights: Sequence[Any], names: Sequence[str], arguments: Sequence[Any]
) -> Gradients:
    """Of `function(*arguments)` by the weights and by those of the arguments that have `names` and are floats."""
    floats = [i for i, _ in enumerate(names) if arguments[i].is_floating_point()]
    if not weights and not floats:
        return Gradients()
    by = {"grad_position": tuple(floats) or None, "weights": ms.ParameterTuple(weights) if weights else None}
    found = ms.grad(function, **by)(*arguments)
    of_inputs, of_weights = found if floats and weights else (found, ()) if floats else ((), found)
    if floats and not isinstance(of_inputs, tuple):
        of_inputs = (of_inputs,)
    return Gradients(
        {weight.name: _or_none(value) for weight, value in zip(weights, of_weights, strict=True)},
        {names[i]: _or_none(value) for i, value in zip(floats, of_inputs, strict=True)},
    )


def _or_none(value: Any) -> np.ndarray | None:
    return None if value is None else to_numpy(value)
