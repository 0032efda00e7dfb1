# SPDX-License-Identifier: Apache-2.0
"""Training by PyTorch's own autograd and optimizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from paritas.run.learning import Task


class TorchLearner:
    """See `run.learning.Learner`. The module trains where it is: nothing has to be read back."""

    in_place = True

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names: dict[torch.Tensor, str] = {parameter: name for name, parameter in task.module.named_parameters()}
        self._trained = [p for group in task.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def steps(self, rows: Mapping[str, np.ndarray], order: np.ndarray, numbers: Mapping[str, float]) -> np.ndarray:
        task, found = self._task, []
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in rows.items()}
        constants = {name: torch.tensor(value, dtype=torch.float32) for name, value in numbers.items()}
        with torch.enable_grad():
            for line in torch.from_numpy(np.ascontiguousarray(order)):
                batch = {name: tensor[line] for name, tensor in tensors.items()}
                loss, statistics = task.module(*({**batch, **constants}[name] for name in task.inputs))
                task.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if task.max_norm:
                    torch.nn.utils.clip_grad_norm_(self._trained, task.max_norm)
                task.optimizer.step()
                found.append(statistics)
        return torch.stack(found).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.detach().numpy().copy() for name, value in self._task.module.named_parameters()}

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        known = dict(self._task.module.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                known[name].copy_(torch.from_numpy(np.array(value)))

    def state(self) -> dict[str, np.ndarray]:
        return {
            f"{self._names[tensor]}.{name}": np.array(value)
            for tensor, state in self._task.optimizer.state.items()
            for name, value in state.items()
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        for name, value in state.items():
            weight, _, kept = name.rpartition(".")
            tensor = next(parameter for parameter, known in self._names.items() if known == weight)
            self._task.optimizer.state[tensor][kept] = torch.from_numpy(np.array(value))

    def rate(self, value: float) -> None:
        for group in self._task.optimizer.param_groups:
            group["lr"] = value

    def close(self) -> None:
        """Nothing is held."""
