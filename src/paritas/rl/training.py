# SPDX-License-Identifier: Apache-2.0
"""What every way of learning has in common: an engine that trains, episodes that are counted, and going on later.

All that is drawn comes from one generator of NumPy's, whose state is a few numbers. What an environment is in the
middle of cannot be saved: a checkpoint begins all episodes anew, with seeds that are written into it, in the training
that goes on as in the one that is resumed. So both are the same to the bit.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from paritas.errors import InputError
from paritas.extras import require
from paritas.rl import storage
from paritas.rl.agent import Agent
from paritas.rl.environments import Maker, Vector, make
from paritas.rl.evaluation import evaluate
from paritas.rl.settings import Common, made, tuned
from paritas.rl.spaces import Spaces
from paritas.run.engine import engine as engine_of
from paritas.run.learning import Learner, Task

_FORMAT = "paritas.rl.checkpoint/1"

#: Of the last so many episodes the mean is told.
_WINDOW = 100

#: By the name of a way of learning: what goes on with its checkpoints.
KINDS: dict[str, type[Training]] = {}


class Episodes:
    """Returns and lengths of the episodes that are under way, and of those that are over."""

    def __init__(self, count: int) -> None:
        self.sums, self.lengths = np.zeros(count), np.zeros(count, np.int64)
        self.last: collections.deque[tuple[float, int]] = collections.deque(maxlen=_WINDOW)
        self.done = 0

    def step(self, rewards: np.ndarray, over: np.ndarray) -> None:
        self.sums += rewards
        self.lengths += 1
        if over.any():
            for index in np.flatnonzero(over):
                self.last.append((float(self.sums[index]), int(self.lengths[index])))
                self.done += 1
            self.sums[over] = 0
            self.lengths[over] = 0

    def begin(self) -> None:
        """All anew: what was under way is no episode."""
        self.sums[:] = 0
        self.lengths[:] = 0


class Training(abc.ABC):
    """A training.

    Args:
        env: an id of gymnasium's, a function that makes an environment, or a vector environment.
        engine: which computes gradients: "torch" or "mindspore".
        seed: of weights, environments and all that is drawn.
        network: a module of your own, in the place of the one that settings describe.
        parallel: each environment in a process of its own.
        options: for `gymnasium.make`.
        settings: those that differ from what is known to work for this environment (`tuned/`).

    Attributes:
        agent: what acts, with the weights as they are.
        history: a record for each update.
        done: steps of all environments together.

    Raises:
        ExtraMissing, InputError: the environment is not there or does not fit, the engine has no gradients, or there
            is no such setting.
    """

    algorithm: ClassVar[str]
    settings_kind: ClassVar[type[Common]]

    def __init_subclass__(cls) -> None:
        if "algorithm" in vars(cls):
            KINDS[cls.algorithm] = cls

    def __init__(
        self,
        env: Maker,
        engine: str = "torch",
        seed: int = 0,
        *,
        network: nn.Module | None = None,
        parallel: bool = False,
        options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        require("rl", "paritas.rl")
        self._engine = engine_of(engine)
        self.engine, self.seed = self._engine.name, seed
        known = tuned(self.algorithm, env if isinstance(env, str) else "")
        if hasattr(env, "num_envs"):
            known["environments"] = int(env.num_envs)
        self.settings: Any = made(self.settings_kind, {**known, **settings})
        self._env, self.options = env, dict(options or {})
        self.environments = make(env, self.settings.environments, parallel=parallel, options=options)
        try:
            self.spaces: Spaces = self.environments.spaces
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                made_network = network if network is not None else self._network()
            self._refuse_modes(made_network)
            self.agent = Agent(made_network, self.spaces, env if isinstance(env, str) else self.environments.name)
            self._rng = np.random.default_rng(seed)
            self.episodes = Episodes(self.environments.count)
            self.history: list[dict[str, Any]] = []
            self.done = self.updates = 0
            self._best: tuple[float, dict[str, np.ndarray]] | None = None
            self._rows = np.empty((self.environments.count, *self.spaces.shape), self.spaces.dtype)
            self._begin(self._seeds())
            self._task = self._made_task()
            self._learner: Learner | None = None
        except BaseException:
            self.environments.close()
            raise

    # --- what a way of learning says ---------------------------------------------------------------

    @abc.abstractmethod
    def _network(self) -> nn.Module:
        """As the settings describe it."""

    @abc.abstractmethod
    def _made_task(self) -> Task:
        """What is trained."""

    @abc.abstractmethod
    def _turn(self) -> dict[str, Any]:
        """Act for a while, learn from it, and say what came of it."""

    def _own_state(self) -> dict[str, np.ndarray]:
        return {}

    def _own_restore(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - most have nothing of their own
        """What `_own_state` gave."""

    # --- the loop ------------------------------------------------------------------------------------

    def learn(
        self,
        steps: int | None = None,
        *,
        progress: Callable[[dict[str, Any]], object] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 0,
    ) -> Agent:
        """Go on until so many steps were made, by default those of the settings.

        Args:
            steps: of all environments together, from the beginning of the training.
            progress: called with the record of each update.
            checkpoint: a directory for what `resume` takes.
            checkpoint_every: updates between two of them; 0 for one at the end.

        Returns:
            The agent: with the weights that did best, where the settings say how often that is looked at.
        """
        wanted = self.settings.steps if steps is None else steps
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # networks of this size are slower on several
        try:
            while self.done < wanted:
                began = time.perf_counter()
                before = self.done
                told = self._turn()
                self.updates += 1
                record = {"step": self.done, "update": self.updates, "episodes": self.episodes.done, **self._returns()}
                record |= told
                if self._due(before):
                    record["evaluation"] = self._look()
                seconds = time.perf_counter() - began
                record |= {"seconds": seconds, "steps_per_second": (self.done - before) / max(seconds, 1e-9)}
                self.history.append(record)
                if checkpoint is not None and checkpoint_every and self.updates % checkpoint_every == 0:
                    self.save(checkpoint)
                if progress is not None:
                    progress(record)
            if checkpoint is not None and not (checkpoint_every and self.updates % checkpoint_every == 0):
                self.save(checkpoint)
        finally:
            torch.set_num_threads(threads)
        return self.best()

    def best(self) -> Agent:
        """The agent with the weights that did best so far; with those of now, where nobody looked."""
        if self._best is not None:
            storage.fill(self.agent.network.state_dict(), self._best[1], "the best policy")
        self.agent.told = {
            "algorithm": self.algorithm, "engine": self.engine, "seed": self.seed, "steps": self.done,
            "settings": dataclasses.asdict(self.settings),
        }  # fmt: skip
        return self.agent

    def close(self) -> None:
        """Let go of environments, and of what the engine holds."""
        self.environments.close()
        if self._learner is not None:
            self._learner.close()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def learner(self) -> Learner:
        """Made when it is needed: an engine that compiles does so then."""
        if self._learner is None:
            self._learner = self._engine.learner(self._task)
        return self._learner

    def _hand_over(self, prefix: str) -> None:
        """Give the agent what was learnt."""
        if self.learner.in_place:
            return
        weights = {n.removeprefix(prefix): v for n, v in self.learner.weights().items() if n.startswith(prefix)}
        known = dict(self.agent.network.named_parameters())
        storage.fill({name: known[name] for name in weights}, weights, self.engine)

    def _port(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Callable[[], Any]:
        def ported() -> Any:
            from paritas.pipeline import port

            return port(module, engine=self.engine, train=True, inputs=dict(inputs), dynamic=False)

        return ported

    def _returns(self) -> dict[str, Any]:
        last = self.episodes.last
        if not last:
            return {"return": None, "length": None}
        return {"return": float(np.mean([one for one, _ in last])), "length": float(np.mean([n for _, n in last]))}

    def _due(self, before: int) -> bool:
        every = self.settings.evaluate_every
        return bool(every) and before // every != self.done // every

    def _look(self) -> float:
        """Try the policy in environments of its own, and keep its weights if none were better."""
        if isinstance(self.environments, Vector) and not isinstance(self._env, str) and not callable(self._env):
            raise InputError("evaluate_every needs environments of its own: give an id, or a function that makes one.")
        found = evaluate(
            self.agent, self._env, self.settings.evaluate_episodes, seed=self.seed + 10_000, options=self.options
        ).mean
        if self._best is None or found >= self._best[0]:
            self._best = (found, {n: v.numpy().copy() for n, v in self.agent.network.state_dict().items()})
        return found

    def _refuse_modes(self, network: nn.Module) -> None:
        """What computes otherwise while it is trained makes of every action another one than was taken."""
        kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        for name, layer in network.named_modules():
            if isinstance(layer, kinds):
                raise InputError(
                    f"{name} is a {type(layer).__name__}, which computes otherwise while it is trained: the policy "
                    "that acts and the one that learns would be two. Take it out (a LayerNorm is the same in both)."
                )

    # --- checkpoints ---------------------------------------------------------------------------------

    def _seeds(self) -> list[int]:
        return [int(n) for n in self._rng.integers(2**31 - 1, size=self.environments.count)]

    def _begin(self, seeds: list[int]) -> None:
        self.episodes.begin()
        self.environments.reset(seeds, self._rows)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write what `resume` goes on with, and begin all episodes anew, as that will do."""
        seeds = self._seeds()
        network = {f"network.{n}": v.detach().numpy().copy() for n, v in self.agent.network.state_dict().items()}
        arrays = {**network, **self._own_state()}
        arrays |= {f"weights.{name}": value for name, value in self.learner.weights().items()}
        arrays |= {f"learner.{name}": value for name, value in self.learner.state().items()}
        if self._best is not None:
            arrays |= {f"best.{name}": value for name, value in self._best[1].items()}
        state: dict[str, Any] = {
            "format": _FORMAT, "algorithm": self.algorithm, "engine": self.engine, "seed": self.seed,
            "environment": self.agent.environment, "spaces": self.spaces.to_json(),
            "settings": dataclasses.asdict(self.settings), "options": self.options,
            "done": self.done, "updates": self.updates, "episodes": self.episodes.done,
            "last": list(self.episodes.last), "seeds": seeds, "generator": self._rng.bit_generator.state,
            "best": self._best[0] if self._best else None, "history": self.history,
        }  # fmt: skip
        with storage.written(Path(directory)) as folder:
            storage.write_json(folder / "state.json", state)
            storage.write_tensors(folder / "state.safetensors", arrays)
        self._begin(seeds)

    @classmethod
    def resume(
        cls,
        directory: str | os.PathLike[str],
        env: Maker | None = None,
        *,
        network: nn.Module | None = None,
        parallel: bool = False,
        **settings: Any,
    ) -> Training:
        """The training of a checkpoint, which goes on as if it had not stopped.

        Args:
            directory: what `save` wrote.
            env: needed where it was none of an id.
            network: needed where it was a module of your own.
            settings: those that are to be others from now on, as `steps`.

        Raises `InputError` for what is no checkpoint, or one of another environment or way of learning.
        """
        where = Path(directory)
        state = storage.read_json(where / "state.json", "checkpoint of a training")
        if state.get("format") != _FORMAT or state.get("algorithm") not in KINDS:
            raise InputError(f"{where} is no checkpoint of a training of paritas.rl.")
        kind = KINDS[state["algorithm"]]
        if not issubclass(kind, cls):
            raise InputError(f"{where} is a checkpoint of {state['algorithm']}, and not of {cls.algorithm}.")
        if isinstance(env, str) and env != state["environment"]:
            raise InputError(
                f"{where} is a checkpoint of a training in {state['environment']}, and not in {env}: begin that one "
                "anew, in another directory."
            )
        chosen = env if env is not None else state["environment"]
        resumed = kind(
            chosen, state["engine"], state["seed"], network=network, parallel=parallel, options=state["options"],
            **{**state["settings"], **settings},
        )  # fmt: skip
        try:
            saved = Spaces.from_json(state["spaces"])
            saved.must_be(resumed.spaces, f"The checkpoint {where}", f"the environment {resumed.environments.name}")
            resumed._restore(
                state, storage.read_tensors(where / "state.safetensors", "checkpoint of a training"), where
            )
        except BaseException:
            resumed.close()
            raise
        return resumed

    def _restore(self, state: Mapping[str, Any], arrays: dict[str, np.ndarray], where: Path) -> None:
        def under(prefix: str) -> dict[str, np.ndarray]:
            return {n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)}

        storage.fill(self.agent.network.state_dict(), under("network."), str(where))
        self.learner.load(under("weights."))
        self.learner.restore(under("learner."))
        self._own_restore(arrays)
        self.done, self.updates, self.history = state["done"], state["updates"], list(state["history"])
        self.episodes.done = state["episodes"]
        self.episodes.last.extend((float(one), int(length)) for one, length in state["last"])
        if state["best"] is not None:
            self._best = (float(state["best"]), under("best."))
        self._rng.bit_generator.state = state["generator"]
        self._begin(state["seeds"])
