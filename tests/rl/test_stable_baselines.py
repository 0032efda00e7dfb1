# SPDX-License-Identifier: Apache-2.0
"""Files of Stable-Baselines3, without it; and, where it is installed, its losses, gradients and policies beside ours.

It is in none of our extras: pip install --no-deps --target DIR stable-baselines3==2.9.2, and DIR on PYTHONPATH.
"""

from __future__ import annotations

import functools
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("gymnasium")
from gymnasium import spaces
from tests.rl.worlds import World

from paritas.errors import InputError
from paritas.rl import DQN, PPO, sb3
from paritas.rl.losses import PolicyLoss

HIDDEN = {"hidden": (8, 8)}


@pytest.mark.parametrize(
    ("kind", "maker"),
    [
        (PPO, World),
        (PPO, functools.partial(World, spaces.Box(-1, 1, (2,), np.float32))),
        (DQN, World),
        (PPO, functools.partial(World, observation=spaces.Box(0, 255, (36, 36, 3), np.uint8))),
    ],
    ids=["ppo", "continuous", "dqn", "pictures"],
)
def test_what_is_written_is_read_again(kind: Any, maker: Any, tmp_path: Path) -> None:
    with kind(maker, "torch", seed=5, environments=1, **HIDDEN) as training:
        sb3.save(training.agent, tmp_path / "policy.zip")
        again = sb3.load(tmp_path / "policy.zip", maker)
        for name, value in training.agent.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[name]), name


class Runs:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return path


def held(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    pickled = pickle.dumps(Runs(tmp_path / "ran"))
    for data in (pickled, held({"action_net.weight": Runs(tmp_path / "ran")})):
        with pytest.raises(InputError, match="holds something else than weights"):
            sb3.load(zipped(tmp_path / "evil.zip", policy_pth=data), World)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data": b"{}"}, "it has no policy.pth"),
        ({"policy_pth": held([1, 2])}, "something else than weights by name"),
        ({"policy_pth": held({"lstm_actor.weight": torch.zeros(1)})}, "holds lstm_actor.weight: what is read"),
        ({"policy_pth": held({"action_net.weight": torch.zeros(2, 3)})}, "do not fit this network"),
    ],
)
def test_files_that_are_none_are_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sb3.load(zipped(tmp_path / "odd.zip", **files), World)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="is no file of Stable-Baselines3"):
        sb3.load(tmp_path / "text.zip", World)


def test_scaled_observations_are_not_written(tmp_path: Path) -> None:
    with PPO(World, "torch", normalise_observations=True, **HIDDEN) as training:
        with pytest.raises(InputError, match="VecNormalize"):
            sb3.save(training.agent, tmp_path / "policy.zip")
        training.agent.network = nn.Linear(3, 2)


# --- beside the original -----------------------------------------------------------------------------------


def theirs() -> Any:
    return pytest.importorskip("stable_baselines3", reason="stable-baselines3 is in none of our extras: see above")


@pytest.mark.slow
@pytest.mark.parametrize(("env", "clip_values"), [("CartPole-v1", None), ("CartPole-v1", 0.2), ("Pendulum-v1", None)])
def test_losses_and_gradients_of_an_update_are_theirs(env: str, clip_values: float | None, tmp_path: Path) -> None:
    """On their rollout, in their order: three steps of the optimizer, the second and third with ratios other than 1."""
    theirs()
    from stable_baselines3 import PPO as Original
    from stable_baselines3.common.env_util import make_vec_env

    model = Original(
        "MlpPolicy", make_vec_env(env, 4, seed=0), n_steps=32, batch_size=128, n_epochs=3, ent_coef=0.01, seed=0,
        learning_rate=1e-3, clip_range_vf=clip_values, device="cpu",
    )  # fmt: skip
    _, callback = model._setup_learn(128, None)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    model.save(tmp_path / "model.zip")
    agent = sb3.load(tmp_path / "model.zip", env)
    module = PolicyLoss(agent.network, agent.spaces.distribution(), clips_values=clip_values is not None)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, eps=1e-5)

    taken, gradients, losses = [], [], []
    get, step = model.rollout_buffer.get, model.policy.optimizer.step

    def seen_get(size: int) -> Any:
        for batch in get(size):
            taken.append(batch)
            yield batch

    def seen_step() -> None:
        gradients.append({name: p.grad.clone() for name, p in model.policy.named_parameters()})
        step()

    model.rollout_buffer.get, model.policy.optimizer.step = seen_get, seen_step
    record = model.logger.record
    model.logger.record = lambda name, value, *_, **__: losses.append((name, value)) or record(name, value)
    model.train()
    told = dict(losses)

    numbers = [torch.tensor(number) for number in (0.2, clip_values or 0.0, 0.01, 0.5)]
    found = []
    names = {**{theirs_: ours for ours, theirs_ in sb3.ACTOR_CRITIC}}
    for batch, wanted in zip(taken, gradients, strict=True):
        actions = batch.actions if env == "Pendulum-v1" else batch.actions.long().flatten()
        rows = (batch.observations, actions, batch.old_log_prob, batch.advantages, batch.returns, batch.old_values)
        loss, statistics = module(*rows, *numbers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
        mine = dict(agent.network.named_parameters())
        for name, gradient in wanted.items():
            prefix = next(one for one in names if name.startswith(one))
            ours = mine[names[prefix] + name.removeprefix(prefix)].grad
            torch.testing.assert_close(ours, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()) + 1e-9)
        optimizer.step()
        found.append(statistics.numpy())
    means = np.mean(found, 0)
    for name, ours, sign in (("train/policy_gradient_loss", means[1], 1), ("train/value_loss", means[2], 1),
                             ("train/entropy_loss", means[3], -1), ("train/clip_fraction", means[5], 1)):  # fmt: skip
        assert sign * ours == pytest.approx(told[name], rel=1e-5, abs=1e-6), name
    assert found[-1][0] == pytest.approx(told["train/loss"], rel=1e-5)
    assert found[-1][4] == pytest.approx(told["train/approx_kl"], rel=1e-3, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "original", "env"), [(PPO, "PPO", "CartPole-v1"), (PPO, "PPO", "Pendulum-v1"), (DQN, "DQN", "CartPole-v1")]
)
def test_policies_go_to_them_and_come_back(ours: Any, original: str, env: str, tmp_path: Path) -> None:
    library = theirs()
    kwargs = {"activation_fn": nn.ReLU, "net_arch": [16, 16]}
    model = getattr(library, original)("MlpPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu")
    model.save(tmp_path / "theirs.zip")
    agent = sb3.load(tmp_path / "theirs.zip", env)
    rows = np.random.default_rng(0).standard_normal((20, *agent.spaces.shape)).astype(np.float32)
    wanted, _ = model.predict(rows, deterministic=True)
    np.testing.assert_allclose(agent.spaces.outward(agent.act(rows)), wanted, rtol=1e-5, atol=1e-6)

    with ours(env, "torch", 7, hidden=(16, 16), activation="relu") as training:
        sb3.save(training.agent, tmp_path / "ours.zip")
        model.set_parameters(tmp_path / "ours.zip", device="cpu")
        wanted, _ = model.predict(rows, deterministic=True)
        found = training.agent.spaces.outward(training.agent.act(rows))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
