# SPDX-License-Identifier: Apache-2.0
"""Learning what actions are worth, from all that was ever tried: deep Q-learning."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from paritas.errors import InputError
from paritas.rl.losses import Q_STATISTICS, QLoss
from paritas.rl.networks import QNetwork, example
from paritas.rl.settings import Common, QSettings
from paritas.rl.spaces import Spaces
from paritas.rl.training import Training
from paritas.run.learning import Task

#: The inputs of `QLoss` that have a row for each step.
ROWS = ("observations", "actions", "rewards", "following", "goes_on")


class Replay:
    """The last `size` steps: what was seen, done, earned and seen next."""

    def __init__(self, size: int, spaces: Spaces) -> None:
        self.size, self.place, self.full = size, 0, False
        self.arrays: dict[str, np.ndarray] = {
            "observations": np.zeros((size, *spaces.shape), spaces.dtype),
            "actions": np.zeros(size, np.int64),
            "rewards": np.zeros(size, np.float32),
            "following": np.zeros((size, *spaces.shape), spaces.dtype),
            "goes_on": np.zeros(size, np.float32),
        }

    def __len__(self) -> int:
        return self.size if self.full else self.place

    def add(self, **rows: np.ndarray) -> None:
        """One row or several of each array. The oldest ones make room."""
        count = len(rows["actions"])
        places = np.arange(self.place, self.place + count) % self.size
        for name, array in self.arrays.items():
            array[places] = rows[name]
        self.full = self.full or self.place + count >= self.size
        self.place = (self.place + count) % self.size

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
        """So many rows, each of them any."""
        places = rng.integers(len(self), size=count)
        return {name: array[places] for name, array in self.arrays.items()}

    def state(self) -> dict[str, np.ndarray]:
        kept = {f"replay.{name}": array[: len(self)] for name, array in self.arrays.items()}
        return {**kept, "replay.place": np.array([self.place, int(self.full)])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.place, self.full = int(state["replay.place"][0]), bool(state["replay.place"][1])
        for name, array in self.arrays.items():
            array[: len(self)] = state[f"replay.{name}"]


class DQN(Training):
    """Deep Q-learning (Mnih et al., 2015). See `Training` for its arguments, `QSettings` for its settings."""

    algorithm: ClassVar[str] = "dqn"
    settings_kind: ClassVar[type[Common]] = QSettings
    settings: QSettings

    def _network(self) -> nn.Module:
        if self.spaces.action != "Discrete":
            raise InputError(
                f"Q-learning values each of a few actions, and {self.environments.name} has actions of a "
                f"{self.spaces.action}: take PPO."
            )
        told = self.settings
        return QNetwork(self.spaces.shape, self.spaces.counts[0], told.hidden, told.activation, told.features)

    def _made_task(self) -> Task:
        told, spaces = self.settings, self.spaces
        if spaces.action != "Discrete":
            self._network()  # raises
        self._replay = Replay(told.buffer, spaces)
        module = QLoss(self.agent.network, copy.deepcopy(self.agent.network), told.double)
        shown = example(spaces.shape, spaces.dtype, told.batch)
        inputs = {
            "observations": shown, "actions": torch.zeros(told.batch, dtype=torch.int64),
            "rewards": torch.zeros(told.batch), "following": shown.clone(), "goes_on": torch.ones(told.batch),
            "discount": torch.tensor(told.gamma),
        }  # fmt: skip
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=told.learning_rate)
        return Task(module, optimizer, inputs, ROWS, told.max_norm, self._port(module, inputs))

    def _turn(self) -> dict[str, Any]:
        began = time.perf_counter()
        before = self.done
        networks = self._act()
        acted = time.perf_counter()
        told = self._train(before) if self.done > self.settings.starts else {}
        return {
            "epsilon": self.settings.epsilon(self.done),
            **told,
            "collecting_seconds": acted - began,
            "network_seconds": networks,
            "learning_seconds": time.perf_counter() - acted,
        }

    def _act(self) -> float:
        """`train_every` steps of all environments together; returns what the network took of it."""
        told, envs, rng = self.settings, self.environments, self._rng
        steps, count = told.train_every // envs.count, envs.count
        drawn = rng.integers(self.spaces.counts[0], size=(steps, count))
        chance = rng.random((steps, count))
        network, rows, networks = self.agent.network, self._rows, 0.0
        following = np.empty_like(rows)
        for step in range(steps):
            epsilon = 1.0 if self.done < told.starts else told.epsilon(self.done)
            explores = chance[step] < epsilon
            actions = drawn[step]
            if not explores.all():
                before = time.perf_counter()
                with torch.inference_mode():
                    valued = network(torch.from_numpy(rows)).numpy()
                networks += time.perf_counter() - before
                actions = np.where(explores, actions, valued.argmax(-1))
            rewards, ended, cut, last = envs.step(actions, following)
            next_rows = following
            if last:
                next_rows = following.copy()
                for index, row in last.items():
                    next_rows[index] = row
            # Where an episode has ended nothing follows, and what is seen there counts nothing.
            self._replay.add(
                observations=rows, actions=actions, rewards=rewards, following=next_rows,
                goes_on=1.0 - ended,
            )  # fmt: skip
            self.episodes.step(rewards, ended | cut)
            rows[:] = following
            self.done += count
        return networks

    def _train(self, before: int) -> dict[str, float]:
        told = self.settings
        if before // told.target_every != self.done // told.target_every:
            learnt = self.learner.weights()
            self.learner.load({f"target.{n[2:]}": value for n, value in learnt.items() if n.startswith("q.")})
        rate = told.rate(self.done)
        self.learner.rate(rate)
        rows = self._replay.draw(self._rng, told.batch * told.gradient_steps)
        order = np.arange(told.batch * told.gradient_steps).reshape(-1, told.batch)
        means = self.learner.steps(rows, order, {"discount": told.gamma}).mean(0)
        self._hand_over("q.")
        return {**dict(zip(Q_STATISTICS, map(float, means), strict=True)), "learning_rate": rate}

    def _own_state(self) -> dict[str, np.ndarray]:
        return self._replay.state()

    def _own_restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._replay.restore(state)
