# SPDX-License-Identifier: Apache-2.0
"""What followed an action, as one number: discounted returns, and generalised advantages."""

from __future__ import annotations

import numpy as np

from paritas.errors import InputError


def discounted(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Returns of one episode: of each step, its reward, plus `gamma` times the return of the next step.

    rewards: [steps, ...]. The result has their shape, in float64. Raises `InputError` for a gamma outside of 0 to 1.
    """
    _fraction("gamma", gamma)
    found = np.zeros(np.shape(rewards))
    after: np.ndarray | float = 0.0
    for step in range(len(found) - 1, -1, -1):
        found[step] = after = rewards[step] + gamma * after
    return found


def advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    last_values: np.ndarray,
    last_starts: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Generalised advantage estimation (Schulman et al., 2016).

    rewards, values: float32 [steps, environments]. starts: whether an episode begins with the step; last_values and
    last_starts [environments]: of the step behind the last. Returns are these plus `values`. lambda 1 is the return
    less the value, 0 the error of one step.
    """
    _fraction("gamma", gamma)
    _fraction("gae_lambda", gae_lambda)
    goes_on = 1.0 - np.concatenate([starts[1:], last_starts[None]]).astype(np.float32)
    following = np.concatenate([values[1:], last_values[None]])
    errors = rewards + np.float32(gamma) * following * goes_on - values
    factors = np.float32(gamma * gae_lambda) * goes_on
    found = np.zeros_like(errors)
    after = np.zeros_like(last_values)
    for step in range(len(errors) - 1, -1, -1):
        found[step] = after = errors[step] + factors[step] * after
    return found


def _fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it lies between 0 and 1.")
