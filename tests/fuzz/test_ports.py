# SPDX-License-Identifier: Apache-2.0
"""A few of the ports that `tests/fuzz/ports.py` mutates: none executes, reads outside, hangs or ends raw."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ports

pytest.importorskip("mindspore")
pytest.importorskip("openvino")


@pytest.mark.parametrize(("count", "seed"), [(50, 1), pytest.param(10_000, 0, marks=pytest.mark.slow)])
def test_mutated_ports_answer_or_are_refused(count: int, seed: int, tmp_path: Path) -> None:
    told: list[str] = []
    ends = ports.run(count, seed, tmp_path, told.append)
    assert set(ends) <= {"answered", "refused"}, "\n".join(told)
