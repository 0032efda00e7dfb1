# SPDX-License-Identifier: Apache-2.0
"""Forward now, backward later: what a training step of another framework's autograd asks of a generated cell.

MindSpore's autograd hangs on the tensors that a compiled cell returns (PyNative mode, `ms.jit` inside), so that a
forward is computed once, any number of them may wait, and each is differentiated when its turn comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paritas.run.mindspore.values import in_mode, to_numpy
from paritas.run.session import Gradients
from paritas.run.turns import turn


class Recorded:
    """A forward that was computed and can be differentiated once.

    outputs: as arrays of their own, in the port's order.
    """

    def __init__(self, training: Training, outputs: tuple[Any, ...], variables: Mapping[str, Any]) -> None:
        self._training, self._outputs, self._variables = training, outputs, variables
        self.outputs = [np.array(to_numpy(output)) for output in outputs]

    def backward(self, cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """Gradients of the sum of the outputs times `cotangents`, by the weights and by the inputs that were asked
        for. What MindSpore kept for it is let go of."""
        outputs, self._outputs = self._outputs, ()
        return self._training.gradients(outputs, cotangents, self._variables)


class Training:
    """A cell that computes and is differentiated. Its weights may be another framework's, in the same memory."""

    def __init__(self, ms: Any, cell: Any) -> None:
        self._ms, self.cell = ms, cell
        self._compiled = _compiled(ms, cell)
        self._known = cell.parameters_dict()

    def share(self, weights: Mapping[str, np.ndarray]) -> None:
        """From now on these arrays are the weights, by their names: what is written to them is seen here at once.

        Before anything is computed.
        """
        with turn(computes=False):
            for name, array in weights.items():
                self._known[name].set_data(self._ms.Tensor.from_numpy(array))

    def forward(
        self, tensors: Mapping[str, Any], by: Collection[str], *, train: bool, compiled: bool = True
    ) -> Recorded:
        """One call. tensors: MindSpore's, in the order of the cell's arguments; by: those to differentiate by.
        compiled: or statement by statement.

        Raises whatever MindSpore raises.
        """
        variables = {name: self._ms.Parameter(tensors[name], name=f"paritas_input_{name}") for name in by}
        self._compiled.set_train(train)
        with turn(), _recording():
            given = [variables[name] + 0 if name in variables else tensor for name, tensor in tensors.items()]
            out = (self._compiled if compiled else self.cell)(*given)
        found = out if isinstance(out, tuple) else (out,)
        return Recorded(self, found, variables)

    def gradients(
        self, outputs: Sequence[Any], cotangents: Sequence[np.ndarray | None], variables: Mapping[str, Any]
    ) -> Gradients:
        pairs = [(out, array) for out, array in zip(outputs, cotangents, strict=True) if array is not None]
        wanted = [*self.cell.trainable_params(), *variables.values()]
        if not wanted or not pairs:
            return Gradients()

        def total(*weights: Any) -> Any:
            terms = [(out * weight).sum() for (out, _), weight in zip(pairs, weights, strict=True)]
            return sum(terms[1:], terms[0])

        ms = self._ms
        with turn(), in_mode(ms, "pynative"):
            given = [ms.Tensor.from_numpy(np.ascontiguousarray(array)) for _, array in pairs]
            found = ms.grad(total, None, ms.ParameterTuple(wanted))(*given)
            arrays = _apart([to_numpy(value) for value in found])
        weights = len(wanted) - len(variables)
        return Gradients(
            {weight.name: array for weight, array in zip(wanted[:weights], arrays[:weights], strict=True)},
            dict(zip(variables, arrays[weights:], strict=True)),
        )


def _compiled(ms: Any, cell: Any) -> Any:
    class Compiled(ms.nn.Cell):
        def __init__(self, cell: Any) -> None:
            super().__init__(auto_prefix=False)
            self.cell = cell
            self.run = cell.construct  # a model that is a list of modules is none that a compiled method may call

        # Compiled from its source, so without annotations.
        @ms.jit
        def construct(self, *arguments):
            return self.run(*arguments)

    return Compiled(cell)


@contextlib.contextmanager
def _recording() -> Iterator[None]:
    """What is computed inside can be differentiated afterwards: as MindSpore 2.10 records what it computes again
    (`mindspore/common/recompute.py`), since `ms.vjp` takes one forward at a time."""
    import mindspore as ms
    from mindspore.common.api import _pynative_executor as executor

    with in_mode(ms, "pynative"):
        flag, enabled = executor.grad_flag(), executor.enable_grad()
        executor.set_grad_flag(True)
        executor.set_enable_grad(True)
        executor.new_empty_graph()
        try:
            yield
            executor.end_empty_graph()
        except BaseException:
            executor.clear_res()
            raise
        finally:
            executor.set_grad_flag(flag)
            executor.set_enable_grad(enabled)


def _apart(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The arrays, none of which shares memory with another: gradients of a sum are one tensor for both of its terms,
    and who receives them clips each in its place."""
    seen: set[int] = set()
    found = []
    for array in arrays:
        address = array.__array_interface__["data"][0]
        found.append(np.array(array) if address in seen or not array.flags.writeable else array)
        seen.add(address)
    return found
