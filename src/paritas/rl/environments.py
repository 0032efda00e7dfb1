# SPDX-License-Identifier: Apache-2.0
"""Environments of gymnasium, several at once: one after the other in this process, or each in a process of its own.

`step` writes observations into rows that its caller gives, starts what has ended again at once, and says what the last
observation of an episode was. What comes back is checked: NaN learns nothing, and is told at the step that gave it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from paritas.errors import ExtraMissing, InputError, first_line
from paritas.extras import install, require
from paritas.rl.spaces import Spaces

#: What makes an environment: its id, or a function of no arguments.
Maker = str | Callable[[], Any]

#: A module that environments of gymnasium's need -> the extra that brings it.
_NEEDED = {"Box2D": "box2d"}


class Environments(Protocol):
    """spaces: of each. `reset(seeds, rows)` begins all anew. `step(actions, rows)` returns rewards float64 [n], whether
    episodes have ended [n], whether they were cut off [n], and the last observations of those that were cut off."""

    count: int
    spaces: Spaces
    name: str

    def reset(self, seeds: Sequence[int], rows: np.ndarray) -> None: ...

    def step(
        self, actions: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[int, np.ndarray]]: ...

    def close(self) -> None: ...


def make(
    env: Maker, count: int = 1, *, parallel: bool = False, options: Mapping[str, Any] | None = None
) -> Environments:
    """Several environments of one kind.

    Args:
        env: an id of gymnasium's ("CartPole-v1"), a function that makes one, or a vector environment of gymnasium's
            with `autoreset_mode=AutoresetMode.SAME_STEP`.
        count: how many.
        parallel: each in a process of its own, of which none is forked: a script has to be importable, its training
            under `if __name__ == "__main__":`.
        options: what `gymnasium.make` is told beside the id.

    Raises:
        ExtraMissing: gymnasium, or what this environment needs, is not installed.
        InputError: there is no such environment, or its spaces are of a kind that no policy reads or answers with.
    """
    require("rl", "paritas.rl")
    if hasattr(env, "step") and hasattr(env, "num_envs"):
        return Vector(env)
    if count < 1:
        raise InputError(f"{count} environments: there has to be 1 or more.")
    maker = _maker(env, dict(options or {}))
    name = env if isinstance(env, str) else getattr(env, "__name__", "environment")
    if parallel and count > 1:
        from gymnasium.vector import AsyncVectorEnv, AutoresetMode

        first = maker()
        first.close()  # what is wrong with it is told here, and not in another process
        made = AsyncVectorEnv([maker] * count, context="spawn", autoreset_mode=AutoresetMode.SAME_STEP)
        return Vector(made, name)
    return Serial([maker() for _ in range(count)], name)


def _maker(env: Maker, options: dict[str, Any]) -> Callable[[], Any]:
    if not isinstance(env, str):
        if not callable(env):
            raise InputError(
                f"{type(env).__name__} is no environment: give an id of gymnasium's, a function that makes one (for "
                "each copy that is needed), or a vector environment."
            )
        return env

    def made() -> Any:
        import gymnasium

        try:
            return gymnasium.make(env, disable_env_checker=True, **options)
        except gymnasium.error.DependencyNotInstalled as error:
            absent = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
            if absent and any(module.lower() in str(error).lower() for module in absent):
                raise ExtraMissing(f"The environment {env}", absent, install(_NEEDED[absent[0]])) from error
            raise InputError(f"The environment {env} needs what is not installed: {first_line(error)}") from error
        except ModuleNotFoundError as error:
            raise InputError(
                f"The environment {env} needs a module that is not installed: {first_line(error)} Install the package "
                "that brings it."
            ) from error
        except gymnasium.error.Error as error:
            raise InputError(
                f"gymnasium has no environment {env!r}: {first_line(error)} Where a package brings it, install that "
                "and name its module before the id, as package:Name-v0."
            ) from error
        except TypeError as error:
            raise InputError(f"The environment {env} does not take these options: {first_line(error)}") from error

    return made


def _finite(rewards: np.ndarray, rows: np.ndarray, name: str, actions: Any) -> None:
    """Raise `InputError` with the environment that gave what is no number."""
    if not np.isfinite(rewards.sum()):
        index = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise InputError(
            f"{name} {index} gave the reward {rewards[index]} for the action {actions[index]}: rewards have to be "
            "finite numbers. Nothing can be learnt from it."
        )
    if rows.dtype != np.uint8 and not np.isfinite(rows).all():
        index = int(np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(-1))[0])
        raise InputError(
            f"{name} {index} showed {rows[index]} after the action {actions[index]}: observations have to be finite "
            "numbers."
        )


class Serial:
    """One after the other."""

    def __init__(self, environments: Sequence[Any], name: str) -> None:
        self._each, self.count, self.name = list(environments), len(environments), name
        first = self._each[0]
        for attribute in ("observation_space", "action_space"):
            if getattr(first, attribute, None) is None:
                raise InputError(f"{type(first).__name__} has no {attribute}: it is no environment of gymnasium's.")
        self.spaces = Spaces.of(first.observation_space, first.action_space)
        self._rewards = np.zeros(self.count)
        self._ended, self._cut = np.zeros(self.count, bool), np.zeros(self.count, bool)
        # The arrays of a Box are written as they are; all else is read by its space.
        self._plain = self.spaces.shape if not self.spaces.places else None

    def reset(self, seeds: Sequence[int], rows: np.ndarray) -> None:
        for env, seed, row in zip(self._each, seeds, rows, strict=True):
            self.spaces.read(self._reset(env, int(seed)), row, self.name)
        _finite(np.zeros(1), rows, self.name, ["of none yet"] * self.count)

    def _reset(self, env: Any, seed: int | None = None) -> Any:
        answer = env.reset(seed=seed) if seed is not None else env.reset()
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise InputError(
                f"{self.name}: reset() returned {type(answer).__name__}, and has to return an observation and a "
                "dictionary, as gymnasium's environments do."
            )
        return answer[0]

    def step(
        self, actions: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[int, np.ndarray]]:
        rewards, ended, cut, plain = self._rewards, self._ended, self._cut, self._plain
        last: dict[int, np.ndarray] = {}
        taken = self.spaces.outward(actions)
        read, name = self.spaces.read, self.name
        for index, env in enumerate(self._each):
            try:
                shown, rewards[index], over, short, _ = env.step(taken[index])
            except (AssertionError, ValueError, TypeError) as error:
                raise InputError(
                    f"{name} does not take the action {taken[index]}, or does not answer with an observation, a reward "
                    f"and two truth values and a dictionary: {type(error).__name__}: {first_line(error)}"
                ) from error
            ended[index], cut[index] = over, short
            if over or short:
                if short and not over:
                    last[index] = np.empty(self.spaces.shape, self.spaces.dtype)
                    read(shown, last[index], name)
                shown = self._reset(env)
            if type(shown) is np.ndarray and shown.shape == plain:
                rows[index] = shown
            else:
                read(shown, rows[index], name)
        _finite(rewards, rows, name, taken)
        return rewards, ended, cut, last

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the first."""
        return getattr(self._each[0], "metadata", None) or {}

    def render(self) -> Any:
        """A picture of the first, where it draws."""
        return self._each[0].render()

    def close(self) -> None:
        for env in self._each:
            env.close()


class Vector:
    """A vector environment of gymnasium's."""

    def __init__(self, vector: Any, name: str = "") -> None:
        from gymnasium.vector import AutoresetMode

        mode = vector.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InputError(
                f"{type(vector).__name__} starts what has ended again in the next step ({mode}), whose reward nobody "
                "has earned: make it with autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP."
            )
        self._vector, self.count = vector, int(vector.num_envs)
        self.name = name or str(getattr(getattr(vector, "spec", None), "id", type(vector).__name__))
        self.spaces = Spaces.of(vector.single_observation_space, vector.single_action_space)

    def reset(self, seeds: Sequence[int], rows: np.ndarray) -> None:
        shown, _ = self._vector.reset(seed=[int(seed) for seed in seeds])
        rows[:] = self.spaces.batch(shown)
        _finite(np.zeros(1), rows, self.name, ["of none yet"] * self.count)

    def step(
        self, actions: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[int, np.ndarray]]:
        taken = self.spaces.outward(actions)
        shown, rewards, ended, cut, told = self._vector.step(np.asarray(taken))
        rows[:] = self.spaces.batch(shown)
        rewards = np.asarray(rewards, np.float64)
        last = {}
        for index in np.flatnonzero(cut & ~ended):
            last[int(index)] = self.spaces.batch([told["final_obs"][index]])[0]
        _finite(rewards, rows, self.name, taken)
        return rewards, np.asarray(ended), np.asarray(cut), last

    def close(self) -> None:
        self._vector.close()
