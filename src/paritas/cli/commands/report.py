# SPDX-License-Identifier: Apache-2.0
"""`paritas report`: the reports of several ports on one page, their curves in one picture. Loads no engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paritas.cli.options import Debug, Html, Json, Png, Quiet, ReportPaths
from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.report import check_files, read, write_files

if TYPE_CHECKING:
    from paritas.verify import ParityReport


def report(
    paths: ReportPaths,
    html: Html = None,
    png: Png = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Put the reports of several ports together: a table, a page with all of them, the curves of error per layer.

    Ports of different originals may be joined; each original then has curves of its own. Nothing is verified
    again. The exit code is 1 if any of the ports does not agree with its original.

    **Examples**

      paritas report bert-ms bert-ov --html report.html --png curves.png

      paritas verify bert-ms --json > today.json;  paritas report bert-ms today.json --html both.html
    """
    check_files(html=html, png=png)
    reports = [pair for path in paths for pair in read(path)]
    write_files(reports, html=html, png=png)
    if as_json:
        print_json(
            {
                "reports": [{"path": name, **_facts(one)} for name, one in reports],
                "html": str(html) if html else None,
                "png": str(png) if png else None,
            }
        )
    else:
        _print(reports)
        for file in filter(None, (html, png)):
            console().print(f"written: {file}", markup=False)
    return OK if all(one.verdict == "agrees" for _, one in reports) else DIVERGES


def _facts(one: ParityReport) -> dict[str, object]:
    full = json.loads(one.to_json())
    return {key: full[key] for key in ("subject", "verdict", "error", "level", "environment")}


def _print(reports: Sequence[tuple[str, ParityReport]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from paritas.verify.report.markdown import COLOURS
    from paritas.verify.report.panels import label

    table = Table(show_edge=False)
    for name in ("port", "original", "engine", "verdict", "error", "x tolerance"):
        table.add_column(name, justify="right" if name in ("error", "x tolerance") else "left", overflow="fold")
    for name, one in reports:
        worst = one.worst_output
        cells = (name, one.subject, label(one), one.verdict, f"{one.error:.2e}", f"{worst.excess:.3g}" if worst else "")
        table.add_row(*(Text(cell, COLOURS[one.verdict] if cell == one.verdict else "") for cell in cells))
    console().print(table)
