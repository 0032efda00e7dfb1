# SPDX-License-Identifier: Apache-2.0
"""The gradients of a report, as lines of text and as a section of PARITY.md."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from paritas.verify.report.tables import table

if TYPE_CHECKING:
    from paritas.verify.report.rows import Findings, GradientParity, NodeGradientParity

HEAD = ("gradient of", "shape", "x tolerance", "error", "max abs", "PyTorch/f64", "port/f64")
NODE_HEAD = ("node", "operator", "by", "module", "x tolerance", "error", "PyTorch/f64", "port/f64", "source")


def lines(report: Findings) -> list[str]:
    """For the terminal: what was compared, the worst parameter, the first guilty node and where it is."""
    off = [row for row in report.gradients if not row.agrees]
    found = [
        f'  gradients: {len(report.gradients)} compared, {len(off)} diverge; case "{report.gradient_case}", '
        "of a random combination of the outputs"
    ]
    found += [f"  gradient not compared: {name}: {why}" for name, why in report.unseen_gradients.items()]
    if not report.gradients:
        return found
    worst = max(report.gradients, key=lambda row: row.badness)
    found.append(f"  worst gradient: {worst}")
    seen, guilty = len(report.gradient_nodes), report.guilty_backwards
    found.append(
        f"  nodes backwards: {seen} compared one by one, {len(guilty)} guilty, "
        f"{len(report.unseen_gradient_nodes)} not by themselves"
    )
    found += [f"  first guilty backwards: {row}" for row in guilty[:1]]
    found += [f"  guilty backwards: {row}" for row in guilty[1:10]]
    if len(guilty) > 10:
        found.append(f"  guilty backwards: {len(guilty) - 10} more")
    if not seen:
        reasons = dict.fromkeys(report.unseen_gradient_nodes.values())
        found += [f"  not seen: {why}" for why in list(reasons)[:5]]
    if off and seen and not guilty:
        found.append("    no node by itself: look at what is not by itself, or at Graph mode against PyNative")
    if guilty and not off:
        found.append("    the gradients of the unobserved run agree nevertheless, and they rule")
    return found


def section(report: Findings) -> list[str]:
    """For PARITY.md: the gradients that diverge, or the worst ones, and the same of the nodes."""
    off = [row for row in report.gradients if not row.agrees]
    guilty = report.guilty_backwards
    text = [
        "## Gradients",
        "",
        f'Case "{report.gradient_case}"; of a random combination of the outputs, by each parameter that requires '
        f"gradients and each floating input: {len(report.gradients)} compared, {len(off)} diverge.",
        "",
    ]
    if report.gradient_rule:
        text += [f"Tolerance: `{report.gradient_rule}`.", ""]
    rows = off or sorted(report.gradients, key=lambda row: row.badness, reverse=True)[:10]
    if rows:
        text += [*table(HEAD, map(cells, rows)), ""]
    text += [f"- not compared: {name}: {why}" for name, why in report.unseen_gradients.items()]
    text += [""] if report.unseen_gradients else []
    if report.gradient_nodes or report.unseen_gradient_nodes:
        text += [
            "### Node by node, backwards",
            "",
            "Each node's vector-Jacobian product of a random vector at the original's values: "
            f"{len(report.gradient_nodes)} compared, {len(guilty)} guilty, "
            f"{len(report.unseen_gradient_nodes)} not by themselves.",
            "",
        ]
    nodes = guilty or sorted(report.gradient_nodes, key=lambda row: row.badness, reverse=True)[:10]
    if nodes:
        text += [*table(NODE_HEAD, map(node_cells, nodes)), ""]
    reasons = Counter(report.unseen_gradient_nodes.values())
    return [*text, *(f"- {count} nodes: {why}" for why, count in reasons.items()), ""]


def cells(row: GradientParity) -> tuple[str, ...]:
    return (row.name, str(list(row.shape)), *row.figures("max_abs"))


def node_cells(row: NodeGradientParity) -> tuple[str, ...]:
    return (row.node, row.target, row.wrt, row.module, *row.figures(), row.source)
