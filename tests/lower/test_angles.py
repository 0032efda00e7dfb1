# SPDX-License-Identifier: Apache-2.0
"""Angles that a model of half precision computes in float32 are no other on OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("openvino")
import openvino

import paritas

_FREQUENCIES = torch.exp(-torch.arange(8) * 0.5)

_TIMES: dict[str, tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]] = {
    "whole": (torch.tensor([981, 977]), lambda t: t[:, None].float()),
    "float": (torch.tensor([981.3, 977.7]), lambda t: t[:, None].float()),
    "spread": (torch.tensor([981.3]), lambda t: t.expand(2)[:, None]),
    "spread, by itself": (torch.tensor(981.3), lambda t: t[None].expand(2)[:, None]),
    "of a batch": (torch.tensor([[981.3], [977.7]]), lambda t: t.squeeze(1).unsqueeze(1)),
}


class _Embedding(torch.nn.Module):
    """As of a diffusion's time: sines in float32, and a product in bfloat16."""

    def __init__(self, times: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.times, self.inner = times, torch.nn.Linear(16, 16).to(torch.bfloat16)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        angles = self.times(t) * _FREQUENCIES[None]
        found: torch.Tensor = self.inner(torch.cat([torch.sin(angles), torch.cos(angles)], -1).to(torch.bfloat16))
        return self.inner(torch.relu(found))


@pytest.mark.parametrize("name", _TIMES)
def test_angles_are_computed_in_float32(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    time, times = _TIMES[name]
    model = _Embedding(times).eval()
    with torch.no_grad():
        want = model(time).float()
    port = paritas.port(model, engine="openvino", inputs={"t": time}, dynamic=False)
    np.testing.assert_allclose(port(t=time).float(), want, atol=0.02)
    port.save(tmp_path / "port")
    # Unmarked, they are other numbers: the mark is needed as long as this holds.
    text = (tmp_path / "port" / "openvino_model.xml").read_text()
    assert "DisablePrecisionConversion" in text
    text = text.replace("DisablePrecisionConversion", "Nothing")
    (tmp_path / "port" / "openvino_model.xml").write_text(text)
    core = openvino.Core()
    plain = core.compile_model(tmp_path / "port" / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    assert np.abs(plain([time.numpy()])[0] - want.numpy()).max() > 0.1
