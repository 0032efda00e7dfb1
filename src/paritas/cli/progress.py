# SPDX-License-Identifier: Apache-2.0
"""The stages as they pass, on stderr: a live list in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from paritas.dropin import telling
from paritas.printable import printable

WORDS = {
    "load": "load the original",
    "capture": "capture its graph",
    "lower": "lower it to the engine",
    "run": "load the port",
    "verify": "verify it against the original and float64",
    "bisect": "look for the smallest part that is wrong",
    "script": "write scripts, and run them",
    "compare": "compare the two, in float64",
    "save": "write the port",
    "warm": "call it, so that its ports are made",
}


class Stages:
    """Called with the name of each stage as it begins; `seconds` then has what each one took."""

    def __init__(self, title: str = "", *, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._title, self._quiet = title, quiet
        self._live: Any = None
        self._task: Any = None
        self._stage, self._began, self._start = "", 0.0, time.perf_counter()

    def __enter__(self) -> Stages:
        if not self._quiet and sys.stderr.isatty():
            self._live = _live()
            self._live.start()
            telling.occupied += 1
        if self._title:
            self._line(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)
        if self._live is not None:
            self._live.stop()
            telling.occupied -= 1
        elif kind is None:
            self._line("done")

    def __call__(self, stage: str) -> None:
        """`stage` begins, and the one before it is over."""
        self._end()
        self._stage, self._began = stage, time.perf_counter()
        if self._live is not None:
            self._task = self._live.add_task(WORDS.get(stage, stage), total=1, detail="")
        else:
            self._line(WORDS.get(stage, stage))

    def detail(self, text: str) -> None:
        """What the running stage is at. Only a terminal shows it."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, detail=text)

    def _end(self, failed: bool = False) -> None:
        if not self._stage:
            return
        self.seconds[self._stage] = time.perf_counter() - self._began
        if self._live is not None:
            self._live.update(self._task, detail="[red]stopped here[/]" if failed else "", completed=0 if failed else 1)
            self._live.stop_task(self._task)
        self._stage = ""

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(text, highlight=False)
        else:
            print(f"[{time.perf_counter() - self._start:6.1f} s] {printable(text)}", file=sys.stderr, flush=True)


def _live() -> Any:
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
    from rich.text import Text

    from paritas.cli.outcome import console

    class Seconds(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.elapsed or 0.0:6.1f} s", style="cyan")

    columns = (SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description}"), Seconds())
    return Progress(*columns, TextColumn("[dim]{task.fields[detail]}[/]"), console=console(stderr=True))
