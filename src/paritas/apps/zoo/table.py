# SPDX-License-Identifier: Apache-2.0
"""What a sweep found, as SUPPORT.md to read and support.json to compute with."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from paritas.apps.zoo.sweep import CELLS, TITLES, Result, failed, versions

#: The errors by which the summary counts: max|got-want| / mean|want| at float32.
BOUNDS = (1e-5, 1e-4)


def to_json(results: Sequence[Result], cells: Sequence[str] = CELLS) -> str:
    """Versions, counts, and every cell of every entry."""
    value = {
        "versions": versions(),
        "summary": {cell: summary(results, cell) for cell in cells},
        "entries": [
            {
                "name": r.entry.name,
                "model_type": r.entry.model_type,
                "library": r.entry.library,
                "class": r.entry.model_class,
                "seconds": r.seconds,
                "cells": {cell: dict(r.cells[cell]) for cell in cells},
                "notes": list(r.notes),
            }
            for r in results
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def summary(results: Sequence[Result], cell: str) -> dict[str, Any]:
    errors = [r.cells[cell].get("error") for r in results if r.agrees(cell)]
    return {
        "entries": len(results),
        **dict(Counter(r.cells[cell]["verdict"] for r in results)),
        **{f"within {bound:g}": sum(e is not None and e <= bound for e in errors) for bound in BOUNDS},
    }


def to_markdown(results: Sequence[Result], cells: Sequence[str] = CELLS) -> str:
    """A summary, then each entry with a measured error or a reason in every cell, then the reasons in full."""
    types = {(r.entry.library, r.entry.model_type) for r in results}
    packages = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "paritas")
    lines = [
        "# Supported models",
        "",
        f"{len(results)} tiny random models of {len(types)} model types, each ported and compared with the original "
        "at float32 by `paritas support`. A cell is `max|got-want| / mean|want|` over all outputs; a number in "
        "brackets leads to the reason below.",
        "",
        f"Measured on {datetime.datetime.now(datetime.UTC).date().isoformat()} with {packages}.",
        "",
        "| | " + " | ".join(TITLES.get(cell, cell) for cell in cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    counts = {cell: summary(results, cell) for cell in cells}
    rows: list[tuple[str, str]] = [("agrees", "agree")]
    rows += [(f"within {bound:g}", f"… with an error of at most {bound:g}") for bound in BOUNDS]
    rows += [("diverges", "diverge"), ("incomplete", "not compared in full"), ("refused", "refused")]
    for key, words in rows:
        lines.append(f"| {words} | " + " | ".join(_share(counts[cell], key) for cell in cells) + " |")
    reasons: dict[str, int] = {}
    table: list[str] = []
    for result in results:
        shown = []
        for cell in cells:
            found = result.cells[cell]
            if found["verdict"] == "agrees":
                shown.append(f"{found['error']:.1e}" if found.get("error") is not None else "equal")
            else:
                reason = _reason(found)
                number = reasons.setdefault(reason, len(reasons) + 1)
                error = f"{found['error']:.1e} " if found.get("error") is not None else ""
                shown.append(f"{error}{found['verdict']} [{number}](#reasons)")
        name = result.entry.model_class.rpartition(".")[2].rpartition(":")[2]
        variant = result.entry.name.rpartition("/")[2]
        words = name if variant == name else f"{name} ({variant})"
        table.append(f"| {result.entry.model_type} | {words} | " + " | ".join(shown) + " |")
    if reasons:
        lines += ["", "## Reasons", "", "| | entries | reason |", "|---|---|---|"]
        uses = Counter(
            _reason(r.cells[cell])
            for r in failed(results, cells)
            for cell in cells
            if r.cells[cell]["verdict"] != "agrees"
        )
        lines += [f"| {number} | {uses[reason]} | {reason} |" for reason, number in reasons.items()]
    lines += [
        "",
        "## Every entry",
        "",
        "| model type | class | " + " | ".join(TITLES.get(cell, cell) for cell in cells) + " |",
        "|---|---|" + "---|" * len(cells),
        *table,
        "",
    ]
    return "\n".join(lines)


def _share(counts: Mapping[str, Any], key: str) -> str:
    count = counts.get(key, 0)
    return f"{count} ({count / max(counts['entries'], 1):.1%})" if count else "0"


def _reason(found: Mapping[str, Any]) -> str:
    """One line of a table. Numbers of steps and sizes stay: they say where."""
    text = re.sub(r"\s+", " ", str(found.get("reason", found["verdict"])))
    return text.replace("|", "/")[:300]
