# SPDX-License-Identifier: Apache-2.0
"""What benchmarks/perturbation.py says of pipelines that compute with all of their networks, or not."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

_SEED = 5


@pytest.fixture
def perturbation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("perturbation")


class _Pipeline:
    """Two networks in a row, one whose answer goes nowhere, one that is never asked, and one of small effect."""

    def __init__(self) -> None:
        torch.manual_seed(_SEED)
        names = ("first", "second", "aside", "unasked", "slight")
        self.networks = {name: torch.nn.Sequential(torch.nn.Linear(8, 8)) for name in names}
        self.stale: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        x = torch.linspace(-1, 1, 8)[None]
        of = {**self.networks, **self.stale}
        with torch.no_grad():
            of["aside"](x)
            out = of["second"](of["first"](x)) + 5e-5 * of["slight"](x)
        return {"images": out.numpy(), "texts": ["a dog"]}


@pytest.mark.parametrize("stale", ["", "first", "second"])
def test_a_network_that_is_bypassed_is_found(perturbation: Any, stale: str) -> None:
    """Bypassed: what answers are the weights as they were."""
    theirs, ours = _Pipeline(), _Pipeline()
    if stale:
        ours.stale[stale] = copy.deepcopy(ours.networks[stale])
    found = perturbation.perturbed(theirs.networks, ours.networks, theirs.run, ours.run, theirs.run())
    states = {name: row["state"] for name, row in found.items()}
    if stale:
        assert states[stale] == "missed"
        assert found[stale]["off"] > 0.9 * found[stale]["moved"]
    else:
        assert states == {
            "first": "followed", "second": "followed", "aside": "no part", "unasked": "not asked", "slight": "followed",
        }  # fmt: skip
        assert found["first"]["by"] == found["second"]["by"] == 0.01 < found["slight"]["by"]
        assert found["first"]["off"] == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.float32([1, 2]), np.float32([1, 2]), 0),
        (np.float32([1, 2]), np.float32([1, 2.5]), 0.25),  # of values over 1
        (np.uint8([0, 255]), np.uint8([51, 255]), 0.2),
        (["a", "b"], ["a", "c"], np.inf),
        (np.float32([1, np.nan]), np.float32([1, 2]), np.inf),
        (np.float32([1, 2]), np.float32([1]), np.inf),
        (np.float32([1, 2]), None, np.inf),
    ],
)
def test_distance(perturbation: Any, a: Any, b: Any, expected: float) -> None:
    assert perturbation.distance({"out": a}, {"out": b}) == pytest.approx(expected)
