# SPDX-License-Identifier: Apache-2.0
"""Both doors in one process: opened once the models are loaded, closed when everybody has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import uvicorn
from starlette.routing import BaseRoute
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paritas.errors import InputError
from paritas.serve.app import Application
from paritas.serve.openai import routes
from paritas.serve.openai_models import models_of
from paritas.serve.registry import Registry
from paritas.serve.settings import Settings

Say = Callable[[str], None]


class Server:
    """Serves a registry until it is told to stop.

    rest_port, grpc_port: where it listens, once `running` is set; the settings' own where those are not 0.
    """

    def __init__(
        self, registry: Registry, *, say: Say | None = None, more: Iterable[BaseRoute] = (), with_grpc: bool = True
    ) -> None:
        self.registry, self.settings = registry, registry.settings
        self.say = say or (lambda line: None)
        self.application = Application(registry, more=more)
        self.running, self._stop = asyncio.Event(), asyncio.Event()
        self.rest_port = self.grpc_port = 0
        self._with_grpc = with_grpc

    def stop(self) -> None:
        """Stop, as SIGTERM does: what is being answered ends first."""
        self._stop.set()

    async def serve(self, *, signals: bool = True) -> bool:
        """Listen, load, answer, and end. True if all requests had ended before the end.

        The ports are open while models are loaded, so that whoever asks hears "not ready". signals: stop on SIGTERM and
        SIGINT. Raises `InputError` where a port is taken.
        """
        settings = self.settings
        http = self._http() if settings.rest_port >= 0 else None
        grpc_door: Any = None
        if self._with_grpc and settings.grpc_port >= 0:
            from paritas.serve.grpc_server import GrpcServer

            grpc_door = GrpcServer(self.registry, self._log)
        loop = asyncio.get_running_loop()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        tasks: list[asyncio.Task[Any]] = []
        try:
            if http is not None:
                opened = listening(settings.host, settings.rest_port)
                self.rest_port = opened.getsockname()[1]
                tasks.append(loop.create_task(http.serve(sockets=[opened])))
            if grpc_door is not None:
                await grpc_door.start()
                self.grpc_port = grpc_door.port
            await self._first(self.registry.start())
            if grpc_door is not None:
                tasks.append(loop.create_task(self._health(grpc_door)))
            self._announce()
            self.running.set()
            await self._stop.wait()
            return await self._ended(http, grpc_door)
        finally:
            self.registry.stopping = True
            if http is not None:
                http.should_exit = True
            if grpc_door is not None:
                await grpc_door.stop(0)
            for task in tasks[1 if http is not None else 0 :]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.registry.stop()

    async def _first(self, loading: Any) -> None:
        """Load, unless the server is told to stop meanwhile."""
        task = asyncio.get_running_loop().create_task(loading)
        stopped = asyncio.get_running_loop().create_task(self._stop.wait())
        done, _ = await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task in done:
            task.result()

    async def _ended(self, http: uvicorn.Server | None, grpc_door: Any) -> bool:
        """Say that this server is not ready, wait for balancers to notice, and for requests to end."""
        self.say("Stopping: no new requests; those that are here are answered first.")
        if self.settings.grace:
            self.registry.leaving = True
            await asyncio.sleep(self.settings.grace)
        self.registry.stopping = True
        if grpc_door is not None:
            await grpc_door.tell()
        ended = await self.registry.drained(self.settings.drain)
        if not ended:
            self.say(f"Some requests had not ended after {self.settings.drain:g} s.")
        if grpc_door is not None:
            await grpc_door.stop(1.0)
        return ended

    async def _health(self, grpc_door: Any) -> None:
        while True:
            await grpc_door.tell()
            await asyncio.sleep(0.5)

    def _http(self) -> uvicorn.Server:
        settings, limits = self.settings, self.settings.limits

        class Protocol(Patient):
            seconds = limits.header_read

        config = uvicorn.Config(
            self.application, http=Protocol, ws="none", lifespan="off", access_log=False, log_config=None,
            limit_concurrency=limits.connections, timeout_keep_alive=int(limits.keep_alive),
            timeout_graceful_shutdown=max(1, int(settings.drain)), server_header=False, date_header=False,
            ssl_certfile=settings.certificate, ssl_keyfile=settings.key, backlog=2048,
            h11_max_incomplete_event_size=None,
        )  # fmt: skip
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise InputError(f"The certificate or key cannot be used: {error}") from None
        return _Quiet(config)

    def _announce(self) -> None:
        what = "HTTPS" if self.settings.certificate else "HTTP"
        if self.grpc_port:
            self.say(f"Running gRPC ModelServer at {self.settings.host}:{self.grpc_port} ...")
        if self.rest_port:
            self.say(f"Exporting {what}/REST API at: {self.settings.host}:{self.rest_port} ...")

    def _log(self, **facts: Any) -> None:
        sys.stderr.buffer.write(msgspec.json.encode({"time": time.time(), **facts}) + b"\n")
        sys.stderr.buffer.flush()


class _Quiet(uvicorn.Server):
    """Leaves signals to `Server`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Patient(HttpToolsProtocol):
    """Closes a connection whose request's head does not come in its time: uvicorn itself waits for ever."""

    seconds = 10.0
    _waiting: Any = None

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.access_log = False  # which uvicorn turns on where somebody listens to all loggers

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._heard()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.seconds, self._give_up)

    def _heard(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `InputError` where that port is taken or the address is none of this machine."""
    try:
        kind, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(where)
    except OSError as error:
        raise InputError(f"HTTP cannot listen on {host}:{port}: {error.strerror or error}") from None
    opened.setblocking(False)
    return opened


def serve(registry_of: Callable[[Settings, Say], Registry], settings: Settings, say: Say) -> int:
    """Run a server until SIGTERM or Ctrl-C; 0 if all requests had ended. Blocks."""

    async def run() -> bool:
        registry = registry_of(settings, say)
        return await Server(registry, say=say, more=routes(models_of(registry), settings.limits.body)).serve()

    try:
        import uvloop
    except ImportError:
        return 0 if asyncio.run(run()) else 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(run()) else 1
