# SPDX-License-Identifier: Apache-2.0
"""How well a policy does, over whole episodes, and what that looks like."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paritas import leftovers
from paritas.errors import InputError, first_line
from paritas.rl.agent import Agent
from paritas.rl.environments import Maker, Serial, make


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Returns (without discount) and lengths of episodes."""

    returns: np.ndarray
    lengths: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    @property
    def deviation(self) -> float:
        return float(self.returns.std())

    def to_json(self) -> dict[str, Any]:
        return {
            "episodes": len(self.returns), "mean": self.mean, "deviation": self.deviation,
            "least": float(self.returns.min()), "most": float(self.returns.max()),
            "length": float(self.lengths.mean()), "returns": [float(value) for value in self.returns],
        }  # fmt: skip

    def __str__(self) -> str:
        return f"return {self.mean:.1f} ± {self.deviation:.1f} over {len(self.returns)} episodes"


def evaluate(
    agent: Agent,
    env: Maker = "",
    episodes: int = 100,
    *,
    seed: int = 10_000,
    stochastic: bool = False,
    environments: int = 10,
    options: Mapping[str, Any] | None = None,
    session: Any = None,
) -> Evaluation:
    """Whole episodes of an environment.

    Args:
        agent: which acts.
        env: an id, or a function that makes one; by default the one that it was trained in.
        episodes: how many, shared evenly by `environments`, so that short ones are not seen more often.
        seed: of the environments, and of what is drawn.
        stochastic: draw actions as in training, instead of taking the most probable ones.
        options: for `gymnasium.make`.
        session: a port of the agent's, which then acts instead.

    Raises `InputError` where the spaces are others than the agent's.
    """
    count = max(1, min(environments, episodes))
    envs = make(env or agent.environment, count, options=options)
    try:
        agent.spaces.must_be(envs.spaces, "This policy", f"the environment {envs.name}")
        rng = np.random.default_rng(seed)
        quota = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
        rows = np.empty((count, *agent.spaces.shape), agent.spaces.dtype)
        sums, steps = np.zeros(count), np.zeros(count, np.int64)
        returns, lengths = [], []
        envs.reset([seed + index for index in range(count)], rows)
        while quota.any():
            if session is not None:
                actions = np.asarray(session(observations=rows)[0])
            else:
                actions = agent.act_on(rows, rng if stochastic else None)
            rewards, ended, cut, _ = envs.step(actions, rows)
            sums += rewards
            steps += 1
            for index in np.flatnonzero(ended | cut):
                if quota[index]:
                    returns.append(sums[index])
                    lengths.append(steps[index])
                    quota[index] -= 1
                sums[index] = steps[index] = 0
        return Evaluation(np.array(returns), np.array(lengths))
    finally:
        envs.close()


def can_record() -> None:
    """Raise `InputError` where nothing is installed that writes a film."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise InputError("A video needs imageio-ffmpeg, which is not installed:   pip install 'paritas[rl]'")


def record(
    agent: Agent,
    path: str | os.PathLike[str],
    env: str = "",
    *,
    seed: int = 10_000,
    most: int = 2000,
    options: Mapping[str, Any] | None = None,
) -> float:
    """Write one episode as an MP4, and return what it earned.

    most: steps, for episodes without an end. Raises `InputError` where the environment draws no pictures, or nothing
    is installed that writes a film.
    """
    can_record()
    import imageio_ffmpeg

    # Pictures are drawn in memory: SDL, which draws them, looks for a screen unless it is told not to.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    envs = make(env or agent.environment, 1, options={**dict(options or {}), "render_mode": "rgb_array"})
    assert isinstance(envs, Serial)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = leftovers.beside(target.absolute(), "tmp").with_suffix(".mp4")
    try:
        agent.spaces.must_be(envs.spaces, "This policy", f"the environment {envs.name}")
        rows = np.empty((1, *agent.spaces.shape), agent.spaces.dtype)
        envs.reset([seed], rows)
        picture = _drawn(envs)
        height, width = (side - side % 2 for side in picture.shape[:2])  # H.264 wants even sides
        film = imageio_ffmpeg.write_frames(
            str(staging), (width, height), fps=_rate(envs), macro_block_size=2, ffmpeg_log_level="error"
        )
        film.send(None)
        earned = 0.0
        for _ in range(most):
            film.send(np.ascontiguousarray(picture[:height, :width]))
            rewards, ended, cut, _ = envs.step(agent.act_on(rows), rows)
            earned += float(rewards[0])
            if ended[0] or cut[0]:
                break
            picture = _drawn(envs)
        film.close()
        staging.replace(target)
        return earned
    finally:
        staging.unlink(missing_ok=True)
        envs.close()


def _rate(envs: Serial) -> int:
    return int(envs.metadata.get("render_fps", 30))


def _drawn(envs: Serial) -> np.ndarray:
    try:
        picture = envs.render()
    except Exception as error:
        raise InputError(f"{envs.name} cannot be drawn: {first_line(error)}") from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise InputError(f"{envs.name} draws no pictures: it has no render_mode rgb_array.")
    return picture
