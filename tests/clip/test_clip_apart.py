# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in `inside` in a process that has open_clip, timm and torchvision, which no other may have."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

#: Where `make` puts them.
APART = Path(sys.prefix) / "apart"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is not None or not (APART / "open_clip").is_dir(),
    reason="open_clip is installed here, and its tests run as others do, or it is not in .venv/apart: make setup",
)


def _run(marks: str, seconds: int) -> None:
    path = os.pathsep.join(filter(None, (str(APART), os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, "-m", "pytest", str(HERE / "inside"), "-m", marks, "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=HERE.parent.parent,
        env={**os.environ, "PYTHONPATH": path},
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def test_what_is_tested_with_open_clip() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    _run("not slow", 600)


@pytest.mark.slow
def test_what_is_tested_with_open_clip_at_length() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    _run("slow", 3000)
