# SPDX-License-Identifier: Apache-2.0
"""What a type checker says of programs that use Paritas."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def assert_found(right: str, wrong: str, lines: set[int], place: Path) -> None:
    """mypy has errors for these lines of `wrong`, and none for `right`, where it reveals what comments say."""
    pytest.importorskip("mypy")
    (place / "right.py").write_text(right)
    (place / "wrong.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(place / "cache"), "right.py", "wrong.py"],
        cwd=place, env={**os.environ, "MYPYPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = done.stdout.splitlines()
    for number, line in enumerate(right.splitlines(), 1):
        if "reveal_type" in line:
            (note,) = [one for one in told if one.startswith(f"right.py:{number}: note")]
            assert line.partition("# ")[2] in note
    assert not [one for one in told if re.match(r"right\.py:\d+: error", one)], done.stdout
    found = {int(one.split(":")[1]) for one in told if re.match(r"wrong\.py:\d+: error", one)}
    assert found == lines, done.stdout
