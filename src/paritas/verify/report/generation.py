# SPDX-License-Identifier: Apache-2.0
"""The steps of a generation, as lines of text and as a section of PARITY.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paritas.verify.report.tables import escape, table

if TYPE_CHECKING:
    from paritas.verify.report.rows import Findings, StepParity

HEAD = (
    "generation",
    "step",
    "tokens given",
    "x tolerance",
    "error",
    "max abs",
    "tokens equal",
    "PyTorch/f64",
    "port/f64",
)

WORDS = (
    "Each side goes on with what it remembers of its own calls, on the tokens that the original chooses; greedy: on "
    "its own. Tokens equal: at how many places the most probable token is the same; a tie: the two are no further "
    "apart than the tolerances of both."
)


def lines(report: Findings) -> list[str]:
    """For the terminal: what was played, the worst step, and where tokens part first."""
    rows = report.generation
    off = [row for row in rows if row.diverges]
    same, ties = sum(row.same for row in rows), sum(row.ties for row in rows)
    tokens = sum(row.tokens for row in rows)
    scenarios = len({row.scenario for row in rows})
    found = [
        f"  generation: {len(rows)} steps of {scenarios} generations compared, {len(off)} diverge; "
        f"{same} of {tokens} tokens are the same{f', {ties} are ties' if ties else ''}"
    ]
    worst = report.worst_step
    if worst is not None:
        found.append(f"  {'first to diverge' if off else 'worst step'}: {off[0] if off else worst}")
    parted = next((row for row in rows if row.parted), None)
    if parted is not None and parted is not off[0]:
        found.append(f"  tokens part first: {parted}")
    return [*found, *(f"  not judged: {row}" for row in rows if row.unjudged)]


def section(report: Findings) -> list[str]:
    """For PARITY.md: every step, and in words those that diverge."""
    off = [row for row in report.generation if not row.agrees]
    text = ["## Generation", "", WORDS, "", *table(HEAD, map(cells, report.generation)), ""]
    return [*text, *(f"- {escape(str(row))}" for row in off), ""] if off else text


def cells(row: StepParity) -> tuple[str, ...]:
    where = (row.scenario, str(row.step) if row.step else "prompt", row.said)
    if row.unjudged and not row.fault:
        return (*where, "not judged", *[""] * 5)
    excess, error, largest, torch_error, port_error = row.figures("max_abs")
    return (*where, excess, error, largest, row.agreement, torch_error, port_error)
