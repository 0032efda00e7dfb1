# SPDX-License-Identifier: Apache-2.0
"""Training in one graph of MindSpore's for several steps: forward, backward, the norm of gradients and the optimizer.

A step of a small network is a hundred kernels of some microseconds each. What Python and the start of a graph cost
beside them is shared by the steps of one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paritas.run.learning import Task
from paritas.run.mindspore.optimizers import optimizer
from paritas.run.mindspore.session import imported
from paritas.run.mindspore.values import in_mode, to_numpy
from paritas.run.turns import in_turn, turn

ms: Any = imported()
ops: Any = ms.ops

#: Steps in one graph: each is compiled by itself, which takes time, and more of them save little.
STEPS = 8


class _Steps(ms.nn.Cell):
    """So many steps. Weights are parameters, so that each step sees what the one before has made of them."""

    def __init__(self, net: Any, trained: Any, max_norm: float, steps: int, rows: tuple[bool, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.net, self.optimizer, self.max_norm, self.count, self.rows = net, trained, max_norm, steps, rows
        self.gradient = ms.value_and_grad(self.forward, None, trained.parameters, has_aux=True)

    def forward(self, *given):
        loss, statistics = self.net(*given)
        return loss, statistics

    def construct(self, order, *given):
        found = ()
        for step in range(self.count):
            batch = ()
            for index in range(len(self.rows)):
                if self.rows[index]:
                    batch = (*batch, ops.gather(given[index], order[step], 0))
                else:
                    batch = (*batch, given[index])
            (_, statistics), gradients = self.gradient(*batch)
            if self.max_norm > 0:
                gradients = _shortened(gradients, self.max_norm)
            self.optimizer(gradients)
            found = (*found, statistics)
        return ops.stack(found)


def _shortened(gradients, max_norm):
    """As torch.nn.utils.clip_grad_norm_ does. The sum of squares is one product: a sum of MindSpore's own adds one
    number after the other."""
    parts = ()
    for gradient in gradients:
        parts = (*parts, gradient.reshape(-1))
    flat = ops.concat(parts)
    norm = ops.sqrt(ops.matmul(flat.reshape(1, -1), flat.reshape(-1, 1)))
    share = ops.minimum(max_norm / (norm + 1e-6), ms.Tensor(1.0, ms.float32)).reshape(())
    made = ()
    for gradient in gradients:
        made = (*made, gradient * share)
    return made


class MindSporeLearner:
    """See `run.learning.Learner`. The weights are MindSpore's own; what was captured keeps those that it began with."""

    in_place = False

    @in_turn
    def __init__(self, task: Task) -> None:
        self._task, self._port = task, task.port()
        cell = self._port.cell.set_train()
        self._known = cell.parameters_dict()
        self._optimizer = optimizer(task.optimizer, task.module, cell)
        self._rows = tuple(name in task.rows for name in task.inputs)
        self._cell, self._graphs = cell, {}  # type: ignore[var-annotated]

    def _graph(self, steps: int) -> Any:
        if steps not in self._graphs:
            self._graphs[steps] = _Steps(self._cell, self._optimizer, float(self._task.max_norm), steps, self._rows)
        return self._graphs[steps]

    def steps(self, rows: Mapping[str, np.ndarray], order: np.ndarray, numbers: Mapping[str, float]) -> np.ndarray:
        found = []
        with turn(), in_mode(ms, "graph"):
            given = [
                ms.Tensor.from_numpy(np.ascontiguousarray(rows[name]))
                if name in rows
                else ms.Tensor(numbers[name], ms.float32)
                for name in self._task.inputs
            ]
            # Graphs of one size, where that can be: each size is compiled.
            size = max(n for n in range(1, STEPS + 1) if len(order) % n == 0)
            size = size if 2 * size > STEPS else STEPS
            for start in range(0, len(order), size):
                lines = np.ascontiguousarray(order[start : start + size])
                found.append(to_numpy(self._graph(len(lines))(ms.Tensor.from_numpy(lines), *given)).copy())
        return np.concatenate(found)

    def weights(self) -> dict[str, np.ndarray]:
        with turn():
            return {
                name: np.array(to_numpy(self._known[name]))
                for name, _ in self._task.module.named_parameters()
                if name in self._known
            }

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        with turn():
            for name, value in weights.items():
                ops.assign(self._known[name], ms.Tensor(np.array(value)))

    def state(self) -> dict[str, np.ndarray]:
        with turn():
            return {name: np.array(to_numpy(value)) for name, value in self._optimizer.parameters_dict().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        with turn():
            for name, value in self._optimizer.parameters_dict().items():
                if name in state:
                    ops.assign(value, ms.Tensor(np.array(state[name])))

    def rate(self, value: float) -> None:
        for group in self._optimizer.given.param_groups:
            group["lr"] = value
        with turn():
            self._optimizer.update_rates()

    def close(self) -> None:
        self._graphs.clear()
        self._port.close()
