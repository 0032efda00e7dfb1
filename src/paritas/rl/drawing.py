# SPDX-License-Identifier: Apache-2.0
"""Learning curves as pictures. The only file here that imports matplotlib, which it does when it draws."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas import leftovers
from paritas.extras import require

Record = Mapping[str, Any]


def learning_curve(history: Sequence[Record], path: str | os.PathLike[str], title: str = "") -> None:
    """The return of the last episodes by steps, with what was found where the policy was tried."""
    compare({"return of the last 100 episodes": [history]}, path, title, evaluated=True)


def compare(
    runs: Mapping[str, Sequence[Sequence[Record]]],
    path: str | os.PathLike[str],
    title: str = "",
    value: str = "return",
    evaluated: bool = False,
) -> None:
    """A line for each name: the mean of its runs, within the least and the most of them.

    runs: by name, the history of each run, of the same steps. value: what of a record is drawn.
    """
    require("report", "A learning curve")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, histories in runs.items():
        rows = [[(r["step"], r[value]) for r in history if r.get(value) is not None] for history in histories]
        shortest = min((len(row) for row in rows), default=0)
        if not shortest:
            continue
        steps = [step for step, _ in rows[0][:shortest]]
        lines = np.array([[number for _, number in row[:shortest]] for row in rows])
        (line,) = axes.plot(steps, lines.mean(0), label=name)
        if len(lines) > 1:
            axes.fill_between(steps, lines.min(0), lines.max(0), alpha=0.2, color=line.get_color(), linewidth=0)
    if evaluated:
        tried = [
            (r["step"], r["evaluation"]) for history in runs.values() for h in history for r in h if "evaluation" in r
        ]
        if tried:
            axes.plot(*zip(*tried, strict=True), "o", markersize=4, label="evaluation")
    axes.set(xlabel="steps", ylabel=value.replace("_", " "), title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    target = Path(path).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = leftovers.beside(target, "tmp").with_suffix(".png")
    figure.savefig(staging)
    staging.replace(target)
