# SPDX-License-Identifier: Apache-2.0
"""A server in a thread of the tests' process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any


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
