# SPDX-License-Identifier: Apache-2.0
"""What processes that train one model together ask of an engine: to be started by its launcher, and its collectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Collectives(Protocol):
    """What the processes of one training say to each other. Each call is made by all of them, in the same order.

    rank, size: which process this is, and of how many. lacks: operations that the engine has no kernel for here, with
    what is computed in their place.
    """

    rank: int
    size: int
    lacks: dict[str, str]

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of every process's float32 array, in its shape."""
        ...

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Every process's array, of any dtype, [size, ...]."""
        ...

    def broadcast(self, array: np.ndarray, root: int) -> np.ndarray:
        """The array of process `root`, of any dtype, in its shape."""
        ...

    def barrier(self) -> None:
        """Wait for all."""
        ...
