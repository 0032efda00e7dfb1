# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in `inside` in a process that has accelerate and peft, with which transformers loads otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from apart import only_apart, run

INSIDE = Path(__file__).parent / "inside"

pytestmark = only_apart("trainer", "accelerate")


def test_what_is_tested_with_a_trainer() -> None:
    pytest.importorskip("mindspore")
    run(INSIDE, "trainer", "not slow", 600)


@pytest.mark.slow
def test_what_is_tested_with_a_trainer_at_length() -> None:
    pytest.importorskip("mindspore")
    run(INSIDE, "trainer", "slow", 3000)
