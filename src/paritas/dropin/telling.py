# SPDX-License-Identifier: Apache-2.0
"""A call that has to make a port first says so: to the logger `paritas.dropin`, and on a terminal in one line."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from paritas.printable import printable

logger = logging.getLogger("paritas.dropin")

#: While it is above 0, somebody else has the terminal: the command line's own progress.
occupied = 0

_WORDS = {"capture": "capturing", "lower": "lowering", "run": "loading"}


class Making:
    """Called with each stage of making a port; open as long as it is made."""

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.perf_counter()
        self._shown = not occupied and sys.stderr.isatty() and logging.getLogger("paritas").level <= logging.WARNING

    def __enter__(self) -> Making:
        logger.info("%s: this call is the first of its kind, so a port is made for it", self._what)
        return self

    def __call__(self, stage: str) -> None:
        logger.debug("%s: %s", self._what, stage)
        self._line(f"{_WORDS.get(stage, stage)} ...")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        if kind is not None:
            self._line("no port could be made", end="\n")
            return
        logger.info("%s: the port was made in %.1f s", self._what, seconds)
        self._line(f"made in {seconds:.1f} s", end="\n")

    def _line(self, text: str, end: str = "") -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[Kparitas: {printable(self._what)}: {text}{end}")
            sys.stderr.flush()
