# SPDX-License-Identifier: Apache-2.0
"""`Components`: a model that needs several graphs, each a port of its own, in one directory with one `port.json`."""

from __future__ import annotations

import dataclasses
import filecmp
import importlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from paritas import files, leftovers, store
from paritas.errors import InputError, PortError
from paritas.extras import require
from paritas.printable import printable
from paritas.program import Artifact, ComponentArtifacts, ComponentsManifest, Note
from paritas.run.engine import about
from paritas.verify.report.components import ComponentReports
from paritas.verify.report.files import attach

if TYPE_CHECKING:
    import torch

    from paritas.program import Manifest
    from paritas.verify import ParityReport


class Component(Protocol):
    """A port of one graph."""

    artifact: Artifact

    @property
    def manifest(self) -> Manifest: ...

    @property
    def notes(self) -> tuple[Note, ...]: ...

    def verify(self, *args: Any, **options: Any) -> ParityReport: ...

    def close(self) -> None: ...


P = TypeVar("P", bound=Component)


class Components(Mapping[str, P], Generic[P]):
    """The ports of a model's components by name: `port["encoder"]`, `port["decoder"]`.

    They are saved together, verified together and closed together; each is called by itself.
    """

    def __init__(self, ports: Mapping[str, P], artifacts: ComponentArtifacts, *, temporary: bool = False) -> None:
        self._ports, self.artifacts = dict(ports), artifacts
        self.report: ComponentReports | None = None
        self._loaded = not temporary
        self._original: torch.nn.Module | None = None
        if temporary:
            weakref.finalize(self, leftovers.remove, artifacts.directory)

    def __getitem__(self, name: str) -> P:
        return self._ports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ports)

    def __len__(self) -> int:
        return len(self._ports)

    @property
    def task(self) -> str:
        """What they are for, by optimum's name."""
        return self.artifacts.manifest.task

    @property
    def notes(self) -> tuple[Note, ...]:
        """Those of all components, each with the component's name."""
        return tuple(Note(note.stage, f"{name}: {note.text}") for name, port in self.items() for note in port.notes)

    def __repr__(self) -> str:
        source = next(iter(self.values())).manifest.source
        name = source.name or source.model_class.rpartition(".")[-1]
        engines = " and ".join(sorted({port.manifest.engine for port in self.values()}))
        return printable(f"<Components of {name} to {engines}: {', '.join(self)}>")

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        raise InputError(f"Several components are called one by one: port[{next(iter(self))!r}](...).")

    def verify(
        self,
        inputs: Mapping[str, Any] | None = None,
        level: str = "modules",
        *,
        original: torch.nn.Module | None = None,
        progress: Callable[[str], None] | None = None,
        **options: Any,
    ) -> ComponentReports:
        """Compare each component with its part of the original, and with the truth: see `Port.verify`.

        inputs: component -> what to compare it on; generated for those that are not named. original: the whole model.
        """
        given = inputs or {}
        if unknown := sorted(set(given) - set(self)):
            raise InputError(f"There is no component {', '.join(unknown)}. There are: {', '.join(self)}.")
        original = original if original is not None else self._whole()
        reports = {}
        for name, port in self.items():
            tell = None if progress is None else _told(progress, name)
            reports[name] = port.verify(given.get(name), level, original=original, progress=tell, **options)
        self.report = ComponentReports(reports)
        return self.report

    def _whole(self) -> torch.nn.Module | None:
        """The original of components that were loaded, read once for all. None of those that were just made, as each
        has its own, and of a module in memory."""
        manifest = next(iter(self.values())).manifest
        if self._loaded and self._original is None and manifest.source.kind != "module":
            require("port", "The original of a port")
            from paritas.capture.source import load_again

            dtype = about(manifest.engine).capture_dtype(manifest.dtype)
            in_files = about(manifest.engine).streams_weights
            self._original = load_again(manifest.source, dtype=dtype, in_files=in_files)
        return self._original

    def generate(self, inputs: Any = None, **options: Any) -> Any:
        """What the model writes: an answer to a text, or to each of a list, or what is said in a sound.

        Args:
            inputs: a text or a list of texts; of a model that hears, a sound file's name or float [samples] of its
                rate; or what the original's `generate` takes, tensors of torch or NumPy: token ids, features.
            options: as transformers' `generate` takes them, whose loops these are.

        Returns:
            Text for a text or a sound; token ids [batch, tokens] for tensors, of the same framework.

        Raises:
            InputError, PortError: for components of a model that does not write, and where what reads a text or a
                sound is not beside them.
            ExtraMissing: without torch and transformers.
        """
        require("port", "port.generate() of several components")
        return importlib.import_module("paritas.transformers.texts").generate(self, inputs, options)

    def save(self, directory: str | os.PathLike[str], *, force: bool = False) -> Components[P]:
        """Write all components to a directory, and what the last `verify` found. Raises `PortError`."""
        store.write(self.artifacts, directory, force=force)
        if self.report is not None:
            attach(directory, self.report)
        return self

    def close(self) -> None:
        """Release the engine's memory."""
        for port in self.values():
            port.close()

    def __enter__(self) -> Components[P]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _told(progress: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: progress(f"{name}: {text}")


def join(ports: Mapping[str, P], task: str = "") -> Components[P]:
    """Ports that were just made, with their files in one directory.

    They lie beside each other where those of the same name are the same; else each component has a folder. The ports
    are changed: their files are there from now on.
    """
    if wrong := [name for name in ports if not store.COMPONENT.fullmatch(name)]:
        raise PortError(f"{wrong[0]!r} is no name of a component: small letters, digits and underscores are.")
    directory = leftovers.make("components")
    try:
        moved = _moved({name: port.artifact for name, port in ports.items()}, directory)
    except BaseException:
        leftovers.remove(directory)
        raise
    for name, port in ports.items():
        port.artifact = moved[name]
    manifests = {
        name: dataclasses.replace(one.manifest, entry=f"{one.folder}/{one.manifest.entry}".lstrip("/"), files={})
        for name, one in moved.items()
    }
    artifacts = ComponentArtifacts(directory, ComponentsManifest(manifests, task))
    return Components(ports, artifacts, temporary=True)


def _moved(artifacts: Mapping[str, Artifact], directory: Path) -> dict[str, Artifact]:
    found = {name: _files(artifact.directory) for name, artifact in artifacts.items()}
    known: dict[str, Path] = {}
    beside = True
    for name, artifact in artifacts.items():
        for file in found[name]:
            path = artifact.directory / file
            first = known.setdefault(file, path)
            beside = beside and (first == path or filecmp.cmp(first, path, shallow=False))
    moved = {}
    for name, artifact in artifacts.items():
        folder = "" if beside else name
        for file in found[name]:
            target = directory / folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(artifact.directory / file, target)
        moved[name] = dataclasses.replace(artifact, directory=directory / folder, folder=folder)
    return moved


def _files(directory: Path) -> list[str]:
    return sorted(name for name, kind in files.walk(directory) if kind == "file")
