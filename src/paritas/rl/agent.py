# SPDX-License-Identifier: Apache-2.0
"""A trained policy with what it needs to act: saved, loaded, shared, and ported to an engine that only computes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from paritas.errors import InputError, SourceError, first_line
from paritas.rl import storage
from paritas.rl.card import card
from paritas.rl.networks import ActorCritic, QNetwork, example
from paritas.rl.normalise import LIMIT, Running
from paritas.rl.spaces import Spaces

_FORMAT = "paritas.rl/1"


class Actor(nn.Module):
    """What is deployed: observations as the environment gives them -> the best actions, and the scores behind them.

    observations [batch, *shape] -> actions [batch, ...], scores [batch, width]: logits, or means and logarithms of
    deviations, or the values of actions. Continuous actions are within their bounds.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, network: nn.Module, spaces: Spaces, running: Running | None = None) -> None:
        super().__init__()
        self.network, self.distribution = network, spaces.distribution()
        self.scaled, self.bounded = running is not None, spaces.action == "Box"
        if running is not None:
            mean, deviation = running.numbers()
            self.register_buffer("mean", torch.from_numpy(mean))
            self.register_buffer("deviation", torch.from_numpy(deviation))
        if self.bounded:
            self.register_buffer("low", torch.tensor(spaces.low, dtype=torch.float32))
            self.register_buffer("high", torch.tensor(spaces.high, dtype=torch.float32))

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.scaled:
            observations = torch.clamp((observations - self.mean) / self.deviation, -LIMIT, LIMIT)
        out = self.network(observations)
        scores = out[0] if isinstance(out, tuple) else out
        actions = self.distribution.best(scores)
        if self.bounded:
            actions = torch.minimum(torch.maximum(actions, self.low), self.high)
        return actions, scores


class Agent:
    """A policy or the values of actions, for the spaces of an environment.

    Attributes:
        network: observations [n, ...] -> parameters of the actions' distribution and values, or values of actions.
        spaces: what it sees and what it answers.
        environment: the id of the one that it was trained in.
        running: mean and deviation of observations, where it sees them scaled.
        told: how it was trained, and how well it does.
    """

    def __init__(
        self,
        network: nn.Module,
        spaces: Spaces,
        environment: str = "",
        running: Running | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.spaces, self.environment, self.running = network.eval(), spaces, environment, running
        self.told = dict(told or {})
        self._distribution = spaces.distribution()
        self._check()

    def _check(self) -> None:
        """One call, so that a network that does not fit the environment is refused before anything is trained."""
        shape, width = self.spaces.shape, self._distribution.width
        try:
            with torch.no_grad():
                out = self.network(example(shape, self.spaces.dtype, 2))
        except Exception as error:
            raise InputError(
                f"{type(self.network).__name__} does not read observations of shape {shape}: {first_line(error)}"
            ) from error
        scores = out[0] if isinstance(out, tuple) else out
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (2, width):
            got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise InputError(
                f"{type(self.network).__name__} answers two observations with {got}: actions of this environment "
                f"need (2, {width})."
            )

    def scores(self, observations: np.ndarray) -> np.ndarray:
        """What the network says: float32 [n, width]."""
        seen = self.running.scaled(observations) if self.running else observations
        with torch.inference_mode():
            out = self.network(torch.from_numpy(np.ascontiguousarray(seen)))
        found: np.ndarray = (out[0] if isinstance(out, tuple) else out).numpy()
        return found

    def act(self, observations: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions for observations of several environments, [n, ...], as the network counts them.

        rng: to draw them, where the policy is to be a stochastic one; else the most probable ones.
        """
        return self.act_on(self.spaces.batch(observations), rng)

    def act_on(self, rows: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The same for observations as networks see them, which `Spaces.batch` makes."""
        scores = self.scores(rows)
        if rng is None:
            return self._distribution.mode(scores)
        return self._distribution.sample(scores, self._distribution.noise(rng, (len(rows),)))

    def predict(self, observation: Any, rng: np.random.Generator | None = None) -> Any:
        """The action for one observation, as the environment takes it."""
        return self.spaces.outward(self.act([observation], rng))[0]

    def actor(self) -> Actor:
        """What is deployed, as a module."""
        return Actor(self.network, self.spaces, self.running).eval()

    def port(self, engine: str = "openvino", **options: Any) -> Any:
        """A port of `actor()`, for any number of observations at once. See `paritas.port`."""
        from paritas.pipeline import port

        shown: np.ndarray = np.random.default_rng(0).standard_normal((4, *self.spaces.shape)).astype(np.float32)
        if self.running is not None:
            shown = shown * self.running.numbers()[1] + self.running.numbers()[0]
        if self.spaces.dtype == "uint8":
            shown = np.random.default_rng(0).integers(0, 256, (4, *self.spaces.shape), np.uint8)
        options = {"dynamic": {"observations": {0: "batch"}}, **options}
        return port(self.actor(), engine=engine, inputs={"observations": torch.from_numpy(shown)}, **options)

    # --- on a disk, and on the hub ---------------------------------------------------------------

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, `model.safetensors` and a model card. What is there is replaced."""
        config: dict[str, Any] = {
            "format": _FORMAT,
            "network": _described(self.network),
            "spaces": self.spaces.to_json(),
            "environment": self.environment,
            "normalised": self.running is not None,
            "told": self.told,
        }
        arrays = {f"network.{name}": value.detach().numpy() for name, value in self.network.state_dict().items()}
        if self.running is not None:
            arrays |= self.running.state("observations")
        with storage.written(Path(directory)) as folder:
            storage.write_json(folder / "config.json", config)
            storage.write_tensors(folder / "model.safetensors", arrays)
            (folder / "README.md").write_text(card(self.environment, self.told), encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], network: nn.Module | None = None, revision: str | None = None
    ) -> Agent:
        """What `save_pretrained` wrote, from a directory or from the hub.

        network: where it was a module of your own, one to put the weights into; nothing of a directory is executed.
        Raises `SourceError` for what is not there, `InputError` for what is none, or does not fit `network`.
        """
        directory = Path(source)
        if not directory.is_dir():
            directory = _fetched(str(source), revision)
        config = storage.read_json(directory / "config.json", "trained policy")
        if config.get("format") != _FORMAT:
            raise InputError(f"{directory}/config.json is of no policy that Agent.save_pretrained wrote.")
        spaces = Spaces.from_json(config.get("spaces", {}))
        made = network if network is not None else _built(config.get("network", {}), spaces, directory)
        arrays = storage.read_tensors(directory / "model.safetensors", "trained policy")
        running = None
        if config.get("normalised"):
            running = Running(spaces.shape)
            running.restore("observations", arrays)
        weights = {n.removeprefix("network."): value for n, value in arrays.items() if n.startswith("network.")}
        storage.fill(made.state_dict(), weights, str(directory))
        return cls(made, spaces, str(config.get("environment", "")), running, config.get("told", {}))

    def push_to_hub(self, repository: str, *, token: str | None = None, private: bool = False) -> str:
        """Upload what `save_pretrained` writes to a repository of the hub, and return its address.

        Raises `SourceError` where the hub cannot be reached or does not let it be written.
        """
        import tempfile

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        api = HfApi(token=token)
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.save_pretrained(Path(folder, "policy"))
                api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(repo_id=repository, folder_path=str(Path(folder, "policy")))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise SourceError(
                f"{repository} could not be written on the hub: {first_line(error)} Log in with   hf auth login"
            ) from error
        return f"https://huggingface.co/{repository}"


def _described(network: nn.Module) -> dict[str, Any]:
    """How a network of ours is made again; of any other, its class."""
    made = getattr(network, "made_of", None)
    if type(network) in (ActorCritic, QNetwork) and made is not None:
        return {"class": type(network).__name__, **made}
    return {"class": f"{type(network).__module__}.{type(network).__qualname__}", "own": True}


def _built(config: Mapping[str, Any], spaces: Spaces, directory: Path) -> nn.Module:
    given = dict(config)
    name = given.pop("class", "")
    if given.get("own"):
        raise InputError(
            f"{directory} holds weights of {name}, a module of its author's: make one and pass it as "
            "Agent.from_pretrained(directory, network=...). No code is taken from a directory."
        )
    try:
        given["hidden"] = tuple(int(n) for n in given.get("hidden", ()))
        if name == "ActorCritic":
            return ActorCritic(spaces.shape, spaces.distribution(), init=False, **given)
        if name == "QNetwork":
            return QNetwork(spaces.shape, spaces.counts[0], **given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{directory}/config.json describes a network that cannot be made: {error}") from error
    raise InputError(f"{directory}/config.json names a network {name!r}: there are ActorCritic and QNetwork.")


def _fetched(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        names = ["config.json", "model.safetensors"]
        return Path(snapshot_download(source, revision=revision, allow_patterns=names))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise SourceError(
            f"There is no directory {source}, and the hub has no such policy or cannot be reached: {first_line(error)}"
        ) from error
