# SPDX-License-Identifier: Apache-2.0
"""Running means and deviations of observations and returns, so that networks see numbers of size one."""

from __future__ import annotations

import numpy as np

#: What is further from the mean, in deviations, is brought here.
LIMIT = 10.0
_EPSILON = 1e-8


class Running:
    """Mean and variance of all that was seen (Chan et al., 1983), in float64."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), 1e-4

    def see(self, values: np.ndarray) -> None:
        """values: [n, *shape]."""
        values = np.asarray(values, np.float64)
        mean, variance, count = values.mean(0), values.var(0), len(values)
        difference, total = mean - self.mean, self.count + count
        spread = self.variance * self.count + variance * count + difference**2 * (self.count * count / total)
        self.mean, self.variance, self.count = self.mean + difference * (count / total), spread / total, total

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / deviation, within `LIMIT`, float32."""
        mean, deviation = self.numbers()
        return np.clip((values - mean) / deviation, -LIMIT, LIMIT).astype(np.float32, copy=False)

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation, float32."""
        return self.mean.astype(np.float32), np.sqrt(self.variance + _EPSILON).astype(np.float32)

    def state(self, name: str) -> dict[str, np.ndarray]:
        return {
            f"{name}.mean": np.array(self.mean),
            f"{name}.variance": np.array(self.variance),
            f"{name}.count": np.array(self.count),
        }

    def restore(self, name: str, state: dict[str, np.ndarray]) -> None:
        self.mean, self.variance = np.array(state[f"{name}.mean"]), np.array(state[f"{name}.variance"])
        self.count = float(state[f"{name}.count"])


class Returns:
    """The deviation of discounted returns, by which rewards are divided."""

    def __init__(self, count: int, gamma: float) -> None:
        self.running, self.gamma, self.sums = Running(), gamma, np.zeros(count)

    def scaled(self, rewards: np.ndarray, over: np.ndarray) -> np.ndarray:
        """rewards, over: [steps, environments]; over: whether an episode ended with the step."""
        seen = np.empty_like(rewards, np.float64)
        for step in range(len(rewards)):
            self.sums = self.sums * self.gamma + rewards[step]
            seen[step] = self.sums
            self.sums = np.where(over[step], 0.0, self.sums)
        self.running.see(seen.ravel())
        deviation = np.sqrt(self.running.variance + _EPSILON)
        return np.clip(rewards / deviation, -LIMIT, LIMIT)

    def state(self) -> dict[str, np.ndarray]:
        return {**self.running.state("returns"), "returns.sums": np.array(self.sums)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.running.restore("returns", state)
        self.sums = np.array(state["returns.sums"])
