# SPDX-License-Identifier: Apache-2.0
"""The curves as an <svg> element for a page, in the page's colours; points are links with tooltips. No library."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from paritas.verify.report.panels import Line, Panel
from paritas.verify.report.scale import LONGEST_TITLE, MOST_LABELS, Scale, shortened

WIDTH, PLOT = 960, 300  # of the picture, and the height of what is between the axes
LEFT, RIGHT = 62, 104  # beside that
LETTER = 6.3  # the width of a letter of 12 pixels, about
STEP = 18  # from one line of words to the next

#: One for each series, around its point: circle, square, diamond, triangles, cross.
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "M-3.5-3.5h7v7h-7z",
    "M0-5L5 0 0 5-5 0z",
    "M0-5L4.6 3.6h-9.2z",
    "M0 5L4.6-3.6h-9.2z",
    "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
)


def draw(panels: Sequence[Panel], *, titles: bool = True) -> str:
    """The panels one below the other, each with the name of its original if titles are wanted."""
    parts, top = [], 0.0
    for panel in panels:
        drawing = _Drawing(panel, top, titles)
        parts.append(drawing.text())
        top = drawing.bottom
    return f'<svg viewBox="0 0 {WIDTH} {top:.0f}" font-size="12">{"".join(parts)}</svg>'


class _Drawing:
    """One panel."""

    def __init__(self, panel: Panel, top: float, titles: bool) -> None:
        self.panel, self.scale = panel, Scale(panel)
        self.parts: list[str] = []
        if titles:
            top += STEP + 4
            title = shortened(panel.subject or "error per layer", LONGEST_TITLE)
            self._text(title, 2, top, 'font-size="15" font-weight="bold"')
        for line in self.scale.subtitle():
            top += STEP
            self._text(line, 2, top, colour="quiet")
        self.top, self.bottom = top + 22, top + STEP
        if panel.lines:
            self.step = (WIDTH - LEFT - RIGHT) / max(1, len(self.scale.layers))
            self._axes()
            self._curves()

    def text(self) -> str:
        return "".join(self.parts)

    # --- places -----------------------------------------------------------------------------

    def x(self, layer: float) -> float:
        return LEFT + (layer + 0.5) * self.step

    def y(self, value: float) -> float:
        low, high = math.log10(self.scale.low), math.log10(self.scale.high)
        return self.top + PLOT * (high - math.log10(value)) / (high - low)

    # --- axes and words ---------------------------------------------------------------------

    def _axes(self) -> None:
        scale, end = self.scale, WIDTH - RIGHT
        first, last = math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high))
        for power in range(first, last + 1, max(1, (last - first) // 8)):
            height = self.y(10.0**power)
            self._line([(LEFT, height), (end, height)], "line")
            self._text(f"1e{power}", LEFT - 6, height + 4, 'text-anchor="end"')
        for there, word, value in ((scale.exact, "exact", scale.at_exact), (scale.faulty, "fault", scale.at_fault)):
            if there:
                self._text(word, LEFT - 6, self.y(value) + 4, 'text-anchor="end"')
        foot = self.top + PLOT
        for layer, stack in scale.borders():
            if layer:
                self._line([(self.x(layer - 0.5), self.top), (self.x(layer - 0.5), foot)], "line")
            if stack:
                self._text(stack, self.x(layer - 0.4), self.top - 6, colour="quiet")
        self._line([(LEFT, foot), (end, foot)], "quiet")
        names = scale.named()
        room = (WIDTH - LEFT - RIGHT) / max(1, len(names))
        longest = max((len(name) for _, name in names), default=0)
        turned = longest * LETTER > room
        for layer, name in names:
            x, y = self.x(layer), foot + 16
            if turned and len(name) > 4:
                self._text(name, x + 4, y, f'text-anchor="end" transform="rotate(-40 {x + 4:.1f} {y:.1f})"')
            else:
                self._text(name, x, y, 'text-anchor="middle"')
        foot += 16 + (0.65 * longest * LETTER if turned else 0) + STEP
        self._text(scale.axis_title(), (LEFT + end) / 2, foot, 'text-anchor="middle"', colour="quiet")
        self._legend(foot + STEP + 4)

    def _legend(self, y: float) -> None:
        items = [
            (shortened(line.label, 80), f"series-{at % 6}", MARKS[at % 6]) for at, line in enumerate(self.panel.lines)
        ]
        if truths := self.scale.truths():
            each = ", for each case" if len(truths) > 1 else ""
            items.append((f"PyTorch's own, against float64{each}", "quiet", "5 3"))
        if self.scale.bounds():
            items.append(("tolerance", "bad", "1 3"))
        x = 4.0
        for label, colour, mark in items:
            wide = 52 + len(label) * LETTER
            if x > 4 and x + wide > WIDTH:
                x, y = 4.0, y + STEP
            dashed = not mark.startswith("M")
            self._line([(x, y - 4), (x + 28, y - 4)], colour, 1 if dashed else 1.8, mark if dashed else "")
            if not dashed:
                self._mark(x + 14, y - 4, mark, f"fill:var(--{colour})")
            self._text(label, x + 36, y)
            x += wide
        self.bottom = y + STEP

    # --- the data ---------------------------------------------------------------------------

    def _curves(self) -> None:
        for line, values in self.scale.truths():
            for xs, ys in self.scale.segments(line, values):
                self._line([(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)], "quiet", 1, "5 3")
        for name, bound in self.scale.bounds():
            self._line([(LEFT, self.y(bound)), (WIDTH - RIGHT, self.y(bound))], "bad", 1, "1 3")
            self._text(name, WIDTH - RIGHT + 6, self.y(bound) + 4, colour="bad")
        for number, line in enumerate(self.panel.lines):
            self._curve(line, number)

    def _curve(self, line: Line, number: int) -> None:
        colour, mark = f"series-{number % 6}", MARKS[number % 6]
        heights = [self.scale.height(row) for row in line.rows]
        for xs, ys in self.scale.segments(line, heights):
            self._line([(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)], colour, 1.8)
        small = len(self.scale.layers) > MOST_LABELS
        for row, height in zip(line.rows, heights, strict=True):
            x, y = self.x(self.scale.at[row.name]), self.y(height)
            if not row.agrees:
                self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" style="fill:none;stroke:var(--bad)"/>')
            tooltip = html.escape(f"{row}\n{line.label}")
            self.parts.append(f'<a href="#{html.escape(line.anchors[row.name])}"><title>{tooltip}</title>')
            edge = "bad" if not row.agrees else colour
            fill = "paper" if row.error == 0 else colour
            self._mark(x, y, mark, f"fill:var(--{fill});stroke:var(--{edge});stroke-width:1.3", 0.6 if small else 1.0)
            self.parts.append("</a>")

    # --- elements ---------------------------------------------------------------------------

    def _text(self, words: str, x: float, y: float, more: str = "", *, colour: str = "ink") -> None:
        style = f"fill:var(--{colour})"
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {more} style="{style}">{html.escape(words)}</text>')

    def _line(self, points: Iterable[tuple[float, float]], colour: str, width: float = 1, dashes: str = "") -> None:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f"fill:none;stroke:var(--{colour});stroke-width:{width}" + (
            f";stroke-dasharray:{dashes}" * bool(dashes)
        )
        self.parts.append(f'<polyline points="{places}" style="{style}"/>')

    def _mark(self, x: float, y: float, path: str, style: str, size: float = 1.0) -> None:
        scale = "" if size == 1.0 else f" scale({size})"
        self.parts.append(f'<path transform="translate({x:.1f} {y:.1f}){scale}" d="{path}" style="{style}"/>')
