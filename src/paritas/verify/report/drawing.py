# SPDX-License-Identifier: Apache-2.0
"""The drawing of the curves. The only file that imports matplotlib; no state of its pyplot is used or left behind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

from paritas.verify.report.layers import is_entry, stacks
from paritas.verify.report.panels import Line, Panel
from paritas.verify.report.rows import ModuleParity

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

ERROR = "max|got-want| / mean|want|"

SAVING: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "svg": {"transparent": True, "metadata": dict.fromkeys(("Date", "Creator", "Format", "Type"))},
}

WIDTH, HEIGHT = 10.0, 4.6  # of a panel, in inches
LETTER = 0.085  # of an axis label, in inches
MARGIN = 0.01  # of the words above a panel, as a share of the width
MOST_LABELS = 32  # along the axis; of more layers, every second, third, ... is named
LONGEST, LONGEST_TITLE = 22, 90  # characters


def style() -> Any:
    """A context in which a user's own settings of matplotlib do not matter, and pictures come out byte by byte."""
    return matplotlib.style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "paritas", "font.size": 10}])


def figure(panels: Sequence[Panel], *, titles: bool = True) -> Figure:
    """A figure with the panels one below the other, each with the name of its original if titles are wanted."""
    made = Figure(figsize=(WIDTH, HEIGHT * len(panels)), layout="constrained", facecolor=COLOURS["paper"])
    parts = made.subfigures(len(panels), 1, squeeze=False, hspace=0.04)[:, 0]
    subtitles = []
    for part, panel in zip(parts, panels, strict=True):
        part.set_facecolor("none")
        if titles:
            part.suptitle(
                _shortened(panel.subject or "error per layer", LONGEST_TITLE), x=MARGIN, ha="left", fontsize=12,
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
        handles, [_shortened(label, 80) for label in labels], loc="outside lower left", ncols=3 if narrow else 2,
        frameon=False, fontsize=9, handlelength=2.4, columnspacing=2, labelcolor=COLOURS["ink"],
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


@dataclasses.dataclass
class _Drawing:
    """One panel while it is drawn."""

    axes: Axes
    panel: Panel

    def __post_init__(self) -> None:
        self.layers = self.panel.layers
        self.at = {row.name: x for x, row in enumerate(self.layers)}
        self.stacks = stacks([*self.layers])
        self.low, self.high = self._span()

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

    def _span(self) -> tuple[float, float]:
        """The decades to show, with room for the tolerance, and below for what is exact."""
        rows = [row for line in self.panel.lines for row in line.rows]
        values = [v for row in rows for v in (row.error, row.torch_error) if 0 < v < math.inf]
        values += [bound for _, bound in self._bounds()]
        low, high = min(values, default=1e-7), max(values, default=1e-4)
        exact = any(row.error == 0 for row in rows)
        faulty = any(not row.error < math.inf for row in rows)
        return 10 ** (math.floor(math.log10(low) - 0.1) - 0.9 * exact), 10 ** (math.log10(high) + 0.5 + 0.5 * faulty)

    def _height(self, row: ModuleParity) -> float:
        """Where a row's error is drawn: what a logarithm has no place for is at the edges."""
        if row.error == 0:
            return self.low * 10**0.35
        return row.error if row.error < math.inf else self.high * 10**-0.25

    def _segments(self, line: Line, values: Iterable[float]) -> Iterator[tuple[list[int], list[float]]]:
        """Points to be joined: a line is broken between an encoder and a decoder, and where a value is missing."""
        xs: list[int] = []
        ys: list[float] = []
        last = None
        for row, value in zip(line.rows, values, strict=True):
            here = self.stacks[row.path]
            if xs and (here != last or math.isnan(value)):
                yield xs, ys
                xs, ys = [], []
            if not math.isnan(value):
                xs.append(self.at[row.name])
                ys.append(value)
            last = here
        if xs:
            yield xs, ys

    def _line(self, line: Line, number: int) -> None:
        colour, marker = COLOURS[f"series-{number % 6}"], MARKERS[number % 6]
        heights = [self._height(row) for row in line.rows]
        for xs, ys in self._segments(line, heights):
            self.axes.plot(xs, ys, color=colour, linewidth=1.8, zorder=3)
        self.axes.plot([], [], color=colour, marker=marker, markersize=5, linewidth=1.8, label=line.label)
        xs = [self.at[row.name] for row in line.rows]
        points = self.axes.scatter(
            xs,
            heights,
            s=26 if len(self.layers) <= MOST_LABELS else 12,
            marker=marker,
            linewidths=1.3,
            edgecolors=[COLOURS["bad"] if not row.agrees else colour for row in line.rows],
            facecolors=[COLOURS["paper"] if row.error == 0 else colour for row in line.rows],
            zorder=4,
        )
        points.set_urls([f"#{line.anchors[row.name]}" for row in line.rows])
        over = [(x, y) for x, y, row in zip(xs, heights, line.rows, strict=True) if not row.agrees]
        if over:
            self.axes.scatter(
                [x for x, _ in over], [y for _, y in over], s=110, facecolors="none", edgecolors=COLOURS["bad"],
                linewidths=1.2, zorder=2,
            )  # fmt: skip

    def _truths(self) -> None:
        """PyTorch's own distance from float64: it depends on the case alone, so it is drawn once for each."""
        dashes: dict[str, Any] = {"color": COLOURS["quiet"], "linewidth": 1, "linestyle": (0, (4, 2))}
        by_case = {line.report.module_case: line for line in reversed(self.panel.lines)}
        known = [line for line in by_case.values() if any(row.torch_error > 0 for row in line.rows)]
        for line in known:
            heights = [row.torch_error if row.torch_error > 0 else math.nan for row in line.rows]
            for xs, ys in self._segments(line, heights):
                self.axes.plot(xs, ys, zorder=1, **dashes)
        if known:
            each = ", for each case" if len(known) > 1 else ""
            self.axes.plot([], [], label=f"PyTorch's own, against float64{each}", **dashes)

    def _bounds(self) -> list[tuple[str, float]]:
        found: dict[float, str] = {}
        for line in self.panel.lines:
            tolerance = line.report.module_tolerance
            if tolerance is not None and tolerance.scaled:
                found.setdefault(tolerance.scaled, line.report.environment.precision)
        return [(precision, bound) for bound, precision in found.items()]

    def _tolerances(self) -> None:
        for number, (precision, bound) in enumerate(self._bounds()):
            dots = self.axes.axhline(bound, color=COLOURS["bad"], linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            self.axes.annotate(
                f"{precision}: {_short(bound)}", (1, bound), xycoords=self.axes.get_yaxis_transform(), xytext=(6, 0),
                textcoords="offset points", color=COLOURS["bad"], fontsize=8.5, va="center", parse_math=False,
            )  # fmt: skip
            dots.set_label("" if number else "tolerance")

    # --- axes and words ---------------------------------------------------------------------

    def _axis_of_layers(self) -> None:
        axes = self.axes
        step = math.ceil(len(self.layers) / MOST_LABELS)
        places = range(0, len(self.layers), step)
        axes.set_xticks(places, [short_name(self.layers[x]) for x in places], parse_math=False)
        names = axes.get_xticklabels()
        room = (WIDTH - 1.5) / len(names) / LETTER
        for text in names:
            if len(text.get_text()) > 4 and max(len(name.get_text()) for name in names) > room:
                text.set(rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", length=0, colors=COLOURS["ink"], labelsize=9)
        lists = dict.fromkeys(filter(None, (_list_of(row) for row in self.layers)))
        shown = ", ".join(list(lists)[:3]) + (", ..." if len(lists) > 3 else "")
        axes.set_xlabel(
            f"layers, in the order in which they return{': ' + shown if shown else ''}",
            color=COLOURS["quiet"], fontsize=9, parse_math=False,
        )  # fmt: skip
        self._borders()

    def _borders(self) -> None:
        """A thin line and a name where another part of the model begins."""
        last = ""
        for x, row in enumerate(self.layers):
            stack = self.stacks[row.path]
            if stack == last:
                continue
            if x:
                self.axes.axvline(x - 0.5, color=COLOURS["line"], linewidth=1, zorder=0)
            if stack:
                self.axes.annotate(
                    stack, (x - 0.4, 1), xycoords=("data", "axes fraction"), xytext=(0, -4),
                    textcoords="offset points", va="top", color=COLOURS["quiet"], fontsize=9, parse_math=False,
                )  # fmt: skip
            last = stack

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
        rows = [row for line in self.panel.lines for row in line.rows]
        for text, there, height in (
            ("exact", any(row.error == 0 for row in rows), self.low * 10**0.35),
            ("fault", any(not row.error < math.inf for row in rows), self.high * 10**-0.25),
        ):
            if there:
                axes.annotate(
                    text, (0, height), xycoords=axes.get_yaxis_transform(), xytext=(-4, 0), textcoords="offset points",
                    ha="right", va="center", fontsize=9, color=COLOURS["ink"],
                )  # fmt: skip


def _subtitle(axes: Axes, panel: Panel) -> Text:
    cases = dict.fromkeys(f'"{line.report.module_case}"' for line in panel.lines)
    lines = ["there is no curve"]
    if cases:
        lines = [f"{ERROR} of each layer's output, on the case{'s' * (len(cases) > 1)} {', '.join(cases)}"]
    lines += [f"not drawn: {name}: {why}" for name, why in panel.undrawn.items()]
    return axes.set_title(
        "\n".join(lines), loc="left", fontsize=9, color=COLOURS["quiet"], parse_math=False, linespacing=1.4
    )


def short_name(row: ModuleParity) -> str:
    """A layer on the axis: its number in its list, "3", or "1.0" in lists of lists; a name where it is in none."""
    parts = row.path.split(".")
    numbers = [part for part in parts if part.isdigit()]
    name = ".".join(numbers) if is_entry(row.path) else parts[-1] or "the model"
    return _shortened(name, LONGEST) + (f" #{row.call + 1}" if row.call else "")


def _list_of(row: ModuleParity) -> str:
    """ "encoder.layer.N" for an entry of a list, "" for anything else."""
    if not is_entry(row.path):
        return ""
    return ".".join("N" if part.isdigit() else part for part in row.path.split("."))


def _short(value: float) -> str:
    """ "1e-4" where Python says "0.0001"."""
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{value:g}" if value >= 1e-2 else f"{float(digits):g}e{int(power)}"


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else "..." + text[3 - longest :]
