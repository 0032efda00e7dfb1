# SPDX-License-Identifier: Apache-2.0
"""The recipes in examples/training learn what they are for, and MindSpore's metric is PyTorch's."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "training"

pytestmark = pytest.mark.slow


def _main(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_translation() -> None:
    want, got = _main("translation")()
    assert want > 0.9 and got == pytest.approx(want, abs=0.03)


def test_speech() -> None:
    want, got = _main("speech")()
    assert want < 0.1 and got == pytest.approx(want, abs=0.03)


@pytest.mark.parametrize("method", ["ddpm", "iadb"])
def test_diffusion(method: str) -> None:
    (loss, wrong), (other, also) = _main("diffusion")(method)
    assert other == pytest.approx(loss, rel=1e-2)
    assert wrong < 0.05 and also == pytest.approx(wrong, abs=0.01)
