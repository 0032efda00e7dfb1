# SPDX-License-Identifier: Apache-2.0
"""examples/diffusers: each draws on an engine what it draws in PyTorch, within one level of 8 bits."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers")
import diffusers

import paritas.diffusers as ours

EXAMPLES = Path(__file__).parents[2] / "examples" / "diffusers"

#: Those that are run daily; the rest takes a minute together.
DAILY = ("image_to_image", "prompt_to_prompt", "weighted_prompts")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "recipe")


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("recipe", *NAMES):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        pytest.param(name, engine, marks=() if engine == "openvino" and name in DAILY else pytest.mark.slow)
        for engine in ("openvino", "mindspore")
        for name in NAMES
    ],
)
def test_example(name: str, engine: str, tmp_path: Path) -> None:
    example, recipe = importlib.import_module(name), importlib.import_module("recipe")
    model = recipe.tiny(tmp_path, in_channels=9 if name == "inpainting" else 4)
    cls = getattr(example, "PIPELINE", "StableDiffusionPipeline")
    want = _drawn(example, getattr(diffusers, cls).from_pretrained(model, safety_checker=None))
    made = getattr(ours, cls).from_pretrained(model, safety_checker=None, engine=engine)
    got = _drawn(example, made)
    assert len(want) == 1 or len({picture.tobytes() for picture in want}) > 1
    assert made.unet.ports
    for a, b in zip(got, want, strict=True):
        assert np.ptp(b) > 20
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 1


def _drawn(example: Any, pipe: Any) -> list[np.ndarray]:
    pipe.set_progress_bar_config(disable=True)
    found = example.draw(pipe, steps=4)
    return [np.asarray(picture) for picture in (found if isinstance(found, list) else [found])]
