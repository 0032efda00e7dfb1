# SPDX-License-Identifier: Apache-2.0
"""An engine with gradients as a loop sees it that trains a small network for many steps: `Engine.learner`.

A step costs an engine a fraction of a millisecond. So a learner is given all data at once, and says once what came
of many steps; weights are read when somebody wants them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be trained.

    Attributes:
        module: returns (loss, statistics [k]); the order of its inputs is that of `inputs`.
        optimizer: torch's, of its parameters.
        inputs: by name, an example of a step: rows [batch, ...], and numbers that are the same for all rows.
        rows: the names of those of which each step takes other rows.
        max_norm: gradients together are made no longer than this; 0 for as they are.
        port: makes a port of the module for training, for an engine that needs one.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Mapping[str, torch.Tensor]
    rows: tuple[str, ...]
    max_norm: float
    port: Callable[[], Any]


class Learner(Protocol):
    """Trains.

    `steps` takes a step with the rows of each line of `order`, int64 [steps, batch], and returns the statistics of
    each, float32 [steps, k]. `weights` are the trained module's, by torch's names; `load` puts others there. `state` is
    what the optimizer remembers, bit for bit: `restore` takes it. `rate` sets the rate of learning. in_place: whether
    the module that was given is what is trained, so that nothing has to be read back.
    """

    in_place: bool

    def steps(self, rows: Mapping[str, np.ndarray], order: np.ndarray, numbers: Mapping[str, float]) -> np.ndarray: ...

    def weights(self) -> dict[str, np.ndarray]: ...

    def load(self, weights: Mapping[str, np.ndarray]) -> None: ...

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None: ...

    def rate(self, value: float) -> None: ...

    def close(self) -> None: ...
