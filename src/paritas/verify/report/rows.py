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

from paritas.verify.inputs.scenarios import step_name
from paritas.verify.inputs.search import Sought
from paritas.verify.report.tables import number
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
        engine = " ".join(part for part in (self.engine, self.version, self.mode and f"({self.mode} mode)") if part)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What rows have in common. `excess` is what rules: without a fault, one of at most 1 agrees.

    error: max|got-want| / mean|want| against the original. torch_error, port_error: PyTorch's and the port's distance
    from float64 of the same inputs, max|x-truth| / (typical|truth| + |truth|), NaN where there is no float64.
    """

    excess: float = math.inf
    error: float = math.inf
    fault: str = ""
    max_abs: float = math.nan
    torch_error: float = math.nan
    port_error: float = math.nan

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

    def figures(self, *names: str) -> tuple[str, ...]:
        """The cells of a table: the fault or the excess, then the error, what is named, and both distances."""
        if self.fault:
            return (self.fault, *[""] * (3 + len(names)))
        values = (self.error, *(getattr(self, name) for name in names), self.torch_error, self.port_error)
        return (f"{self.excess:.3g}", *map(number, values))


@dataclasses.dataclass(frozen=True)
class OutputParity(Measured):
    """One output in one case. unjudged: why this row counts neither for nor against the port.

    histogram: how many elements are how far off (`verify.report.histogram`).
    """

    case: str
    output: str
    edge: bool = False
    unjudged: str = ""
    mean_abs: float = math.nan
    mean_rel: float = math.nan
    worst: tuple[int, ...] = ()
    want: float = math.nan
    got: float = math.nan
    elements: int = 0
    rule: str = ""
    needed: str = ""
    hint: str = ""
    histogram: tuple[int, ...] = ()
    #: The cosine of the angle between the two, all elements as one vector; NaN where there is none.
    cosine: float = math.nan
    #: Of logits: in how many places there are, and in how many the highest one is the original's.
    places: int = 0
    same_places: int = 0

    @property
    def agrees(self) -> bool:
        return not self.unjudged and super().agrees

    @property
    def diverges(self) -> bool:
        return not self.unjudged and not self.agrees

    @property
    def ratio(self) -> float:
        """The port's error against float64 as a multiple of PyTorch's own; NaN where either is unknown."""
        if self.torch_error:
            return self.port_error / self.torch_error
        return 1.0 if self.port_error == 0 else (math.nan if math.isnan(self.port_error) else math.inf)

    def __str__(self) -> str:
        where = f'{self.output}, case "{self.case}"{" (edge)" if self.edge else ""}'
        if self.unjudged:
            return f"{where}: not judged: {self.unjudged}"
        at = f"; at {list(self.worst)} want {self.want:.9g}, got {self.got:.9g}" if self.max_abs else ""
        needed = f"; would pass with {self.needed}" if self.needed and not self.agrees else ""
        return f"{where}: {self.what}" + ("" if self.fault else f"{at}{needed}")


@dataclasses.dataclass(frozen=True)
class StepParity(Measured):
    """One call of a generation, each side on what it remembers; the worst of the call's outputs.

    said: the call in words. tokens: at how many places the most probable token was compared; at `same` of them it is
    the same, and at `ties` another one that is as probable within the tolerance. parted: the first of the others.
    """

    scenario: str
    step: int
    said: str
    tokens: int = 0
    same: int = 0
    ties: int = 0
    parted: str = ""
    unjudged: str = ""
    rule: str = ""

    @property
    def name(self) -> str:
        return step_name(self.scenario, self.step)

    @property
    def agrees(self) -> bool:
        return not self.unjudged and super().agrees and self.same + self.ties == self.tokens

    @property
    def diverges(self) -> bool:
        return not self.unjudged and not self.agrees

    @property
    def agreement(self) -> str:
        """ "17 of 17", "16 of 17, 1 tie"."""
        ties = f", {self.ties} tie{'s' if self.ties > 1 else ''}" if self.ties else ""
        return f"{self.same} of {self.tokens}{ties}" if self.tokens else ""

    def __str__(self) -> str:
        if self.unjudged:
            return f"{self.name}: not judged: {self.unjudged}"
        tokens = f"; tokens equal: {self.agreement}" if self.tokens and not self.fault else ""
        return f"{self.name} ({self.said}): {self.what}{tokens}" + (f"; {self.parted}" if self.parted else "")


@dataclasses.dataclass(frozen=True)
class TextCost:
    """How well the original and the port foresee a text, each token from those before it.

    of: which text. tokens: how many were foreseen; at `same` of them both hold the same one for the most probable.
    perplexity: exp of the mean -log probability. divergence: the mean Kullback-Leibler divergence of the port's
    distribution from the original's, in nats.
    """

    of: str
    tokens: int
    perplexity: float
    port_perplexity: float
    same: int
    divergence: float

    @property
    def change(self) -> float:
        """Of the perplexity, as a share of the original's."""
        return self.port_perplexity / self.perplexity - 1

    @property
    def agreement(self) -> float:
        return self.same / self.tokens

    def __str__(self) -> str:
        return (
            f"perplexity {self.port_perplexity:.5g}, the original's {self.perplexity:.5g} ({self.change:+.2%}); the "
            f"most probable token is the same at {self.same:,} of {self.tokens:,} places ({self.agreement:.2%}); "
            f"divergence {self.divergence:.2e} nats a token; on {self.of}"
        )


@dataclasses.dataclass(frozen=True)
class PictureCost:
    """How far a picture, or several, is from the original's of the same seed, both in levels of 8 bits.

    levels: the largest difference of any value. psnr: 10 log10(255^2 / the mean squared difference), inf for equal
    ones. changed: the share of the values that differ. because: which networks were made otherwise, and how, where a
    difference is meant.
    """

    levels: int
    psnr: float
    changed: float
    because: str = ""

    def __str__(self) -> str:
        levels = f"off by {self.levels} level{'' if self.levels == 1 else 's'} of 255 at most"
        off = f"{levels} in {self.changed:.2%} of its values, PSNR {self.psnr:.1f} dB" if self.levels else "equal"
        return f"in 8 bits the picture is {off}" + (f"; {self.because}" if self.because else "")


@dataclasses.dataclass(frozen=True)
class ModuleParity(Measured):
    """One call of one module, each side on its own values up to here; the worst of the call's outputs.

    source: "modeling_bert.py:348  hidden_states = self.dense(hidden_states)".
    """

    path: str
    module_class: str
    call: int
    node: str
    elements: int = 0
    source: str = ""

    @property
    def name(self) -> str:
        return self.path + (f" (call {self.call + 1})" if self.call else "")

    def __str__(self) -> str:
        source = f"\n    {self.source}" if self.source else ""
        return f"{self.name} ({self.module_class}): {self.what}{source}"


@dataclasses.dataclass(frozen=True)
class GradientParity(Measured):
    """The gradient of a random combination of the outputs by one parameter or floating input.

    kind: "parameter" or "input".
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}: {self.what}"


@dataclasses.dataclass(frozen=True)
class TrainedStep(Measured):
    """One step of a training on both sides; step 0 is what they begin with. error: of the loss, to float64.

    parameter: the one that is furthest from float64's, by its share of the tolerance. drift, torch_drift: how far, the
    port's and PyTorch's, as a share of the way that it has gone. loss_excess: the loss's own.
    """

    step: int
    loss: float = math.nan
    port_loss: float = math.nan
    exact_loss: float = math.nan
    parameter: str = ""
    drift: float = math.nan
    torch_drift: float = math.nan
    loss_excess: float = 0.0

    def __str__(self) -> str:
        if not self.step:
            return f"before the first step, {self.parameter}: {self.what}"
        if self.fault:
            return f"step {self.step}: {self.fault}"
        drift = f"{self.parameter} has drifted by {self.drift:.2e} of its way, PyTorch's by {self.torch_drift:.2e}"
        loss = f"loss {self.port_loss:.7g}, PyTorch's {self.loss:.7g}" + (
            f" ({self.loss_excess:.3g}x tolerance)" if self.loss_excess > 1 else ""
        )
        return f"step {self.step}: {self.excess:.3g}x tolerance; {f'{drift}; ' if self.parameter else ''}{loss}"


@dataclasses.dataclass(frozen=True)
class OfNode(Measured):
    """What belongs to one node of the graph. target: "aten.linear.default"."""

    node: str
    target: str
    module: str
    module_class: str
    source: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def of(self) -> str:
        """Of which tensor the row tells."""
        return f", {self.dtype}{list(self.shape)}"

    def __str__(self) -> str:
        source = f"\n    {self.source}" if self.source else ""
        where = f"{self.node} = {self.target}{self.of()}, in {self.module or 'the model'} ({self.module_class})"
        return f"{where}: {self.what}{source}"


@dataclasses.dataclass(frozen=True)
class NodeParity(OfNode):
    """One node, computed by the port from the original's inputs to it. needed: the distance that it would take."""

    needed: float = math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeGradientParity(OfNode):
    """The vector-Jacobian product of one node at the original's values; the worst of those to what the node uses.

    wrt: the node, parameter or input that it is the gradient of; shape and dtype are that one's.
    """

    wrt: str

    def of(self) -> str:
        return f" by {self.wrt} {list(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a verification found. Outputs of an unobserved run rule; the modules say where to look."""

    environment: Environment
    tolerance: Tolerance
    outputs: tuple[OutputParity, ...] = ()
    #: Output or case -> why it was not compared.
    unseen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cases: tuple[str, ...] = ()
    subject: str = ""
    level: str = "outputs"
    modules: tuple[ModuleParity, ...] = ()
    module_case: str = ""
    module_tolerance: Tolerance | None = None
    unseen_modules: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: What looking inside changed: "modules observed: outputs added, which undoes fusions".
    observed: str = ""
    notes: tuple[str, ...] = ()
    #: In the graph's order.
    nodes: tuple[NodeParity, ...] = ()
    unseen_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    observed_nodes: str = ""
    search: Sought | None = None
    gradients: tuple[GradientParity, ...] = ()
    unseen_gradients: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Where gradients were asked for.
    gradient_case: str = ""
    gradient_rule: str = ""
    #: In backward order.
    gradient_nodes: tuple[NodeGradientParity, ...] = ()
    unseen_gradient_nodes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: The options without which the command is another one: "--original mine.py:build".
    again: str = ""
    #: Of a port that goes on with what it remembers, in the order of the calls.
    generation: tuple[StepParity, ...] = ()
    #: Where a text was given, or weights are of fewer bits.
    text: TextCost | None = None
    #: Of a pipeline.
    picture: PictureCost | None = None
    #: Of a port for training: the state in which it begins, and the steps.
    training: tuple[TrainedStep, ...] = ()
    #: How the port's steps were computed.
    trained_with: str = ""

    @property
    def verdict(self) -> Verdict:
        """A fault or an excess diverges. Nothing compared, or anything not seen or not judged, is incomplete."""
        ruling: tuple[OutputParity | StepParity, ...] = (*self.outputs, *self.generation)
        if any(row.diverges for row in ruling) or any(not row.agrees for row in (*self.gradients, *self.training)):
            return "diverges"
        if self.training and not self.outputs:
            return "agrees" if len(self.training) > 1 else "incomplete"
        compared = sum(row.elements for row in self.outputs if row.agrees)
        if not compared or self.unseen or any(row.unjudged for row in ruling):
            return "incomplete"
        if self.unseen_gradients or (self.gradient_case and not self.gradients):
            return "incomplete"
        return "agrees"

    @property
    def agrees(self) -> bool:
        """Whether everything was compared, and nothing left its tolerance."""
        return self.verdict == "agrees"

    @property
    def error(self) -> float:
        """The largest max|got-want| / mean|want| of all outputs and cases; inf for a fault, NaN for no output."""
        rows = (*self.outputs, *self.generation, *self.training)
        return max((row.error for row in rows), key=badness, default=math.nan)

    @property
    def worst_output(self) -> OutputParity | None:
        return max(self.outputs, key=lambda row: row.badness, default=None)

    @property
    def worst_step(self) -> StepParity | None:
        """Of a generation."""
        return max(self.generation, key=lambda row: (row.diverges, *row.badness), default=None)

    @property
    def worst_module(self) -> ModuleParity | None:
        """By its share of the tolerance, as tables rank them."""
        return max(self.modules, key=lambda row: row.badness, default=None)

    @property
    def cosine(self) -> float:
        """The smallest of all outputs and ordinary cases; NaN where none has one."""
        found = [row.cosine for row in self.outputs if not row.edge and not row.unjudged]
        return min((value for value in found if not math.isnan(value)), default=math.nan)

    @property
    def same_choice(self) -> tuple[int, int]:
        """In how many places the highest logit is the original's, and of how many, in the ordinary cases."""
        rows = [row for row in self.outputs if not row.edge and not row.unjudged]
        return sum(row.same_places for row in rows), sum(row.places for row in rows)

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
