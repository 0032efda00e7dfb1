# SPDX-License-Identifier: Apache-2.0
"""What a report consists of: a row for each output, module, node and gradient, and the verdict that follows."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping
from typing import Any, Literal

from paritas.verify.inputs.search import Sought
from paritas.verify.tolerance import Tolerance

Verdict = Literal["agrees", "diverges", "incomplete"]


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
    histogram: tuple[int, ...] = ()  # how many elements are how far off: see `verify.report.histogram`

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
class Findings:
    """What a verification found. Outputs of an unobserved run rule; the modules say where to look."""

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
