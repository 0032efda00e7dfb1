# SPDX-License-Identifier: Apache-2.0
"""`Port.bisect`: the smallest part of a port that is wrong by itself, and scripts for an engine's bug tracker."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.errors import InputError, LoweringError, ParitasError, UnsupportedOps, first_line
from paritas.program import Origin
from paritas.run.engine import about
from paritas.run.script import RESERVED, Side, ToWrite
from paritas.run.session import Cuts, runs_on
from paritas.run.torch.part import Part, Recorded, record
from paritas.run.torch.session import TorchSession
from paritas.verify import Case, Environment, NodeInfo, ParityReport
from paritas.verify.bisect.reduce import Reduction, search
from paritas.verify.bisect.report import BisectReport, PartNode, ScriptRow
from paritas.verify.bisect.script import Script, own_tensors, versions_of, write_script
from paritas.verify.bisect.script_torch import Identifiers
from paritas.verify.bisect.subprogram import LoweredAgain
from paritas.verify.bisect.trial import RULE, Compute, Laboratory, Outcome
from paritas.verify.nodes import row_of
from paritas.verify.of_port import cases_of, eager, in_precision, nodes_of, step_of
from paritas.verify.subject import Subject

if TYPE_CHECKING:
    import torch

    from paritas.program import Program

#: Writes a part as a script's side of an engine.
Write = Callable[[ToWrite], Side]

#: Guilty nodes that get a script each.
SCRIPTS = 10

_AGAIN = "lowered again with the port's weights,{mode} with the sizes of the case"


def bisect_port(
    port: Subject,
    inputs: Any,
    *,
    out: Path | None,
    original: torch.nn.Module | None,
    seconds: float,
    seed: int,
    progress: Callable[[str], None] | None,
) -> BisectReport:
    """See `Port.bisect`."""
    tell = progress or (lambda text: None)
    _refuse_port(out)
    began = time.monotonic()
    subject = _Bisected(port, original)
    cases, notes = cases_of(port, inputs, eager(port, in_precision(port.original(), "float32")), seed)
    report = BisectReport("clean", subject.environment, RULE, subject=subject.name, notes=tuple(notes))
    for case in cases:
        tell(case.name)
        try:
            recorded = record(subject.program, case.feed)
        except ParitasError as error:
            report = _noted(report, f'case "{case.name}": the reference refuses it: {error}')
            continue
        whole = subject.whole(recorded)
        if whole.kind in ("diverges", "crashes"):
            break
    else:
        return report
    report = dataclasses.replace(report, verdict="lost", kind=whole.kind, case=case.name, said=str(whole))
    for method, lab in subject.laboratories(recorded):
        if not lab.borders:
            report = _noted(report, f"{method}: no node has a tensor of its own")
            continue
        if whole.kind == "crashes" and subject.runs_all(method):
            report = _noted(report, f"{method}: these all run whatever the part is, so a crash has no place")
            continue
        left = seconds - (time.monotonic() - began)
        found = search(lab.borders, lab.attempt, seconds=left, progress=tell, wanted=whole.kind)
        if found.found:
            tell("script")
            return _found(report, subject, method, lab, found, out, time.monotonic() - began)
        report = _noted(report, f"{method}: the whole {found.whole}")
    return report


def write_scripts(
    port: Subject, report: ParityReport, inputs: Any, out: Path, *, seed: int = 0
) -> tuple[ScriptRow, ...]:
    """A script for each node that `report` found guilty, as many as `SCRIPTS`; the last row says how many are left.

    inputs, seed: those that `report` was made with. Raises `InputError` for a directory that is a port.
    """
    _refuse_port(out)
    if not report.guilty:
        return ()
    subject = _Bisected(port, None)
    cases, _ = cases_of(port, inputs, eager(port, in_precision(port.original(), "float32")), seed)
    known = {case.name: case for case in cases}
    name = report.module_case
    case = known[name] if name in known else Case(name, step_of(port, name, inputs, seed))
    recorded = record(subject.program, case.feed)
    _, lab = next(subject.laboratories(recorded))
    rows = []
    for guilty in report.guilty[:SCRIPTS]:
        if guilty.node not in lab.borders:
            rows.append(ScriptRow(guilty.node, doubt="the engine cannot be cut there"))
            continue
        outcome = lab.attempt([guilty.node])
        if outcome.kind in ("diverges", "crashes"):
            rows.append(subject.script(lab, [guilty.node], outcome, out))
        else:
            rows.append(ScriptRow(guilty.node, doubt=f"lowered again it {outcome}. {subject.edited()}".rstrip()))
    if left := len(report.guilty) - SCRIPTS:
        rows += [ScriptRow(f"{left} more", doubt=f"only the first {SCRIPTS} get one")] if left > 0 else []
    return tuple(rows)


def _found(
    report: BisectReport,
    subject: _Bisected,
    method: str,
    lab: Laboratory,
    found: Reduction,
    out: Path | None,
    seconds: float,
) -> BisectReport:
    infos = [lab.infos[name] for name in found.nodes]
    if subject.edited():
        report = _noted(report, subject.edited())
    if left := [name for name in lab.borders if name not in set(found.nodes)]:
        rest = lab.attempt(left)
        if rest.kind == found.whole.kind:
            more = f"with the part computed by PyTorch, the rest still {rest}: there is more to find"
            report = _noted(report, f"{more} (paritas verify --level nodes)")
    nodes = [
        PartNode(i.name, i.target, i.origin.module, i.origin.module_class, str(i.origin) if i.origin.file else "")
        for i in infos
    ]
    return dataclasses.replace(
        report,
        verdict="found",
        method=method,
        of=len(lab.borders),
        nodes=tuple(nodes),
        outputs=found.outcome.rows,
        reason=str(found.outcome),
        minimal=found.minimal,
        tries=dict(found.tries),
        seconds=seconds,
        script=subject.script(lab, found.nodes, found.outcome, out) if out is not None else None,
    )


class _Bisected:
    """A port, its captured graph, and the ways in which parts of it can be computed."""

    def __init__(self, port: Subject, original: torch.nn.Module | None) -> None:
        port.original(original)
        self.port, self.session = port, port.session
        self.engine = about(port.manifest.engine)
        self.program: Program = port.program()
        if self.engine.needs_static_sizes:
            from paritas.capture.specialize import specialized

            self.program = specialized(self.program)
        self.infos = {info.name: info for info in nodes_of(self.program)}
        source = port.manifest.source
        self.name = source.name or source.model_class
        self.environment = dataclasses.replace(
            Environment.here(
                self.engine.name,
                package=self.engine.package,
                mode=port.mode,
                dtype=port.manifest.dtype,
                device=runs_on(port.session),
            ),
            precision=self.session.precision,
        )
        self._again: LoweredAgain | None = None

    @property
    def again(self) -> LoweredAgain:
        if self._again is None:
            self._again = LoweredAgain(self.program, self.port.artifact, self.port.mode)
        return self._again

    def whole(self, recorded: Recorded) -> Outcome:
        """The port as it is, unobserved, against float64."""
        lab = self._laboratory(recorded, lambda *_: {}, list(self.infos))
        try:
            got = self.session.run(recorded.feed)
        except Exception as error:  # noqa: BLE001 - PyTorch ran, the port did not, for whatever reason
            return Outcome("crashes", reason=first_line(error))
        truth = TorchSession(self.program, "float64").run(recorded.feed)
        want = TorchSession(self.program, "float32").run(recorded.feed)
        precision = self.session.precision
        yardstick = want if precision == "float32" else TorchSession(self.program, precision).run(recorded.feed)
        roundings = lab.roundings(lab.part(list(lab.borders)))
        rows = []
        if len(got) != len(want):
            return Outcome("diverges", reason=f"{len(got)} outputs for {len(want)}")
        for spec, *values in zip(self.program.outputs, truth, want, yardstick, got, strict=True):
            info = NodeInfo(spec.name, "output", Origin("", ""))
            true_value, wanted, rounded, returned = values
            if wanted.dtype.kind in "biu" and wanted.shape == returned.shape:
                returned = np.where(true_value.astype(wanted.dtype) == wanted, returned, wanted).astype(returned.dtype)
            rows.append(row_of(info, true_value, wanted, rounded, returned, precision, roundings))
        return Outcome("agrees" if all(row.agrees for row in rows) else "diverges", tuple(rows))

    def laboratories(self, recorded: Recorded) -> Iterator[tuple[str, Laboratory]]:
        """(how parts are computed, where), the way that is nearest to how the port runs first."""
        every = [name for name in self.infos if name in recorded.tensors]
        ways: list[tuple[str, Callable[[], Laboratory]]] = []
        session = self.session
        if isinstance(session, Cuts):
            own = functools.partial(_computed, session)
            borders = self._borders(session)
            ways.append((session.cut_with, lambda: self._laboratory(recorded, own, borders)))
        if self.engine.lowers_parts:
            mode = f" run in {self.port.mode} mode," if self.port.mode else ""
            again = _AGAIN.format(mode=mode)
            ways.append((again, lambda: self._laboratory(recorded, self.again, every)))
            if isinstance(session, Cuts) and session.cut_mode not in ("", self.port.mode):
                ways.reverse()
        if not ways:
            raise InputError(f"{self.engine.name} runs the original itself: there is nothing to bisect.")
        for method, make in ways:
            yield method, make()

    def script(self, lab: Laboratory, nodes: Sequence[str], outcome: Outcome, out: Path) -> ScriptRow:
        """The part as a script, run once; why there is none where a script cannot express it."""
        versions, remark = versions_of(self.engine.package, "torch"), self.edited()
        row = ScriptRow(nodes[-1], doubt="no way to write it")
        reserved = RESERVED | self.engine.script_names
        for write in self.engine.scripts():

            def side(part: Part, names: Identifiers, stem: str, write: Write = write) -> Side:
                return write(
                    ToWrite(
                        part, lab.recorded, lab.borders, own_tensors(lab, part, names), names, stem, self.session,
                        self.port.mode, self.port.manifest.target,
                        lambda: self.again.program(part, lab.recorded), reserved,
                    )
                )  # fmt: skip

            try:
                script = write_script(
                    out, lab, nodes, outcome, side, versions=versions, remark=remark, reserved=reserved
                )
            except (LoweringError, UnsupportedOps) as error:
                row = ScriptRow(nodes[-1], doubt=first_line(error))
                continue
            row = self._row(nodes[-1], script)
            if script.reproduces:
                break
        return row

    def runs_all(self, method: str) -> bool:
        """Whether every node runs, whatever the part is."""
        session = self.session
        return isinstance(session, Cuts) and session.cut_runs_all and method == session.cut_with

    def edited(self) -> str:
        """Words for a port whose files were changed."""
        if not self.port.artifact.modified:
            return ""
        return "The port's files were edited since they were generated: the fault may be in the edit, not the engine."

    def _row(self, node: str, script: Script) -> ScriptRow:
        doubt = f"{script.doubt}. {self.edited()}".rstrip() if script.doubt else ""
        return ScriptRow(node, str(script.file), str(script.tensors), doubt)

    def _laboratory(self, recorded: Recorded, compute: Compute, borders: Sequence[str]) -> Laboratory:
        order = [name for name in self.infos if name in set(borders) and name in recorded.tensors]
        return Laboratory(self.program, recorded, self.infos, compute, tuple(order), self.session.precision)

    def _borders(self, session: Cuts) -> list[str]:
        """One node per tensor of the engine's: what comes first, where several are one tensor."""
        place = {name: index for index, name in enumerate(self.infos)}
        known = (sorted((n for n in group if n in place), key=place.__getitem__) for group in session.borders())
        return [names[0] for names in known if names]


def _computed(session: Cuts, part: Part, recorded: Recorded, borders: Sequence[str]) -> Mapping[str, np.ndarray]:
    inside = set(part.nodes)
    given = {name: recorded.tensors[name] for name in borders if name not in inside}
    return session.part(recorded.feed, given, part.outputs)


def _noted(report: BisectReport, note: str) -> BisectReport:
    return dataclasses.replace(report, notes=(*report.notes, note))


def _refuse_port(out: Path | None) -> None:
    if out is not None and (out / "port.json").exists():
        raise InputError(f"{out} is a port: a script in it would make it a modified one. Name another place.")
