# SPDX-License-Identifier: Apache-2.0
"""Two ports, made once for all workers of pytest, and servers of them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
import small
from served_here import Running


def _ported(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        shared = shared.parent
    place = shared / "served" / name
    place.parent.mkdir(exist_ok=True)
    with filelock.FileLock(f"{place}.lock"):
        if not place.exists():
            import paritas

            made = paritas.port(make(shared / "served" / f"{name}-checkpoint"))
            made.save(place)
    return place


@pytest.fixture(scope="session")
def vit_port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _ported(tmp_path_factory, "vit", small.vit)


@pytest.fixture(scope="session")
def bert_port(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _ported(tmp_path_factory, "bert", small.bert)


@pytest.fixture(scope="session")
def png() -> bytes:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def png64(png: bytes) -> str:
    return base64.urlsafe_b64encode(png).decode()


@pytest.fixture(scope="module")
def served(vit_port: Path, bert_port: Path) -> Iterator[Running]:
    """Both ports, on any free HTTP and gRPC port."""
    from paritas.serve.registry import ModelConfig
    from paritas.serve.settings import Settings

    configs = [ModelConfig("hf-vit", vit_port, labels={"stable": 1}), ModelConfig("bert", bert_port)]
    settings = Settings(rest_port=0, grpc_port=0, access_log=False, poll=0, drain=2.0)
    with Running(configs, settings) as running:
        yield running
