# SPDX-License-Identifier: Apache-2.0
"""Which versions of which models are loaded: folders are looked at, new versions loaded, old ones drained.

A version is checked, loaded and warmed up before it is switched to, in one assignment; one that fails is reported in
its status, and looked at again when its files have changed. A request holds the version that it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from paritas.errors import InputError
from paritas.serve import layout as layouts
from paritas.serve.batcher import Batcher
from paritas.serve.metrics import Metrics
from paritas.serve.model import Servable, open_servable
from paritas.serve.refusals import Refused, refusal
from paritas.serve.settings import Settings
from paritas.serve.texts import Texts
from paritas.serve.writing import maker
from paritas.store.directory import MANIFEST

Open = Callable[[Path, str, int], Servable]

#: The states of a version, by TensorFlow Serving's names and numbers.
STATES = {"UNKNOWN": 0, "START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model that is served.

    directory: a port, which is version 1, or a folder of versions, each a port in a folder that is called by a number.
    latest: how many versions are loaded, the newest ones; 0: all; `versions` names them instead. labels: name ->
    version.
    """

    name: str
    directory: Path
    latest: int = 1
    versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class Version:
    """One version: what it is doing, and while it is AVAILABLE its batcher."""

    name: str
    number: int
    directory: Path
    state: str = "START"
    error: Refused | None = None
    batcher: Batcher | None = None
    seen: object = None  # what its files looked like when it was loaded, or failed
    open: int = 0  # requests that hold it
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @property
    def servable(self) -> Servable:
        assert self.batcher is not None
        return self.batcher.servable


@dataclasses.dataclass(eq=False)
class Model:
    """A model and its versions. live: those that answer, the newest last. open: requests that are being answered."""

    config: ModelConfig
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)
    live: tuple[int, ...] = ()
    open: int = 0


class Registry:
    """The models of a server. All methods belong to the event loop that `start` ran on."""

    def __init__(
        self,
        configs: Iterable[ModelConfig],
        settings: Settings | None = None,
        *,
        metrics: Metrics | None = None,
        say: Callable[[str], None] | None = None,
        opened: Open | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.metrics = metrics or Metrics()
        self.say = say or (lambda line: None)
        self._opened = opened or self._open
        self.models = {config.name: Model(config) for config in configs}
        self.stopping = False  # nothing is answered any more
        self.leaving = False  # all is answered, but nobody is to come who has a choice
        self._readers = ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="reader")
        self._scanning = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---

    async def start(self) -> None:
        """Load what is there, then look for new versions every `poll` seconds."""
        await self.scan()
        if self.settings.poll > 0:
            self._spawn(self._watch())

    async def stop(self) -> None:
        """Free all models. Requests are to have ended: see `drained`."""
        self.stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for model in self.models.values():
            model.live = ()
            for version in list(model.versions.values()):
                await self._unload(version)
        self._readers.shutdown(wait=False)

    async def drained(self, seconds: float) -> bool:
        """Whether all requests ended within so many seconds."""
        until = time.monotonic() + seconds
        while any(model.open for model in self.models.values()):
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Serve these models from now on: what was served under the same name goes on; others end."""
        wanted = {config.name: config for config in configs}
        for name in [name for name in self.models if name not in wanted]:
            gone = self.models.pop(name)
            gone.live = ()
            for version in gone.versions.values():
                self._spawn(self._retire(version))
        for name, config in wanted.items():
            if name not in self.models:
                self.models[name] = Model(config)
                continue
            if self.models[name].config.directory != config.directory:
                for version in self.models[name].versions.values():
                    version.seen = None
            self.models[name].config = config
        await self.scan()

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers, and the server is not stopping."""
        return not self.stopping and not self.leaving and all(model.live for model in self.models.values())

    # --- requests ---

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Version:
        """The version that answers: the newest one, unless one is named. Raises `Refused`, NOT_FOUND."""
        model = self.models.get(name)
        if label is not None:
            if model is None or label not in model.config.labels:
                raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = model.config.labels[label]
        asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        if model is not None and model.live:
            number = model.live[-1] if version is None else version
            if number in model.live:
                return model.versions[number]
        raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")

    @contextlib.contextmanager
    def admit(self, name: str) -> Iterator[None]:
        """A place among the requests of a model, taken before anything of it is read.

        Raises `Refused`, RESOURCE_EXHAUSTED with the time after which to try again, where there is none, and
        UNAVAILABLE while the server stops.
        """
        model = self.models.get(name)
        if self.stopping:
            raise Refused("UNAVAILABLE", "The server is stopping.", after=1.0)
        if model is None:  # `find` says so
            yield
            return
        if model.open >= self.settings.batching.queue or self._too_long(model):
            if self.metrics.registry is not None:
                self.metrics.refused.labels(name).inc()
            wait = max(1.0, self._backlog(model))
            raise Refused(
                "RESOURCE_EXHAUSTED", f"{name} has {model.open} requests to answer; try again later.", after=wait
            )
        model.open += 1
        try:
            yield
        finally:
            model.open -= 1

    def _backlog(self, model: Model) -> float:
        """Seconds until the requests that are here have been answered."""
        if not model.live:
            return 0.0
        batcher = model.versions[model.live[-1]].batcher
        return model.open * batcher.per_row if batcher else 0.0

    def _too_long(self, model: Model) -> bool:
        return self._backlog(model) > self.settings.limits.request

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Version]:
        """The version that answers a request, which is not unloaded before the end."""
        found = self.find(name, version, label)
        found.open += 1
        try:
            yield found
        finally:
            found.open -= 1
            if not found.open:
                found.idle.set()

    def statuses(self, name: str, version: int | None = None, label: str | None = None) -> list[Version]:
        """The versions of a model, or that one. Raises `Refused`, NOT_FOUND."""
        model = self.models.get(name)
        if label is not None:
            if model is None or label not in model.config.labels:
                raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = model.config.labels[label]
        if version is not None:
            if model is None or version not in model.versions:
                raise Refused("NOT_FOUND", f"Could not find version {version} of model {name}")
            return [model.versions[version]]
        if model is None or not model.versions:
            raise Refused("NOT_FOUND", f"Could not find any versions of model {name}")
        return [model.versions[number] for number in sorted(model.versions, reverse=True)]

    # --- versions ---

    async def scan(self) -> None:
        """Look at the folders once: load what is new, drain what is old."""
        async with self._scanning:
            for model in list(self.models.values()):
                await self._look(model)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll)
            try:
                await self.scan()
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                self.say(f"The models' folders could not be read: {error}")

    async def _look(self, model: Model) -> None:
        there = await asyncio.to_thread(folders, model.config)
        wanted = _wanted(model.config, there)
        if not wanted and model.live:  # a folder that is being replaced is no reason to stop
            return
        for number in wanted:
            directory, known = there[number], model.versions.get(number)
            seen = await asyncio.to_thread(_looks, directory)
            if known is not None and known.seen == seen and known.directory == directory and known.state != "END":
                continue
            if known is not None and known.seen == seen and known.error is not None:
                continue
            if seen is None:
                continue
            await self._load(model, Version(model.config.name, number, directory, seen=seen))
        if not model.live:
            return
        # Only what is replaced goes: where a new version is broken, the old one stays.
        ready = [number for number in wanted if number in model.live]
        if not ready or (len(ready) < len(wanted) and not model.config.versions and model.config.latest):
            keep = sorted({*ready, *model.live})[-max(1, len(wanted)) :]
        else:
            keep = ready
        for number in [number for number in model.live if number not in keep]:
            model.live = tuple(one for one in model.live if one != number)
            self._spawn(self._retire(model.versions[number]))

    async def _load(self, model: Model, version: Version) -> None:
        """Check, load, warm up, switch."""
        replaced = model.versions.get(version.number)
        alive = replaced if replaced is not None and version.number in model.live else None
        if alive is None:
            model.versions[version.number] = version
        version.state = "LOADING"
        name = f"{{name: {version.name} version: {version.number}}}"
        self.say(f"Loading servable version {name} from {version.directory}")
        began = time.monotonic()
        try:
            servable, layout = await asyncio.to_thread(self._opening, version)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others go on
            version.state, version.error = "END", refusal(error)
            if alive is not None:
                alive.seen = version.seen  # it goes on with the old files
            self._counted(version.name, "failed")
            self.say(f"Servable version {name} cannot be loaded: {error}")
            return
        version.batcher = Batcher(
            servable, self.settings.batching, readers=self._readers, metrics=self.metrics, layout=layout
        )
        version.state = "AVAILABLE"
        model.versions[version.number] = version
        model.live = tuple(sorted({*model.live, version.number}))
        if alive is not None:
            self._spawn(self._retire(alive))
        self._counted(version.name, "loaded")
        if self.metrics.registry is not None:
            self.metrics.versions.labels(version.name, str(version.number)).set(1)
        alone = getattr(servable, "how", "") or f"one request at a time: {layout.why}"
        together = "requests are computed together" if layout.batched else alone
        self.say(
            f"Successfully loaded servable version {name} in {time.monotonic() - began:.1f} s; {together}"
            + (", texts of different lengths too" if layout.length else "")
        )

    def _opening(self, version: Version) -> tuple[Servable, layouts.Layout]:
        servable = self._opened(version.directory, version.name, version.number)
        pad = getattr(servable.reader, "pad_token", 0)
        layout = layouts.declared(servable.port, pad)
        if self.settings.engine.warm:
            layout = layouts.measured(layout, servable.port, servable.compute)
            if isinstance(servable.reader, Texts) and not layout.fixed:
                servable.reader.pads = bool(layout.length)
        return servable, layout

    def _open(self, directory: Path, name: str, number: int) -> Servable:
        how = self.settings
        make = maker(how.engine, how.batching.queue)
        return open_servable(directory, name, number, limits=how.limits, engine=how.engine, make=make)

    async def _retire(self, version: Version) -> None:
        """Let its requests end, then free it."""
        version.state = "UNLOADING"
        while version.open:
            version.idle.clear()
            await version.idle.wait()
        await self._unload(version)
        self.say(f"Done unloading servable version {{name: {version.name} version: {version.number}}}")

    async def _unload(self, version: Version) -> None:
        batcher, version.batcher = version.batcher, None
        if batcher is None:
            return
        await batcher.close()
        await asyncio.to_thread(batcher.servable.close)
        version.state = "END"
        if self.metrics.registry is not None:
            self.metrics.versions.labels(version.name, str(version.number)).set(0)

    def _counted(self, name: str, outcome: str) -> None:
        if self.metrics.registry is not None:
            self.metrics.loads.labels(name, outcome).inc()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def folders(config: ModelConfig) -> dict[int, Path]:
    """Number -> directory of the versions that are there. A port by itself is version 1."""
    if (config.directory / MANIFEST).is_file():
        return {1: config.directory}
    found = {}
    with contextlib.suppress(OSError), os.scandir(config.directory) as entries:
        for entry in entries:
            if entry.name.isdecimal() and entry.is_dir():
                found[int(entry.name)] = Path(entry.path)
    return found


def _wanted(config: ModelConfig, there: Mapping[int, Path]) -> list[int]:
    if config.versions:
        return [number for number in config.versions if number in there]
    numbers = sorted(there)
    return numbers[-config.latest :] if config.latest else numbers


def _looks(directory: Path) -> object:
    """What tells that files have changed; None while there is no port yet."""
    if not (directory / MANIFEST).is_file():
        return None
    found = []
    for place in sorted(directory.rglob("*")):
        with contextlib.suppress(OSError):
            about = place.stat()
            found.append((str(place), about.st_size, about.st_mtime_ns, about.st_ino))
    return tuple(found)


def models_in(base: Path) -> list[ModelConfig]:
    """A model for each folder of a directory that has versions or a port. Raises `InputError` where there is none."""
    found = []
    if base.is_dir():
        for place in sorted(base.iterdir()):
            if place.is_dir() and folders(ModelConfig(place.name, place)):
                found.append(ModelConfig(place.name, place))
    if not found:
        raise InputError(f"{base} has no models: it is to hold NAME/VERSION/, each version a port, as models/vit/1/.")
    return found


NAME = re.compile(r"[^/:\s]+")


def checked(configs: Iterable[ModelConfig]) -> list[ModelConfig]:
    """The same, each name once and such that it can stand in a path. Raises `InputError`."""
    found: dict[str, ModelConfig] = {}
    for config in configs:
        if not NAME.fullmatch(config.name):
            raise InputError(f"{config.name!r} cannot be a model's name: it may hold no slash, colon or space.")
        if config.name in found:
            raise InputError(f"Two models are called {config.name}.")
        found[config.name] = config
    if not found:
        raise InputError("No model is named to be served.")
    return list(found.values())
