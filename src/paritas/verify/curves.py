# SPDX-License-Identifier: Apache-2.0
"""The error per layer of one or several reports: what its curves consist of, and the picture as PNG and SVG."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import io
import re
from collections.abc import Mapping, Sequence

from paritas.errors import ParitasError
from paritas.verify.layers import layers
from paritas.verify.report import ModuleParity, ParityReport

INSTALL = (
    "The curves are drawn by matplotlib, which is not installed. Install it:   pip install 'paritas[report]'"
)


class DrawingMissing(ParitasError, ImportError):
    """A picture was asked for, and matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(INSTALL)


@dataclasses.dataclass(frozen=True)
class Line:
    """One report's curve: its name in the legend, and a row for each layer in the order of returning."""

    label: str
    report: ParityReport
    rows: tuple[ModuleParity, ...]
    anchors: Mapping[str, str]  # name of a row -> the element of a page that tells more about it


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of one original, over one axis. undrawn: name in the legend -> why it has no curve."""

    subject: str
    lines: tuple[Line, ...]
    undrawn: Mapping[str, str]

    @property
    def layers(self) -> tuple[ModuleParity, ...]:
        """What the axis shows: a row for each layer of any line, where that line returns from it."""
        found: list[ModuleParity] = []
        for line in self.lines:
            places = {row.name: at for at, row in enumerate(found)}
            at = 0
            for row in line.rows:
                if row.name in places:
                    at = max(at, next(i for i, other in enumerate(found) if other.name == row.name) + 1)
                else:
                    found.insert(at, row)
                    at += 1
        return tuple(found)


def label(report: ParityReport) -> str:
    """A report in few words: engine, mode, and the precision that it computes in."""
    environment = report.environment
    return " ".join(filter(None, (environment.engine, environment.mode, environment.precision)))


def anchor(report: int, module: int) -> str:
    """The id of the element of a page that tells about a row of `modules`."""
    return f"r{report}-m{module}"


def panels(reports: Sequence[tuple[str, ParityReport]]) -> tuple[Panel, ...]:
    """The reports, each with its name, by original. Where labels are equal, the names tell them apart."""
    subjects = dict.fromkeys(report.subject for _, report in reports)
    return tuple(_panel(subject, reports) for subject in subjects)


def _panel(subject: str, reports: Sequence[tuple[str, ParityReport]]) -> Panel:
    labels = [label(report) for _, report in reports if report.subject == subject]
    lines, undrawn = [], {}
    for number, (name, report) in enumerate(reports):
        if report.subject != subject:
            continue
        text = label(report)
        full = f"{text} ({name})" if name and labels.count(text) > 1 else text
        rows = layers(report.modules)
        if rows:
            anchors = {row.name: anchor(number, at) for at, row in enumerate(report.modules)}
            lines.append(Line(full, report, rows, anchors))
        else:
            undrawn[full] = _why_not(report)
    return Panel(subject, tuple(lines), undrawn)


def _why_not(report: ParityReport) -> str:
    if report.level == "outputs":
        return "outputs only were compared: verify with --level modules"
    return next(iter(report.unseen_modules.values()), "no module was compared")


def drawable() -> bool:
    """Whether matplotlib is installed. Does not import it."""
    return importlib.util.find_spec("matplotlib") is not None


def png(reports: Sequence[tuple[str, ParityReport]]) -> bytes:
    """The curves as a PNG file. Raises `DrawingMissing` where matplotlib is not installed."""
    return _drawn(panels(reports), "png")


def svg(reports: Sequence[tuple[str, ParityReport]]) -> str:
    """The same picture as an <svg> element for a page, in the page's colours; its points are links with tooltips.

    Raises `DrawingMissing` where matplotlib is not installed.
    """
    shown = panels(reports)
    text = _drawn(shown, "svg", titles=len(shown) > 1).decode()
    tooltips = {
        line.anchors[row.name]: f"{row}\n{line.label}"
        for panel in shown
        for line in panel.lines
        for row in line.rows
    }
    return _explained(_themed(text), tooltips)


def _drawn(shown: Sequence[Panel], kind: str, *, titles: bool = True) -> bytes:
    if not drawable():
        raise DrawingMissing
    from paritas.verify import drawing

    buffer = io.BytesIO()
    with drawing.style():
        drawing.figure(shown, titles=titles).savefig(buffer, format=kind, **drawing.SAVING[kind])
    return buffer.getvalue()


def _themed(text: str) -> str:
    """What matplotlib wrote, without the XML prologue and sizes, with `var(--ink)` and the like for our colours."""
    from paritas.verify.drawing import COLOURS

    text = text[text.index("<svg") :]
    for name, colour in COLOURS.items():
        text = re.sub(rf"(?<=: ){re.escape(colour)}(?=[;\"])", f"var(--{name})", text)
    head, _, body = text.partition(">")
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + body


def _explained(text: str, tooltips: Mapping[str, str]) -> str:
    """Links that stay in the page, where matplotlib's open another tab, each with its tooltip."""

    def link(found: re.Match[str]) -> str:
        return f'<a href="#{found[1]}"><title>{html.escape(tooltips[found[1]])}</title>'

    return re.sub(r'<a xlink:href="#(r\d+-m\d+)"[^>]*>', link, text)
