# SPDX-License-Identifier: Apache-2.0
"""What a training is told, and what is known to work for an environment: data files in `tuned/`."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from paritas.errors import InputError

_TUNED = Path(__file__).with_name("tuned")


@dataclasses.dataclass(frozen=True)
class Common:
    """What every way of learning has.

    Attributes:
        steps: of all environments together.
        environments: how many at once.
        learning_rate: of Adam; schedule: "constant", or "linear" down to 0.
        gamma: by how much a reward is worth less for each step that it is later.
        max_norm: of all gradients together; 0 for as they are.
        hidden, activation, features: of the networks, see `ActorCritic` and `QNetwork`.
        evaluate_every: steps after which the policy is tried, and the best one kept; 0 for never.
        evaluate_episodes: how many it is tried in.
    """

    steps: int = 100_000
    environments: int = 8
    learning_rate: float = 3e-4
    schedule: str = "constant"
    gamma: float = 0.99
    max_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    features: str = "auto"
    evaluate_every: int = 0
    evaluate_episodes: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "environments"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it has to be 1 or more.")
        if not 0 <= self.gamma <= 1:
            raise InputError(f"gamma is {self.gamma}: it lies between 0 and 1.")
        if self.schedule not in ("constant", "linear"):
            raise InputError(f"There is no schedule {self.schedule!r}: there are constant and linear.")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}: it has to be larger than 0.")

    def rate(self, done: int) -> float:
        """Of learning, after so many steps."""
        return self.learning_rate * self.left(done) if self.schedule == "linear" else self.learning_rate

    def left(self, done: int) -> float:
        """The share of the training that is still to come."""
        return max(0.0, 1.0 - done / self.steps)


@dataclasses.dataclass(frozen=True)
class PolicySettings(Common):
    """Of a policy gradient.

    Attributes:
        rollout: steps of each environment between two updates.
        batch: rows of one step of the optimizer, a divisor of rollout * environments; 0 for all of them.
        epochs: how often the rows of an update are gone through.
        gae_lambda: see `advantages`.
        surrogate: "clipped", "unclipped" or "log_probability", see `losses`.
        clip: how far the ratio of probabilities may be from 1; clip_schedule as `schedule`.
        value_clip: how far a value may be from the old one; 0 for any.
        entropy, value_weight: how much entropy and the error of values count beside the policy.
        target_kl: an update ends with the epoch that went further from the old policy; 0 for never.
        normalise_advantages, normalise_observations, normalise_rewards: to mean 0 and deviation 1; rewards by the
            deviation of returns.
        log_std: where the deviations of continuous actions begin, as logarithm.
    """

    rollout: int = 256
    batch: int = 64
    epochs: int = 10
    gae_lambda: float = 0.95
    surrogate: str = "clipped"
    clip: float = 0.2
    clip_schedule: str = "constant"
    value_clip: float = 0.0
    entropy: float = 0.0
    value_weight: float = 0.5
    target_kl: float = 0.0
    normalise_advantages: bool = True
    normalise_observations: bool = False
    normalise_rewards: bool = False
    log_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        from paritas.rl.losses import SURROGATES

        if self.surrogate not in SURROGATES:
            raise InputError(f"There is no surrogate {self.surrogate!r}: there are {', '.join(SURROGATES)}.")
        rows = self.rollout * self.environments
        if self.rollout < 1 or self.epochs < 1 or self.batch < 0 or rows % (self.batch or rows):
            raise InputError(
                f"{self.environments} environments x {self.rollout} steps are {rows} rows, which cannot be gone "
                f"through in batches of {self.batch}: batch has to divide them."
            )
        if self.normalise_advantages and (self.batch or rows) < 2:
            raise InputError("One row has no deviation: with normalise_advantages, batch has to be 2 or more.")

    @property
    def rows(self) -> int:
        """Of one step of the optimizer."""
        return self.batch or self.rollout * self.environments


@dataclasses.dataclass(frozen=True)
class QSettings(Common):
    """Of deep Q-learning.

    Attributes:
        buffer: how many steps are remembered.
        batch: rows of one step of the optimizer, drawn from them.
        starts: steps before the first one, in which actions are drawn.
        train_every: steps of all environments between two trainings; gradient_steps: in each.
        target_every: steps after which the target network becomes what is learnt.
        double: whether the network chooses the action that the target values.
        epsilon_first, epsilon_last: the share of actions that are drawn, at first and in the end.
        epsilon_fraction: the part of the training in which it goes from one to the other.
    """

    environments: int = 1
    learning_rate: float = 1e-3
    max_norm: float = 10.0
    activation: str = "relu"
    buffer: int = 100_000
    batch: int = 64
    starts: int = 1000
    train_every: int = 4
    gradient_steps: int = 1
    target_every: int = 1000
    double: bool = False
    epsilon_first: float = 1.0
    epsilon_last: float = 0.05
    epsilon_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("buffer", "batch", "train_every", "gradient_steps", "target_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it has to be 1 or more.")
        if self.train_every % self.environments:
            raise InputError(f"train_every {self.train_every} is no multiple of {self.environments} environments.")
        for name in ("epsilon_first", "epsilon_last", "epsilon_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: it lies between 0 and 1.")

    def epsilon(self, done: int) -> float:
        """The share of actions that are drawn, after so many steps."""
        way = min(1.0, done / max(1.0, self.epsilon_fraction * self.steps))
        return self.epsilon_first + way * (self.epsilon_last - self.epsilon_first)


S = TypeVar("S", bound=Common)


def tuned(algorithm: str, environment: str) -> dict[str, Any]:
    """What is known to work for an environment, else what is there for all."""
    known = tomllib.loads((_TUNED / f"{algorithm}.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = known.get(environment, known.get("default", {}))
    return found


def made(kind: type[S], given: Mapping[str, Any]) -> S:
    """Settings of these values. Raises `InputError` for a name or a value that they do not have."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    taken = {}
    for name, value in given.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, 1)
            hint = f" Did you mean {close[0]}?" if close else f" There are {', '.join(fields)}."
            raise InputError(f"There is no setting {name!r}.{hint}")
        taken[name] = _as(name, value, fields[name].default)
    return kind(**taken)


def _as(name: str, value: Any, like: Any) -> Any:
    """A value in the type of the setting's default; of a text as well, which is how a command has it."""
    wrong = InputError(f"{name} is {value!r}: it has to be like {like!r}.")
    try:
        if isinstance(like, bool):
            if str(value).lower() not in ("true", "false"):
                raise wrong
            return str(value).lower() == "true"
        if isinstance(like, tuple):
            listed = value.split(",") if isinstance(value, str) else value
            return tuple(int(number) for number in listed if str(number).strip())
        if isinstance(like, int):
            number = float(value)
            if number != int(number):
                raise wrong
            return int(number)
        return float(value) if isinstance(like, float) else str(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
