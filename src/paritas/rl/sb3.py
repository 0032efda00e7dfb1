# SPDX-License-Identifier: Apache-2.0
"""Policies of Stable-Baselines3: read from its files, and written for it.

A file of its is a zip. Of it the weights are read, by PyTorch's loader for weights, and text; what is pickled in it is
never looked at, so that no file can run anything. Written are weights alone: `model.set_parameters(path)` takes them.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from paritas import leftovers
from paritas.errors import InputError, first_line
from paritas.rl import storage
from paritas.rl.agent import Agent
from paritas.rl.environments import Maker, make
from paritas.rl.networks import ActorCritic, QNetwork

#: Of a policy and of Q-values: what a weight's name begins with, ours and theirs.
ACTOR_CRITIC = (
    ("features.", "features_extractor."),
    ("policy.", "mlp_extractor.policy_net."),
    ("value.", "mlp_extractor.value_net."),
    ("action_head.", "action_net."),
    ("value_head.", "value_net."),
    ("log_std", "log_std"),
)
Q_NETWORK = (("features.", "q_net.features_extractor."), ("q.", "q_net.q_net."))

#: What a policy has twice: features of both networks, and those of the target.
_COPIES = ("pi_features_extractor.", "vf_features_extractor.", "q_net_target.")

_MOST = 1 << 30
_ACTIVATIONS = {"Tanh": "tanh", "ReLU": "relu", "ELU": "elu", "GELU": "gelu"}


def load(path: str | os.PathLike[str], env: Maker, *, options: Mapping[str, Any] | None = None) -> Agent:
    """The policy in a file that `model.save` of Stable-Baselines3 wrote: of PPO, A2C or DQN, with an MLP or a CNN.

    Args:
        path: the zip.
        env: the environment that it was trained in, whose spaces it has; what the file says of them is pickled.
        options: for `gymnasium.make`.

    Raises:
        InputError: the file is none, or holds another kind of policy, or does not fit the environment.
    """
    state, told = _read(Path(path))
    envs = make(env, 1, options=options)
    envs.close()
    spaces, valued = envs.spaces, any(name.startswith("q_net.") for name in state)
    rules = Q_NETWORK if valued else ACTOR_CRITIC
    weights, odd = {}, []
    for name, value in state.items():
        ours = next((mine + name.removeprefix(theirs) for mine, theirs in rules if name.startswith(theirs)), "")
        if ours:
            weights[ours] = value.numpy()
        elif not name.startswith(_COPIES):
            odd.append(name)
    if odd or not weights:
        raise InputError(
            f"{path} holds {', '.join(odd[:3]) or 'no weights'}: what is read are policies of PPO, A2C and DQN with an "
            "MLP or a CNN of Stable-Baselines3's own."
        )
    features = "cnn" if "features.cnn.0.weight" in weights else "mlp"
    hidden = _widths(weights, "q." if valued else "policy.")[: -1 if valued else None]
    activation = _activation(told, "relu" if valued else "tanh")
    if valued and spaces.action != "Discrete":
        raise InputError(f"{path} values actions to choose from, and {envs.name} has actions of a {spaces.action}.")
    network: nn.Module = (
        QNetwork(spaces.shape, spaces.counts[0], hidden, activation, features)
        if valued
        else ActorCritic(spaces.shape, spaces.distribution(), hidden, activation, features, init=False)
    )
    storage.fill(network.state_dict(), weights, str(path))
    name = env if isinstance(env, str) else envs.name
    return Agent(network, spaces, name, told={"algorithm": "dqn" if valued else "ppo", "from": "Stable-Baselines3"})


def save(agent: Agent, path: str | os.PathLike[str]) -> None:
    """Write a policy for Stable-Baselines3: `model.set_parameters(path)` of a PPO, A2C or DQN of the same sizes.

    Raises `InputError` for a network of one's own, and for observations that are scaled: there it is an environment
    that does so (VecNormalize).
    """
    network = agent.network
    if type(network) not in (ActorCritic, QNetwork):
        raise InputError(f"{type(network).__name__} is no network that Stable-Baselines3 makes: there is none to fill.")
    if agent.running is not None:
        raise InputError(
            "This policy scales its observations, which Stable-Baselines3 leaves to an environment (VecNormalize). "
            "Train one with normalise_observations=False."
        )
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    rules = Q_NETWORK if isinstance(network, QNetwork) else ACTOR_CRITIC
    theirs: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        mine, prefix = next((mine, prefix) for mine, prefix in rules if name.startswith(mine))
        theirs[prefix + name.removeprefix(mine)] = value
    if isinstance(network, QNetwork):
        copies = {f"q_net_target.{name.removeprefix('q_net.')}": value for name, value in theirs.items()}
    else:
        read = {
            n.removeprefix("features_extractor."): v for n, v in theirs.items() if n.startswith("features_extractor.")
        }
        copies = {prefix + name: value for prefix in _COPIES[:2] for name, value in read.items()}
    # set_parameters asks for the optimizer too: one that has not begun.
    trained = [nn.Parameter(value) for value in theirs.values()]
    optimizer = torch.optim.Adam(trained, lr=float(agent.told.get("settings", {}).get("learning_rate", 3e-4)), eps=1e-5)
    target = Path(path).absolute()
    staging = leftovers.beside(target, "tmp")
    try:
        with zipfile.ZipFile(staging, "w") as archive:
            for name, value in (("policy.pth", {**theirs, **copies}), ("policy.optimizer.pth", optimizer.state_dict())):
                held = io.BytesIO()
                torch.save(value, held)
                archive.writestr(name, held.getvalue())
            archive.writestr("data", "{}")
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights, and what else is told as text."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "policy.pth" not in names:
                raise InputError(f"{path} is no file of Stable-Baselines3: it has no policy.pth.")
            if sum(archive.getinfo(name).file_size for name in names) > _MOST:
                raise InputError(f"{path} unpacks to more than {_MOST >> 20} MiB.")
            weights = archive.read("policy.pth")
            text = archive.read("data").decode("utf-8", "replace") if "data" in names else "{}"
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no file of Stable-Baselines3: {first_line(error)}") from error
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} holds something else than weights: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds something else than weights by name.")
    try:
        told = json.loads(text)
    except ValueError:
        told = {}
    return {str(name): value.float() for name, value in state.items()}, told if isinstance(told, dict) else {}


def _widths(weights: Mapping[str, np.ndarray], prefix: str) -> tuple[int, ...]:
    """Of the layers whose names begin so, in their order."""
    found = {
        int(match[1]): value.shape[0]
        for name, value in weights.items()
        if (match := re.fullmatch(re.escape(prefix) + r"(\d+)\.weight", name))
    }
    return tuple(found[place] for place in sorted(found))


def _activation(told: Mapping[str, Any], usual: str) -> str:
    """What the file says in words; where it says nothing, the one that it takes."""
    kwargs = told.get("policy_kwargs")
    text = str(kwargs.get("activation_fn", "")) if isinstance(kwargs, dict) else ""
    if not text:
        return usual
    name = text.rpartition(".")[2].strip("'<> ")
    if name not in _ACTIVATIONS:
        raise InputError(f"The policy has the activation {name}: there are {', '.join(_ACTIVATIONS)} here.")
    return _ACTIVATIONS[name]
