# SPDX-License-Identifier: Apache-2.0
"""Weights that stay in their file: read-only from the moment they are saved, and noticed where that is undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import paritas
from paritas import files
from paritas.errors import TamperedPort

X = np.ones((2, 8), np.float32)


class Net(torch.nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = torch.nn.Linear(8, 4096)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).sum(-1)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "FINAL", 1 << 12)
    paritas.port(Net().eval(), inputs={"x": torch.ones(2, 8)}).save(tmp_path / "port")
    return tmp_path / "port"


def _want(seed: int = 0) -> Any:
    with torch.no_grad():
        return Net(seed).eval()(torch.ones(2, 8)).numpy()


def test_they_are_in_no_memory_of_ours(saved: Path) -> None:
    assert not (saved / "openvino_model.bin").stat().st_mode & 0o222
    port = paritas.load(saved)
    assert port.session._file._mapped is not None  # type: ignore[union-attr]
    for _ in range(12):  # while the engine packs them, and after
        np.testing.assert_allclose(port(x=X), _want(), rtol=1e-4)
    port.save(saved.parent / "copy")
    np.testing.assert_allclose(paritas.load(saved.parent / "copy")(x=X), _want(), rtol=1e-4)


def test_a_port_that_is_replaced_goes_on_as_it_was(saved: Path) -> None:
    port = paritas.load(saved)
    paritas.port(Net(1).eval(), inputs={"x": torch.ones(2, 8)}).save(saved, force=True)
    np.testing.assert_allclose(port(x=X), _want(), rtol=1e-4)
    np.testing.assert_allclose(paritas.load(saved)(x=X), _want(1), rtol=1e-4)


def test_a_port_that_is_written_to_is_refused(saved: Path) -> None:
    port = paritas.load(saved)
    port(x=X)
    place = saved / "openvino_model.bin"
    place.chmod(0o644)
    content = bytearray(place.read_bytes())
    content[:4] = b"\0\0\0\0"
    place.write_bytes(content)
    with pytest.raises(TamperedPort, match="was written to while it is in use"):
        port(x=X)
    with pytest.raises(TamperedPort, match="sha256"):
        paritas.load(saved)


def test_weights_that_may_be_written_to_are_read(saved: Path) -> None:
    (saved / "openvino_model.bin").chmod(0o644)
    port = paritas.load(saved)
    assert port.session._file._mapped is None  # type: ignore[union-attr]
    (saved / "openvino_model.bin").write_bytes(b"")
    np.testing.assert_allclose(port(x=X), _want(), rtol=1e-4)
