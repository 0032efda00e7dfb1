# SPDX-License-Identifier: Apache-2.0
"""A training on MindSpore is the training on PyTorch, and what was learnt is a port that agrees."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
from gymnasium import spaces
from tests.rl.worlds import World

from paritas.rl import DQN, PPO, evaluate, record

STATISTICS = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "return", "q")

SMALL: dict[str, Any] = {"environments": 4, "rollout": 32, "batch": 32, "epochs": 2, "hidden": (16, 16)}
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "discrete": (PPO, "CartPole-v1", SMALL),
    "clipped values, linear schedules": (
        PPO, "CartPole-v1",
        {**SMALL, "value_clip": 0.2, "schedule": "linear", "clip_schedule": "linear", "entropy": 0.01},
    ),
    "continuous": (PPO, "Pendulum-v1", {**SMALL, "normalise_observations": True, "normalise_rewards": True}),
    "several choices": (PPO, functools.partial(World, spaces.MultiDiscrete([2, 3]), length=9), SMALL),
    "pictures": (
        PPO, functools.partial(World, observation=spaces.Box(0, 255, (36, 40, 3), np.uint8)),
        {**SMALL, "environments": 2, "rollout": 8, "batch": 8},
    ),
    "values": (
        DQN, "CartPole-v1",
        {"hidden": (16,), "starts": 64, "train_every": 64, "gradient_steps": 8, "target_every": 128, "double": True},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_curve_on_mindspore_is_the_one_on_torch(case: str) -> None:
    pytest.importorskip("mindspore")
    kind, env, settings = CASES[case]
    histories = []
    for engine in ("torch", "mindspore"):
        with kind(env, engine, 0, **settings) as training:
            told = training.settings
            training.learn(20 * (told.train_every if kind is DQN else told.rollout * told.environments))
            histories.append(training.history)
    for ours, theirs in zip(*histories, strict=True):
        for name in STATISTICS:
            if theirs.get(name) is not None:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-3), (ours["update"], name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["discrete", "values"])
def test_a_training_on_mindspore_goes_on_to_the_bit(case: str, tmp_path: Path) -> None:
    pytest.importorskip("mindspore")
    kind, env, settings = CASES[case]
    steps = 64 if kind is DQN else 128
    whole = kind(env, "mindspore", 1, **settings)
    whole.learn(6 * steps, checkpoint=tmp_path / "whole", checkpoint_every=3)
    part = kind(env, "mindspore", 1, **settings)
    part.learn(3 * steps, checkpoint=tmp_path / "part", checkpoint_every=3)
    resumed = kind.resume(tmp_path / "part")
    resumed.learn(6 * steps, checkpoint=tmp_path / "part", checkpoint_every=3)
    clock = [{n: v for n, v in told.items() if "second" not in n} for told in whole.history]
    assert clock == [{n: v for n, v in told.items() if "second" not in n} for told in resumed.history]
    for name, value in whole.agent.network.state_dict().items():
        assert torch.equal(value, resumed.agent.network.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize("case", ["discrete", "continuous", "values"])
def test_what_was_learnt_is_a_port_that_agrees(case: str, engine: str) -> None:
    pytest.importorskip(engine)
    kind, env, settings = CASES[case]
    with kind(env, "torch", 0, **settings) as training:
        agent = training.learn(512)
    port = agent.port(engine)
    assert port.verify().verdict == "agrees"
    rows = np.random.default_rng(0).standard_normal((5, *agent.spaces.shape)).astype(np.float32)
    actions, scores = port(observations=rows)
    wanted = agent.actor()(torch.from_numpy(rows))
    np.testing.assert_allclose(np.asarray(scores), wanted[1].detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(actions), wanted[0].detach().numpy(), rtol=1e-4, atol=1e-5)
    mine, on_engine = evaluate(agent, env, 5), evaluate(agent, env, 5, session=port)
    np.testing.assert_allclose(on_engine.returns, mine.returns, rtol=1e-2)
    port.close()


@pytest.mark.slow
def test_a_video_is_written(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    import imageio_ffmpeg

    with PPO("CartPole-v1", "torch", **SMALL) as training:
        earned = record(training.agent, tmp_path / "episode.mp4")
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "episode.mp4"))
    told = next(frames)
    assert told["codec"] == "h264" and sum(1 for _ in frames) >= earned - 1


@pytest.mark.slow
def test_environments_in_processes_of_their_own_are_the_same() -> None:
    both = []
    for parallel in (False, True):
        with PPO("CartPole-v1", "torch", parallel=parallel, **SMALL) as training:
            training.learn(256)
            both.append([told["loss"] for told in training.history])
    assert both[0] == both[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PPO, DQN])
def test_it_learns_to_balance(kind: Any) -> None:
    with kind("CartPole-v1", "torch", seed=0) as training:
        assert training.settings.steps <= 100_000
        assert evaluate(training.learn(), episodes=100).mean >= 475
