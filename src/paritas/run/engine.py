# SPDX-License-Identifier: Apache-2.0
"""What an engine signs: `Engine` says what it is and loads an artifact, `Session` runs it.

An engine is imported inside `load`, never above it. Adding one: `lower/<engine>/`, `run/<engine>/`,
a line in `ENGINES`, an extra in pyproject.toml, and a line in tests/engines/test_contract.py.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from paritas.errors import EngineMissing, UnknownEngine
from paritas.program import Artifact


class Session(Protocol):
    """A loaded port.

    `run` takes one contiguous NumPy array per input of the manifest, by name, already checked, and
    returns the flat outputs in the manifest's order. bfloat16 crosses as float32, which holds it exactly.
    """

    precision: str  # the arithmetic that really happens: "float32", "bfloat16", "float16"

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Gradients of one scalar by name, of the dtype of what they are gradients of; None where nothing depends on it."""

    parameters: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, np.ndarray | None] = dataclasses.field(default_factory=dict)


class Differentiates(Session, Protocol):
    """A session of an engine whose class says `differentiates = True`.

    The scalar of `gradients` is the sum of outputs times cotangents, one per output, None where an output is no
    float. That of `vjps` is the sum of nodes times cotangents, in which each node of `given`, once computed, is
    replaced by the value given for it: what arrives at a node is then the sum of its users' vector-Jacobian
    products, each of them evaluated at the given values and the given cotangents. Optional: where a session has
    no `vjps`, nobody can say which node is wrong.
    """

    def gradients(
        self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]
    ) -> Gradients: ...

    def vjps(
        self,
        feed: Mapping[str, np.ndarray],
        given: Mapping[str, np.ndarray],
        cotangents: Mapping[str, np.ndarray],
    ) -> Gradients: ...


class Engine(Protocol):
    name: str  # "openvino"
    package: str  # the distribution that `pip install` fetches
    modes: Sequence[str]  # the ways of running: ("graph", "pynative"); ("",) where there is one

    def precisions(self) -> Mapping[str, str]:
        """dtype -> "" where this machine's engine computes in it, else what it does instead and why."""
        ...

    def load(
        self, artifact: Artifact, *, mode: str = "", precision: str = "", device: str = ""
    ) -> Session: ...


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """One line of `paritas.engines()`."""

    name: str
    package: str
    version: str  # "" where it is not installed
    install: str  # the command that installs it

    @property
    def available(self) -> bool:
        return bool(self.version)

    def __str__(self) -> str:
        return (
            f"{self.name} {self.version}"
            if self.available
            else f"{self.name}: not installed ({self.install})"
        )


#: name -> ("module:class", distribution). The module is imported on first use.
ENGINES: dict[str, tuple[str, str]] = {
    "torch": ("paritas.run.torch.session:Torch", "torch"),
    "openvino": ("paritas.run.openvino.session:OpenVINO", "openvino"),
    "mindspore": ("paritas.run.mindspore.session:MindSpore", "mindspore"),
}


def engines() -> dict[str, EngineInfo]:
    """Every engine Paritas knows, installed or not. Imports none of them."""
    return {name: _info(name) for name in ENGINES}


def _info(name: str) -> EngineInfo:
    package = ENGINES[name][1]
    version = ""
    if importlib.util.find_spec(package) is not None:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
    extra = "" if name == "torch" else f"[{name}]"
    return EngineInfo(name, package, version, f"pip install 'paritas{extra}'")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def differentiates(name: str) -> bool:
    """Whether an engine of `ENGINES` declares gradients. Imports our adapter, not the engine."""
    return bool(getattr(_class(name), "differentiates", False))


def engine(name: str) -> Engine:
    """The engine of that name, ready to load artifacts.

    Raises `UnknownEngine` for a name that is none, `EngineMissing` for one that is not installed.
    """
    if name not in ENGINES:
        raise UnknownEngine(name, tuple(ENGINES))
    info = _info(name)
    if not info.available:
        raise EngineMissing(name, info.install, [n for n, i in engines().items() if i.available])
    return _class(name)()


def _class(name: str) -> Any:
    module, _, cls = ENGINES[name][0].partition(":")
    return getattr(importlib.import_module(module), cls)


#: The order in which an engine is chosen where none is named.
_PREFERRED = ("openvino", "mindspore", "torch")

_chosen: list[str] = []


def set_default_engine(name: str | None) -> None:
    """The engine for models that are not given one, in this process; None for what the environment says.

    Raises `UnknownEngine` or `EngineMissing`.
    """
    if name is not None:
        engine(name)
    _chosen[:] = [name] if name is not None else []


def default_engine() -> str:
    """The engine of `set_default_engine`, else of `$PARITAS_ENGINE`, else the best that is installed.

    Raises `UnknownEngine` or `EngineMissing` for one that the environment names.
    """
    if _chosen:
        return _chosen[0]
    if named := os.environ.get("PARITAS_ENGINE"):
        engine(named)
        return named
    known = engines()
    return next(name for name in _PREFERRED if known[name].available)
