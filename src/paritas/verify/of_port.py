# SPDX-License-Identifier: Apache-2.0
"""`Port.verify`: what `paritas.verify` compares, gathered from a port and its original."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from paritas.arguments import invoke, nest
from paritas.caches import is_state, keeps_inside, new_tokens, remembered, variables
from paritas.errors import EngineError, InputError, ParitasError
from paritas.pytree import describe_output
from paritas.run.engine import about, all_about
from paritas.run.session import Differentiates, runs_on
from paritas.run.values import to_numpy
from paritas.verify import (
    Budget,
    Case,
    Environment,
    Found,
    NodeInfo,
    ParityReport,
    Space,
    generate,
    generation,
    text,
    verify,
)
from paritas.verify.gradients import Differentiate, Flow, compare_backwards
from paritas.verify.inputs import odd, regression
from paritas.verify.inputs.search import Judge
from paritas.verify.inputs.search import search as look
from paritas.verify.inputs.sizes import size_ranges, ways
from paritas.verify.inputs.suspects import suspects
from paritas.verify.report.rows import TextCost
from paritas.verify.subject import Subject
from paritas.verify.tolerance import HALF

if TYPE_CHECKING:
    import torch

    from paritas.program import Manifest, Program

#: Bytes of outputs of which is seen whether a later call writes into them.
_KEPT = 1 << 26

#: The case of what a port was made with.
EXAMPLE = "the example"

#: What says in which order values are: among equal ones, any order is right.
_ORDERS = {
    "aten.sort.default[1]", "aten.sort.stable[1]", "aten.topk.default[1]", "aten.argsort.default",
    "aten.argsort.stable",
}  # fmt: skip


def verify_port(
    port: Subject,
    inputs: Any,
    *,
    level: str,
    original: torch.nn.Module | None,
    tolerance: Any,
    seed: int,
    progress: Callable[[str], None] | None,
    search: Budget | float = 0.0,
    gradients: bool = False,
    step: str = "",
    given_text: Any = None,
) -> ParityReport:
    """See `Port.verify`."""
    from paritas.run.torch.session import TorchSession

    budget = _budget(search)
    if gradients:
        check_differentiates(port.manifest.engine)
    # Gradients are asked for of weights: those are in memory.
    module = port.original(original, in_files=not gradients)
    manifest = port.manifest
    notes = [str(note) for note in port.notes]
    if port.others and port.others.ports:
        notes.append("verify: only the first port was compared; verify each of port.others.ports as well")
    program = port.program(in_files=not gradients)
    truth, reference = TorchSession(program, "float64"), TorchSession(program, "float32")
    # At half precision the original itself rounds: its float32 self is compared, its half self is the yardstick.
    half = port.session.precision in HALF
    full = in_precision(module, "float32")
    yardstick = eager(port, in_precision(module, port.session.precision)) if half else None
    exact = None if half else exactly(port, module)
    played = generation.Played()
    few = bool(program.stored) and inputs is None
    if step:
        inputs = step_of(port, step, inputs, seed)
    elif keeps_inside(manifest) and inputs is None:
        players = generation.Players(
            manifest, port.session, _Door(port), eager(port, full), truth, reference, yardstick, full, exact
        )
        played = generation.compare_generation(
            players, port.examples(), tolerance=tolerance, seed=seed, progress=progress, few=few
        )
    asked = given_text is not None or (manifest.settings.get("weights") and inputs is None)
    cost = _cost(port, eager(port, full), given_text, seed, notes, progress) if asked else None
    if progress is not None:
        progress("inputs to compare on")
    cases, remarks = cases_of(port, inputs, eager(port, full), seed, few=few)
    cases = [dataclasses.replace(case, name=step) for case in cases] if step else cases
    notes += [*remarks, *played.notes]
    if few:
        notes.append(
            "verify: each call reads all weights from their files, so it was compared on few generated inputs, and on "
            "no odd values and sizes: verify(inputs=...) compares on what it is given"
        )
    space = Space(
        manifest.inputs,
        size_ranges(manifest.limits),
        [case for case in cases if not case.edge and case.name != EXAMPLE] or [case for case in cases if not case.edge],
        frozenset(manifest.prepared),
        resize=not manifest.prepared,
        ways=ways(manifest),
    )
    if inputs is not None:
        space = _around_what_was_given(space)
    elif remarks:
        space = _only_floats(space)
    found: list[Found] = []

    def seek(judge: Judge) -> Found:
        assert budget is not None
        found.append(look(judge, space, budget, seed=seed, progress=progress))
        return found[0]

    report = verify(
        _Door(port),
        eager(port, full),
        cases,
        outputs=manifest.outputs,
        environment=Environment.here(
            manifest.engine,
            package=about(manifest.engine).package,
            mode=port.mode,
            dtype=manifest.dtype,
            device=runs_on(port.session),
        ),
        level=level,
        inside=port.session,
        truth=truth,
        reference=reference,
        yardstick=yardstick,
        exact=exact,
        tolerance=tolerance,
        modules=program.modules,
        nodes=nodes_of(program),
        half=TorchSession(program, port.session.precision) if half else None,
        origin=program.origin,
        subject=manifest.source.name or manifest.source.model_class,
        notes=notes,
        progress=progress,
        seek=seek if budget is not None else None,
        look_at=played.first,
    )
    report = dataclasses.replace(report, text=cost)
    options = ["--original SOURCE"] if manifest.source.kind == "module" else []
    options += [f"--step {shlex.quote(step)}"] if step else []
    report = dataclasses.replace(report, again=" ".join(options))
    report = dataclasses.replace(report, generation=played.steps, unseen={**report.unseen, **played.unseen})
    if found and found[0].case is not None:
        port.artifact, report = regression.keep(port.artifact, found[0].case, report)
    if not gradients:
        return report
    if progress is not None:
        progress("gradients")
    return dataclasses.replace(report, **_backwards(port, module, cases, report, seed))


def step_of(port: Subject, name: str, inputs: Any = None, seed: int = 0) -> dict[str, np.ndarray]:
    """The inputs of a step of a generation, with what the original remembers. `InputError` where there is none."""
    if inputs is not None:
        raise InputError(f"step={name!r} has inputs of its own: leave out inputs, or the step.")
    if not keeps_inside(port.manifest):
        raise InputError(f"step={name!r} is for ports that go on with a cache; this one does not.")
    full = in_precision(port.original(in_files=True), "float32")
    return generation.step(port.manifest, eager(port, full), port.examples(), name, seed)


def _cost(
    port: Subject,
    original: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]],
    given: Any,
    seed: int,
    notes: list[str],
    progress: Callable[[str], None] | None,
) -> TextCost | None:
    """What the port costs on the text that was given, else on one that the original writes. For a model that reads
    no text: None, or `InputError` if one was given."""
    try:
        readers = text.Readers(port, original)
        if given is None:
            if progress is not None:
                progress("a text that the original writes")
            written = text.FEW_WRITTEN if port.program(in_files=True).stored else text.WRITTEN
            return text.compare_text(readers, [text.sampled(readers, seed, written)], text.SAMPLED, progress)
        windows = text.windows_of(text.tokens_of(port, given), readers.largest)
        return text.compare_text(readers, windows, text.GIVEN, progress)
    except ParitasError as error:
        if given is not None and isinstance(error, InputError):
            raise
        notes.append(f"verify: no text was read: {str(error).rstrip('.')}")
        return None


class _Door:
    """The port's session, entered as a caller enters it: what is refused there, or is wrong on the way out, counts."""

    def __init__(self, port: Subject) -> None:
        self._port, self.precision = port, port.session.precision
        self._before: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        given = {name: value.copy() for name, value in feed.items()}
        found = self._port.run(self._port.feed({**self._port.manifest.constants, **feed}))
        if any(value.tobytes() != feed[name].tobytes() for name, value in given.items()):
            raise EngineError("the engine writes into its inputs.")
        if any(value.tobytes() != copy.tobytes() for value, copy in self._before):
            raise EngineError("the engine writes into what it has returned from an earlier call.")
        small = sum(value.nbytes for value in found) < _KEPT
        self._before = [(value, value.copy()) for value in found] if small else []
        return found

    def close(self) -> None:
        self._port.session.close()


def _budget(search: Budget | float) -> Budget | None:
    if isinstance(search, Budget):
        return search
    return Budget(search) if search else None


def _only_floats(space: Space) -> Space:
    """Where the original takes none of the generated inputs: shapes and integers stay those of the capture."""
    whole = (spec.name for spec in space.specs if not spec.dtype.startswith(("float", "bfloat")))
    return dataclasses.replace(space, fixed=space.fixed.union(whole), resize=False)


def _around_what_was_given(space: Space) -> Space:
    """Shapes stay those that were given, and so do integers of which nobody knows how large they may be."""
    unknown = (s.name for s in space.specs if s.dtype.startswith(("int", "uint")) and s.high is None)
    kept = (name for name in unknown if not name.endswith("attention_mask"))
    return dataclasses.replace(space, fixed=space.fixed.union(kept), resize=False)


def check_differentiates(engine: str) -> None:
    """Raise `InputError` for an engine that has no gradients."""
    if not about(engine).differentiates:
        able = " and ".join(sorted(one.name for one in all_about() if one.differentiates))
        raise InputError(
            f"{engine} has no gradients, so there are none to compare; {able} have. Port the original to one of them: "
            f"paritas port SOURCE --engine mindspore"
        )


#: In which most can go wrong: padding in front of the tokens hides whole rows of a causal mask.
_TELLING = ("left padding", "right padding", "longer")


def _backwards(
    port: Subject, module: torch.nn.Module, cases: Sequence[Case], report: ParityReport, seed: int
) -> dict[str, Any]:
    """The fields of a report that say how the gradients compare, in one of the cases that PyTorch and the port ran."""
    from paritas.run.torch.gradients import differentiable, eager_gradients, weight_names
    from paritas.run.torch.session import TorchSession

    ran = {row.case for row in report.outputs if not row.edge}
    possible = {case.name: case for case in cases if case.name in ran}
    if not possible:
        return {"gradient_case": "none", "unseen_gradients": {"all gradients": "no case could be compared"}}
    name = next((name for name in _TELLING if name in possible), next(iter(possible)))
    program, manifest = port.program(), port.manifest
    names = weight_names(program)

    def original(precision: str) -> Differentiate:
        one = in_precision(module, precision)
        return lambda feed, cotangents: eager_gradients(one, feed, cotangents, manifest.nesting, manifest.constants)

    flow = Flow(
        parameters=tuple(dict.fromkeys(names.get(n, n) for n in sorted(program.trainable))),
        inputs=tuple(spec.name for spec in program.inputs if spec.dtype.startswith(("float", "bfloat"))),
        nodes=differentiable(program),
        names=names,
    )
    half = port.session.precision in HALF
    found = compare_backwards(
        cast("Differentiates", port.session),
        original("float32"),
        TorchSession(program, "float32"),
        TorchSession(program, "float64"),
        possible[name].feed,
        flow,
        nodes_of(program),
        case=name,
        yardstick=original(port.session.precision) if half else None,
        half=TorchSession(program, port.session.precision) if half else None,
        seed=seed,
    )
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}


#: Of what is generated, the cases of a model each call of which reads all of its weights from files.
_FEW = ("odd sizes", "left padding")


def cases_of(
    port: Subject,
    inputs: Any,
    original: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]],
    seed: int,
    *,
    few: bool = False,
) -> tuple[Sequence[Case], list[str]]:
    """What to compare on, and what must be said of it.

    What is given, else what is generated, else the example; and the inputs that a search has found before. few: where
    a call takes long, the example and two generated ones stand for all that are generated.
    """

    kept = regression.cases(port.artifact, port.feed)
    if inputs is not None:
        return [*_given(port, inputs), *kept], []
    known = port.examples()
    remarks = [] if known else ["verify: this port keeps no example, so it was compared on made-up inputs only"]
    example = [Case(EXAMPLE, known)] if known else []

    def accepted(case: Case) -> bool:
        try:
            original(case.feed)
        except Exception:  # noqa: BLE001 - in whichever way a model refuses its inputs
            return False
        return True

    specs = port.manifest.inputs
    seen = odd.ranges(specs, known)
    cases: Sequence[Case] = generate(
        specs, limits=size_ranges(port.manifest.limits), ways=ways(port.manifest), seed=seed, ranges=seen
    )
    if few:
        chosen = [case for case in cases if case.name in _FEW] or list(cases[:2])
        return [*example, *chosen, *_beginnings(port.manifest, chosen), *kept], remarks
    cases = [*cases, *_beginnings(port.manifest, cases)]
    # Keys and values are the model's own: nobody makes others of them.
    left = {*port.manifest.prepared, *variables(port.manifest)}
    base = odd.usual(cases, accepted)
    if base is not None or not known:
        more = odd.odd(specs, base, seed=seed, keep=left) if base is not None else ()
        off = suspects(
            specs,
            port.outputs,
            known or (base or cases[0]).feed,
            original,
            _Door(port).run,
            precision=port.session.precision,
            limits=size_ranges(port.manifest.limits),
            ways=ways(port.manifest),
            keep=left,
            resize=not port.manifest.prepared,
            seed=seed,
        )
        return [*example, *cases, *more, *off, *kept], remarks
    whole = [spec.name for spec in specs if not spec.dtype.startswith(("float", "bfloat"))]
    more = odd.odd(specs, example[0], seed=seed, keep={*whole, *left})
    return [*example, _other_floats(port, known, seed), *more, *kept], [
        "verify: the original takes none of the generated inputs, so it was compared on what it was "
        "captured with and on other values of its floats"
    ]


def _beginnings(manifest: Manifest, cases: Sequence[Case]) -> list[Case]:
    """What is generated, with nothing remembered yet: for a model that goes on with a cache."""
    new = new_tokens(manifest) if keeps_inside(manifest) else ""
    counts = [(spec.name, spec.dims.index(new)) for spec in manifest.inputs if new in spec.dims]
    if not counts:
        return []
    name, axis = counts[0]
    names = remembered(manifest)
    # A mask of an encoder's tokens is as long as what the encoder has returned.
    own = {name, *names}
    others = {
        dim for s in manifest.inputs if s.name not in own and not s.name.endswith("attention_mask") for dim in s.dims
    } - {new}

    def begun(case: Case) -> Case:
        feed = dict(case.feed)
        for spec in manifest.inputs:
            value = feed[spec.name]
            if spec.name in names:
                feed[spec.name] = np.zeros_like(value) if is_state(spec.name) else value[:, :, :0]
            elif spec.name.endswith("attention_mask") and spec.dims[1] not in others:
                feed[spec.name] = value[:, -feed[name].shape[axis] :]
        return dataclasses.replace(case, name=f"{case.name}, at the beginning", feed=feed)

    return [begun(case) for case in cases if not case.edge]


def nodes_of(program: Program) -> list[NodeInfo]:
    """The nodes that compute a tensor, in the graph's order."""
    import torch

    found = []
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        if ".empty" in str(node.target) or ".new_empty" in str(node.target):
            continue  # whatever was in memory
        of_tuple = node.target is operator.getitem
        maker: Any = node.args[0] if of_tuple else node
        target = f"{maker.target}[{node.args[1]}]" if of_tuple else str(node.target)
        ordered, dim = "", -1
        if target in _ORDERS:
            ordered = maker.args[0].name
            named = [a.name for a in maker.target._schema.arguments]
            given = {**dict(zip(named, maker.args, strict=False)), **maker.kwargs}
            dim = given.get("dim", -1)
        found.append(NodeInfo(node.name, target, program.origin(node.name), ordered, dim, _terms(node)))
    return found


def _terms(node: Any) -> int:
    """How many products are summed for an element of a node; 1 where it is no sum of products."""
    name = str(node.target).split(".")[1] if "." in str(node.target) else ""
    if name in ("linear", "addmm", "baddbmm"):
        return int(node.args[1].meta["val"].shape[-1])
    if name in ("mm", "bmm", "matmul"):
        return int(node.args[0].meta["val"].shape[-1])
    if name.startswith("conv"):
        return math.prod(int(size) for size in node.args[1].meta["val"].shape[1:])
    return 1


def eager(
    port: Subject, module: torch.nn.Module, dtype: torch.dtype | None = None
) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """The original as `verify` wants it: arrays by name in, flat arrays in the manifest's order out.

    dtype: that of its floats, where its weights, which may stay in their files, do not say so.
    """
    import torch

    from paritas.capture.state import plain_paths
    from paritas.capture.streaming import reading

    constants = port.manifest.constants
    own = dtype or next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
        tensors = {name: t.to(own) if t.is_floating_point() else t for name, t in tensors.items()}
        with torch.no_grad(), plain_paths(module), reading(dtype or torch.float32):
            flat, _ = describe_output(invoke(module, {**nest(tensors, port.manifest.nesting), **constants}))
        return [to_numpy("an output", value) for value in flat]

    return run


def exactly(port: Subject, module: torch.nn.Module) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """The original's own code in float64, also where it names another dtype: a copy, made when it is first asked.

    Weights that stay in their files stay there.
    """
    import torch

    from paritas.capture import streaming
    from paritas.run.torch.float64 import InFloat64

    @functools.cache
    def made() -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        return eager(port, streaming.in_double(module), torch.float64)

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        with InFloat64():
            return made()(feed)

    return run


def _other_floats(port: Subject, kept: Mapping[str, np.ndarray], seed: int) -> Case:
    """Inputs whose integers fit together (placeholders of images, grids of patches) cannot be made up, only kept."""
    generator = np.random.default_rng(seed)
    other = {
        name: value
        if value.dtype.kind != "f" or name in port.manifest.prepared
        else (generator.standard_normal(value.shape) * value.std() + value.mean()).astype(value.dtype)
        for name, value in kept.items()
    }
    return Case("other values", other)


def in_precision(module: torch.nn.Module, precision: str) -> torch.nn.Module:
    """The module in another dtype, as a copy; itself where it has that dtype already."""
    import torch

    from paritas.capture.streaming import in_half

    dtype = getattr(torch, precision)
    if all(p.dtype == dtype for p in module.parameters() if p.is_floating_point()):
        return module
    return in_half(module, dtype)


def _given(port: Subject, inputs: Any) -> Sequence[Case]:
    several = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    return [
        one if isinstance(one, Case) else Case(f"given {number}" if len(several) > 1 else "given", port.feed(one))
        for number, one in enumerate(several, 1)
    ]
