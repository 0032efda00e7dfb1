# SPDX-License-Identifier: Apache-2.0
"""A `Port`: called like its original, verified, measured and saved; and how one is made of what was captured."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from paritas import leftovers, store
from paritas.arguments import bound, flatten, nest
from paritas.caches import begun, variables
from paritas.errors import InputError, OriginalMissing, SizeError
from paritas.extras import require
from paritas.making import arrays, build_options, dtype_of, examples_of, manifest_of, original_for, prepared, restore
from paritas.options import BuildOptions
from paritas.others import Others
from paritas.printable import printable
from paritas.program import Artifact, Manifest, Note, Program, TensorSpec
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

    @property
    def cell(self) -> Any:
        """The generated `mindspore.nn.Cell`, whose parameters have the original's names, for MindSpore's own loops.

        Raises `InputError` for a port to another engine.
        """
        cell = getattr(self.session, "cell", None)
        if cell is None:
            raise InputError(f"A port to {self.manifest.engine} is no cell of MindSpore's.")
        return cell

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
        """Run the port.

        For sizes with which the original's code goes another way, another port is made once, with a note, if this one
        was made of an original in this process; a port that was loaded refuses them.

        Args:
            args: arguments as the original's forward takes them: arrays of NumPy, torch or MindSpore, with the dtypes
                and dimensions that `inputs` says.
            inputs: the same by name.

        Returns:
            The original's output class, with tensors of the caller's framework, dtypes and dimensions as `outputs`
            says.

        Raises:
            InputError: inputs are unknown, missing or do not fit, or hold NaN or infinities where `check_finite` is
                set.
            EngineError: the engine fails, or returns other shapes or dtypes than `port.json` says.
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
        """Go on with texts or tokens.

        Args:
            inputs: a text, a list of texts, or token ids, int64 [batch, tokens], in NumPy, torch or lists.
            options: as transformers' `generate` takes them, whose loops these are; where it is not installed, one
                text greedily or by sampling.

        Returns:
            The text that follows, or one for each of a list; of token ids, int64 [batch, all tokens] in the caller's
            framework.

        Raises:
            InputError: the model does not generate, or not with these options.
            ExtraMissing: what reads text, or transformers for what needs its loops, is not installed.
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
        train: int = 0,
        loss: Callable[..., torch.Tensor] | None = None,
    ) -> ParityReport:
        """Compare with the original, and with the truth: the same graph in float64.

        Args:
            inputs: what to compare on, one mapping or several, as a call takes them; generated if None (several
                shapes, padding, the edges of masks).
            level: "outputs"; "modules" for the table of where the error arises; "nodes" to compute every node by
                itself from the original's inputs, so that the guilty ones are named.
            original: needed for a loaded port whose original was a module in memory.
            tolerance: a `Tolerance` instead of that of the precision.
            seed: of the inputs that are generated.
            search: for so many seconds, or a `paritas.verify.Budget` of tries, look for the inputs on which the port
                is furthest from its original. The worst are kept in the port's directory, and verified on ever after.
            progress: called with what is done now.
            gradients: compare backwards too, parameter by parameter and node by node.
            step: of a port that goes on with a cache, look into one step of a generation alone, as "left padding,
                step 3".
            text: of a language model, a text, or its tokens, on which perplexity and most probable tokens are
                compared.
            train: of a port for training, how many steps to train it beside the original, from the same weights and
                on the same batches: `inputs`, or the example's own numbers in other orders.
            loss: of a port that was made with one, where it was loaded and `original` is given.

        Returns:
            The report, which is also kept as `report`.

        Raises:
            OriginalMissing: the original was in memory only, and is not given.
            InputError: inputs do not fit, or the engine has no gradients.
            ExtraMissing: torch or transformers are not installed.
        """
        require("port", "port.verify()")
        if train:
            from paritas.verify.of_training import verify_training

            self.report = verify_training(
                self, inputs, steps=train, original=original, loss=loss, seed=seed, progress=progress
            )
            return self.report
        self._refuse_training()
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

        For divergences that appear only in combination, and for crashes.

        Args:
            inputs: as in `verify`.
            out: a directory for the part as a script that runs without Paritas; None for no script.
            original: as in `verify`.
            seconds: how long to search.
            seed: as in `verify`.
            progress: called with what is done now.

        Returns:
            What was found: the nodes, how far each is off, and where the script is.

        Raises:
            OriginalMissing, InputError, ExtraMissing: as in `verify`.
        """
        require("port", "port.bisect()")
        self._refuse_training()
        from paritas.verify.bisect.of_port import bisect_port

        place = None if out is None else Path(out)
        return bisect_port(self, inputs, out=place, original=original, seconds=seconds, seed=seed, progress=progress)

    def bench(self, inputs: Any = None, *, seconds: float = 10.0, baseline: bool = True, **options: Any) -> Any:
        """Time per call against PyTorch eager, as a ratio: each in a process of its own, alternately, medians.

        Args:
            inputs: what is called with; None for what the port was made with.
            seconds: how long to measure.
            baseline: whether PyTorch is measured too.
            options: as `paritas.bench.race.bench_port` takes them.

        Returns:
            The ratio, with the medians it is of.
        """
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
        """The same capture on another engine, or in another precision of OpenVINO's: nothing is captured again.

        Args: as those of `paritas.port`.

        Raises:
            OriginalMissing: the port was loaded, and its original was in memory only.
            InputError: the engine computes in the dtype of the capture alone, and another is asked for.
            UnsupportedOps, LoweringError, EngineError: as `paritas.port`.
        """
        require("port", "port.to()")
        options, notes = build_options(
            engine, dtype=dtype, mode=mode, target=target, weights=weights, device=device, ov_config=ov_config
        )
        in_files = about(engine).streams_weights
        program, original = self.program(in_files=in_files), self.original(in_files=in_files)
        if not about(engine).captured_in and options.dtype not in ("", dtype_of(program)):
            raise InputError(
                f"{engine} computes in the dtype of the capture, {dtype_of(program)}. Port the original again: "
                f"paritas.port(..., engine={engine!r}, dtype={options.dtype!r})"
            )
        made = port_program(program, original, options, notes=notes)
        made.check_finite = self.check_finite
        return made

    def save(self, directory: str | os.PathLike[str], *, force: bool = False) -> Port:
        """Write the port to a directory, whole or not at all, and what the last `verify` found.

        Ports that were made beside it for other sizes are not written, which a note in `port.json` says.

        Args:
            directory: where to; made if need be.
            force: replace a port of which files were added or edited. Anything else that exists is never replaced.

        Returns:
            This port.

        Raises:
            PortError: something is in the way, or cannot be written.
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

    def _refuse_training(self) -> None:
        """Raise `InputError` for a port that draws numbers of its own: there is nothing to compare them with."""
        if self.manifest.settings.get("train"):
            raise InputError(
                "This port is for training: it draws dropout itself, so that its outputs cannot be compared with "
                "PyTorch's. Train it beside the original, which draws for both: verify(train=20), paritas verify DIR "
                "--train 20. A port of the model without train=True is verified as any other, with its gradients."
            )

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
            from paritas.capture.training import in_training

            if self.manifest.source.kind == "module" and self._original is None:
                raise OriginalMissing("This port was made of a module in memory: pass verify(original=...).")
            self._captured_again = True
            examples = {s.name: example for s, example in zip(self.inputs, examples_of(self), strict=True)}
            train, original = bool(self.manifest.settings.get("train")), self.original(in_files=in_files)
            halves = str(self.manifest.settings.get("autocast", ""))
            with in_training(original, None, halves) if train else contextlib.nullcontext():
                self._program = capture(
                    original,
                    {**nest(examples, self.manifest.nesting), **self.manifest.constants},
                    source=self.manifest.source,
                    train=train,
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
