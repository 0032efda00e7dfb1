# SPDX-License-Identifier: Apache-2.0
"""Verification: the original, the port and the float64 truth on the same inputs. Outputs rule."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from paritas.errors import InputError, ParitasError, reason_of
from paritas.program import ModuleCall, Origin, TensorSpec
from paritas.run.session import Session
from paritas.verify import choices
from paritas.verify.alike import alike
from paritas.verify.by_truth import judge_by_truth, usual_errors
from paritas.verify.compare import RELATIVE, Comparison, compare, distance
from paritas.verify.inputs.edge_values import without_denormals
from paritas.verify.inputs.generate import Case
from paritas.verify.inputs.search import Found, Judge, Refused, Score, Sought
from paritas.verify.modules import Inside, Walker, compare_modules
from paritas.verify.nodes import Lockstep, NodeInfo, Steps, compare_nodes
from paritas.verify.report.histogram import count_errors
from paritas.verify.report.report import ParityReport
from paritas.verify.report.rows import Environment, OutputParity
from paritas.verify.tolerance import (
    AS_ACCURATE,
    HALF,
    TOO_INACCURATE,
    WIDEST_FP32,
    Tolerance,
    half_precision,
    whole_model,
    widened,
)

LEVELS = ("outputs", "modules", "nodes")

#: What of a difference in fp32 is left in float64, at most, where it is rounding: the rounding of one is 2e-9 of the
#: other's, and what both compute may be sensitive to it in another way.
_OF_FP32 = 1e-4

CAPTURE_SLACK = 1e-3  # fp32 original against float64 of the captured graph: beyond it, ask whether rounding explains it


class Reference(Walker, Steps, Protocol):
    """A captured graph that can be walked in both ways: `run.torch.session.TorchSession`."""


Runner = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]

T = TypeVar("T")


def verify(
    session: Session,
    original: Runner,
    cases: Sequence[Case],
    *,
    outputs: Sequence[TensorSpec],
    environment: Environment,
    level: str = "outputs",
    truth: Reference | None = None,
    reference: Reference | None = None,
    yardstick: Runner | None = None,
    exact: Runner | None = None,
    tolerance: Tolerance | None = None,
    inside: Session | None = None,
    modules: Sequence[ModuleCall] = (),
    nodes: Sequence[NodeInfo] = (),
    half: Steps | None = None,
    seek: Callable[[Judge], Found] | None = None,
    look_at: Case | None = None,
    origin: Callable[[str], Origin] | None = None,
    subject: str = "",
    notes: Iterable[str] = (),
    progress: Callable[[str], None] | None = None,
) -> ParityReport:
    """Run every case through the original and the port, unobserved, and rule on each output.

    original: feed -> flat outputs in the manifest's order, of the eager fp32 model. truth: the captured graph
    in float64. reference: the captured graph at its own precision; without it, level "modules" sees nothing,
    and fp32 rounding is never taken as an excuse. yardstick: PyTorch at the port's half precision, feed -> flat
    outputs. exact: the original's own code in float64 throughout; asked where fp32 is off. half: the captured graph at
    that precision, for level "nodes". inside: what is looked into, if that is not `session` itself. bfloat16 arrives as
    float32 from all of them. seek: called after the cases with what scores an input; the case that it finds is judged
    as they are.
    look_at: what is looked into where no case diverges, instead of the worst of them.

    At fp32 and float64 `tolerance` rules (default: `whole_model(session.precision)`), against the original.
    At fp16 and bf16 an output agrees if its distance from float64 is at most twice PyTorch's own at that dtype;
    without truth and yardstick it is not judged, unless `tolerance` is given. What the engine raises is a
    fault; what the original raises leaves the case uncompared, an optional one with a note only. Raises
    `ParitasError` for an unknown level.
    """
    if level not in LEVELS:
        raise ParitasError(f"level must be one of {', '.join(LEVELS)}, not {level!r}.")
    shown = session if inside is None else inside
    judge = _Judge(session, original, truth, reference, yardstick, exact, tolerance, shown, nodes)
    rows: list[OutputParity] = []
    unseen: dict[str, str] = {}
    feeds: dict[str, Case] = {}
    notes = list(notes)
    for number, case in enumerate(cases, 1):
        if progress is not None:
            progress(f"case {number} of {len(cases)}: {case.name}")
        if case.name in feeds:
            raise ParitasError(f"Two cases are named {case.name!r}; a report could not tell them apart.")
        case, want, refused = _taken(original, case, notes)
        feeds[case.name] = case
        if refused:
            if case.optional:
                notes.append(f'verify: case "{case.name}" was not compared: {refused}')
            else:
                unseen[f'case "{case.name}"'] = refused
            continue
        if case.special:
            notes += _special(judge, shown, case, want, outputs, nodes, level)
            continue
        made, refused = judge.case(case, want, outputs)
        if refused:
            if case.optional:
                notes.append(f'verify: case "{case.name}" was not compared: {refused}')
            else:
                unseen[f'case "{case.name}"'] = refused
            continue
        rows += _judged(made, case, notes)
    usual = usual_errors(rows)
    sought: Sought | None = None
    if seek is not None:
        found = seek(lambda case: judge.score(case, outputs, usual))
        sought = found.sought
        if found.case is not None:
            feeds[found.case.name] = found.case
            want = list(original(found.case.feed))
            rows += _judged(judge.case(found.case, want, outputs)[0], found.case, notes)
    notes += choices.remarks(judge.chosen)
    if judge.by_truth:
        searched = {case.name for case in feeds.values() if case.searched}
        rows = judge_by_truth(rows, session.precision, usual, searched)
    looked, module_case, lockstep = Inside(), "", Lockstep()
    worst = max(rows, key=lambda r: (r.diverges, bool(r.fault), r.excess), default=None)
    inside_of = feeds[worst.case] if worst is not None else None
    if look_at is not None and (worst is None or not worst.diverges):
        inside_of = look_at
    if level != "outputs":
        if progress is not None:
            progress("modules")
        looked, module_case = _look_inside(shown, inside_of, reference, truth, modules, origin)
    if level == "nodes":
        if progress is not None:
            progress("nodes")
        lockstep = _step(shown, inside_of if module_case else None, reference, truth, nodes, half)
    return ParityReport(
        environment=dataclasses.replace(environment, precision=session.precision),
        tolerance=judge.stated,
        outputs=tuple(rows),
        unseen=unseen,
        cases=tuple(map(str, feeds.values())),
        subject=subject,
        level=level,
        modules=looked.rows,
        module_case=module_case,
        module_tolerance=whole_model(session.precision) if level != "outputs" else None,
        unseen_modules=looked.unseen,
        observed=looked.observed,
        notes=tuple(notes),
        nodes=lockstep.rows,
        unseen_nodes=lockstep.unseen,
        observed_nodes=lockstep.observed,
        search=sought,
    )


#: Up to so many nodes, those that lose a NaN are looked for; in larger models at level "nodes" only.
FEW_NODES = 400


def _taken(original: Runner, case: Case, notes: list[str]) -> tuple[Case, list[np.ndarray], str]:
    """(the case, or the one it gives way to, what the original says of it, why it is not compared)."""
    try:
        return case, list(original(case.feed)), ""
    except Exception as error:  # noqa: BLE001 - the original's own refusal, of any kind, says nothing about the port
        refused = f"the original refuses it: {reason_of(error)}"
    for nearer in case.otherwise:
        try:
            want = list(original(nearer.feed))
        except Exception:  # noqa: BLE001 - as before
            continue
        notes.append(f'verify: case "{case.name}" has other sizes, {nearer.shapes}: of its own, {refused}')
        return nearer, want, ""
    return case, [], refused


def _special(
    judge: _Judge,
    shown: Session,
    case: Case,
    want: list[np.ndarray],
    outputs: Sequence[TensorSpec],
    nodes: Sequence[NodeInfo],
    level: str,
) -> list[str]:
    """What differs where inputs hold NaN or infinities, and which operators lose them: a note, never a verdict."""
    rows, refused = judge.case(case, want, outputs)
    off = [row for row in rows if row.diverges or (judge.half and row.fault)]
    if refused or not off:
        return [f'verify: case "{case.name}" was not compared: {refused}'] if refused else []
    lost = ""
    if judge.reference is not None and judge.truth is not None and (level == "nodes" or len(nodes) <= FEW_NODES):
        steps = _step(shown, case, judge.reference, judge.truth, nodes, None)
        guilty = {row.target: row.source for row in steps.rows if not row.agrees}
        lost = ", ".join(f"{target} ({source})" if source else target for target, source in guilty.items())
    names = ", ".join(row.output for row in off)
    by = f" It is lost in {lost}." if lost else ' verify(level="nodes") looks for the operators.'
    return [
        f"verify: where inputs hold NaN or infinities, {names} differ{'s' if len(off) == 1 else ''} from the original: "
        f"{off[0].fault or format(off[0].excess, '.3g') + 'x tolerance'}.{by} check_finite=True refuses such inputs"
    ]


def _judged(rows: list[OutputParity], case: Case, notes: list[str]) -> list[OutputParity]:
    """The rows that count. Of an optional case, those that cannot be judged are notes."""
    if not case.optional:
        return rows
    notes += [f"verify: {row}" for row in rows if row.unjudged]
    return [row for row in rows if not row.unjudged]


class _Judge:
    """One verification's parts, and the rows of one case at a time."""

    def __init__(
        self,
        session: Session,
        original: Runner,
        truth: Reference | None,
        reference: Reference | None,
        yardstick: Runner | None,
        exact: Runner | None,
        tolerance: Tolerance | None,
        shown: Session,
        nodes: Sequence[NodeInfo],
    ):
        self.session, self.original = session, original
        self.truth, self.reference, self.yardstick, self.exact = truth, reference, yardstick, exact
        self.shown, self.nodes = shown, nodes
        self.chosen: dict[str, str] = {}  # case -> where the port chose others among equal values
        self._kept: tuple[Case | None, dict[str, Any]] = (None, {})
        self.given = tolerance is not None  # a tolerance that was asked for is neither widened nor replaced
        self.half = session.precision in HALF and not self.given
        self.by_truth = self.half and truth is not None and yardstick is not None
        self.tolerance = tolerance or whole_model(session.precision)

    @property
    def stated(self) -> Tolerance:
        """What the report prints. In half precision the bound depends on the output, so it is said in words."""
        if not self.half:
            return self.tolerance
        return half_precision(self.session.precision)

    def case(self, case: Case, want: list[np.ndarray], specs: Sequence[TensorSpec]) -> tuple[list[OutputParity], str]:
        """The rows of one case, or why the port refuses it: an answer that is refused at the door is no wrong one.

        Engines may take denormal numbers for zeros, as PyTorch does after `torch.set_flush_denormal(True)`. So where
        inputs hold some, the port has to agree with the original either on them as they are or on them as zeros. An
        absolute floor in the tolerance would not do: log(x), x / |x| and x > 0 make something large of the difference.
        """
        try:
            got, failed = self._run(case, specs)
        except InputError as error:
            return [], f"the port refuses it: {reason_of(error).partition(': ')[2]}"
        return failed or self._forgiving_denormals(case, want, got, specs), ""

    def score(self, case: Case, specs: Sequence[TensorSpec], usual: Mapping[str, Sequence[float]]) -> Score:
        """The worst output of a case that a search tries, judged as in a report. Raises `Refused`.

        At fp32 it is the first comparison that rules while that is within the tolerance: half the work.
        """
        try:
            want = list(self.original(case.feed))
        except Exception as error:
            raise Refused(reason_of(error)) from error
        try:
            got, rows = self._run(case, specs)
        except InputError as error:
            raise Refused(reason_of(error)) from error
        if not rows and not self.half and specs and len(want) == len(got) == len(specs):
            results = [
                compare(w, g, self.tolerance, dtype=_numpy_dtype(s.dtype))
                for w, g, s in zip(want, got, specs, strict=True)
            ]
            if all(result.agrees for result in results):
                excess, name = max((r.excess, s.name) for r, s in zip(results, specs, strict=True))
                return Score(excess, name)
        rows = rows or self._forgiving_denormals(case, want, got, specs)
        if self.by_truth:
            searched = {case.name} if case.searched else ()
            rows = judge_by_truth(rows, self.session.precision, usual, searched)
        judged = [row for row in rows if not row.unjudged]
        if not judged:
            return Score(0.0, unjudged=rows[0].unjudged if rows else "it has no outputs")
        worst = max(judged, key=lambda row: (bool(row.fault), row.excess))
        return Score(math.inf if worst.fault else worst.excess, worst.output, worst.fault)

    def _run(self, case: Case, specs: Sequence[TensorSpec]) -> tuple[list[np.ndarray], list[OutputParity]]:
        """The port's outputs, or the rows that say that it has none."""
        try:
            return list(self.session.run(case.feed)), []
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - the original ran, the port did not: that is a divergence
            fault = f"the engine failed: {reason_of(error)}"
            return [], [OutputParity(case.name, s.name, edge=case.edge, fault=fault) for s in specs]

    def _forgiving_denormals(
        self, case: Case, want: list[np.ndarray], got: list[np.ndarray], specs: Sequence[TensorSpec]
    ) -> list[OutputParity]:
        rows = self._rows(case, want, got, specs)
        flushed = without_denormals(case.feed) if self.diverge(rows) else None
        if flushed is not None:
            other = dataclasses.replace(case, feed=flushed)
            again = self._rows(other, list(_optional(self.original, other)), got, specs)
            if not self.diverge(again):
                hint = "judged against the original on the same inputs with their denormal numbers as zeros"
                return [dataclasses.replace(row, hint=row.hint or hint) for row in again]
        return rows

    def diverge(self, rows: Sequence[OutputParity]) -> bool:
        ruled = judge_by_truth(rows, self.session.precision, {}) if self.by_truth else rows
        return any(row.diverges for row in ruled)

    def _rows(
        self, case: Case, want: list[np.ndarray], got: list[np.ndarray], specs: Sequence[TensorSpec]
    ) -> list[OutputParity]:
        truth = _optional(self.truth.run if self.truth else None, case)
        yardstick = _optional(self.yardstick, case) if self.by_truth else want
        names = [spec.name for spec in specs]
        names += [f"output {i}" for i in range(len(names), max(len(want), len(got)))]
        dtypes = [_numpy_dtype(spec.dtype) for spec in specs]
        return [
            self._row(
                _Values(case, name, i, _at(want, i), _at(got, i), _at(truth, i), _at(yardstick, i), _at(dtypes, i))
            )
            for i, name in enumerate(names)
        ]

    def _row(self, at: _Values) -> OutputParity:
        result = compare(at.want, at.got, self.tolerance, dtype=at.dtype)
        fault, hint, unjudged = result.fault, "", ""
        if at.floats and self.half:
            unjudged = self._half_unjudged(at, fault)
            if self.by_truth and not fault and not unjudged:
                fault = self._wrong_capture_half(at)
        elif at.floats and not result.agrees and self.reference is not None:
            at, result, hint, unjudged = self._second_look(at, result, self.reference)
        if at.want is not None and at.want.size and not result.elements and not fault and not at.case.edge:
            unjudged = "the original is NaN or infinite everywhere"
        needed = None if self.half else result.needed
        return OutputParity(
            case=at.case.name,
            output=at.output,
            excess=result.excess,
            error=math.inf if fault else result.error,
            edge=at.case.edge,
            fault=fault,
            unjudged=unjudged,
            max_abs=result.max_abs,
            mean_abs=result.mean_abs,
            mean_rel=result.mean_rel,
            worst=result.worst,
            want=result.want,
            got=result.got,
            torch_error=at.torch_error,
            port_error=at.port_error,
            elements=result.elements,
            rule=result.tolerance.rule,
            needed="" if needed is None else needed.rule,
            hint=hint,
            histogram=count_errors(at.want, at.got),
            **({} if fault else alike(at.output, at.want, at.got)),
        )

    def _second_look(
        self, at: _Values, result: Comparison, reference: Reference
    ) -> tuple[_Values, Comparison, str, str]:
        """At fp32, a failed row: is it PyTorch's own rounding, a choice among equals, or a graph that is not the
        original?

        Returns what was compared, the comparison that rules, a hint, and why the row cannot be judged. That is for
        made-up values only: of a constant image a norm divides 0 by the root of its eps, so that what is left is
        PyTorch's own rounding.
        """
        captured = _at(self._once(at.case, "captured", lambda: _optional(reference.run, at.case)), at.index)
        if captured is None:
            return at, result, "", ""
        original = (same := compare(at.want, captured, self.tolerance)).agrees
        if at.truth is not None and not self.given:
            # Both of the same graph, so that a capture that is wrong cannot pass as rounding.
            torch_error = distance(at.truth, captured)
            if self._exactly_the_original(at):
                original, torch_error = True, max(torch_error, at.torch_error)
                nearer = compare(at.truth, at.got, self.tolerance, dtype=at.dtype)
                if nearer.agrees:
                    ours = f"PyTorch is {at.torch_error:.2g} of the values away from it, the port {at.port_error:.2g}"
                    return at, nearer, f"judged by the original's own code in float64: {ours}", ""
            wider = widened(self.tolerance, torch_error)
            again = compare(at.want, at.got, wider, dtype=at.dtype)
            if again.agrees:
                return at, again, f"judged by {wider}", ""
            hopeless = torch_error > TOO_INACCURATE or (
                3 * torch_error > WIDEST_FP32 and at.port_error <= AS_ACCURATE * torch_error
            )
            if at.case.optional and not result.fault and hopeless:
                return at, result, "", f"PyTorch's own fp32 is {torch_error:.2g} of the values away from float64 here"
        if not original:
            return at, result, f"The captured graph is not the original ({same}): look at the capture first.", ""
        other = self._followed_in(at.case)
        if other is None:
            return at, result, "", ""
        # What it is compared with is the original's graph, which was just seen to be the original.
        want = _at(other.outputs, at.index)
        at = dataclasses.replace(at, want=want, yardstick=want, truth=_at(other.truth, at.index))
        again = compare(at.want, at.got, self.tolerance, dtype=at.dtype)
        if again.agrees:
            self.chosen[at.case.name] = str(other)
        return at, again, f"judged with the port's choice among equal values: {other}", ""

    def _exactly_the_original(self, at: _Values) -> bool:
        """Whether graph and original are the same in float64, so that what they differ by in fp32 is rounding: a graph
        may hold a scan token by token where the original multiplies chunks of tokens."""
        exact = _at(self._once(at.case, "exact", lambda: _optional(self.exact, at.case)), at.index)
        if (
            exact is None
            or at.truth is None
            or at.want is None
            or not math.isfinite(off := distance(at.truth, at.want))
        ):
            return False
        return distance(at.truth, exact) <= off * _OF_FP32

    def _followed_in(self, case: Case) -> choices.Followed | None:
        if (graph := self.reference) is None or (truth := self.truth) is None:
            return None
        given = (graph, truth, case.feed, self.nodes, self.tolerance)
        return self._once(case, "followed", lambda: choices.followed(self.shown, *given))

    def _once(self, case: Case, key: str, make: Callable[[], T]) -> T:
        """What is computed once for all outputs of the case at hand."""
        if self._kept[0] is not case:
            self._kept = (case, {})
        if key not in self._kept[1]:
            self._kept[1][key] = make()
        return self._kept[1][key]

    def _half_unjudged(self, at: _Values, fault: str) -> str:
        """Why a float output cannot be judged in half precision, "" if it can."""
        precision = self.session.precision
        special = ("NaN", "infinity")
        if fault:
            theirs = "" if at.yardstick is None or not self.by_truth else _fault(at.want, at.yardstick)
            excused = fault.startswith(special) and theirs.startswith(special)
            return f"PyTorch itself overflows in {precision} here ({theirs})" if excused else ""
        if not self.by_truth:
            return f"{precision} is judged against float64 and PyTorch in {precision}, which were not given"
        if at.truth is None or at.yardstick is None:
            return f"PyTorch cannot run this case in float64 and in {precision}"
        if not at.torch_error <= TOO_INACCURATE:
            return f"PyTorch's own error in {precision} is {at.torch_error:.2g}; twice that would prove nothing"
        return ""

    def _wrong_capture_half(self, at: _Values) -> str:
        """In half precision the truth must be the original's truth, or a wrong capture would excuse itself."""
        if at.truth is None or at.want is None:
            return ""
        off = distance(at.truth, at.want)
        if off <= CAPTURE_SLACK:
            return ""
        captured = _at(_optional(self.reference.run if self.reference else None, at.case), at.index)
        if captured is not None and off <= 3 * distance(at.truth, captured):
            return ""
        return f"the captured graph is not the original: fp32 is {off:.2g} away from the graph's float64"


@dataclasses.dataclass(frozen=True)
class _Values:
    """One output in one case, from everyone who computed it; None from those who did not."""

    case: Case
    output: str
    index: int
    want: np.ndarray | None  # the original, fp32
    got: np.ndarray | None  # the port
    truth: np.ndarray | None  # the captured graph in float64
    yardstick: np.ndarray | None  # PyTorch at the port's precision
    dtype: str | None  # that the manifest promises

    @property
    def floats(self) -> bool:
        return self.want is not None and self.want.dtype.kind in "fc"

    @functools.cached_property
    def torch_error(self) -> float:
        return self._from_truth(self.yardstick)

    @functools.cached_property
    def port_error(self) -> float:
        return self._from_truth(self.got)

    def _from_truth(self, value: np.ndarray | None) -> float:
        if not self.floats or self.truth is None or value is None:
            return math.nan
        return distance(self.truth, value)


def _optional(run: Runner | None, case: Case) -> Sequence[np.ndarray]:
    """The truth or the yardstick may be unable to run a case (no fp16 kernel): then it is unknown there."""
    if run is None:
        return ()
    try:
        return list(run(case.feed))
    except Exception:  # noqa: BLE001 - of any kind; what follows from it is said in the row
        return ()


def _fault(want: np.ndarray | None, got: np.ndarray) -> str:
    return compare(want, got, RELATIVE, dtype=got.dtype).fault


def _at(values: Sequence[T], index: int) -> T | None:
    return values[index] if index < len(values) else None


def _numpy_dtype(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype


def _look_inside(
    session: Session,
    case: Case | None,
    reference: Walker | None,
    truth: Walker | None,
    modules: Sequence[ModuleCall],
    origin: Callable[[str], Origin] | None,
) -> tuple[Inside, str]:
    """The modules, on the case whose outputs are worst, where there is most to see; and that case's name."""
    if case is None:
        return Inside(unseen={"all modules": "no case could be compared"}, observed="modules not observed"), ""
    if reference is None:
        why = "no captured program in memory to compare with; port the original again"
        return Inside(unseen={"all modules": why}, observed="modules not observed"), ""
    try:
        inside = compare_modules(session, reference, case.feed, modules, truth=truth, origin=origin)
    except ParitasError as error:
        inside = Inside(
            unseen={"all modules": f"the reference failed: {reason_of(error)}"}, observed="modules not observed"
        )
    return inside, case.name


def _step(
    session: Session,
    case: Case | None,
    reference: Reference | None,
    truth: Reference | None,
    nodes: Sequence[NodeInfo],
    half: Steps | None,
) -> Lockstep:
    if case is None:
        return Lockstep(unseen={node.name: "no case could be compared" for node in nodes})
    if reference is None or truth is None:
        why = "no captured program in memory to compare with; port the original again"
        return Lockstep(unseen={node.name: why for node in nodes})
    try:
        return compare_nodes(session, reference, truth, case.feed, nodes, yardstick=half)
    except ParitasError as error:
        return Lockstep(unseen={node.name: f"the reference failed: {reason_of(error)}" for node in nodes})
