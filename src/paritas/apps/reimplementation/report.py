# SPDX-License-Identifier: Apache-2.0
"""What comparing a re-implementation with its original found, as a value that prints itself as text, JSON, Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paritas.apps.reimplementation.weight_map import WeightReport
from paritas.verify.report.markdown import table
from paritas.verify.report.rows import Environment, Verdict, badness, plain
from paritas.verify.tolerance import Tolerance

REPORT_VERSION = 1

SHOWN = 10  # rows of one kind in the text; JSON and Markdown have them all


@dataclasses.dataclass(frozen=True)
class Side:
    """A module on one side: its path, class, the line where its forward begins and the one that called it."""

    path: str
    module_class: str
    defined: str = ""
    called: str = ""

    def __str__(self) -> str:
        return f"{self.path or 'the model'} ({self.module_class})"

    @property
    def where(self) -> str:
        parts = [f"{self.module_class}.forward at {self.defined}"] if self.defined else []
        if self.called:
            parts.append(f"called at {self.called}")
        return "; ".join(parts) or "no source"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One comparison: `excess` at most 1 and no fault agrees; NaN where nothing was compared, with `unseen` why."""

    excess: float = math.nan
    error: float = math.nan
    fault: str = ""
    unseen: str = ""

    @property
    def agrees(self) -> bool:
        return not self.fault and not self.unseen and self.excess <= 1.0

    @property
    def diverges(self) -> bool:
        return not self.unseen and not self.agrees

    def __str__(self) -> str:
        return self.unseen or self.fault or f"{self.excess:.3g}x tolerance, error {self.error:.2e}"


@dataclasses.dataclass(frozen=True)
class OutputTwin:
    """One output of the two models, in one case, at one precision."""

    case: str
    output: str
    other: str
    precision: str
    found: Difference

    def __str__(self) -> str:
        name = self.output if self.output == self.other else f"{self.output} / {self.other}"
        return f'{name}, case "{self.case}", {self.precision}: {self.found}'


@dataclasses.dataclass(frozen=True)
class ModuleTwin:
    """A call of a module and of its twin. free: each on its own values; alone: both on the original's inputs.

    own_inputs: inputs that the twin kept of its own run, since the original's call has none of that shape and kind.
    first: where the twin begins to differ inside, if its parts are right by themselves.
    """

    original: Side
    other: Side
    call: int
    free: Difference
    alone: Difference
    own_inputs: tuple[str, ...] = ()
    first: str = ""

    @property
    def name(self) -> str:
        both = f"{self.original} / {self.other}"
        return both + (f", call {self.call + 1}" if self.call else "")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two PyTorch models with the same weights. Rules on outputs; the modules say where to look."""

    original: str
    other: str
    environment: Environment
    weights: WeightReport
    tolerances: Mapping[str, Tolerance]
    precision: str  # in which the modules were compared
    outputs: tuple[OutputTwin, ...] = ()
    modules: tuple[ModuleTwin, ...] = ()  # in the order of returning
    cases: tuple[str, ...] = ()
    #: Output, case, module or weight -> why.
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    apart: tuple[str, ...] = ()  # modules of the original that have no twin: parts of those that have
    other_apart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """A wrong output diverges, or a wrong module where outputs cannot be compared; a gap is incomplete."""
        if any(row.found.diverges for row in self.outputs) or (not self.outputs and self.guilty):
            return "diverges"
        if not self.weights.complete or self.unseen or not any(row.found.agrees for row in self.outputs):
            return "incomplete"
        return "agrees"

    @property
    def error(self) -> float:
        """The largest max|got-want| / mean|want| of all outputs at the precision of the modules; NaN for none."""
        errors = [row.found.error for row in self.outputs if row.precision == self.precision]
        return max(errors, key=lambda e: math.inf if math.isnan(e) else e, default=math.nan)

    @property
    def first_divergence(self) -> ModuleTwin | None:
        """The first module, in the order of returning, whose output differs when each side runs by itself."""
        harmless = self.harmless
        return next((row for row in self.modules if row.free.diverges and row not in harmless), None)

    @property
    def guilty(self) -> tuple[ModuleTwin, ...]:
        """The innermost modules that make something else of the original's inputs than the original."""
        harmless = self.harmless
        wrong = [row for row in self.modules if row.alone.diverges and row not in harmless]
        return tuple(
            row for row in wrong if not any(_inside(inner.original.path, row.original.path) for inner in wrong)
        )

    @property
    def harmless(self) -> tuple[ModuleTwin, ...]:
        """Modules that differ inside one that agrees: the two sides only divide the same work differently."""
        right = [row.original.path for row in self.modules if row.alone.agrees]
        return tuple(
            row
            for row in self.modules
            if (row.alone.diverges or row.free.diverges) and any(_inside(row.original.path, outer) for outer in right)
        )

    # --- text -------------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [
            f"{self.verdict}: {self.other} against {self.original}, error {self.error:.2e} "
            f"(max|got-want| / mean|want|, {self.precision})",
            f"  {self.environment.engine} {self.environment.version} on {self.environment.device}, "
            f"{self.environment.machine}, {self.environment.date}",
            *self._weight_lines(),
            *self._output_lines(),
            *self._module_lines(),
        ]
        lines += [f"  not seen: {name}: {why}" for name, why in list(self.unseen.items())[:SHOWN]]
        lines += _more(self.unseen)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _weight_lines(self) -> list[str]:
        weights = self.weights
        carried = {name for transfer in weights.transfers for name in transfer.sources}
        how = Counter(transfer.how for transfer in weights.transfers if transfer.how)
        told = f" ({'; '.join(f'{count}x {words}' for words, count in how.items())})" if how else ""
        lines = [
            f"  weights: {len(carried)} of the original's are in {len(weights.filled)} of the other's{told}; "
            f"{len(weights.unmatched)} unmatched, {len(weights.missing)} missing, {len(weights.misfits)} mis-shaped"
        ]
        for words, rows in (
            ("unmatched", [f"{name} {why}" for name, why in weights.unmatched.items()]),
            ("missing", [f"{name} {why}" for name, why in weights.missing.items()]),
            ("mis-shaped", [str(row) for row in weights.misfits]),
            ("left out", [f"{name}: {why}" for name, why in {**weights.skipped, **weights.kept}.items()]),
        ):
            lines += [f"    {words}: {row}" for row in rows[:SHOWN]] + _more(rows, "  ")
        if weights.suggestion:
            lines += ["  rules that would place them, guessed from shapes and names:"]
            lines += [f"    {line}".rstrip() for line in weights.suggestion.splitlines()]
        return lines

    def _output_lines(self) -> list[str]:
        lines = []
        for precision, tolerance in self.tolerances.items():
            rows = [row for row in self.outputs if row.precision == precision]
            if not rows:
                continue
            wrong = [row for row in rows if not row.found.agrees]
            worst = max(rows, key=lambda row: (bool(row.found.fault), badness(row.found.excess)))
            words = f"{len(wrong)} of {len(rows)} diverge" if wrong else f"all {len(rows)} agree"
            lines += [f"  outputs, {precision}: {words}; worst: {worst}", f"    {tolerance}"]
        return lines

    def _module_lines(self) -> list[str]:
        both = [row for row in self.modules if not row.alone.unseen]
        lines = [
            f"  modules, {self.precision}: {len(self.modules)} pairs, {len(both)} of them also on the original's "
            f"inputs; without a twin, so compared as parts of others: {_folded(self.apart)} in the original, "
            f"{_folded(self.other_apart)} in the other"
        ]
        if first := self.first_divergence:
            lines.append(f"  first divergence, each on its own values: {first.name}: {first.free}")
        if self.harmless:
            lines.append(
                f"  {_folded(row.original.path for row in self.harmless)} divide the work of a module that agrees in "
                "another way"
            )
        guilty = self.guilty
        if not guilty:
            if both:
                lines.append("  every module makes of the original's inputs what the original makes")
            return lines
        lines.append(f"  {len(guilty)} guilty, on the original's inputs; the first:")
        for row in guilty[:SHOWN]:
            lines += [f"    {row.name}: {row.alone}", f"      original  {row.original.where}"]
            lines += [f"      other     {row.other.where}"]
            lines += [f"      {row.first}"] if row.first else []
            if row.own_inputs:
                own = ", ".join(row.own_inputs)
                lines.append(f"      with its own {own}, of which the original's call has no twin: look there too")
        return lines + _more(guilty, "  ")

    # --- JSON, Markdown ---------------------------------------------------------------------

    def to_json(self) -> str:
        """Valid JSON: infinities and NaN are strings."""
        data = {
            "format_version": REPORT_VERSION,
            "verdict": self.verdict,
            "error": self.error,
            "guilty": [row.original.path for row in self.guilty],
            **dataclasses.asdict(self),
        }
        return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False)

    def to_markdown(self) -> str:
        """The verdict, the weights, and a row for every output and module."""
        first, *rest = str(self).splitlines()
        outputs = [(row.case, row.output, row.other, row.precision, str(row.found)) for row in self.outputs]
        modules = [
            (str(row.original), str(row.other), str(row.free), str(row.alone), row.first) for row in self.modules
        ]
        lines = [f"# Re-implementation: {first}", "", "```", *rest, "```", "", "## Outputs", ""]
        lines += [*table(("case", "original", "other", "precision", "found"), outputs), "", "## Modules", ""]
        head = ("original", "other", "each on its own values", "on the original's inputs", "begins")
        lines += [*table(head, modules), "", "## Weights", ""]
        carried = [(", ".join(t.sources), ", ".join(t.targets), t.how or "as it is") for t in self.weights.transfers]
        lines += [*table(("original", "other", "how"), carried), ""]
        lines += [f"- {case}" for case in self.cases]
        return "\n".join([*lines, ""])


def _inside(inner: str, outer: str) -> bool:
    return inner != outer and (not outer or inner.startswith(outer + "."))


def _more(rows: Sequence[Any] | Mapping[str, Any], indent: str = "") -> list[str]:
    return [f"{indent}  and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []


def _folded(paths: Iterable[str]) -> str:
    """ "24 (h.#.attn.c_attn, h.#.act)": numbers folded, so that twelve layers are one name."""
    counts = Counter(re.sub(r"\d+", "#", path) for path in paths)
    if not counts:
        return "none"
    names = list(counts)[:6] + (["…"] if len(counts) > 6 else [])
    return f"{sum(counts.values())} ({', '.join(names)})"
