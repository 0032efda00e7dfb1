# SPDX-License-Identifier: Apache-2.0
"""The steps of a training, as lines of text, as a section of PARITY.md and as a picture for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paritas.verify.report.tables import escape, number, table

if TYPE_CHECKING:
    from paritas.verify.report.rows import Findings, TrainedStep

HEAD = ("step", "x tolerance", "loss", "PyTorch's", "furthest parameter", "drift", "PyTorch's drift")

WORDS = (
    "Original, port and the original in float64 go down their gradients at one rate, on the same batches and with the "
    "same dropout. Drift: how far the parameter is from that of float64, as a share of the way that this has gone."
)

WIDTH, HEIGHT, LEFT, RIGHT = 960, 180, 62, 104


def lines(report: Findings) -> list[str]:
    """For the terminal: what was trained, and the first step and parameter that left the tolerance."""
    rows = [row for row in report.training if row.step]
    off = [row for row in report.training if not row.agrees]
    found = [f"  training: {len(rows)} steps compared, {len(off)} diverge; {report.trained_with}"]
    if off:
        return [*found, f"  first to diverge: {off[0]}"]
    if rows:
        found.append(f"  worst step: {max(rows, key=lambda row: row.badness)}")
        found.append(f"  losses: {rows[0].port_loss:.6g} to {rows[-1].port_loss:.6g}, PyTorch's {rows[-1].loss:.6g}")
    return found


def section(report: Findings) -> list[str]:
    """For PARITY.md: every step."""
    off = [row for row in report.training if not row.agrees]
    text = ["## Training", "", f"{WORDS} Computed by {report.trained_with}.", ""]
    if off:
        text += [f"First to diverge: {escape(str(off[0]))}", ""]
    return [*text, *table(HEAD, map(cells, report.training)), ""]


def cells(row: TrainedStep) -> tuple[str, ...]:
    share = row.fault or f"{row.excess:.3g}"
    if not row.step:
        return ("before", share, "", "", row.parameter, "", "")
    losses = (f"{row.port_loss:.7g}", f"{row.loss:.7g}")
    return (str(row.step), share, *losses, row.parameter, number(row.drift), number(row.torch_drift))


def svg(report: Findings) -> str:
    """The losses of both, and below, on a scale of powers, the share of the tolerance. Numbers only: no name."""
    rows = [row for row in report.training if row.step and math.isfinite(row.loss) and math.isfinite(row.port_loss)]
    if len(rows) < 2:
        return ""
    steps = [row.step for row in rows]
    mine, theirs = [row.port_loss for row in rows], [row.loss for row in rows]
    low, high = min(*mine, *theirs), max(*mine, *theirs)
    room = (high - low) or 1.0

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - steps[0]) / max(1, steps[-1] - steps[0])

    def curve(heights: Sequence[float], style: str) -> str:
        points = " ".join(f"{x(step):.1f},{height:.1f}" for step, height in zip(steps, heights, strict=True))
        return f'<polyline points="{points}" style="fill:none;{style}"/>'

    def words(text: str, left: float, top: float, colour: str = "quiet", anchor: str = "start") -> str:
        return f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" style="fill:var(--{colour})">{text}</text>'

    top = 24
    parts = [words("loss", 2, 14), words(f"step {steps[-1]}", WIDTH - RIGHT, top + HEIGHT + 18, anchor="end")]
    for value in (low, high):
        parts.append(words(f"{value:.4g}", LEFT - 6, top + HEIGHT * (high - value) / room + 4, anchor="end"))
    parts.append(curve([top + HEIGHT * (high - v) / room for v in theirs], "stroke:var(--quiet);stroke-width:5"))
    parts.append(curve([top + HEIGHT * (high - v) / room for v in mine], "stroke:var(--series-0);stroke-width:1.8"))
    parts.append(words("PyTorch", WIDTH - RIGHT + 8, top + HEIGHT / 2))
    parts.append(words("port", WIDTH - RIGHT + 8, top + HEIGHT / 2 + 18, "series-0"))
    top += HEIGHT + 48
    shares = [min(max(row.excess, 1e-5), 1e3) for row in rows]
    least, most = math.log10(min(*shares, 0.1)), math.log10(max(*shares, 10.0))

    def y(share: float) -> float:
        return top + HEIGHT * (most - math.log10(share)) / (most - least)

    parts += [words("share of the tolerance", 2, top - 10), words("1", LEFT - 6, y(1.0) + 4, anchor="end")]
    dashed = "fill:none;stroke:var(--bad);stroke-dasharray:1 3"
    parts.append(f'<polyline points="{LEFT},{y(1.0):.1f} {WIDTH - RIGHT},{y(1.0):.1f}" style="{dashed}"/>')
    parts.append(words("tolerance", WIDTH - RIGHT + 6, y(1.0) + 4, "bad"))
    parts.append(curve([y(share) for share in shares], "stroke:var(--series-0);stroke-width:1.8"))
    first = next((row for row in rows if not row.agrees), None)
    if first is not None:
        place = f'cx="{x(first.step):.1f}" cy="{y(min(max(first.excess, 1e-5), 1e3)):.1f}"'
        parts.append(f'<circle {place} r="8" style="fill:none;stroke:var(--bad)"/>')
    return f'<svg viewBox="0 0 {WIDTH} {top + HEIGHT + 12:.0f}" font-size="12">{"".join(parts)}</svg>'
