# SPDX-License-Identifier: Apache-2.0
"""Two ports, made once for all workers of pytest, and servers of them."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import small


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


class Running:
    """A server in a thread of this process. do: run a coroutine on its loop."""

    def __init__(self, configs: Any, settings: Any, **how: Any) -> None:
        self._configs, self._settings, self._how = configs, settings, how
        self.said: list[str] = []
        self.server: Any = None
        self.registry: Any = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        from paritas.serve.metrics import Metrics
        from paritas.serve.registry import Registry
        from paritas.serve.server import Server

        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            opened = self._how.pop("opened", None)
            self.registry = Registry(
                self._configs, self._settings, metrics=Metrics(on=True), say=self.said.append, opened=opened
            )
            self.server = Server(self.registry, say=self.said.append, **self._how)
            serving = asyncio.create_task(self.server.serve(signals=False))
            running = asyncio.create_task(self.server.running.wait())
            await asyncio.wait({serving, running}, return_when=asyncio.FIRST_COMPLETED)
            self._ready.set()
            await serving

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - said in the test's own thread
            self._failed = error
        finally:
            self._ready.set()

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(60)
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self.server.stop)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def do(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.rest_port}"


@pytest.fixture(scope="module")
def served(vit_port: Path, bert_port: Path) -> Iterator[Running]:
    """Both ports, on any free HTTP and gRPC port."""
    from paritas.serve.registry import ModelConfig
    from paritas.serve.settings import Settings

    configs = [ModelConfig("hf-vit", vit_port, labels={"stable": 1}), ModelConfig("bert", bert_port)]
    settings = Settings(rest_port=0, grpc_port=0, access_log=False, poll=0, drain=2.0)
    with Running(configs, settings) as running:
        yield running
