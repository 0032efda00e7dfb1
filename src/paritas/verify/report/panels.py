# SPDX-License-Identifier: Apache-2.0
"""What the curves of reports consist of: a line for each report, and a panel for each original."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from paritas.verify.report.layers import layers
from paritas.verify.report.rows import Findings, ModuleParity


@dataclasses.dataclass(frozen=True)
class Line:
    """One report's curve: its name in the legend, and a row for each layer in the order of returning."""

    label: str
    report: Findings
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


def label(report: Findings) -> str:
    """A report in few words: engine, mode, and the precision that it computes in."""
    environment = report.environment
    return " ".join(filter(None, (environment.engine, environment.mode, environment.precision)))


def anchor(report: int, module: int) -> str:
    """The id of the element of a page that tells about a row of `modules`."""
    return f"r{report}-m{module}"


def panels(reports: Sequence[tuple[str, Findings]]) -> tuple[Panel, ...]:
    """The reports, each with its name, by original. Where labels are equal, the names tell them apart."""
    subjects = dict.fromkeys(report.subject for _, report in reports)
    return tuple(_panel(subject, reports) for subject in subjects)


def _panel(subject: str, reports: Sequence[tuple[str, Findings]]) -> Panel:
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


def _why_not(report: Findings) -> str:
    if report.level == "outputs":
        return "outputs only were compared: verify with --level modules"
    return next(iter(report.unseen_modules.values()), "no module was compared")
