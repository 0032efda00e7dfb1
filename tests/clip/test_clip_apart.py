# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in `inside` in a process that has open_clip, timm and torchvision, which no other may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from apart import only_apart, run

INSIDE = Path(__file__).parent / "inside"

pytestmark = only_apart("apart", "open_clip")


def test_what_is_tested_with_open_clip() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    run(INSIDE, "apart", "not slow", 600)


@pytest.mark.slow
def test_what_is_tested_with_open_clip_at_length() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    run(INSIDE, "apart", "slow", 3000)
