# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: routes, who is let in, what is written about each request, and how errors are said."""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route, Router

from paritas.serve import http
from paritas.serve.http import Receive, Scope, Send
from paritas.serve.oip import OpenInference
from paritas.serve.refusals import Refused, refusal
from paritas.serve.registry import Registry
from paritas.serve.rest import Rest

#: What is answered without a token: whoever starts and stops servers asks it, and it says nothing of models.
OPEN = frozenset({"/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready"})

READY, UNREADY = b'{"ready":true}', b'{"ready":false}'
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Application:
    """All of a server's HTTP, for any ASGI server.

    more: routes of others, which see the same requests: with an id, admitted, and their `Refused` said as JSON.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        more: Iterable[BaseRoute] = (),
        log: Callable[[bytes], object] | None = None,
    ) -> None:
        more = list(more)
        self.registry, self.settings, self.metrics = registry, registry.settings, registry.metrics
        self._log = log or _to_stderr
        self._rest, self._open_inference = Rest(registry), OpenInference(registry)
        self._tokens = [token.encode() for token in self.settings.tokens]
        self._router = Router(
            [
                Route("/livez", _Plain(lambda: (200, b"ok"))),
                Route("/v2/health/live", _Plain(lambda: (200, b'{"live":true}'), http.JSON)),
                Route(
                    "/v2/health/ready", _Plain(lambda: (200, READY) if registry.ready else (503, UNREADY), http.JSON)
                ),
                *(
                    Route(path, _Plain(lambda: (200, b"ok") if registry.ready else (503, b"not ready")))
                    for path in ("/readyz", "/healthz")
                ),
                Route("/metrics", _Page(self)),
                Route("/monitoring/prometheus/metrics", _Page(self)),  # where TensorFlow Serving has it
                *more,
            ]
        )
        self._others = {route.path for route in more if isinstance(route, Route)}
        self._encoder = msgspec.json.Encoder()
        self._spans = _spans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return None
        since, started = time.monotonic(), [0, 0]
        state = scope["state"] = {**(scope.get("state") or {}), "since": since, "facts": {}, "received": 0}
        given = http.header(scope, b"x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        state["request_id"] = request_id.decode()

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                started[0] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            else:
                started[1] += len(message.get("body", b""))
            await send(message)

        code = "OK"
        try:
            with self._spans(scope):
                self._admit(scope)
                await self._route(scope, receive, sent)
        except Exception as error:
            refused = refusal(error)
            code = refused.code
            state["facts"]["error"] = str(refused)[:500]
            if not started[0] and refused.code != "CANCELLED":
                await http.refuse(scope, sent, refused)
            elif started[0]:
                raise  # in the middle of an answer: the connection is closed
        finally:
            self._note(scope, code, started, time.monotonic() - since)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        # The two protocols' paths are read by their own expressions, as a router's would not be the same.
        if path in self._others:
            await self._router(scope, receive, send)
        elif path[:11].lower() in ("/v1/models", "/v1/models/", "/v1/models:"):
            await self._rest(scope, receive, send)
        elif path in OPEN:
            await self._router(scope, receive, send)
        elif path == "/v2" or path.startswith("/v2/"):
            await self._open_inference(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Raises `Refused`, UNAUTHENTICATED, without one of the server's tokens."""
        if not self._tokens or scope["path"] in OPEN:
            return
        if not allowed(http.header(scope, b"authorization"), self._tokens):
            raise Refused("UNAUTHENTICATED", "A bearer token is needed: Authorization: Bearer TOKEN")

    def _note(self, scope: Scope, code: str, sent: list[int], seconds: float) -> None:
        state = scope["state"]
        facts = state["facts"]
        protocol = "oip" if scope["path"].startswith("/v2") else "rest"
        model = facts.get("model") or ""
        if model in self.registry.models or not model:  # of names that nobody serves, Prometheus keeps nothing
            known = str(sent[0]) if code == "OK" and sent[0] >= 400 else code
            self.metrics.answered(model, protocol, known, seconds)
        if not self.settings.access_log or scope["path"] in OPEN:
            return
        line = {
            "time": time.time(),
            "id": state["request_id"],
            "protocol": protocol,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": sent[0],
            "seconds": round(seconds, 6),
            "received": state["received"],
            "sent": sent[1],
            **facts,
        }
        self._log(self._encoder.encode(line) + b"\n")


def allowed(given: bytes, tokens: Iterable[bytes]) -> bool:
    """Whether an Authorization header holds one of the tokens; takes as long for a wrong one as for a right one."""
    kind, _, token = given.partition(b" ")
    found = False
    for one in tokens:
        found |= hmac.compare_digest(one, token.strip())
    return found and kind.lower() == b"bearer"


class _Plain:
    """A page of one word. look: status and word."""

    def __init__(self, look: Callable[[], tuple[int, bytes]], kind: bytes = b"text/plain") -> None:
        self._look, self._kind = look, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, word = self._look()
        await http.answer(scope, send, word, status=status, kind=self._kind)


class _Page:
    """What Prometheus reads."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = self._application
        if application.metrics.registry is not None:
            for name, model in application.registry.models.items():
                application.metrics.open.labels(name).set(model.open)
        text, kind = application.metrics.page()
        await http.answer(scope, send, text, kind=kind.encode())


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _to_stderr(line: bytes) -> None:
    sys.stderr.buffer.write(line)
    sys.stderr.buffer.flush()


def _spans() -> Callable[[Scope], contextlib.AbstractContextManager[Any]]:
    """A span of OpenTelemetry's around each request, where its SDK is installed and set up; else nothing."""
    try:
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        return lambda scope: contextlib.nullcontext()
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        return lambda scope: contextlib.nullcontext()
    tracer = trace.get_tracer("paritas.serve")

    @contextlib.contextmanager
    def span(scope: Scope) -> Iterator[None]:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        about = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with tracer.start_as_current_span(
            f"{scope['method']} {scope['path']}", context=propagate.extract(headers), kind=trace.SpanKind.SERVER,
            attributes=about,
        ):  # fmt: skip
            yield

    return span
