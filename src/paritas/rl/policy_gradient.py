# SPDX-License-Identifier: Apache-2.0
"""Learning a policy from what it has just done: PPO, and the plain policy gradient."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from paritas.rl.losses import POLICY_STATISTICS, PolicyLoss
from paritas.rl.networks import ActorCritic, example
from paritas.rl.normalise import Returns, Running
from paritas.rl.returns import advantages
from paritas.rl.settings import Common, PolicySettings
from paritas.rl.training import Training
from paritas.run.learning import Task

#: The inputs of `PolicyLoss` that have a row for each action.
ROWS = ("observations", "actions", "log_probs", "advantages", "returns", "values")


@dataclasses.dataclass
class Rollout:
    """What a policy has done: [steps, environments, ...] each.

    seconds: what it took, of it `networks` for the policy, and `environments` for their own steps.
    """

    observations: np.ndarray
    actions: np.ndarray
    parameters: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    starts: np.ndarray
    last_values: np.ndarray
    last_starts: np.ndarray
    seconds: float = 0.0
    networks: float = 0.0


class PPO(Training):
    """Proximal policy optimisation (Schulman et al., 2017). See `Training` for its arguments, `PolicySettings` for
    its settings."""

    algorithm: ClassVar[str] = "ppo"
    settings_kind: ClassVar[type[Common]] = PolicySettings
    settings: PolicySettings

    def _network(self) -> nn.Module:
        told = self.settings
        return ActorCritic(
            self.spaces.shape, self.spaces.distribution(), told.hidden, told.activation, told.features, told.log_std
        )

    def _made_task(self) -> Task:
        told, spaces = self.settings, self.spaces
        distribution = spaces.distribution()
        module = PolicyLoss(
            self.agent.network, distribution, told.surrogate, told.normalise_advantages, bool(told.value_clip)
        )
        if told.normalise_observations:
            self.agent.running = Running(spaces.shape)
        self._returns_seen = Returns(self.environments.count, told.gamma) if told.normalise_rewards else None
        self._starts = np.ones(self.environments.count, bool)
        steps, count = told.rollout, self.environments.count
        # One row more than there are steps: what is seen behind the last one is the first of the next rollout.
        self._seen = np.empty((steps + 1, count, *spaces.shape), spaces.dtype)
        rows, number = told.rows, torch.zeros(())
        shown = example(spaces.shape, np.float32 if self.agent.running else spaces.dtype, rows)
        taken = example(distribution.shape, distribution.dtype, rows)
        inputs = {"observations": shown, "actions": taken, **{name: torch.zeros(rows) for name in ROWS[2:]}}
        inputs |= dict.fromkeys(("clip", "value_clip", "entropy_weight", "value_weight"), number)
        inputs["advantages"] = torch.linspace(-1, 1, rows)  # of which there is a deviation
        optimizer = torch.optim.Adam(module.parameters(), lr=told.learning_rate, eps=1e-5)
        return Task(module, optimizer, inputs, ROWS, told.max_norm, self._port(module, inputs))

    def _begin(self, seeds: list[int]) -> None:
        super()._begin(seeds)
        self._starts = np.ones(self.environments.count, bool)

    def _turn(self) -> dict[str, Any]:
        rollout = self.collect()
        began = time.perf_counter()
        told = self.update(rollout)
        learning = time.perf_counter() - began
        outside = rollout.seconds - rollout.networks
        return {
            **told,
            "collecting_seconds": rollout.seconds,
            "network_seconds": rollout.networks,
            "learning_seconds": learning,
            "collected_per_second_outside": rollout.actions[..., 0].size / outside
            if rollout.actions.ndim > 2
            else rollout.actions.size / outside,
        }

    def collect(self) -> Rollout:
        """Act for `rollout` steps in each environment."""
        told, envs, episodes, running = self.settings, self.environments, self.episodes, self.agent.running
        network, distribution = self.agent.network, self.spaces.distribution()
        steps, count = told.rollout, envs.count
        seen = self._seen
        seen[0] = self._rows
        shown = seen if running is None else np.empty(seen.shape, np.float32)
        tensors = torch.from_numpy(shown).unbind(0)
        parameters = np.empty((steps, count, distribution.width), np.float32)
        values = np.empty((steps, count), np.float32)
        actions: np.ndarray = np.empty((steps, count, *distribution.shape), distribution.dtype)
        rewards = np.empty((steps, count))
        starts = np.empty((steps, count), bool)
        over = np.empty((steps, count), bool)
        noise = distribution.noise(self._rng, (steps, count))
        cut_off: list[tuple[int, int, np.ndarray]] = []
        sample, step_all, clock = distribution.sample, envs.step, time.perf_counter
        networks, began = 0.0, clock()
        with torch.inference_mode():
            for step in range(steps):
                if running is not None:
                    shown[step] = running.scaled(seen[step])
                before = clock()
                answer, valued = network(tensors[step])
                parameters[step], values[step] = answer.numpy(), valued.numpy()
                networks += clock() - before
                actions[step] = sample(parameters[step], noise[step])
                starts[step] = self._starts
                rewards[step], ended, cut, last = step_all(actions[step], seen[step + 1])
                self._starts = over[step] = ended | cut
                episodes.step(rewards[step], over[step])
                if last:
                    cut_off += [(step, index, row) for index, row in last.items()]
            self._rows[:] = seen[steps]
            last_values = self._values(seen[steps])
            if self._returns_seen is not None:
                rewards = self._returns_seen.scaled(rewards, over)
            rewards = rewards.astype(np.float32)
            if cut_off:  # what was cut off would have gone on: its value stands for that
                worth = self._values(np.stack([row for _, _, row in cut_off]))
                for (step, index, _), value in zip(cut_off, worth, strict=True):
                    rewards[step, index] += told.gamma * value
        if running is not None:
            running.see(seen[:steps].reshape(-1, *self.spaces.shape))
        self.done += steps * count
        return Rollout(
            shown[:steps], actions, parameters, values, rewards, starts, last_values, self._starts.copy(),
            clock() - began, networks,
        )  # fmt: skip

    def _values(self, rows: np.ndarray) -> np.ndarray:
        shown = self.agent.running.scaled(rows) if self.agent.running is not None else np.ascontiguousarray(rows)
        found: np.ndarray = self.agent.network(torch.from_numpy(shown))[1].numpy()
        return found

    def batch(self, rollout: Rollout) -> dict[str, np.ndarray]:
        """The rows of an update: those of the first environment, then those of the next."""
        told, distribution = self.settings, self.spaces.distribution()
        gained = advantages(
            rollout.rewards, rollout.values, rollout.starts, rollout.last_values, rollout.last_starts, told.gamma,
            told.gae_lambda,
        )  # fmt: skip

        def flat(array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array.swapaxes(0, 1)).reshape(-1, *array.shape[2:])

        actions, parameters = flat(rollout.actions), flat(rollout.parameters)
        with torch.inference_mode():
            log_probs = distribution.log_prob(torch.from_numpy(parameters), torch.from_numpy(actions)).numpy()
        return {
            "observations": flat(rollout.observations), "actions": actions, "log_probs": log_probs,
            "advantages": flat(gained), "returns": flat(gained + rollout.values), "values": flat(rollout.values),
        }  # fmt: skip

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Learn from a rollout. Returns means over all steps of the optimizer, by the names of the statistics."""
        told = self.settings
        rows = self.batch(rollout)
        left = told.left(self.done - rollout.values.size)
        numbers = {
            "clip": told.clip * left if told.clip_schedule == "linear" else told.clip,
            "value_clip": told.value_clip,
            "entropy_weight": told.entropy,
            "value_weight": told.value_weight,
        }
        rate = told.rate(self.done - rollout.values.size)
        self.learner.rate(rate)
        count = len(rows["advantages"])
        orders = [self._rng.permutation(count).reshape(-1, told.rows) for _ in range(told.epochs)]
        if told.target_kl:
            found = []
            for order in orders:
                found.append(self.learner.steps(rows, order, numbers))
                if found[-1][:, POLICY_STATISTICS.index("approx_kl")].mean() > told.target_kl:
                    break
        else:
            found = [self.learner.steps(rows, np.concatenate(orders), numbers)]
        self._hand_over("policy.")
        means = np.concatenate(found).mean(0)
        spread = rows["returns"].var()
        explained = 1.0 - (rows["returns"] - rows["values"]).var() / spread if spread else float("nan")
        return {
            **dict(zip(POLICY_STATISTICS, map(float, means), strict=True)),
            "explained_variance": float(explained),
            "learning_rate": rate,
        }

    def _own_state(self) -> dict[str, np.ndarray]:
        running = self.agent.running
        state = running.state("observations") if running is not None else {}
        return {**state, **(self._returns_seen.state() if self._returns_seen is not None else {})}

    def _own_restore(self, state: Mapping[str, np.ndarray]) -> None:
        if self.agent.running is not None:
            self.agent.running.restore("observations", dict(state))
        if self._returns_seen is not None:
            self._returns_seen.restore(dict(state))


class Reinforce(PPO):
    """The plain policy gradient (Williams, 1992), with a value as its baseline: one step of the optimizer for what was
    collected."""

    algorithm: ClassVar[str] = "reinforce"
