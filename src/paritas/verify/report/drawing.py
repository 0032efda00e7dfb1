# SPDX-License-Identifier: Apache-2.0
"""The curves as a picture. The only file that imports matplotlib; no state of its pyplot is used or left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

from paritas.verify.report.panels import Line, Panel
from paritas.verify.report.scale import LONGEST_TITLE, MOST_LABELS, Scale, shortened

#: By the names that a page gives them. The series are Okabe and Ito's, which the colour-blind tell apart too.
COLOURS = {
    "ink": "#1f2328",
    "quiet": "#656d76",
    "line": "#d8dee4",
    "paper": "#fefefe",
    "bad": "#c8102e",
    "series-0": "#0072b2",
    "series-1": "#d55e00",
    "series-2": "#009e73",
    "series-3": "#cc79a7",
    "series-4": "#7a5fc9",
    "series-5": "#9a7d0a",
}
MARKERS = "osD^vP"

SAVING: dict[str, Any] = {"dpi": 200, "metadata": {"Software": None}}

WIDTH, HEIGHT = 10.0, 4.6  # of a panel, in inches
LETTER = 0.085  # of an axis label, in inches
MARGIN = 0.01  # of the words above a panel, as a share of the width


def style() -> Any:
    """A context in which a user's own settings of matplotlib do not matter, and pictures come out byte by byte."""
    return matplotlib.style.context(["default", {"font.size": 10}])


def figure(panels: Sequence[Panel], *, titles: bool = True) -> Figure:
    """A figure with the panels one below the other, each with the name of its original if titles are wanted."""
    made = Figure(figsize=(WIDTH, HEIGHT * len(panels)), layout="constrained", facecolor=COLOURS["paper"])
    parts = made.subfigures(len(panels), 1, squeeze=False, hspace=0.04)[:, 0]
    subtitles = []
    for part, panel in zip(parts, panels, strict=True):
        part.set_facecolor("none")
        if titles:
            part.suptitle(
                shortened(panel.subject or "error per layer", LONGEST_TITLE), x=MARGIN, ha="left", fontsize=12,
                fontweight="bold", color=COLOURS["ink"], parse_math=False,
            )  # fmt: skip
        axes = part.subplots()
        if panel.lines:
            _Drawing(axes, panel).draw()
            _legend(part, axes)
        else:
            axes.set_axis_off()
        subtitles.append((axes, _subtitle(axes, panel)))
    made.draw_without_rendering()  # only then is it known where the axes begin
    made.set_layout_engine("none")
    for axes, title in subtitles:
        box = axes.get_position()
        title.set_x((MARGIN - box.x0) / box.width)
    return made


def _legend(part: SubFigure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    narrow = max(map(len, labels)) < 36
    legend = part.legend(
        handles, [shortened(label, 80) for label in labels], loc="outside lower left", ncols=3 if narrow else 2,
        frameon=False, fontsize=9, handlelength=2.4, columnspacing=2, labelcolor=COLOURS["ink"],
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


class _Drawing(Scale):
    """One panel while it is drawn."""

    def __init__(self, axes: Axes, panel: Panel) -> None:
        super().__init__(panel)
        self.axes = axes

    def draw(self) -> None:
        axes = self.axes
        axes.set_yscale("log")
        axes.set_ylim(self.low, self.high)
        axes.set_xlim(-0.6, len(self.layers) - 0.4)
        axes.set_facecolor("none")
        for number, line in enumerate(self.panel.lines):
            self._line(line, number)
        self._truths()
        self._tolerances()
        self._axis_of_layers()
        self._axis_of_errors()

    # --- the data ---------------------------------------------------------------------------

    def _line(self, line: Line, number: int) -> None:
        colour, marker = COLOURS[f"series-{number % 6}"], MARKERS[number % 6]
        heights = [self.height(row) for row in line.rows]
        for xs, ys in self.segments(line, heights):
            self.axes.plot(xs, ys, color=colour, linewidth=1.8, zorder=3)
        self.axes.plot([], [], color=colour, marker=marker, markersize=5, linewidth=1.8, label=line.label)
        xs = [self.at[row.name] for row in line.rows]
        self.axes.scatter(
            xs,
            heights,
            s=26 if len(self.layers) <= MOST_LABELS else 12,
            marker=marker,
            linewidths=1.3,
            edgecolors=[COLOURS["bad"] if not row.agrees else colour for row in line.rows],
            facecolors=[COLOURS["paper"] if row.error == 0 else colour for row in line.rows],
            zorder=4,
        )
        over = [(x, y) for x, y, row in zip(xs, heights, line.rows, strict=True) if not row.agrees]
        if over:
            self.axes.scatter(
                [x for x, _ in over], [y for _, y in over], s=110, facecolors="none", edgecolors=COLOURS["bad"],
                linewidths=1.2, zorder=2,
            )  # fmt: skip

    def _truths(self) -> None:
        dashes: dict[str, Any] = {"color": COLOURS["quiet"], "linewidth": 1, "linestyle": (0, (4, 2))}
        known = self.truths()
        for line, heights in known:
            for xs, ys in self.segments(line, heights):
                self.axes.plot(xs, ys, zorder=1, **dashes)
        if known:
            each = ", for each case" if len(known) > 1 else ""
            self.axes.plot([], [], label=f"PyTorch's own, against float64{each}", **dashes)

    def _tolerances(self) -> None:
        for number, (name, bound) in enumerate(self.bounds()):
            dots = self.axes.axhline(bound, color=COLOURS["bad"], linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            self.axes.annotate(
                name, (1, bound), xycoords=self.axes.get_yaxis_transform(), xytext=(6, 0),
                textcoords="offset points", color=COLOURS["bad"], fontsize=8.5, va="center", parse_math=False,
            )  # fmt: skip
            dots.set_label("" if number else "tolerance")

    # --- axes and words ---------------------------------------------------------------------

    def _axis_of_layers(self) -> None:
        axes = self.axes
        named = self.named()
        axes.set_xticks([x for x, _ in named], [name for _, name in named], parse_math=False)
        names = axes.get_xticklabels()
        room = (WIDTH - 1.5) / len(names) / LETTER
        for text in names:
            if len(text.get_text()) > 4 and max(len(name.get_text()) for name in names) > room:
                text.set(rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", length=0, colors=COLOURS["ink"], labelsize=9)
        axes.set_xlabel(self.axis_title(), color=COLOURS["quiet"], fontsize=9, parse_math=False)
        self._borders()

    def _borders(self) -> None:
        """A thin line and a name where another part of the model begins."""
        for x, stack in self.borders():
            if x:
                self.axes.axvline(x - 0.5, color=COLOURS["line"], linewidth=1, zorder=0)
            if stack:
                self.axes.annotate(
                    stack, (x - 0.4, 1), xycoords=("data", "axes fraction"), xytext=(0, -4),
                    textcoords="offset points", va="top", color=COLOURS["quiet"], fontsize=9, parse_math=False,
                )  # fmt: skip

    def _axis_of_errors(self) -> None:
        axes = self.axes
        axes.yaxis.set_major_locator(LogLocator(base=10, numticks=9))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="both", length=0, colors=COLOURS["ink"], labelsize=9)
        axes.grid(axis="y", which="major", color=COLOURS["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(COLOURS["quiet"])
        for text, there, height in (
            ("exact", self.exact, self.at_exact),
            ("fault", self.faulty, self.at_fault),
        ):
            if there:
                axes.annotate(
                    text, (0, height), xycoords=axes.get_yaxis_transform(), xytext=(-4, 0), textcoords="offset points",
                    ha="right", va="center", fontsize=9, color=COLOURS["ink"],
                )  # fmt: skip


def _subtitle(axes: Axes, panel: Panel) -> Text:
    lines = Scale(panel).subtitle()
    return axes.set_title(
        "\n".join(lines), loc="left", fontsize=9, color=COLOURS["quiet"], parse_math=False, linespacing=1.4
    )
