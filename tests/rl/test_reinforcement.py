# SPDX-License-Identifier: Apache-2.0
"""Returns, environments and trainings: every kind of space, what is refused, and going on to the bit."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

pytest.importorskip("gymnasium")
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tests.rl.worlds import World

from paritas.errors import ExtraMissing, InputError
from paritas.rl import DQN, PPO, Agent, Reinforce, advantages, discounted, evaluate, make
from paritas.rl.networks import ActorCritic
from paritas.rl.normalise import Returns, Running
from paritas.rl.settings import PolicySettings, QSettings, made, tuned

SMALL: dict[str, Any] = {"environments": 2, "rollout": 8, "batch": 8, "epochs": 2, "hidden": (8,), "steps": 32}
SMALL_Q: dict[str, Any] = {
    "environments": 1, "hidden": (8,), "steps": 48, "starts": 8, "train_every": 8, "gradient_steps": 2, "batch": 4,
    "buffer": 20, "target_every": 16,
}  # fmt: skip


# --- returns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "gamma", "wanted"),
    [([1, 1, 1], 1.0, [3, 2, 1]), ([0, 0, 1], 0.5, [0.25, 0.5, 1]), ([1, 2, 3], 0.0, [1, 2, 3]), ([], 0.9, [])],
)
def test_returns_by_hand(rewards: list[float], gamma: float, wanted: list[float]) -> None:
    np.testing.assert_allclose(discounted(np.array(rewards, float), gamma), wanted)


def test_advantages_with_lambda_1_are_returns_less_values_and_with_0_errors_of_one_step() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.standard_normal((2, 6, 1)).astype(np.float32)
    starts = np.array([[True], [False], [False], [True], [False], [False]])
    last = np.array([0.5], np.float32)
    by_hand = np.concatenate([discounted(rewards[:3, 0], 0.9), discounted(np.append(rewards[3:, 0], last), 0.9)[:-1]])
    found = advantages(rewards, values, starts, last, np.array([False]), 0.9, 1.0)
    np.testing.assert_allclose(found[:, 0], by_hand - values[:, 0], rtol=1e-5, atol=1e-6)
    following = np.append(values[1:, 0], last)
    following[2] = 0  # an episode ended there
    errors = advantages(rewards, values, starts, last, np.array([False]), 0.9, 0.0)
    np.testing.assert_allclose(errors[:, 0], rewards[:, 0] + 0.9 * following - values[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_a_discount_lies_between_0_and_1(gamma: float) -> None:
    with pytest.raises(InputError, match="lies between 0 and 1"):
        discounted(np.ones(2), gamma)


def test_running_means_are_those_of_all_that_was_seen() -> None:
    values = np.random.default_rng(0).normal(3, 2, (90, 4))
    running = Running((4,))
    for part in np.split(values, 3):
        running.see(part)
    np.testing.assert_allclose(running.mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(running.variance, values.var(0), rtol=1e-3)
    assert abs(running.scaled(values).mean()) < 1e-2


def test_rewards_are_divided_by_the_deviation_of_returns() -> None:
    returns = Returns(1, 1.0)
    scaled = returns.scaled(np.array([[1.0], [1.0], [5.0]]), np.array([[False], [True], [False]]))
    seen = np.array([1.0, 2.0, 5.0])  # the second episode begins at 0
    np.testing.assert_allclose(scaled[:, 0], np.array([1, 1, 5]) / seen.std(), rtol=1e-2)


# --- environments ------------------------------------------------------------------------------------

SPACES: list[tuple[Any, Any]] = [
    (spaces.Discrete(3), spaces.Box(-1, 1, (3,), np.float32)),
    (spaces.Discrete(3, start=-1), spaces.Discrete(4)),
    (spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2, 2), np.float64)),
    (spaces.Box(-0.5, 0.5, (2,), np.float32), spaces.Discrete(3, start=5)),
    (spaces.Box(-0.5, 0.5, (2, 1), np.float32), spaces.Box(0, 255, (3,), np.uint8)),
]


@pytest.mark.parametrize(("action", "observation"), SPACES, ids=str)
def test_a_policy_learns_and_acts_in_every_kind_of_space(action: Any, observation: Any) -> None:
    maker = functools.partial(World, action, observation)
    with PPO(maker, "torch", **SMALL) as training:
        before = {name: value.clone() for name, value in training.agent.network.state_dict().items()}
        agent = training.learn()
    assert any((value != before[name]).any() for name, value in agent.network.state_dict().items())
    assert training.done == 32 and training.history[-1]["episodes"] == 6
    world = maker()
    shown, _ = world.reset(seed=0)
    assert world.action_space.contains(agent.predict(shown))
    found = evaluate(agent, maker, 5, environments=2, stochastic=True)
    assert len(found.returns) == 5 and (found.lengths == 5).all()


def test_what_is_cut_off_goes_on_with_the_value_of_what_was_seen_last() -> None:
    rewards = []
    for cut in (False, True):
        maker = functools.partial(World, length=8, cut=cut, reward=1.0)
        with PPO(maker, "torch", **{**SMALL, "gamma": 0.5}) as training:
            rollout = training.collect()
            rewards.append(rollout.rewards)
    assert (rewards[0] == 1).all() and (rewards[1][:-1] == 1).all() and (rewards[1][-1] != 1).all()


def test_a_vector_environment_of_gymnasium_s_is_taken() -> None:
    both = []
    for env in (World, SyncVectorEnv([World] * 2, autoreset_mode=AutoresetMode.SAME_STEP)):
        with PPO(env, "torch", **SMALL) as training:
            training.learn()
            both.append([told["loss"] for told in training.history])
    assert both[0] == both[1]
    with pytest.raises(InputError, match="autoreset_mode=gymnasium"):
        make(SyncVectorEnv([World] * 2))


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (functools.partial(World, reward=float("nan")), "World 0 gave the reward nan for the action"),
    (functools.partial(World, reward=float("inf")), "rewards have to be finite numbers"),
    (functools.partial(World, shown=np.full(3, np.nan, np.float32)), "observations have to be finite"),
    (functools.partial(World, shown=np.zeros(2, np.float32)), r"of shape \(2,\), and its space says \(3,\)"),
    (functools.partial(World, observation=spaces.Dict({"a": spaces.Discrete(2)})), "FlattenObservation"),
    (functools.partial(World, spaces.MultiBinary(3)), "have no distribution here"),
    (lambda: object(), "object has no observation_space"),
]  # fmt: skip


@pytest.mark.parametrize(("maker", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_an_environment_may_not_do(maker: Any, message: str) -> None:
    maker.__name__ = "World"
    with pytest.raises(InputError, match=message), PPO(maker, "torch", **SMALL) as training:
        training.learn()


class Wants(World):
    """Says that it takes three actions, and takes two."""

    def step(self, action: Any) -> Any:
        raise ValueError(f"no action {action}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PPO("NoSuch-v0", "torch"), "gymnasium has no environment 'NoSuch-v0'"),
        (lambda: PPO("nowhere:NoSuch-v0", "torch"), "needs a module that is not installed"),
        (lambda: PPO(World, "openvino", **SMALL).learn(), "openvino computes no gradients.*mindspore do"),
        (lambda: PPO(World, "torch", learning_rat=1), "no setting 'learning_rat'. Did you mean learning_rate"),
        (lambda: PPO(World, "torch", environments=2, rollout=8, batch=7), "batch has to divide them"),
        (lambda: PPO(World, "torch", gamma=2), "gamma is 2.0: it lies between 0 and 1"),
        (lambda: PPO(World, "torch", surrogate="best"), "no surrogate 'best'"),
        (lambda: PPO(World, "torch", hidden="a"), "hidden is 'a': it has to be like"),
        (lambda: PPO(World, "torch", activation="sin", **SMALL), "no activation 'sin'"),
        (lambda: PPO(World, "torch", features="cnn", **SMALL), "are no pictures"),
        (lambda: PPO(Wants, "torch", **SMALL).learn(), "Wants does not take the action"),
        (lambda: PPO(World(), "torch"), "World is no environment: give an id"),
        (lambda: DQN(functools.partial(World, spaces.Box(-1, 1, (2,))), "torch"), "take PPO"),
        (lambda: DQN(World, "torch", train_every=3, environments=2), "no multiple of 2 environments"),
        (lambda: PPO(World, "torch", network=nn.Linear(3, 5)), r"actions of this environment need \(2, 2\)"),
        (lambda: PPO(World, "torch", network=nn.Linear(4, 2)), "does not read observations of shape"),
        (lambda: PPO(World, "torch", network=nn.Sequential(nn.Linear(3, 2), nn.Dropout())), "would be two"),
        (lambda: evaluate(PPO("CartPole-v1", "torch").agent, World), "This policy does not fit the environment World"),
    ],
    ids=range(18),
)
def test_bad_input_is_one_clear_error(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_what_an_environment_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "Box2D" or ".box2d" in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "Box2D", None)  # what an import of it finds
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None if name == "Box2D" else True)
    with pytest.raises(ExtraMissing, match=r"LunarLander-v3 needs Box2D.*pip install 'paritas\[box2d\]'"):
        make("LunarLander-v3")


# --- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "dqn"])
@pytest.mark.parametrize("environment", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1", "anything else"])
def test_tuned_settings_are_settings(algorithm: str, environment: str) -> None:
    assert made(QSettings if algorithm == "dqn" else PolicySettings, tuned(algorithm, environment)).steps > 0


def test_settings_are_read_from_text() -> None:
    found = made(
        PolicySettings, {"hidden": "32,16", "learning_rate": "1e-3", "steps": "1e5", "normalise_rewards": "true"}
    )
    assert (found.hidden, found.learning_rate, found.steps, found.normalise_rewards) == ((32, 16), 1e-3, 100_000, True)


# --- trainings --------------------------------------------------------------------------------------------


def numbers(training: Any) -> list[dict[str, Any]]:
    """What its history says, without what a clock said."""
    return [{n: v for n, v in told.items() if "second" not in n} for told in training.history]


MORE = {"normalise_observations": True, "normalise_rewards": True, "schedule": "linear", "evaluate_every": 32}
WAYS: list[tuple[Any, dict[str, Any]]] = [(PPO, SMALL | MORE), (Reinforce, SMALL), (DQN, SMALL_Q)]


@pytest.mark.parametrize(("kind", "settings"), WAYS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_training_goes_on_to_the_bit(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    whole = kind(World, "torch", seed=3, **{**settings, "steps": 96})
    whole.learn(checkpoint=tmp_path / "whole", checkpoint_every=3)
    part = kind(World, "torch", seed=3, **{**settings, "steps": 96})
    rounds = 3 * (whole.done // len(whole.history))
    part.learn(rounds, checkpoint=tmp_path / "part", checkpoint_every=3)
    held = [path.name for path in (tmp_path / "part").iterdir()]
    assert sorted(held) == ["state.json", "state.safetensors"]
    resumed = kind.resume(tmp_path / "part", World)
    assert resumed.done == rounds
    resumed.learn(checkpoint=tmp_path / "part", checkpoint_every=3)
    assert numbers(resumed) == numbers(whole) and len(whole.history) > 3
    for name, value in whole.agent.network.state_dict().items():
        assert torch.equal(value, resumed.agent.network.state_dict()[name]), name


def test_one_seed_is_one_training_and_another_is_another() -> None:
    told = [numbers(training) for seed in (0, 0, 1) if (training := PPO(World, "torch", seed, **SMALL)).learn()]
    assert told[0] == told[1] != told[2]


def test_a_checkpoint_of_another_environment_is_refused(tmp_path: Path) -> None:
    with PPO("CartPole-v1", "torch", **SMALL) as training:
        training.save(tmp_path / "cart")
    with pytest.raises(InputError, match="of a training in CartPole-v1, and not in Acrobot-v1"):
        PPO.resume(tmp_path / "cart", "Acrobot-v1")
    with pytest.raises(InputError, match=r"does not fit the environment World: shape \[4\] and \[3\]"):
        PPO.resume(tmp_path / "cart", World)
    with pytest.raises(InputError, match="is a checkpoint of ppo, and not of dqn"):
        DQN.resume(tmp_path / "cart")
    with pytest.raises(InputError, match="is no checkpoint of a training: it has no"):
        PPO.resume(tmp_path)
    (tmp_path / "cart" / "state.safetensors").write_bytes(b"\x80\x04pickled")
    with pytest.raises(InputError, match="is broken, or no file of tensors"):
        PPO.resume(tmp_path / "cart")


class Own(nn.Module):
    """A policy of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.value = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.body(seen))
        return self.head(features), self.value(features)[:, 0]


def test_a_policy_of_one_s_own_is_trained_and_saved(tmp_path: Path) -> None:
    agent = PPO(World, "torch", network=Own(), **SMALL).learn()
    agent.save_pretrained(tmp_path / "own")
    with pytest.raises(InputError, match=r"a module of its author's.*network="):
        Agent.from_pretrained(tmp_path / "own")
    again = Agent.from_pretrained(tmp_path / "own", network=Own())
    shown = np.random.default_rng(0).uniform(-1, 1, (4, 3)).astype(np.float32)
    np.testing.assert_array_equal(agent.scores(shown), again.scores(shown))
    with pytest.raises(InputError, match="do not fit this network"):
        Agent.from_pretrained(tmp_path / "own", network=nn.Linear(3, 2))


@pytest.mark.parametrize(("kind", "settings"), WAYS, ids=lambda one: getattr(one, "__name__", ""))
def test_what_is_saved_acts_as_it_did(kind: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    agent = kind(World, "torch", **settings).learn()
    agent.told["evaluation"] = {"mean": 2.5, "deviation": 0.5, "episodes": 10}
    agent.save_pretrained(tmp_path / "policy")
    again = Agent.from_pretrained(tmp_path / "policy")
    shown = np.random.default_rng(0).uniform(-1, 1, (8, 3)).astype(np.float32)
    np.testing.assert_array_equal(agent.scores(shown), again.scores(shown))
    assert again.told["algorithm"] == kind.algorithm
    actions, scores = agent.actor()(torch.from_numpy(shown))
    np.testing.assert_array_equal(actions.numpy(), agent.act(shown))
    np.testing.assert_allclose(scores.detach().numpy(), agent.scores(shown), rtol=1e-5, atol=1e-6)
    told = (tmp_path / "policy" / "README.md").read_text()
    assert told.startswith("---\nlibrary_name: paritas") and 'value: "2.50 +/- 0.50"' in told
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "is of no policy that Agent.save_pretrained wrote"),
        ({"spaces": {"shape": [3]}}, "These are no spaces"),
        ({"network": {"class": "os.system"}}, "names a network 'os.system'"),
        ({"network": {"class": "ActorCritic", "hidden": [4]}}, "do not fit this network"),
        ({"network": {"class": "ActorCritic", "sizes": 3}}, "describes a network that cannot be made"),
    ],
)
def test_a_directory_that_was_written_to_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    PPO(World, "torch", **SMALL).agent.save_pretrained(tmp_path / "policy")
    path = tmp_path / "policy" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        Agent.from_pretrained(tmp_path / "policy")


def test_an_update_that_goes_too_far_ends() -> None:
    told = []
    for kl in (0.0, 1e-12):
        with PPO(World, "torch", **{**SMALL, "epochs": 20, "target_kl": kl, "learning_rate": 0.1}) as training:
            training.learn(16)
            told.append(training.history[0]["approx_kl"])
    assert told[0] != told[1]


def test_pictures_are_read_by_a_cnn() -> None:
    picture = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    with PPO(functools.partial(World, observation=picture), "torch", **{**SMALL, "steps": 16}) as training:
        agent = training.learn()
    assert isinstance(agent.network, ActorCritic) and type(agent.network.features).__name__ == "Cnn"
    shown = np.random.default_rng(0).integers(0, 256, (2, 36, 40, 3), np.uint8)
    first = ActorCritic((3, 36, 40), agent.spaces.distribution(), (8,))
    first.load_state_dict(agent.network.state_dict())
    turned = torch.from_numpy(shown.transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(first(turned)[0].detach().numpy(), agent.scores(shown), rtol=1e-5, atol=1e-6)


def test_layers_begin_orthogonal() -> None:
    network = ActorCritic((4,), PPO(World, "torch", **SMALL).spaces.distribution(), (16, 16))
    weight = network.policy[2].weight.detach()
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(16), rtol=1e-4, atol=1e-4)
    assert float(network.action_head.weight.detach().norm()) < 0.1 and not network.value_head.bias.any()


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_writes_all_that_comes_of_a_training(tmp_path: Path) -> None:
    from paritas.cli.app import app

    out = tmp_path / "cart"
    words = ["train", "ppo", "--env", "CartPole-v1", "--engine", "torch", "--steps", "64", "--episodes", "2"]
    words += [word for name in ("rollout", "batch", "hidden") for word in ("--set", f"{name}=8")]
    done = CliRunner().invoke(app, [*words, "--out", str(out), "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["steps"] == 64 and len(told["evaluation"]["returns"]) == 2
    names = {"policy", "checkpoint", "progress.jsonl", "learning_curve.png", "evaluation.json"}
    assert set(told["written"]) == names == {path.name for path in out.iterdir()}
    again = CliRunner().invoke(app, [*words, "--out", str(out), "--quiet"])
    assert again.exit_code == 2 and "go on with it by --resume" in again.output
    more = ["--out", str(out), "--resume", "--steps", "128", "--quiet", "--json", "--episodes", "0"]
    done = CliRunner().invoke(app, ["train", "ppo", *more])
    assert done.exit_code == 0 and json.loads(done.stdout)["steps"] == 128, done.output
    wrong = CliRunner().invoke(
        app, ["train", "ppo", "--env", "CartPole-v1", "--set", "a", "--out", str(tmp_path / "b")]
    )
    assert wrong.exit_code == 2 and "it has to be NAME=VALUE" in wrong.output


def test_importing_it_loads_nothing() -> None:
    code = "import sys, paritas.rl; assert not {'torch', 'gymnasium'} & set(sys.modules); print(dir(paritas.rl))"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
