# SPDX-License-Identifier: Apache-2.0
"""A training that is killed at 50 moments loses at most the steps since its last save, and its losses stay the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lives import SAVED_EVERY


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    kills = int(os.environ.get("PARITAS_KILLS", "50"))
    script = Path(__file__).parents[1] / "lives.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(kills), "0"],
        capture_output=True, text=True, timeout=2400, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOG_v": "4"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "lives.json").read_text())
    want = dict(map(tuple, found["whole"]))
    assert len(found["lives"]) == kills + 1
    reached = 0
    for life in found["lives"]:
        steps = [step for step, _ in life["losses"]]
        assert life["began"] > reached - 1 - SAVED_EVERY, (life["began"], reached)
        assert steps == list(range(life["began"] + 1, life["began"] + 1 + len(steps)))
        for step, loss in life["losses"]:
            assert loss == want[step], (step, loss, want[step])  # to the bit
        reached = max([reached, *steps])
    assert reached > kills  # it went on all the while
