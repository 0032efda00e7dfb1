# SPDX-License-Identifier: Apache-2.0
"""`ParityReport`: what verification found, as a value that prints itself as text, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from paritas.errors import PortError
from paritas.printable import printable
from paritas.verify.search import Sought
from paritas.verify.tolerance import Tolerance

Verdict = Literal["agrees", "diverges", "incomplete"]

REPORT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Environment:
    """What ran, and where. precision is the arithmetic that really happened, dtype that of the weights."""

    engine: str
    version: str = ""
    mode: str = ""
    precision: str = ""
    dtype: str = ""
    device: str = "cpu"
    machine: str = ""
    torch: str = ""
    python: str = ""
    date: str = ""

    @classmethod
    def here(
        cls, engine: str, *, package: str = "", mode: str = "", dtype: str = "", device: str = "cpu"
    ) -> Environment:
        """This machine and the installed version of the engine's package. Imports no engine."""
        return cls(
            engine=engine,
            version=_version(package or engine),
            mode=mode,
            dtype=dtype,
            device=device,
            machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
            torch=_version("torch"),
            python=platform.python_version(),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def __str__(self) -> str:
        engine = " ".join(
            part for part in (self.engine, self.version, self.mode and f"({self.mode} mode)") if part
        )
        weights = f", weights {self.dtype}" if self.dtype and self.dtype != self.precision else ""
        return f"{engine}, computing in {self.precision or 'an unknown precision'}{weights}, on {self.device}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


@dataclasses.dataclass(frozen=True)
class OutputParity:
    """One output in one case. `excess` is what rules: at most 1 agrees.

    error: max|got-want| / mean|want| against the original. own, ours: PyTorch's and the port's distance from
    float64, max|x-truth| / (typical|truth| + |truth|), NaN where there is no float64. unjudged: why this row
    counts neither for nor against the port.
    """

    case: str
    output: str
    excess: float
    error: float
    edge: bool = False
    fault: str = ""
    unjudged: str = ""
    max_abs: float = math.nan
    mean_abs: float = math.nan
    mean_rel: float = math.nan
    worst: tuple[int, ...] = ()
    want: float = math.nan
    got: float = math.nan
    own: float = math.nan
    ours: float = math.nan
    elements: int = 0
    rule: str = ""
    needed: str = ""
    hint: str = ""
    histogram: tuple[int, ...] = ()  # how many elements are how far off: see `verify.histogram`

    @property
    def agrees(self) -> bool:
        return not self.fault and not self.unjudged and self.excess <= 1.0

    @property
    def diverges(self) -> bool:
        return not self.unjudged and not self.agrees

    @property
    def ratio(self) -> float:
        """The port's error against float64 as a multiple of PyTorch's own; NaN where either is unknown."""
        if self.own:
            return self.ours / self.own
        return 1.0 if self.ours == 0 else (math.nan if math.isnan(self.ours) else math.inf)

    def __str__(self) -> str:
        where = f'{self.output}, case "{self.case}"{" (edge)" if self.edge else ""}'
        if self.unjudged:
            return f"{where}: not judged: {self.unjudged}"
        if self.fault:
            return f"{where}: {self.fault}"
        at = f"; at {list(self.worst)} want {self.want:.9g}, got {self.got:.9g}" if self.max_abs else ""
        needed = f"; would pass with {self.needed}" if self.needed and not self.agrees else ""
        return f"{where}: {self.excess:.3g}x tolerance, error {self.error:.2e}{at}{needed}"


class Judged:
    """What rows have in common: without a fault, an excess of at most 1 agrees."""

    excess: float
    error: float
    fault: str

    @property
    def agrees(self) -> bool:
        return not self.fault and self.excess <= 1.0

    @property
    def badness(self) -> tuple[bool, float]:
        """Orders rows: faults are the worst, then NaN, then the largest excess."""
        return bool(self.fault), badness(self.excess)

    @property
    def what(self) -> str:
        return self.fault or f"{self.excess:.3g}x tolerance, error {self.error:.2e}"


@dataclasses.dataclass(frozen=True)
class ModuleParity(Judged):
    """One call of one module, each side on its own values up to here; the worst of the call's outputs."""

    path: str
    module_class: str
    call: int
    node: str
    excess: float
    error: float
    fault: str = ""
    max_abs: float = math.nan
    own: float = math.nan
    ours: float = math.nan
    elements: int = 0
    source: str = ""  # "modeling_bert.py:348  hidden_states = self.dense(hidden_states)"

    @property
    def name(self) -> str:
        return self.path + (f" (call {self.call + 1})" if self.call else "")

    def __str__(self) -> str:
        return f"{self.name} ({self.module_class}): {self.what}" + (
            f"\n    {self.source}" if self.source else ""
        )


@dataclasses.dataclass(frozen=True)
class NodeParity(Judged):
    """One node of the graph, computed by the port from the original's inputs to it.

    own, ours: PyTorch's and the port's distance from float64 of the same inputs, as in `OutputParity`. needed: the
    distance that would have to be allowed.
    """

    node: str
    target: str  # "aten.linear.default"
    module: str
    module_class: str
    excess: float
    error: float
    source: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    fault: str = ""
    max_abs: float = math.nan
    own: float = math.nan
    ours: float = math.nan
    needed: float = math.nan

    def __str__(self) -> str:
        where = (
            f"{self.node} = {self.target}, {self.dtype}{list(self.shape)}, in {self.module or 'the model'}"
        )
        return f"{where} ({self.module_class}): {self.what}" + (f"\n    {self.source}" if self.source else "")


@dataclasses.dataclass(frozen=True)
class GradientParity(Judged):
    """The gradient of a random combination of the outputs by one parameter or floating input.

    error: max|got-want| / mean|want| against the original. own, ours: PyTorch's and the port's distance from
    float64, max|x-truth| / (mean|truth| + |truth|).
    """

    name: str
    kind: str  # "parameter" | "input"
    shape: tuple[int, ...]
    excess: float
    error: float
    fault: str = ""
    max_abs: float = math.nan
    own: float = math.nan
    ours: float = math.nan

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}: {self.what}"


@dataclasses.dataclass(frozen=True)
class NodeGradientParity(Judged):
    """The vector-Jacobian product of one node at the original's values; the worst of those to what the node uses.

    wrt: the node, parameter or input that it is the gradient of; shape and dtype are that one's.
    """

    node: str
    target: str
    module: str
    module_class: str
    wrt: str
    excess: float
    error: float
    source: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    fault: str = ""
    max_abs: float = math.nan
    own: float = math.nan
    ours: float = math.nan

    def __str__(self) -> str:
        where = (
            f"{self.node} = {self.target} by {self.wrt} {list(self.shape)}, in {self.module or 'the model'}"
        )
        return f"{where} ({self.module_class}): {self.what}" + (f"\n    {self.source}" if self.source else "")


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """The outcome of a verification. Rules on outputs of an unobserved run; the modules say where to look."""

    environment: Environment
    tolerance: Tolerance
    outputs: tuple[OutputParity, ...] = ()
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)  # output or case -> why not compared
    cases: tuple[str, ...] = ()
    subject: str = ""
    level: str = "outputs"
    modules: tuple[ModuleParity, ...] = ()
    module_case: str = ""
    module_tolerance: Tolerance | None = None
    unseen_modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    observed: str = ""  # what looking inside changed: "modules observed: outputs added, which undoes fusions"
    notes: tuple[str, ...] = ()
    nodes: tuple[NodeParity, ...] = ()  # in the graph's order
    unseen_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    observed_nodes: str = ""
    search: Sought | None = None
    gradients: tuple[GradientParity, ...] = ()
    unseen_gradients: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gradient_case: str = ""  # where gradients were asked for
    gradient_rule: str = ""
    gradient_nodes: tuple[NodeGradientParity, ...] = ()  # in backward order
    unseen_gradient_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """A fault or an excess diverges. Nothing compared, or anything not seen or not judged, is incomplete."""
        if any(row.diverges for row in self.outputs) or any(not row.agrees for row in self.gradients):
            return "diverges"
        compared = sum(row.elements for row in self.outputs if row.agrees)
        if not compared or self.unseen or any(row.unjudged for row in self.outputs):
            return "incomplete"
        if self.unseen_gradients or (self.gradient_case and not self.gradients):
            return "incomplete"
        return "agrees"

    @property
    def error(self) -> float:
        """The largest max|got-want| / mean|want| of all outputs and cases; inf for a fault, NaN for no output."""
        return max((row.error for row in self.outputs), key=badness, default=math.nan)

    @property
    def worst_output(self) -> OutputParity | None:
        return max(self.outputs, key=lambda r: (bool(r.fault), badness(r.excess)), default=None)

    @property
    def worst_module(self) -> ModuleParity | None:
        return max(self.modules, key=lambda r: (bool(r.fault), badness(r.error)), default=None)

    @property
    def first_divergence(self) -> ModuleParity | None:
        """The first module, in the order of returning, whose output leaves the tolerance."""
        return next((row for row in self.modules if not row.agrees), None)

    @property
    def guilty(self) -> tuple[NodeParity, ...]:
        """The nodes that make something else of the original's inputs than the original, the first one first."""
        return tuple(row for row in self.nodes if not row.agrees)

    @property
    def guilty_backwards(self) -> tuple[NodeGradientParity, ...]:
        """The nodes whose gradients differ at the original's values, the first one in backward order first."""
        return tuple(row for row in self.gradient_nodes if not row.agrees)

    def __str__(self) -> str:
        compared = [row for row in self.outputs if not row.unjudged]
        count = f"{len(compared)} outputs compared in {len({r.case for r in compared})} cases"
        lines = [
            f"{self.verdict}: {count}, error {self.error:.2e} (max|got-want| / mean|want|)",
            f"  {self.subject + ': ' if self.subject else ''}{self.environment}",
            f"  tolerance: {self.tolerance}",
        ]
        if self.environment.machine:
            lines.insert(2, f"  {self.environment.machine}, {self.environment.date}")
        if self.worst_output is not None:
            lines.append(f"  worst output: {self.worst_output}")
            if self.worst_output.hint:
                lines.append(f"    {self.worst_output.hint}")
        lines += [f"  not judged: {r}" for r in self.outputs if r.unjudged and r is not self.worst_output]
        lines += [f"  not compared: {name}: {why}" for name, why in self.unseen.items()]
        if self.level != "outputs":
            lines += self._module_lines()
        if self.level == "nodes":
            lines += self._node_lines()
        if self.search is not None:
            lines += [f"  {line}" for line in self.search.lines()]
        if self.gradient_case:
            from paritas.verify.gradient_words import lines as gradient_lines

            lines += gradient_lines(self)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _module_lines(self) -> list[str]:
        lines = [
            f"  modules: {len(self.modules)} compared, {len(self.unseen_modules)} not seen; {self.observed}"
        ]
        if self.first_divergence:
            lines.append(f"  first divergence: {self.first_divergence}")
            if self.verdict == "agrees":
                lines.append("    the outputs of the unobserved run agree nevertheless, and they rule")
        elif self.worst_module:
            lines.append(f"  worst module: {self.worst_module}")
        lines += [f"  not seen: {name}: {why}" for name, why in list(self.unseen_modules.items())[:5]]
        if len(self.unseen_modules) > 5:
            lines.append(f"  not seen: {len(self.unseen_modules) - 5} more")
        return lines

    def _node_lines(self) -> list[str]:
        lines = [
            f"  nodes: {len(self.nodes)} compared, {len(self.unseen_nodes)} not by themselves; {self.observed_nodes}"
        ]
        if not self.nodes:
            return lines + [
                f"  not seen: {why}" for why in list(dict.fromkeys(self.unseen_nodes.values()))[:5]
            ]
        if not self.guilty:
            return [
                *lines,
                "  every node that was compared makes of the original's inputs what the original makes",
            ]
        lines += [f"  {len(self.guilty)} guilty, the first: {self.guilty[0]}"]
        lines += [f"  guilty: {row}" for row in self.guilty[1:10]]
        if self.verdict == "agrees":
            lines.append("    the outputs of the unobserved run agree nevertheless, and they rule")
        return lines

    # --- JSON -------------------------------------------------------------------------------

    def to_json(self) -> str:
        """parity.json: valid JSON (infinities and NaN as strings), read back by `from_json` to an equal report."""
        data = {
            "format_version": REPORT_VERSION,
            "verdict": self.verdict,
            "error": self.error,
            **dataclasses.asdict(self),
        }
        return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ParityReport:
        """Raises `PortError` for text that is no report, or is one of a newer Paritas."""
        try:
            data = json.loads(text)
            version = data["format_version"]
            if version > REPORT_VERSION:
                raise PortError(
                    f"This report has format {version}; this Paritas reads up to {REPORT_VERSION}."
                )
            return _restore_report(data)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PortError(f"This is no parity report: {type(error).__name__}: {error}") from None

    # --- Markdown ---------------------------------------------------------------------------

    def to_markdown(self, directory: str = "DIR") -> str:
        """PARITY.md: the verdict, its tables, the tolerance with its reason, and how to do it again."""
        from paritas.verify.markdown import markdown

        return printable(markdown(self, directory))

    # --- HTML -------------------------------------------------------------------------------

    def to_html(self, directory: str = "DIR") -> str:
        """PARITY.html: everything that the report knows, as one page that needs nothing from outside."""
        from paritas.verify.html import page

        return page(self, directory)


def badness(value: float) -> float:
    """NaN as the largest of all."""
    return math.inf if math.isnan(value) else value


def plain(value: Any) -> Any:
    """What JSON can hold: infinities and NaN as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        return [plain(item) for item in value]
    return value


def _restore(cls: Any, data: Mapping[str, Any]) -> Any:
    """A flat dataclass from its JSON object: floats may be strings there, tuples are lists."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        value = data[field.name]
        values[field.name] = (
            float(value) if field.type == "float" else tuple(value) if isinstance(value, list) else value
        )
    return cls(**values)


def _restore_all(cls: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    return tuple(_restore(cls, row) for row in rows)


def _restore_report(data: Mapping[str, Any]) -> ParityReport:
    inside = data["module_tolerance"]
    return ParityReport(
        environment=_restore(Environment, data["environment"]),
        tolerance=_restore(Tolerance, data["tolerance"]),
        outputs=_restore_all(OutputParity, [{"histogram": (), **row} for row in data["outputs"]]),
        unseen=dict(data["unseen"]),
        cases=tuple(data["cases"]),
        subject=data["subject"],
        level=data["level"],
        modules=_restore_all(ModuleParity, data["modules"]),
        module_case=data["module_case"],
        module_tolerance=None if inside is None else _restore(Tolerance, inside),
        unseen_modules=dict(data["unseen_modules"]),
        observed=data["observed"],
        notes=tuple(data["notes"]),
        nodes=_restore_all(NodeParity, data.get("nodes", ())),
        unseen_nodes=dict(data.get("unseen_nodes", {})),
        observed_nodes=data.get("observed_nodes", ""),
        search=None if data.get("search") is None else _restore(Sought, data["search"]),
        gradients=_restore_all(GradientParity, data.get("gradients", ())),
        unseen_gradients=dict(data.get("unseen_gradients", {})),
        gradient_case=data.get("gradient_case", ""),
        gradient_rule=data.get("gradient_rule", ""),
        gradient_nodes=_restore_all(NodeGradientParity, data.get("gradient_nodes", ())),
        unseen_gradient_nodes=dict(data.get("unseen_gradient_nodes", {})),
    )
