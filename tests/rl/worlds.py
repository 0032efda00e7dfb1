# SPDX-License-Identifier: Apache-2.0
"""Environments that end in a few steps, one for each kind of space."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces


class World(gymnasium.Env):
    """Shows numbers drawn from its seed; an episode is `length` steps, or is cut off there."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        action: Any = None,
        observation: Any = None,
        length: int = 5,
        cut: bool = False,
        reward: float | None = None,
        shown: Any = None,
    ) -> None:
        self.action_space = action if action is not None else spaces.Discrete(2)
        self.observation_space = observation if observation is not None else spaces.Box(-1, 1, (3,), np.float32)
        self.length, self.cut, self.reward, self.shown = length, cut, reward, shown
        self.step_count = 0

    def _observation(self) -> Any:
        if self.shown is not None:
            return self.shown
        space = self.observation_space
        if isinstance(space, spaces.Discrete):
            return int(self.np_random.integers(space.n)) + int(space.start)
        if space.dtype == np.uint8:
            return self.np_random.integers(0, 256, space.shape, np.uint8)
        return self.np_random.uniform(-1, 1, space.shape).astype(space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.step_count = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.step_count += 1
        over = self.step_count >= self.length
        earned = float(np.sum(action)) if self.reward is None else self.reward
        return self._observation(), earned, over and not self.cut, over and self.cut, {}
