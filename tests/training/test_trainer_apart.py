# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in `inside` in a process that has accelerate and peft, with which transformers loads otherwise."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

#: Where `make` puts them.
TRAINER = Path(sys.prefix) / "trainer"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is not None or not (TRAINER / "accelerate").is_dir(),
    reason="accelerate is installed here, and its tests run as others do, or it is not in .venv/trainer: make setup",
)


def _run(marks: str, seconds: int) -> None:
    path = os.pathsep.join(filter(None, (str(TRAINER), os.environ.get("PYTHONPATH", ""))))
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


def test_what_is_tested_with_a_trainer() -> None:
    pytest.importorskip("mindspore")
    _run("not slow", 600)


@pytest.mark.slow
def test_what_is_tested_with_a_trainer_at_length() -> None:
    pytest.importorskip("mindspore")
    _run("slow", 3000)
