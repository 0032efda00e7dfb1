# SPDX-License-Identifier: Apache-2.0
"""A report, or several, as one page of HTML that needs nothing from outside: the PARITY.html of a port.

What a page says comes from models, so all of it is escaped by the template engine, and a content security policy
keeps anything that were not from being executed or fetched.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import importlib.resources
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from paritas.verify.report import conclusion, curves, generation, histogram, training
from paritas.verify.report.histogram import Bin
from paritas.verify.report.layers import Branch, is_entry, layers, tree
from paritas.verify.report.markdown import FIGURE, LEGEND
from paritas.verify.report.panels import anchor, label, panels
from paritas.verify.report.rows import (
    Findings,
    GradientParity,
    ModuleParity,
    NodeGradientParity,
    NodeParity,
    OutputParity,
    StepParity,
    TrainedStep,
)

Row = ModuleParity | NodeParity | OutputParity | GradientParity | NodeGradientParity | StepParity | TrainedStep

#: Guilty lines of source that are shown with a card each, and nodes on a card; all are in the table.
MOST = 12

#: Shares of the tolerance: up to which a row has the first, second, ... colour. Above the last it diverges.
STEPS = (0.01, 0.1, 0.5, 1.0)

NO_CURVES = "No module was compared, so there is no curve: verify with --level modules."


def page(report: Findings, directory: str = "DIR") -> str:
    """The page of one report. directory: where the port is, for the commands that do it again."""
    return joined([(directory, report)])


def joined(reports: Sequence[tuple[str, Findings]]) -> str:
    """The page of several reports, each with its port or file: a summary, all curves in a picture, each whole."""
    views = [View(number, name, report) for number, (name, report) in enumerate(reports)]
    drawn = any(panel.lines for panel in panels(reports))
    return render(
        "parity.html.j2",
        views=views,
        subjects=list(dict.fromkeys(report.subject for _, report in reports)),
        curves=Markup(curves.svg(reports)) if drawn else "",
        no_curves=NO_CURVES,
        script_hash=_script_hash(),
    )


def render(template: str, **values: Any) -> str:
    """A template of ours with these values in it, each escaped."""
    return _environment().get_template(template).render(**values)


@dataclasses.dataclass(frozen=True)
class View:
    """A report as the template asks for it."""

    number: int  # among the reports of the page: ids begin with it
    name: str  # where its port is, or the file that it was read from
    report: Findings

    @property
    def id(self) -> str:
        return f"r{self.number}"

    @property
    def label(self) -> str:
        return label(self.report)

    @property
    def sentence(self) -> str:
        """What the verdict means for this report."""
        return conclusion.sentence(self.report)

    @property
    def in_words(self) -> list[str]:
        """How far off the outputs are, in sentences."""
        return conclusion.in_words(self.report)

    @property
    def next_steps(self) -> list[tuple[str, str]]:
        """What to do now, with its command."""
        return conclusion.next_steps(self.report, self.directory)

    @functools.cached_property
    def tree(self) -> Branch:
        return tree(self.report.modules)

    @functools.cached_property
    def anchors(self) -> Mapping[int, str]:
        """id() of a module's row -> the id of its element."""
        return {id(row): anchor(self.number, at) for at, row in enumerate(self.report.modules)}

    @functools.cached_property
    def opened(self) -> frozenset[str]:
        """The modules that are open at first: down to the first divergence, else so that the layers can be seen."""
        row = self.report.first_divergence
        if row is not None:
            return frozenset(_above(row.path)) | {row.path}
        numbered = next((row for row in layers(self.report.modules) if is_entry(row.path)), None)
        return frozenset(_above(numbered.path)) if numbered is not None else frozenset()

    @property
    def histograms(self) -> list[tuple[str, tuple[Bin, ...]]]:
        """For each output, how far its elements are off, in all cases together."""
        names = dict.fromkeys(row.output for row in self.report.outputs)
        added = {
            name: histogram.add(row.histogram for row in self.report.outputs if row.output == name) for name in names
        }
        return [(name, histogram.bins(counts)) for name, counts in added.items() if counts]

    @property
    def guilty(self) -> list[list[NodeParity]]:
        """The guilty nodes in the graph's order, those of one operator and source line together."""
        groups: dict[tuple[str, str], list[NodeParity]] = {}
        for row in self.report.guilty:
            groups.setdefault((row.target, row.source), []).append(row)
        return list(groups.values())

    @property
    def nodes(self) -> list[NodeParity]:
        """The guilty ones in the graph's order, then the others from the worst on."""
        others = [row for row in self.report.nodes if row.agrees]
        return [*self.report.guilty, *sorted(others, key=lambda row: -row.excess)]

    @property
    def training(self) -> Markup:
        """The picture of a training, which holds numbers and words of ours."""
        return Markup(training.svg(self.report))

    @property
    def gradients(self) -> list[GradientParity]:
        """The worst first."""
        return sorted(self.report.gradients, key=lambda row: row.badness, reverse=True)

    @property
    def unseen_nodes(self) -> list[tuple[str, list[str]]]:
        """Why nodes were not compared, and which: the commonest reason first."""
        reasons = Counter(self.report.unseen_nodes.values())
        return [
            (why, [node for node, reason in self.report.unseen_nodes.items() if reason == why])
            for why, _ in reasons.most_common()
        ]

    @property
    def environment(self) -> list[tuple[str, str]]:
        environment = self.report.environment
        return [
            ("engine", f"{environment.engine} {environment.version}".strip()),
            ("mode", environment.mode),
            ("computing in", environment.precision or "unknown"),
            ("weights", environment.dtype),
            ("device", environment.device),
            ("machine", environment.machine),
            ("PyTorch", environment.torch),
            ("Python", environment.python),
            ("date", environment.date),
        ]

    @property
    def commands(self) -> list[str]:
        """What makes this report again, in a shell and in Python."""
        level, again = self.report.level, self.report.again
        modified = ", allow_modified=True" if "--allow-modified" in again else ""
        original = ", original=MODULE" if "--original" in again else ""
        verify = f"verify(level={level!r}{original}{', gradients=True' if self.report.gradient_case else ''})"
        return [
            f"{conclusion.command(self.report, self.directory)} --html PARITY.html",
            f"paritas.load({self.directory!r}{modified}).{verify}.to_html()",
        ]

    @property
    def directory(self) -> str:
        return "DIR" if self.name.endswith(".json") else self.name


# --- what the template calls -------------------------------------------------------------------


def severity(row: Row | None) -> int:
    """0 where nothing is known, 1 to 4 within the tolerance by `STEPS`, 5 beyond it."""
    if row is None or _unjudged(row):
        return 0
    if not row.agrees:
        return 5
    return next((step for step, bound in enumerate(STEPS, 1) if row.excess <= bound), 5)


def meter(row: Row) -> int:
    """The length of a bar in percent: the excess from 1e-4 to 1e2 on a log scale, on which 1 is at two thirds."""
    if not row.agrees and not row.excess < 1e2:
        return 100
    return 0 if row.excess <= 1e-4 else min(100, round(100 * (math.log10(row.excess) + 4) / 6))


def worst_inside(branch: Branch) -> ModuleParity | None:
    """The worst row of a module and of all inside."""
    rows = [row for below in branch.walk() for row in below.rows]
    return max(rows, key=lambda row: (bool(row.fault), row.excess), default=None)


def why(row: OutputParity) -> str:
    """What is wrong with an output, in words."""
    if row.unjudged or row.fault:
        return row.unjudged or row.fault
    if not row.max_abs:
        return ""
    needed = f"; would pass with {row.needed}" if row.needed and not row.agrees else ""
    return f"at {list(row.worst)} {row.want:.9g} was wanted, {row.got:.9g} came{needed}"


def sentence(text: str) -> str:
    """A report's words as a sentence of a page."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def number(value: float) -> str:
    """A figure of a table; nothing where it is unknown."""
    return "" if math.isnan(value) else "0" if value == 0 else f"{value:.2e}"


def excess(row: Row) -> str:
    if _unjudged(row):
        return "not judged"
    return "fault" if row.fault else f"{row.excess:.3g}"


def heights(bars: Sequence[Bin]) -> list[float]:
    """The bars' heights as shares of the highest; whatever is not empty can be seen."""
    most = max((bar.count for bar in bars), default=0) or 1
    return [max(bar.count / most, 0.02) if bar.count else 0.0 for bar in bars]


def _above(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _unjudged(row: Row) -> bool:
    return isinstance(row, OutputParity | StepParity) and bool(row.unjudged)


# --- the template engine -----------------------------------------------------------------------


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("paritas.verify.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: tuple[Any, ...] = (
        severity, meter, worst_inside, number, excess, why, sentence, heights, conclusion.plural, histogram.bins,
    )  # fmt: skip
    environment.globals |= {function.__name__: function for function in functions}
    environment.globals |= {"LEGEND": LEGEND, "WORDS": conclusion.WORDS, "FIGURE": FIGURE, "MOST": MOST, "STEPS": STEPS}
    environment.globals |= {"STEP_WORDS": generation.WORDS, "TRAINING_WORDS": training.WORDS}
    environment.globals |= {"style": Markup(_own("parity.css")), "script": Markup(_own("parity.js"))}
    environment.filters["row_id"] = id
    return environment


def _own(name: str) -> str:
    return (importlib.resources.files("paritas.verify.report") / "templates" / name).read_text(encoding="utf-8")


def _script_hash() -> str:
    """What the content security policy lets run: our script and nothing else."""
    return base64.b64encode(hashlib.sha256(_own("parity.js").encode()).digest()).decode()
