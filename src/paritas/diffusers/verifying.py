# SPDX-License-Identifier: Apache-2.0
"""Is a pipeline on engines still PyTorch's? Each of its ports on what one run asks of it, and the run's picture.

The original is run once, and what its networks are asked is written down: on that, and on values around it, each port
is compared as any other port is. The latents after each step and the picture are compared between the two runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from paritas.arguments import nest
from paritas.capture import capture
from paritas.diffusers import picture
from paritas.diffusers.index import origin_of
from paritas.diffusers.networks import bytes_of
from paritas.diffusers.networks import networks as every_network
from paritas.diffusers.opened import OpenedNetwork
from paritas.diffusers.runs import Asked, Calls, Run, call_of, computed_in, heard, loaded, of_a_picture, run
from paritas.diffusers.saving import Component, Entry, folder_of, free_name, widened
from paritas.dropin.classes import Ported
from paritas.dropin.dispatch import in_pytorch
from paritas.dropin.dispatch import original as in_original
from paritas.dropin.methods import method_of
from paritas.errors import InputError, OriginalMissing, ParitasError, SourceError, reason_of
from paritas.run.engine import about
from paritas.run.session import runs_on
from paritas.verify import Case, ComponentReports, Environment
from paritas.verify import verify as compare_outputs
from paritas.verify.inputs.generate import as_floats
from paritas.verify.of_port import eager, in_precision, verify_port
from paritas.verify.tolerance import EPSILON, HALF

if TYPE_CHECKING:
    from paritas.pipeline import Port
    from paritas.program import Artifact, Manifest, Note, Program, TensorSpec
    from paritas.run.session import Session
    from paritas.verify import ParityReport
    from paritas.verify.bisect.report import BisectReport

#: What the report of the picture is called among those of the components.
PICTURE = "picture"

#: Bytes of a network's weights up to which it is computed in float64 too, which takes twice as many once more.
LARGEST = 2 << 30


def verify(
    pipeline: Any,
    networks: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    level: str = "modules",
    *,
    original: Any = None,
    component: str = "",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ComponentReports:
    """See `paritas.diffusers.verify`."""
    tell = progress or (lambda text: None)
    runs = _Runs(pipeline, networks, inputs, original, seed, tell)
    chosen = runs.chosen(component)
    reports = {}
    for name, (subject, cases) in chosen.items():
        told = _told(tell, name)
        if subject.bytes > LARGEST:
            report = with_original_alone(subject, cases, told)
        else:
            report = verify_port(subject, cases, level=level, original=None, tolerance=None, seed=seed, progress=told)
        reports[name] = report.again_with(f"--component {name}")
        subject.forget()
    if not component:
        reports[PICTURE] = runs.picture(set(chosen))
    return ComponentReports(reports)


def bisect(
    pipeline: Any,
    networks: Mapping[str, Any],
    component: str,
    inputs: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    original: Any = None,
    seconds: float = 600.0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BisectReport:
    """See `paritas.diffusers.bisect`."""
    from paritas.verify.bisect.of_port import bisect_port

    tell = progress or (lambda text: None)
    ((_, (subject, cases)),) = _Runs(pipeline, networks, inputs, original, seed, tell).chosen(component).items()
    place = None if out is None else Path(out)
    return bisect_port(subject, cases, out=place, original=None, seconds=seconds, seed=seed, progress=tell)


def with_original_alone(subject: Compared, cases: Sequence[Case], progress: Callable[[str], None]) -> ParityReport:
    """A network too large for float64: its outputs against PyTorch's, on what it was asked."""
    manifest = subject.manifest
    environment = Environment.here(
        manifest.engine,
        package=about(manifest.engine).package,
        mode=subject.mode,
        dtype=manifest.dtype,
        device=runs_on(subject.session),
    )
    note = (
        f"verify: {subject.bytes / 2**30:.1f} GiB of weights: compared with PyTorch alone, without float64 and what is "
        "inside, on what it was asked; one of 16 bits cannot be judged so"
    )
    return compare_outputs(
        subject,
        eager(subject, in_precision(subject.original(), "float32")),
        [case for case in cases if not case.optional],
        outputs=manifest.outputs,
        environment=environment,
        subject=manifest.source.model_class,
        notes=[*map(str, subject.notes), note],
        progress=progress,
    )


def _told(tell: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: tell(f"{name}: {text}")


class _Runs:
    """The same call of a pipeline on its engines and in PyTorch."""

    def __init__(
        self,
        pipeline: Any,
        networks: Mapping[str, Any],
        inputs: Mapping[str, Any] | None,
        given: Any,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        self.pipeline = pipeline
        self.ported: dict[str, Any] = {
            n: one for n, one in networks.items() if isinstance(one, Ported) and one._paritas is not None
        }
        if not self.ported:
            raise InputError("No network of this pipeline is on an engine: paritas.diffusers.port(pipe, engine=...).")
        opened: list[Any] = [one for one in self.ported.values() if isinstance(one, OpenedNetwork)]
        root = opened[0]._paritas.root if opened else None
        source, known = origin_of(root) if root is not None else ("", {})
        arguments = call_of(pipeline, inputs if inputs is not None else known)
        tell("PyTorch's networks")
        theirs = _theirs(pipeline, given, root, source)
        self.fault, self.got = "", Run([], {})
        tell("a run on the engines")
        try:
            self.got = run(pipeline, arguments, seed)
        except InputError:
            raise
        except ParitasError as error:
            self.fault = f"the pipeline failed: {reason_of(error)}"
        self.networks = _networks_of(theirs, self.ported)
        tell("a run in PyTorch")
        places = {name: list(one._paritas.places()) for name, one in self.ported.items()}
        with in_original(), heard(self.networks, places) as calls:
            self.want = run(theirs, arguments, seed)
            if inputs is None and len(list(calls)) < sum(map(len, places.values())):
                of_a_picture(theirs, next(iter(self.want.outputs.values()), None))
        self.calls: Calls = calls
        self._again = lambda: run(theirs, arguments, seed)

    def chosen(self, component: str) -> dict[str, tuple[Compared, list[Case]]]:
        """What was asked of each port, or of one; by the name of its folder in a saved pipeline."""
        found = self._subjects()
        if not component:
            return found
        if component not in found:
            raise InputError(f"There is no component {component}. There are: {', '.join(found) or 'none'}.")
        return {component: found[component]}

    def _subjects(self) -> dict[str, tuple[Compared, list[Case]]]:
        subjects: dict[int, tuple[str, Compared, list[Case]]] = {}
        names: set[str] = set()
        for asked in self.calls:
            for one in asked:
                port, given, entry = self.ported[one.network]._paritas.compared(one)
                if port is None:
                    continue
                if id(port) not in subjects:
                    name = (
                        entry.folder
                        if entry is not None
                        else free_name(folder_of(one.network, one.path, one.method), names)
                    )
                    names.add(name)
                    subjects[id(port)] = (name, Compared(port, self._component(one, entry), entry), [])
                _, subject, cases = subjects[id(port)]
                feed = port.feed(given)
                subject.example = subject.example or feed
                cases.append(Case(f"call {len(cases) + 1}", feed))
        return {name: (subject, [*cases, *around(subject.inputs, cases)]) for name, subject, cases in subjects.values()}

    def _component(self, asked: Asked, entry: Entry | None) -> Callable[[], torch.nn.Module]:
        def made() -> torch.nn.Module:
            network = in_pytorch(self.networks[asked.network])
            module = method_of(network, asked.method) if asked.method else network.get_submodule(asked.path)
            return module if entry is None else Component.of(module, entry)

        return made

    def picture(self, compared: set[str]) -> Any:
        """The report of the run: what is not the engines', or was compared in it alone, is a note."""
        notes = []
        for name, one in self.ported.items():
            whole = [c for c in compared if c == name or c.startswith((f"{name}_", f"{name}."))]
            if not one.ports:
                notes.append(f"verify: {name} was not asked, or is computed by PyTorch: no port of it has answered")
            elif len(whole) < len(one.ports):
                notes.append(
                    f"verify: of the {len(one.ports)} ports of {name} this run asks {len(whole)}; the others were "
                    "compared by the picture alone, or not at all"
                )
        ports = [port for one in self.ported.values() for port in one.ports]
        halves = {port.session.precision for port in ports} & HALF
        half, truth, yardstick = "", None, None
        weights = any(port.manifest.settings.get("weights") for port in ports)
        if halves and not weights and not self.fault:
            half = max(halves, key=lambda one: EPSILON[one])
            if max(map(bytes_of, self.networks.values())) <= LARGEST:
                truth, yardstick = self._run_in("float64"), self._run_in(half)
            else:
                notes.append(f"verify: too large for a run in float64, by which a picture in {half} would be judged")
        return picture.compared(
            self.want,
            self.got,
            ports,
            fault=self.fault,
            rounded=_rounded(self.ported),
            subject=type(self.pipeline).__name__,
            notes=notes,
            truth=truth,
            yardstick=yardstick,
            half=half,
        )

    def _run_in(self, precision: str) -> Run:
        """PyTorch's run again, with networks in that precision and all else as it was."""

        def copied(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
            return in_precision(in_pytorch(module), str(dtype).removeprefix("torch."))

        with in_original(), computed_in(self.networks, getattr(torch, precision), copied):
            return self._again()


def _theirs(pipeline: Any, given: Any, root: Path | None, source: str) -> Any:
    """The pipeline whose networks are the originals."""
    if given is None and root is None:
        return pipeline
    wanted = given if given is not None else source
    if not wanted:
        raise OriginalMissing(
            f"{root} does not say of which pipeline it was made: give the original, pipe.verify(original=...) or "
            "paritas verify DIR --original SOURCE"
        )
    if isinstance(wanted, DiffusionPipeline):
        return wanted
    try:
        return loaded(wanted)
    except SourceError as error:
        raise OriginalMissing(f"Of the original: {error}") from error


def _networks_of(theirs: Any, ported: Mapping[str, Any]) -> dict[str, torch.nn.Module]:
    found = every_network(theirs)
    if missing := [name for name in ported if name not in found]:
        raise InputError(
            f"The original has no {', '.join(missing)}; it has {', '.join(found)}. Is it another pipeline?"
        )
    return {name: found[name] for name in ported}


def _rounded(ported: Mapping[str, Any]) -> str:
    """Which networks are meant to be others than PyTorch's, in words."""
    found = []
    for name, one in ported.items():
        formats = {str(port.manifest.settings.get("weights") or "") for port in one.ports} - {""}
        halves = {port.session.precision for port in one.ports} - {"float32", "float64"}
        if formats:
            found.append(f"{name} has weights of {' and '.join(sorted(formats))}")
        elif halves:
            found.append(f"{name} computes in {' and '.join(sorted(halves))}")
    return ", ".join(found)


# --- a port of a pipeline, as verification wants it ----------------------------------------------------------


class Compared:
    """A port of a pipeline's network, with the original that is made for it."""

    others = None

    def __init__(self, port: Port, made: Callable[[], torch.nn.Module], entry: Entry | None) -> None:
        self.port, self.artifact, self.session, self.mode = port, port.artifact, port.session, port.mode
        self.example: dict[str, np.ndarray] = {}
        self._made, self._entry = made, entry
        self._original: torch.nn.Module | None = None
        self._program: Program | None = None

    artifact: Artifact
    session: Session

    @property
    def manifest(self) -> Manifest:
        return self.port.manifest

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.port.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.port.outputs

    @property
    def notes(self) -> tuple[Note, ...]:
        return self.port.notes

    def feed(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return self.port.feed(inputs)

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return self.port.run(feed)

    @property
    def precision(self) -> str:
        return self.session.precision

    @property
    def bytes(self) -> int:
        """Of the original's weights."""
        return bytes_of(self.original())

    def close(self) -> None:
        """It is the pipeline's."""

    def original(self, given: torch.nn.Module | None = None, *, in_files: bool = False) -> torch.nn.Module:
        if self._original is None:
            self._original = given if given is not None else self._made()
        return self._original

    def program(self, *, in_files: bool = False) -> Program:
        """The original captured again, on what it was asked first."""
        if self._program is None:
            manifest = self.manifest
            flat = {
                spec.name: torch.from_numpy(np.array(self.example[spec.name])).to(getattr(torch, spec.dtype))
                for spec in self.inputs
            }
            free = any(not str(dim).isdigit() for spec in self.inputs for dim in spec.dims)
            module = self.original()
            if free and self._entry is not None:
                flat = widened(module, flat, {self._entry.inputs[name] for name in self._entry.scalars})
            with torch.inference_mode(False):
                given = {**nest(flat, manifest.nesting), **manifest.constants}
                self._program = capture(module, given, dynamic=free, source=manifest.source)
        return self._program

    def examples(self) -> dict[str, np.ndarray]:
        return self.example

    def save(self, directory: Path) -> object:
        return self.port.save(directory)

    def forget(self) -> None:
        """Let go of the original, and of its graph."""
        self._original = self._program = None


def around(specs: Sequence[TensorSpec], cases: Sequence[Case], seed: int = 0) -> Iterator[Case]:
    """Other values than those that were asked, near the first and the last of them, and far from them.

    Floats that are switches, as masks are, stay, and so do numbers by themselves and whole numbers that are no index.
    """
    for number, case in enumerate(dict.fromkeys((0, len(cases) - 1)) if cases else ()):
        generator, base = np.random.default_rng((seed, number)), cases[case]
        for name, share in (("near", 0.1), ("other values", 1.0)):
            feed = {spec.name: _moved(base.feed[spec.name], share, generator, spec) for spec in specs}
            if any(feed[spec.name] is not base.feed[spec.name] for spec in specs):
                yield Case(f"{base.name}, {name}", feed, optional=True)


def _moved(value: np.ndarray, share: float, generator: np.random.Generator, spec: TensorSpec) -> np.ndarray:
    if value.size < 2:
        return value
    if value.dtype.kind != "f":
        return generator.permutation(value.reshape(-1)).reshape(value.shape) if spec.high is not None else value
    wide = value.astype(np.float64)
    if not np.isfinite(wide).all() or len(np.unique(wide[:64] if wide.ndim == 1 else wide.reshape(-1)[:4096])) < 3:
        return value
    noise = generator.standard_normal(value.shape) * wide.std()
    moved = wide + share * noise if share < 1 else noise + wide.mean()
    return as_floats(spec.dtype, moved)
