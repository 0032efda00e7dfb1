# SPDX-License-Identifier: Apache-2.0
"""Clients that nobody here wrote. They need environments of their own: PARITAS_SERVING_CLIENTS names a Python that has
tritonclient, kserve or tensorflow-serving-api; what it has not is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from served_here import Running

pytestmark = pytest.mark.slow

PACKAGES = {
    "triton-http": "tritonclient.http", "triton-grpc": "tritonclient.grpc", "kserve": "kserve",
    "tensorflow": "tensorflow_serving.apis",
}  # fmt: skip
PYTHON = os.environ.get("PARITAS_SERVING_CLIENTS", "")


@pytest.mark.skipif(not PYTHON, reason="PARITAS_SERVING_CLIENTS names no Python with these clients")
@pytest.mark.parametrize("kind", PACKAGES)
def test_a_client_gets_what_it_asks_for(served: Running, png: bytes, png64: str, kind: str, tmp_path: Path) -> None:
    has = subprocess.run([PYTHON, "-c", f"import {PACKAGES[kind]}"], capture_output=True, check=False)
    if has.returncode:
        pytest.skip(f"{PACKAGES[kind]} is not there")
    (tmp_path / "image.png").write_bytes(png)
    ports = [str(served.server.rest_port), str(served.server.grpc_port)]
    done = subprocess.run(
        [PYTHON, str(Path(__file__).parent / "clients.py"), kind, *ports, str(tmp_path / "image.png")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    url = f"{served.url}/v1/models/hf-vit:predict"
    want = requests.post(url, json={"signature_name": "tensors", "inputs": pixels.tolist()}, timeout=30).json()[
        "outputs"
    ]
    np.testing.assert_allclose(found["logits"], want, atol=1e-6)
    if "label" in found:
        best = requests.post(url, json={"instances": [png64]}, timeout=30).json()["predictions"][0]
        assert found["label"] == best["label"]
        assert found["confidence"] == pytest.approx(best["confidence"])
    for name in ("live", "ready", "model"):
        assert found.get(name, True) is True
    if "refused" in found:
        assert "Servable not found" in found["refused"]
    if kind == "tensorflow":
        assert (found["classified"], found["state"]) == (found["label"], 30)
        assert found["signatures"] == ["classify", "image", "serving_default", "tensors"]
