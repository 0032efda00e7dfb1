# SPDX-License-Identifier: Apache-2.0
"""Reports and ports where people look at them: cells of notebooks, and frames of pandas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from paritas.errors import InputError, ParitasError
from paritas.verify.report.html import View, page, render

if TYPE_CHECKING:
    from paritas.verify.report.rows import Findings
    from paritas.verify.subject import Subject

#: What `frame` makes a table of.
TABLES = ("outputs", "generation", "modules", "nodes", "gradients", "training")


class PandasMissing(ParitasError, ImportError):
    """A frame was asked for, and pandas is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "pandas is not installed. Install it, pip install pandas, or take the rows as they are: report.outputs, "
            "report.modules, report.nodes and report.gradients are dataclasses."
        )


def frame(report: Findings, of: str) -> Any:
    """See `ParityReport.to_frame`. Raises `PandasMissing`, and `InputError` for a table that there is not."""
    if of not in TABLES:
        raise InputError(f"A report has no table {of!r}. It has: {', '.join(TABLES)}.")
    try:
        import pandas
    except ImportError:
        raise PandasMissing from None
    rows = getattr(report, of)
    follows = ("agrees", "ratio") if of == "outputs" else ("agrees",)
    records = [dataclasses.asdict(row) | {name: getattr(row, name) for name in follows} for row in rows]
    return pandas.DataFrame(records)


def cell(report: Findings) -> str:
    """A verdict in a few lines, and the whole page in a frame of its own, which is made when it is opened."""
    return render("cell.html.j2", view=View(0, "DIR", report), page=page(report))


def port_cell(port: Subject, report: Findings | None) -> str:
    """What goes in and out of a port, what was to be said of it, and what its last verification found."""
    return render(
        "port.html.j2", port=port, manifest=port.manifest, view=None if report is None else View(0, "DIR", report)
    )
