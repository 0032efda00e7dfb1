# SPDX-License-Identifier: Apache-2.0
"""A report as Markdown, the PARITY.md of a port, and as tables for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from paritas.verify.report import conclusion, generation, gradients, training
from paritas.verify.report.tables import escape, number, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from paritas.verify.report.rows import Findings, ModuleParity, NodeParity, OutputParity

OUTPUT_HEAD = (
    "case",
    "output",
    "x tolerance",
    "error",
    "max abs",
    "mean abs",
    "mean rel",
    "PyTorch/f64",
    "port/f64",
    "ratio",
)
NODE_HEAD = ("node", "operator", "module", "x tolerance", "error", "PyTorch/f64", "port/f64", "source")
MODULE_HEAD = ("module", "class", "x tolerance", "error", "original/f64", "port/f64")

#: The columns of words.
WORDS = ("gradient of", "generation", "tokens given", "case", "output", "module", "class", "node", "operator", "source")

FIGURE = "the largest max|got-want| / mean|want| of all outputs and cases"

LEGEND = (
    "error: max|got-want| / mean|want| against the original. PyTorch/f64, port/f64: the largest distance from the same "
    "graph in float64, relative to the typical magnitude plus the element's own; ratio: port / PyTorch. "
    "x tolerance: the worst element's share of what is allowed; at most 1 agrees."
)


def markdown(report: Findings, directory: str) -> str:
    """The whole of PARITY.md, ending in a newline."""
    environment = report.environment
    worst = report.worst_output
    lines = [
        f"# Parity: {report.verdict}",
        "",
        " ".join([conclusion.sentence(report), *conclusion.in_words(report)]),
        "",
        *(f"- To {what}:   `{command}`" for what, command in conclusion.next_steps(report, directory)),
        "",
        f"{report.subject or 'This port'} on {environment}: error **{number(report.error)}** ({FIGURE}).",
        "",
    ]
    if worst is not None and worst.hint:
        lines += [worst.hint, ""]
    lines += [f"Tolerance: `{report.tolerance.rule}`, because {report.tolerance.because}.", ""]
    if report.training:
        lines += training.section(report)
    if report.outputs or not report.training:
        lines += _output_section(report)
    if report.unseen:
        lines += ["### What was not compared", "", *(f"- {name}: {why}" for name, why in report.unseen.items()), ""]
    if report.generation:
        lines += generation.section(report)
    if report.text is not None:
        lines += ["## Text", "", f"{report.text}.", ""]
    if report.picture is not None:
        lines += ["## Picture", "", f"{report.picture}.", ""]
    if report.level != "outputs":
        lines += _module_section(report)
    if report.level == "nodes":
        lines += _node_section(report)
    if report.search is not None:
        lines += ["## Search", "", *(f"- {escape(line)}" for line in report.search.lines(directory)), ""]
    if report.gradient_case:
        lines += gradients.section(report)
    if report.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in report.notes), ""]
    lines += ["## Inputs", "", *(f"- {case}" for case in report.cases), ""]
    facts = {
        "engine": f"{environment.engine} {environment.version}".strip(),
        "mode": environment.mode or "-",
        "arithmetic": environment.precision or "unknown",
        "weights": environment.dtype or "-",
        "device": environment.device,
        "machine": environment.machine or "-",
        "PyTorch": environment.torch or "-",
        "Python": environment.python or "-",
        "date": environment.date or "-",
    }
    lines += ["## Environment", "", *table(("", ""), facts.items()), ""]
    lines += ["## Reproduce", "", f"    {conclusion.command(report, directory)}", ""]
    return "\n".join(lines)


def _output_section(report: Findings) -> list[str]:
    lines = ["## Outputs", "", *table(OUTPUT_HEAD, map(output_cells, report.outputs)), "", LEGEND, ""]
    failed = [row for row in report.outputs if not row.agrees]
    if failed:
        lines += ["### What did not agree", "", *(f"- {escape(str(row))}" for row in failed), ""]
    return lines


def _module_section(report: Findings) -> list[str]:
    lines = [
        "## Modules",
        "",
        f'Case "{report.module_case}"; {report.observed or "not observed"}. Each side on its own values.',
        "",
    ]
    if report.module_tolerance:
        lines += [f"Tolerance: `{report.module_tolerance.rule}`, because {report.module_tolerance.because}.", ""]
    if report.first_divergence:
        lines += [f"First divergence: {escape(str(report.first_divergence))}", ""]
    if report.modules:
        lines += [*table(MODULE_HEAD, map(module_cells, report.modules)), ""]
    lines += [f"- not seen: {name}: {why}" for name, why in report.unseen_modules.items()]
    return [*lines, ""] if report.unseen_modules else lines


def _node_section(report: Findings) -> list[str]:
    lines = [
        "## Nodes",
        "",
        f'Case "{report.module_case}"; {report.observed_nodes}. Each node gets the original\'s inputs.',
        f"{len(report.nodes)} compared, {len(report.guilty)} guilty, {len(report.unseen_nodes)} not by themselves.",
        "",
    ]
    rows = report.guilty or _worst(report.nodes, 10)
    if rows:
        lines += [*table(NODE_HEAD, map(node_cells, rows)), ""]
    reasons = Counter(report.unseen_nodes.values())
    return [*lines, *(f"- {count} nodes: {why}" for why, count in reasons.items()), ""]


def node_cells(row: NodeParity) -> tuple[str, ...]:
    return (row.node, row.target, row.module, *row.figures(), row.source)


def _worst(rows: Sequence[Any], count: int) -> list[Any]:
    """The worst ones, the worst of them first."""
    return sorted(rows, key=lambda row: row.badness, reverse=True)[:count]


def output_cells(row: OutputParity) -> tuple[str, ...]:
    case = row.case + (" (edge)" if row.edge else "")
    if row.unjudged and not row.fault:
        return (case, row.output, "not judged", *[""] * 7)
    ratio = "" if row.fault or math.isnan(row.ratio) else f"{row.ratio:.2f}"
    return (case, row.output, *row.figures("max_abs", "mean_abs", "mean_rel"), ratio)


def module_cells(row: ModuleParity) -> tuple[str, ...]:
    return (row.name, row.module_class, *row.figures())


def _narrow(cells: Sequence[str]) -> tuple[str, ...]:
    return (cells[1], cells[3], cells[4], cells[7] or cells[0])


COLOURS = {"agrees": "green", "diverges": "red", "incomplete": "yellow"}


def terminal(report: Findings, *, worst: int = 10) -> RenderableType:
    """Tables for `rich.print`: the verdict, the outputs, and the `worst` modules, the worst first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def table(title: str, head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]]) -> Table:
        result = Table(title=title, title_justify="left", show_edge=False)
        for name in head:
            text = name in WORDS
            result.add_column(name, justify="left" if text else "right", overflow="fold", no_wrap=not text)
        for cells, agrees in rows:
            result.add_row(*map(Text, cells), style="" if agrees else "red")
        return result

    def narrow(cells: Sequence[str]) -> tuple[str, ...]:
        """The columns that fit into 80 characters: the Markdown has all."""
        return (*cells[:5], cells[-1])

    first, _, rest = str(report).partition("\n")
    parts: list[RenderableType] = [Text(first, style=f"bold {COLOURS[report.verdict]}"), Text(rest)]
    if report.outputs:
        outputs = [(narrow(output_cells(row)), row.agrees) for row in report.outputs]
        parts.append(table("outputs", narrow(OUTPUT_HEAD), outputs))
    if report.generation:
        shown = [(generation.cells(row)[:7], row.agrees) for row in _worst(report.generation, worst)]
        title = f"generation, the {len(shown)} worst of {len(report.generation)} steps"
        parts.append(table(title, generation.HEAD[:7], shown))
    if report.modules:
        shown = [(module_cells(row)[:4], row.agrees) for row in _worst(report.modules, worst)]
        title = f"modules, the {len(shown)} worst of {len(report.modules)}, the worst first"
        parts.append(table(title, MODULE_HEAD[:4], shown))
    if report.nodes:
        shown = [(_narrow(node_cells(row)), row.agrees) for row in _worst(report.nodes, worst)]
        title = f"nodes, the {len(shown)} worst of {len(report.nodes)}, the worst first"
        parts.append(table(title, _narrow(NODE_HEAD), shown))
    if report.gradients:
        shown = [(narrow(gradients.cells(row)), row.agrees) for row in _worst(report.gradients, worst)]
        parts.append(
            table(f"gradients, the {len(shown)} worst of {len(report.gradients)}", narrow(gradients.HEAD), shown)
        )
    return Group(*parts)
