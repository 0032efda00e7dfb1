# SPDX-License-Identifier: Apache-2.0
"""What a sweep has found so far, a line of JSON each: one that is interrupted goes on where it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """The lines of a file that were written with these versions of packages; each is on disk before `add` returns."""

    def __init__(self, file: Path, versions: Mapping[str, str]) -> None:
        self._file, self._versions = file, dict(versions)
        self._lock = threading.Lock()
        self.lines: list[dict[str, Any]] = []
        written = file.read_text(encoding="utf-8") if file.is_file() else ""
        self._begin = "\n" if written and not written.endswith("\n") else ""  # so that no line goes on with half of one
        for text in written.splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the line that was being written when the power went
                continue
            if line["versions"] == self._versions:
                self.lines.append(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep a line; by one thread at a time."""
        line = {**line, "versions": self._versions}
        with self._lock, self._file.open("a", encoding="utf-8") as out:
            self.lines.append(line)
            out.write(self._begin + json.dumps(line) + "\n")
            self._begin = ""
