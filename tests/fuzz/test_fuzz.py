# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, always the same; and everything that it has ever found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

if str(ROOT) not in sys.path:  # the fuzzer is a package of its own: `python -m tests.fuzz`
    sys.path.insert(0, str(ROOT))


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_random_statements_are_right_or_refused(engine):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz",
            "--engine",
            engine,
            "--statements",
            "15",
            "--programs",
            "2",
            "--seed",
            "7",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    assert "15 statements" in done.stdout and "2 programs" in done.stdout


def _found():
    from tests.fuzz.found import FOUND

    return FOUND


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize("sample", _found(), ids=lambda sample: sample.lines[-1].text[:40])
def test_what_was_found_is_right_or_refused(sample, engine):
    from tests.fuzz.judge import judge

    verdict = judge(sample, engine, "pynative" if engine == "mindspore" else "graph")
    assert verdict.outcome in ("agrees", "door", "refused"), f"{verdict.outcome} ({verdict.feed}): {verdict.text}"
