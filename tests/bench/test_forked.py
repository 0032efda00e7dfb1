# SPDX-License-Identifier: Apache-2.0
"""Work in processes of its own (benchmarks/forked.py): what ends its process costs one answer and no other."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest


def _work(task: int) -> dict[str, Any]:
    if task == 2:
        os._exit(3)
    while task == 4:
        pass
    return {"state": "done", "pid": os.getpid()}


def test_what_dies_or_hangs_is_told_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    found = dict(importlib.import_module("forked").each(range(7), _work, 1, 3))
    assert [found[task]["state"] for task in range(7)] == ["done", "done", "killed", "done", "too slow", "done", "done"]
    assert found[2]["why"] == "exit code 3" and found[4]["why"] == "over 1 s"
    assert found[0]["pid"] == found[1]["pid"] != os.getpid()
    assert found[3]["pid"] != found[0]["pid"]
