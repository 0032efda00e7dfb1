# SPDX-License-Identifier: Apache-2.0
"""What an engine signs: an `Engine` says what it is and loads an artifact; what it loads is a `run.session.Session`.

The facts are told without importing the engine, which happens inside `load`, `trial` and `precisions` only. Nothing
outside of `run/<engine>/`, `lower/<engine>/` and the table below knows an engine by name: CONTRIBUTING.md says how one
is added.
"""

from __future__ import annotations

import abc
import dataclasses
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from paritas.errors import DeviceMissing, EngineError, EngineMissing, InputError, UnknownEngine

if TYPE_CHECKING:
    import torch

    from paritas.lower.result import Lowered
    from paritas.options import BuildOptions
    from paritas.program import Artifact, Manifest, Note, Program
    from paritas.run.learning import Learner, Task
    from paritas.run.processes import Collectives
    from paritas.run.script import Side, ToWrite
    from paritas.run.session import Session


class Engine(abc.ABC):
    """An adapter. Facts that are not given are those of an engine of which nothing is special."""

    #: As users write it: "openvino".
    name: ClassVar[str]

    #: As its makers write it: "OpenVINO".
    label: ClassVar[str]

    #: The distribution that `pip install` fetches, and the package that is imported.
    package: ClassVar[str]

    #: How the names of its classes begin in optimum ("OVModelForCausalLM"); "" where it has none.
    optimum: ClassVar[str] = ""

    #: Where no engine is named, the one of the lowest rank is taken that is installed.
    rank: ClassVar[int] = 100

    #: The ways of running, each as its makers write it; the first is taken where none is named.
    modes: ClassVar[Mapping[str, str]] = {"": ""}

    #: For which machines its lowering can write.
    targets: ClassVar[Sequence[str]] = ("cpu",)

    #: To which its lowering can round weights.
    weight_formats: ClassVar[Sequence[str]] = ()

    #: Whether its lowering reads a program's weights one by one, so that they may stay in the checkpoint's files.
    streams_weights: ClassVar[bool] = False

    #: The dtype in which its programs are captured where another one is asked for, if it chooses its precision when
    #: it runs; "" for one that computes in the dtype of the program.
    captured_in: ClassVar[str] = ""

    #: dtype -> why the engine has none, in words: such models PyTorch computes.
    lacks: ClassVar[Mapping[str, str]] = {}

    #: Whether programs are for the example's value of an input from which sizes are read, as its memory is planned.
    needs_static_sizes: ClassVar[bool] = False

    #: Whether it can begin a generation with the empty state of a port that goes on with one.
    own_state: ClassVar[bool] = False

    #: Whether a model that goes on with a text becomes a port that keeps a cache, where no task is named.
    goes_on: ClassVar[bool] = False

    #: Whether its sessions have gradients.
    differentiates: ClassVar[bool] = False
    #: Whether its sessions are `Trains`: torch's loops train what they compute.
    trains: ClassVar[bool] = False

    #: Whether a part of a port can be lowered again, to be computed by itself.
    lowers_parts: ClassVar[bool] = True

    #: Whether it runs the original itself: that with which the others are compared.
    is_original: ClassVar[bool] = False

    #: What `pip install` has to be told beside the package; by default the extra of the engine's name.
    extra: ClassVar[str | None] = None

    #: What its scripts define or import, so that nothing of a model may be called so in one.
    script_names: ClassVar[frozenset[str]] = frozenset()

    def title(self, mode: str = "") -> str:
        """ "MindSpore PyNative"."""
        return " ".join(filter(None, (self.label, self.modes.get(mode, mode))))

    def capture_dtype(self, dtype: str) -> str | None:
        """In which an original is captured that is to compute in `dtype`; None for its own."""
        return (self.captured_in or dtype) if dtype else None

    @abc.abstractmethod
    def precisions(self, device: str = "") -> Mapping[str, str]:
        """dtype -> "" where the engine computes in it on that device of this machine, else what it does instead."""

    def devices(self) -> Mapping[str, str]:
        """The devices of this machine that it can compute on, as it calls them -> their full names, where it knows."""
        return {"CPU": ""}

    def device(self, asked: str) -> str:
        """A device as the engine calls it, "" for its own choice. Raises `DeviceMissing` for one that is not here."""
        here = self.devices()
        if asked.upper() not in ("", *here):
            raise DeviceMissing(self.name, asked, list(here), here)
        return asked.upper()

    def needs_fixed_sizes_on(self, device: str) -> bool:
        """Whether a device runs ports only of which no size is free."""
        return False

    def configured(self, asked: Mapping[str, Any], device: str = "") -> dict[str, str]:
        """Properties of the engine's own, as text. Raises `InputError` for those that it does not have."""
        if asked:
            raise InputError(f"{self.name} has no properties of its own: leave out ov_config, which is OpenVINO's.")
        return {}

    def lasting(self, config: Mapping[str, str]) -> dict[str, str]:
        """Of these properties those that change what is computed, with their values: they are part of a port."""
        return {}

    def notes_on(self, config: Mapping[str, str]) -> list[Note]:
        """What a report says of these properties."""
        return []

    @abc.abstractmethod
    def load(
        self,
        artifact: Artifact,
        *,
        mode: str = "",
        precision: str = "",
        device: str = "",
        config: Mapping[str, str] | None = None,
    ) -> Session:
        """What runs a port. config: what `configured` returned.

        Raises `EngineError` for a mode, precision or device that it does not have.
        """

    def start(
        self, program: Program, artifact: Artifact, *, device: str = "", config: Mapping[str, str] | None = None
    ) -> Session:
        """What runs a port in the process in which it was made."""
        return self.load(artifact, mode=artifact.manifest.mode, device=device, config=config)

    def expect(self, *coming: torch.nn.Module | Artifact) -> None:  # noqa: B027 - most engines have nothing to prepare
        """What this process is going to compute, told before the first of it is loaded."""

    def beside(self, program: Program, directory: Path) -> tuple[Note, ...]:
        """Write what the engine's own tools look for beside its files, and say what is not."""
        return ()

    def beside_pipeline(self, directory: Path) -> None:  # noqa: B027 - most engines have nothing to write
        """Write what other programs on this engine look for in the directory of a pipeline of several networks."""

    def launched(self, processes: int, port: int, logs: Path, script: Sequence[str]) -> list[str]:
        """The command of its own launcher that starts `script`, a file with its arguments, in so many processes.

        port: free. logs: a folder for what they say. Raises `InputError` where it trains in one process alone.
        """
        raise InputError(f"{self.label} trains in one process: leave out --processes.")

    def join(self) -> Collectives:
        """What the processes of its launcher say to each other; called first in each of them."""
        raise InputError(f"{self.label} trains in one process.")

    def learner(self, task: Task) -> Learner:
        """What trains a small module for many steps. Raises `InputError` where it has no gradients."""
        able = [one.name for one in all_about() if one.differentiates]
        raise InputError(f"{self.name} computes no gradients: nothing can be trained on it. {' and '.join(able)} do.")

    def pages(
        self,
        directory: Path,
        manifest: Manifest,
        *,
        device: str = "",
        config: Mapping[str, str] | None = None,
        context: int,
        together: int,
    ) -> Callable[[], Any]:
        """What opens a process that goes on with several texts of a port at once (`run/openvino/paged.py`).

        context: tokens of the longest. together: how many. Raises `EngineError`, which says why not.
        """
        raise EngineError(f"{self.label} computes one text at a time")

    @abc.abstractmethod
    def trial(self) -> None:
        """Compute something in each mode. Raises whatever is wrong with the engine."""

    def stored(self, program: Program, artifact: Artifact) -> Mapping[str, torch.Tensor]:
        """Placeholder -> what a port's files have for it, where that may be other than the program's own."""
        return {}

    def scripts(self) -> Sequence[Callable[[ToWrite], Side]]:
        """The ways of writing a part of a port as a script, the best one first.

        Each raises `LoweringError` or `UnsupportedOps` for what it cannot express.
        """
        return ()


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    """Where an engine is: "module:name" of a subclass of `Engine`, and of the function that lowers to it.

    `lower(program, directory, options)` writes the engine's files and returns a `Lowered`; it raises `UnsupportedOps`
    or `LoweringError`.
    """

    adapter: str
    lowering: str


#: Each module is imported on first use.
ENGINES: dict[str, EngineSpec] = {
    "torch": EngineSpec("paritas.run.torch.adapter:Torch", "paritas.lower.torch:lower"),
    "openvino": EngineSpec("paritas.run.openvino.adapter:OpenVINO", "paritas.lower.openvino.convert:lower"),
    "mindspore": EngineSpec("paritas.run.mindspore.adapter:MindSpore", "paritas.lower.mindspore.lower:lower"),
}


def about(name: str) -> Engine:
    """What an engine is, installed or not: by its name or its makers' spelling of it, in any case.

    Imports its adapter, not the engine. Raises `UnknownEngine`.
    """
    if name not in ENGINES:
        return next((one for one in all_about() if str(name).casefold() in _spellings(one)), None) or _unknown(name)
    found: Engine = _named(ENGINES[name].adapter)()
    return found


def _spellings(one: Engine) -> tuple[str, ...]:
    return one.name.casefold(), one.label.casefold()


def _unknown(name: str) -> NoReturn:
    """Raise `UnknownEngine` with what may have been meant: a word like it, or one that it abbreviates ("ov", "ms")."""
    words = {spelling: one.name for one in all_about() for spelling in _spellings(one)}
    short = {"".join(filter(str.isupper, one.label)).casefold(): one.name for one in all_about()}
    given = str(name).casefold()
    meant = [words[word] for word in difflib.get_close_matches(given, words, 1)]
    meant += [engine for initials, engine in short.items() if given and initials.startswith(given)]
    raise UnknownEngine(name, tuple(ENGINES), meant[0] if meant else "")


def all_about() -> list[Engine]:
    """What every engine is that Paritas knows, installed or not."""
    return [about(name) for name in ENGINES]


def engine(name: str) -> Engine:
    """The engine of that name, ready to load artifacts.

    Raises `UnknownEngine` for a name that is none, `EngineMissing` for one that is not installed.
    """
    found = about(name)
    info = _info(found)
    if not info.available:
        raise EngineMissing(found.name, info.install, [n for n, i in engines().items() if i.available])
    return found


def lower(program: Program, directory: Path, options: BuildOptions) -> Lowered:
    """Write the files of `options.engine` into `directory`. Raises `UnsupportedOps` or `LoweringError`."""
    lowered: Lowered = _named(ENGINES[options.engine].lowering)(program, directory, options)
    return lowered


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """One line of `paritas.engines()`."""

    name: str
    package: str

    #: "" where it is not installed.
    version: str

    #: The command that installs it.
    install: str

    @property
    def available(self) -> bool:
        return bool(self.version)

    def __str__(self) -> str:
        return f"{self.name} {self.version}" if self.available else f"{self.name}: not installed ({self.install})"


def engines() -> dict[str, EngineInfo]:
    """Every engine Paritas knows, installed or not. Imports none of them.

    Returns:
        By name, its package, the version that is installed ("" for none), and the command that installs it.
    """
    return {one.name: _info(one) for one in all_about()}


def _info(found: Engine) -> EngineInfo:
    version = ""
    if importlib.util.find_spec(found.package) is not None:
        try:
            version = importlib.metadata.version(found.package)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
    extra = found.name if found.extra is None else found.extra
    return EngineInfo(found.name, found.package, version, f"pip install 'paritas{f'[{extra}]' if extra else ''}'")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of the packages that are installed."""
    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def packages() -> tuple[str, ...]:
    """The packages of all engines, whose versions belong to what was measured."""
    return tuple(one.package for one in all_about())


_chosen: list[str] = []


def set_default_engine(name: str | None) -> None:
    """The engine for models that are not given one, in this process.

    Args:
        name: "openvino", "mindspore" or "torch"; None for what the environment says.

    Raises:
        UnknownEngine, EngineMissing: it is none of them, or is not installed.
    """
    _chosen[:] = [engine(name).name] if name is not None else []


def default_engine() -> str:
    """The engine of `set_default_engine`, else of `$PARITAS_ENGINE`, else the best that is installed.

    Returns:
        Its name, as `port(engine=...)` takes it.

    Raises:
        UnknownEngine, EngineMissing: the environment names one that is none, or is not installed.
    """
    if _chosen:
        return _chosen[0]
    if named := os.environ.get("PARITAS_ENGINE"):
        return engine(named).name
    return min((one for one in all_about() if _info(one).available), key=lambda one: one.rank).name
