# SPDX-License-Identifier: Apache-2.0
"""The file to read first: `port()` is capture, lower, run; a `Port` is called, verified, measured and saved."""

from __future__ import annotations

import dataclasses
import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from paritas import leftovers, store
from paritas.arguments import bound, flatten, nest
from paritas.caches import begun, variables
from paritas.components import Components, join
from paritas.errors import InputError, OriginalMissing, SizeError
from paritas.extras import require
from paritas.making import (
    NO_CACHE,
    arrays,
    build_options,
    check_device,
    dtype_of,
    examples_of,
    going_on,
    inputs_for,
    manifest_of,
    original_for,
    prepared,
    refuse_beside_components,
    refuse_free_sizes,
    restore,
    task_for,
    without_cache,
)
from paritas.options import BuildOptions
from paritas.others import Others
from paritas.printable import printable
from paritas.program import Artifact, Manifest, Note, Program, Source, TensorSpec
from paritas.pytree import build_output, has_sizes
from paritas.run.engine import about, lower
from paritas.run.engine import engine as find_engine
from paritas.run.results import check_finite, check_outputs
from paritas.run.session import Session
from paritas.run.values import check_feed, dynamic_sizes, framework_of, from_numpy

if TYPE_CHECKING:
    import torch

    from paritas.lower.result import Lowered
    from paritas.verify import Budget, ParityReport
    from paritas.verify.bisect.report import BisectReport

#: Called with the name of each stage as it begins: "capture", "lower", "run", ...
Progress = Callable[[str], None]


def port(
    source: str | os.PathLike[str] | torch.nn.Module,
    engine: str = "openvino",
    inputs: Any = None,
    dtype: Any = None,
    device: str = "",
    dynamic: bool | Mapping[str, Mapping[int, Any]] = True,
    mode: str = "graph",
    *,
    revision: str | None = None,
    subfolder: str = "",
    model_class: str | type | None = None,
    target: str = "cpu",
    weights: str | Mapping[str, Any] = "",
    task: str = "",
    ov_config: Mapping[str, Any] | None = None,
    check_finite: bool = False,
    progress: Progress | None = None,
) -> Port | Components[Port]:
    """Port a PyTorch model to another engine.

    source: a hub id, a local directory, a `PreTrainedModel`, or any `torch.nn.Module` (then `inputs` is required:
    example tensors by name of forward's parameters). engine: "openvino", "mindspore" or "torch". dtype: "float32",
    "bfloat16" or "float16", a torch dtype, or None for the model's own. device: where it runs and is verified; OpenVINO
    has "CPU", "GPU", "NPU" (with dynamic=False) and "AUTO". dynamic: which dimensions stay free: True for all that the
    model leaves free, or {"input_ids": {0: "batch"}}. mode: "graph" or "pynative", MindSpore only. target: "cpu" or
    "ascend", MindSpore only. weights: "int8" or "int4" to round the weights to so many bits, OpenVINO only; it is no
    longer the same model, and `verify` says by how much; {"format": "int4", "group_size": 64, "symmetric": True} says
    more, with `paritas[nncf]` also "awq" and others on a "dataset" (see `options.Weights`); "bf16", "fp16" only store
    them so. task: what the model is for, by optimum's name; it follows from the architecture where neither it nor
    `inputs` is given. "text-generation-with-past": a model that goes on with a cache; its inputs are the new tokens,
    and its OpenVINO file keeps the keys and values itself, as openvino-genai expects it. "text-generation": one call on
    all tokens, without a cache, as a training has it. Tasks that need several graphs return `Components`, a port for
    each. ov_config: OpenVINO's own properties, as {"NUM_STREAMS": 2}; what changes results is kept in the port.
    check_finite: refuse inputs that hold NaN or infinities, of which engines may make ordinary numbers.

    Raises `ExtraMissing` without torch and transformers, `UnknownEngine`, `EngineMissing`, `UnknownMode`,
    `DeviceMissing`, `InputError` for a dtype, `SourceError`, `InputsNeeded`, `CaptureError`, `FrozenDimension`,
    `UnsupportedOps`, `LoweringError` or `EngineError`; nothing is left behind.
    """
    require("port", "paritas.port()")
    from paritas.capture import capture
    from paritas.capture.components import TASKS
    from paritas.capture.source import resolve

    tell = progress or (lambda stage: None)
    # Before any work: the engine may not be installed.
    options, notes = build_options(
        engine, dtype=dtype, mode=mode, target=target, weights=weights, device=device, ov_config=ov_config
    )
    refuse_free_sizes(options, dynamic, task)

    tell("load")
    original, origin = resolve(
        source,
        revision=revision,
        subfolder=subfolder,
        model_class=model_class,
        dtype=about(engine).capture_dtype(options.dtype),
        notes=notes,
        in_files=about(engine).streams_weights,
    )

    wanted = task or task_for(original, about(engine), inputs, dynamic)
    refuse_beside_components(wanted, inputs, options)

    def made(example: Any, *, exact: bool = False) -> Port:
        tell("capture")
        ported = port_program(
            capture(original, example, dynamic=dynamic, source=origin, exact=exact),
            original,
            options,
            notes=notes,
            progress=progress,
        )
        ported.check_finite = check_finite
        return ported

    try:
        if wanted in TASKS:
            whole = dataclasses.replace(origin, task=wanted)
            return port_components(original, whole, options, notes=notes, progress=progress, check_finite=check_finite)
        first = going_on(wanted, made(inputs_for(original, wanted, inputs)))
    except NO_CACHE as error:
        if task or not wanted:
            raise
        notes.append(without_cache(error))
        first = made(None)
    first.others = Others(first, functools.partial(made, exact=True))
    return first


def port_components(
    original: torch.nn.Module,
    source: Source,
    options: BuildOptions,
    *,
    notes: Sequence[Note] = (),
    progress: Progress | None = None,
    check_finite: bool = False,
) -> Components[Port]:
    """A port of each network that a model is taken apart into for the task of `source`."""
    from paritas.capture import capture
    from paritas.capture.components import TASKS

    tell = progress or (lambda stage: None)
    ports = {}
    for name, part in TASKS[source.task](original).items():
        tell("capture")
        program = capture(part.module, part.inputs(), source=dataclasses.replace(source, component=name))
        ports[name] = port_program(program, part.module, options, notes=notes, progress=progress, whole=original)
        ports[name].check_finite = check_finite
    return join(ports, source.task)


def port_program(
    program: Program,
    original: torch.nn.Module,
    options: BuildOptions,
    *,
    notes: Sequence[Note] = (),
    progress: Progress | None = None,
    keep_example: bool = True,
    whole: torch.nn.Module | None = None,
) -> Port:
    """Lower and run what was captured: the second half of `port`.

    whole: the model of which `original` is a component.
    """
    given = dataclasses.replace(options, dtype=options.dtype or dtype_of(program))

    def write(directory: Path) -> Lowered:
        return lower(program, directory, given)

    return assemble(
        program, original, options, write, notes=notes, progress=progress, keep_example=keep_example, whole=whole
    )


def assemble(
    program: Program,
    original: torch.nn.Module,
    options: BuildOptions,
    write: Callable[[Path], Lowered],
    *,
    notes: Sequence[Note] = (),
    progress: Progress | None = None,
    keep_example: bool = True,
    whole: torch.nn.Module | None = None,
) -> Port:
    """A port of what `write` puts into a new directory, which is removed if anything fails.

    keep_example: whether what the program was captured with is kept with the port, so that a loaded one can be
    verified on it. whole: the model whose configuration it has, if that is not `original`.
    """
    tell, directory = progress or (lambda stage: None), leftovers.make()
    try:
        from paritas.capture import source, stored

        tell("lower")
        lowered = write(directory)
        stored.release()
        told = source.copy_configuration(whole or original, program.source, directory)
        notes = (*notes, *told, *about(options.engine).beside(program, directory))
        if keep_example:
            from paritas.verify.inputs import example

            notes = (*notes, *example.write(directory, arrays(program), program.source))
        manifest = manifest_of(program, lowered, options, notes=notes)
        artifact = Artifact(directory, manifest, own=True, theirs=lowered.theirs)
        tell("run")
        session = find_engine(options.engine).start(
            program, artifact, device=options.device, config=dict(options.config)
        )
    except BaseException:
        leftovers.remove(directory)
        raise
    return Port(artifact, session, program=program, original=original, temporary=True)


def load(
    directory: str | os.PathLike[str],
    engine: str | None = None,
    device: str = "",
    *,
    mode: str = "",
    precision: str = "",
    ov_config: Mapping[str, Any] | None = None,
    allow_modified: bool = False,
    check_finite: bool = False,
) -> Port | Components[Port]:
    """A port that was saved, or several components. Needs neither torch nor transformers, unless its engine is torch.

    Every file is checked against `port.json`, and a generated module against the generator's grammar,
    before anything is executed. device, ov_config: as in `port`; properties that change what is computed are those with
    which the port was verified. Raises `PortError`, `TamperedPort`, `EngineMissing`, `DeviceMissing` or `EngineError`.
    """
    check_device(directory, device, allow_modified)
    found = store.read_any(directory, allow_modified=allow_modified, hold=True)
    how = {"mode": mode, "precision": precision, "device": device, "ov_config": ov_config}
    if isinstance(found, Artifact):
        return _loaded(found, directory, engine, how, check_finite)
    ports = {name: _loaded(artifact, directory, engine, how, check_finite) for name, artifact in found.each().items()}
    found.held.clear()
    return Components(ports, found)


def load_port(directory: str | os.PathLike[str], *, allow_modified: bool = False, **how: Any) -> Port:
    """As `load`, for what has to be one graph. Raises `PortError` for several components.

    how: `mode`, `precision`, `device`, `ov_config`.
    """
    check_device(directory, how.get("device", ""), allow_modified)
    artifact = store.read(directory, allow_modified=allow_modified, hold=True)
    return _loaded(artifact, directory, None, how, False)


def _loaded(
    artifact: Artifact,
    directory: str | os.PathLike[str],
    engine: str | None,
    how: Mapping[str, Any],
    check_finite: bool,
) -> Port:
    if engine is not None and about(engine).name != artifact.manifest.engine:
        from paritas.errors import PortError

        raise PortError(
            f"{directory} is a port to {artifact.manifest.engine}, not to {engine}. Port the original again: "
            f"paritas port {artifact.manifest.source.id or 'SOURCE'} --engine {engine}"
        )
    runtime = find_engine(artifact.manifest.engine)
    device, mode = how.get("device", ""), how.get("mode", "")
    config = runtime.configured(how.get("ov_config") or {}, device)
    session = runtime.load(artifact, mode=mode, precision=how.get("precision", ""), device=device, config=config)
    artifact.held.clear()
    return Port(artifact, session, mode=mode, check_finite=check_finite)


class Port:
    """A model on another engine: called like the original, and able to prove that it is the same."""

    def __init__(
        self,
        artifact: Artifact,
        session: Session,
        *,
        program: Program | None = None,
        original: torch.nn.Module | None = None,
        temporary: bool = False,
        mode: str = "",
        check_finite: bool = False,
    ) -> None:
        self.artifact, self.session = artifact, session
        self.check_finite = check_finite
        self._captured_again = False  # on its example if it keeps one, else on inputs that were made up
        self.mode = mode or artifact.manifest.mode
        self._program, self._original = program, original
        self._sized = has_sizes(artifact.manifest.structure)
        self._growing = variables(artifact.manifest)
        self.others: Others[Port] | None = None  # for sizes with which the model's code goes another way
        #: What the last `verify` found; `save` writes it beside the port's files.
        self.report: ParityReport | None = None
        if temporary:
            weakref.finalize(self, leftovers.remove, artifact.directory)

    @property
    def manifest(self) -> Manifest:
        """What `port.json` says."""
        return self.artifact.manifest

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and dimensions of each input, in the order of forward's parameters."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and dimensions of each output, flat."""
        return self.manifest.outputs

    @property
    def notes(self) -> tuple[Note, ...]:
        """What had to be done otherwise than was asked for: every report repeats them."""
        return (*self.manifest.notes, *(self.others.notes if self.others else ()))

    @property
    def device(self) -> str:
        """Where it runs, as its engine calls it: "CPU"."""
        return str(getattr(self.session, "device", "CPU"))

    def __repr__(self) -> str:
        mode = f", {self.mode} mode" if self.mode else ""
        name = self.manifest.source.name or self.manifest.source.model_class.rpartition(".")[-1]
        return printable(f"<Port of {name} to {self.manifest.engine}, {self.session.precision}{mode}>")

    def _repr_html_(self) -> str:
        """What a notebook shows: what goes in and out, the notes, and what the last verification said."""
        from paritas.verify.report.notebook import port_cell

        return printable(port_cell(self, self.report))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} holds an engine's memory, so it can be neither copied nor pickled. "
            "Write it, port.save(DIR), and open it there or in the other process, paritas.load(DIR). For another "
            "precision or engine: port.to(ENGINE)"
        )

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Run the port. Arguments as the original's forward takes them, in NumPy, torch or MindSpore.

        For sizes with which the original's code goes another way, another port is made once, with a note, if this one
        was made of an original in this process; a port that was loaded refuses them.
        Returns the original's output class with tensors of the caller's framework. Raises `InputError`
        for unknown, missing or unfitting inputs, for NaN and infinities where `check_finite` is set, and
        `EngineError` if the engine fails or returns other shapes or dtypes than `port.json` says.
        """
        manifest = self.manifest
        if args:
            inputs = bound(args, inputs, manifest)
        given = flatten(inputs, manifest.nesting) if manifest.nesting else inputs
        framework = framework_of(given)
        try:
            feed = self.feed(given)
        except SizeError as refused:
            if self.others is None:
                raise
            return self.others.port(given, refused)(**inputs)
        flat = self.run(feed)
        tensors = [from_numpy(value, framework, spec.dtype) for value, spec in zip(flat, self.outputs, strict=True)]
        sizes = dynamic_sizes(self.inputs, feed) if self._sized else None
        return build_output(manifest.structure, tensors, framework, sizes)

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The flat outputs for what `feed` returns, after checking that they are what `port.json` says of them."""
        flat = self.session.run(feed)
        check_outputs(flat, self.outputs, self.inputs, feed)
        return flat

    def feed(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the engine gets of a call's arguments: one array per input, checked, prepared ones computed."""
        manifest = self.manifest
        given = flatten(inputs, manifest.nesting)
        if self._growing:
            given |= begun(manifest, given)
        if self._original is not None and any(given.get(name) is None for name in manifest.prepared):
            given |= prepared(self._original, manifest, given)
        feed = check_feed(
            given,
            self.inputs,
            manifest.constants,
            manifest.limits,
            manifest.signature,
            manifest.guards,
            self._growing,
        )
        if self.check_finite:
            check_finite(feed)
        return feed

    def generate(self, inputs: Any = None, **options: Any) -> Any:
        """The text that follows a text, or each of a list; or token ids [batch, tokens] with those that follow.

        options: as transformers' `generate` takes them, whose loops these are; without it, one text greedily or by
        sampling. Raises `InputError` for a model that does not generate, and `ExtraMissing`.
        """
        from paritas.texts import generate

        return generate(self, inputs, options)

    def verify(
        self,
        inputs: Any = None,
        level: str = "modules",
        *,
        original: torch.nn.Module | None = None,
        tolerance: Any = None,
        seed: int = 0,
        search: Budget | float = 0.0,
        progress: Callable[[str], None] | None = None,
        gradients: bool = False,
        step: str = "",
        text: str | Sequence[int] | None = None,
    ) -> ParityReport:
        """Compare with the original, and with the truth: the same graph in float64.

        inputs: what to compare on, one mapping or several; generated if None (several shapes, padding, the
        edges of masks). level: "outputs"; "modules" for the table of where the error arises; "nodes" to compute
        every node by itself from the original's inputs, so that the guilty ones are named. original: needed for a
        loaded port whose original was a module in memory (`OriginalMissing` says so). search: for so many seconds,
        or a `paritas.verify.Budget` of tries, look for the inputs on which the port is furthest from its original;
        the worst are kept in the port's directory, and verified on ever after. gradients: compare backwards too,
        parameter by parameter and node by node; `InputError` for an engine that has none. step: of a port that goes
        on with a cache, look into one step of a generation alone, as "left padding, step 3". text: of a language
        model, a text, or its tokens, on which perplexity and most probable tokens are compared.
        """
        require("port", "port.verify()")
        from paritas.verify.of_port import verify_port

        self.report = verify_port(
            self,
            inputs,
            level=level,
            original=original,
            tolerance=tolerance,
            seed=seed,
            search=search,
            progress=progress,
            gradients=gradients,
            step=step,
            given_text=text,
        )
        return self.report

    def bisect(
        self,
        inputs: Any = None,
        out: str | os.PathLike[str] | None = None,
        *,
        original: torch.nn.Module | None = None,
        seconds: float = 600.0,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> BisectReport:
        """The smallest part of this port that is wrong by itself, fed with the original's values.

        For divergences that appear only in combination, and for crashes. out: a directory for the part as a script
        that runs without Paritas; None for no script. seconds: how long to search. inputs, original: as in `verify`.
        """
        require("port", "port.bisect()")
        from paritas.verify.bisect.of_port import bisect_port

        place = None if out is None else Path(out)
        return bisect_port(self, inputs, out=place, original=original, seconds=seconds, seed=seed, progress=progress)

    def bench(self, inputs: Any = None, *, seconds: float = 10.0, baseline: bool = True, **options: Any) -> Any:
        """Time per call against PyTorch eager, as a ratio: each in a process of its own, alternately, medians."""
        from paritas.bench import race

        return race.bench_port(self, inputs, seconds=seconds, baseline=baseline, **options)

    def to(
        self,
        engine: str,
        *,
        dtype: Any = None,
        mode: str = "graph",
        device: str = "",
        target: str = "cpu",
        weights: str | Mapping[str, Any] = "",
        ov_config: Mapping[str, Any] | None = None,
    ) -> Port:
        """The same capture on another engine, or in another precision of OpenVINO's: nothing is captured again."""
        require("port", "port.to()")
        options, notes = build_options(
            engine, dtype=dtype, mode=mode, target=target, weights=weights, device=device, ov_config=ov_config
        )
        program, original = self.program(), self.original()
        if not about(engine).captured_in and options.dtype not in ("", dtype_of(program)):
            raise InputError(
                f"{engine} computes in the dtype of the capture, {dtype_of(program)}. Port the original again: "
                f"paritas.port(..., engine={engine!r}, dtype={options.dtype!r})"
            )
        made = port_program(program, original, options, notes=notes)
        made.check_finite = self.check_finite
        return made

    def save(self, directory: str | os.PathLike[str], *, force: bool = False) -> Port:
        """Write the port to a directory, whole or not at all, and what the last `verify` found. Raises `PortError`.

        Ports that were made beside it for other sizes are not written, which a note in `port.json` says.
        """
        artifact = self.artifact
        if self.others and self.others.ports:
            text = (
                f"{len(self.others.ports)} other ports, made for sizes with which the model's code goes another way, "
                "are not kept: where this one is loaded, such sizes are refused"
            )
            notes = (*artifact.manifest.notes, Note("run", text))
            artifact = dataclasses.replace(artifact, manifest=dataclasses.replace(artifact.manifest, notes=notes))
        store.write(artifact, directory, force=force)
        if self.report is not None:
            from paritas.verify.report.files import attach

            attach(directory, self.report)
        return self

    def close(self) -> None:
        """Release the engine's memory."""
        self.session.close()
        for other in self.others.ports if self.others else ():
            other.close()

    # --- the original, loaded again if need be ---

    def original(self, given: torch.nn.Module | None = None, *, in_files: bool = False) -> torch.nn.Module:
        """The original module. Raises `OriginalMissing` if it was in memory only and is not `given`.

        in_files: its weights may stay in a large checkpoint's files, for who computes inside `streaming.reading`.
        """
        require("port", "The original of a port")
        self._original = original_for(self.manifest, given, self._original)
        if not in_files:
            restore(self._original, self._program)
        return self._original

    def program(self, *, in_files: bool = False) -> Program:
        """The captured graph, captured again for a port that was loaded. in_files: as for `original`."""
        if self._program is None:
            require("port", "Capturing the original of a port")
            from paritas.capture import capture

            if self.manifest.source.kind == "module" and self._original is None:
                raise OriginalMissing("This port was made of a module in memory: pass verify(original=...).")
            self._captured_again = True
            examples = {s.name: example for s, example in zip(self.inputs, examples_of(self), strict=True)}
            self._program = capture(
                self.original(in_files=in_files),
                {**nest(examples, self.manifest.nesting), **self.manifest.constants},
                source=self.manifest.source,
            )
        elif self._original is not None:
            self.original(in_files=in_files)  # its weights too
        return self._program

    def examples(self) -> dict[str, np.ndarray]:
        """What this port was made with, an array per input; {} where it keeps no example."""
        if self._program is not None and self._program.examples and not self._captured_again:
            return arrays(self._program)
        from paritas.verify.inputs import example

        return example.read(self.artifact, self.inputs)
