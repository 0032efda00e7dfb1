# SPDX-License-Identifier: Apache-2.0
"""oneDNN has to be told of convolutions before MindSpore computes anything in a process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from torch import nn

pytest.importorskip("mindspore")

import torch

import paritas
from paritas.run.engine import engine
from paritas.run.mindspore import convolutions

IN_A_PROCESS = """
import warnings
import numpy as np
import torch
import paritas
from paritas.dropin.network import Network
from paritas.options import BuildOptions

warnings.simplefilter("ignore")
dense, convolution = torch.nn.Linear(8, 8), torch.nn.Conv2d(4, 4, 3)
x = {{"input": torch.randn(1, 4, 8, 8)}}
{before}
paritas.port(dense, "mindspore", inputs=x)(**x)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    got = paritas.port(convolution, "mindspore", inputs=x)(**x)
np.testing.assert_allclose(got, convolution(**x).detach(), atol=1e-5)
assert any("fast ones" in str(one.message) for one in heard) is {is_slow}
"""


@pytest.mark.parametrize(
    ("before", "is_slow"),
    [("", True), ("Network(torch.nn.Sequential(convolution), BuildOptions('mindspore'))", False)],
    ids=["not told", "a network of a pipeline"],
)
def test_a_convolution_is_fast_after_what_has_none(before: str, is_slow: bool) -> None:
    code = IN_A_PROCESS.format(before=before, is_slow=is_slow)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("module", "is_convolved"),
    [
        (nn.Conv2d(4, 4, 3), True),
        (nn.Sequential(nn.Linear(8, 8), nn.Conv2d(4, 4, 3, stride=2)), True),
        (nn.Conv3d(4, 4, 3), True),
        (nn.Conv1d(4, 4, 3, groups=2), True),
        (nn.Linear(8, 8), False),
        (nn.Conv1d(4, 4, 3), False),
        (nn.Conv2d(4, 4, 1), False),
        (nn.Conv2d(4, 4, 4, stride=4), False),
    ],
    ids=str,
)
def test_only_what_onednn_convolves_is_told(module: nn.Module, is_convolved: bool, monkeypatch: Any) -> None:
    told: list[bool] = []
    monkeypatch.setattr(convolutions, "_cap_isa", lambda: told.append(True) or True)
    engine("mindspore").expect(module)
    assert bool(told) is is_convolved


@pytest.mark.parametrize(("module", "is_convolved"), [(nn.Conv2d(4, 4, 3), True), (nn.Linear(8, 8), False)], ids=str)
def test_so_is_a_port(module: nn.Module, is_convolved: bool, monkeypatch: Any) -> None:
    told: list[bool] = []
    port = paritas.port(module, "mindspore", inputs={"input": torch.randn(1, 4, 8, 8)})
    monkeypatch.setattr(convolutions, "_cap_isa", lambda: told.append(True) or True)
    engine("mindspore").expect(port.artifact)
    assert bool(told) is is_convolved
