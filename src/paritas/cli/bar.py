# SPDX-License-Identifier: Apache-2.0
"""How far a long piece of work is, on stderr: a bar with a rate in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from paritas.dropin import telling


class Bar:
    """Called with how much is done, of how much, and at what it is."""

    def __init__(self, title: str, unit: str, *, quiet: bool = False) -> None:
        self._title, self._unit, self._quiet = title, unit, quiet
        self._live: Any = None
        self._task: Any = None
        self._began, self._origin, self._said = 0.0, -1, 0

    def __enter__(self) -> Bar:
        if not self._quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            from paritas.cli.outcome import console

            columns = (TextColumn("{task.description:44.44}"), BarColumn(), MofNCompleteColumn())
            rate = TextColumn("[cyan]{task.fields[rate]}[/]")
            self._live = Progress(*columns, rate, TimeRemainingColumn(), console=console(stderr=True))
            self._task = self._live.add_task(self._title, total=None, rate="")
            self._live.start()
            telling.occupied += 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            telling.occupied -= 1

    def __call__(self, done: int, total: int, what: str = "") -> None:
        text = what or self._title
        if self._origin < 0:  # what was done before, in an earlier run, is not part of the rate
            self._began, self._origin = time.perf_counter(), done
        speed = (done - self._origin) / max(time.perf_counter() - self._began, 1e-3)
        rate = f"{speed:.1f} {self._unit}/s" if speed >= 1 else f"{60 * speed:.1f} {self._unit}/min" if speed else ""
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total, description=text, rate=rate)
        elif not self._quiet and done and (done == total or (done - self._said) * 20 >= total):
            self._said = done
            print(f"{done} of {total} {self._unit}{rate and ', '}{rate}: {text}", file=sys.stderr, flush=True)
