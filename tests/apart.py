# SPDX-License-Identifier: Apache-2.0
"""Tests in a process that has packages which no other may have: they lie beside the environment, not in it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def only_apart(folder: str, package: str) -> pytest.MarkDecorator:
    """Skips where the package is installed as others are, or is not in `.venv/FOLDER`, where `make` puts it."""
    reason = f"{package} is installed here, and its tests run as others do, or it is not in .venv/{folder}: make setup"
    is_here = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(is_here or not (_place(folder) / package).is_dir(), reason=reason)


def run(tests: Path, folder: str, marks: str, seconds: int) -> None:
    """Run the tests in a process that has the packages of `.venv/FOLDER`."""
    path = os.pathsep.join(filter(None, (str(_place(folder)), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(tests), "-m", marks, "-p", "no:cacheprovider", "-x"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def _place(folder: str) -> Path:
    return Path(sys.prefix) / folder
