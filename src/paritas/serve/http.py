# SPDX-License-Identifier: Apache-2.0
"""What every HTTP door shares: bodies within their bounds and times, answers, deadlines, request ids."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from paritas.serve.bodies import encoded
from paritas.serve.refusals import Refused
from paritas.serve.settings import Limits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header, by its name in small letters; b"" for none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def deadline_of(scope: Scope, limits: Limits) -> float:
    """Until when a request is to be answered, by `time.monotonic()`: the server's time, or the client's if it is less.

    Clients say it in seconds, in `x-request-timeout`.
    """
    seconds = limits.request
    if given := header(scope, b"x-request-timeout"):
        try:
            asked = float(given)
        except ValueError:
            asked = -1.0
        if not 0 < asked < float("inf"):
            raise Refused("INVALID_ARGUMENT", f"x-request-timeout is no number of seconds: {given[:64]!r}")
        seconds = min(seconds, asked)
    return scope["state"]["since"] + seconds if "since" in scope.get("state", {}) else time.monotonic() + seconds


async def body_of(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The whole body, unpacked where it is packed. Raises `Refused`: too large, too slow, or broken off."""
    said = header(scope, b"content-length")
    if said.isdigit() and int(said) > limits.body:
        raise too_large(int(said), limits)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_read):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused("CANCELLED", "The client has gone.")
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body:
                    raise too_large(size, limits)
                parts.append(part)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refused(
            "DEADLINE_EXCEEDED", f"The body did not come within {limits.body_read:g} s.", status=408
        ) from None
    whole = parts[0] if len(parts) == 1 else b"".join(parts)
    scope["state"]["received"] = len(whole)
    packed = header(scope, b"content-encoding")
    return unpacked(whole, packed, limits) if packed not in (b"", b"identity") else whole


def unpacked(body: bytes, how: bytes, limits: Limits) -> bytes:
    """A body that came as gzip or deflate, if it is not too large."""
    if how not in (b"gzip", b"x-gzip", b"deflate"):
        raise Refused(
            "INVALID_ARGUMENT", f"Content-Encoding {how[:32]!r} is not known; gzip and deflate are.", status=415
        )
    opener = zlib.decompressobj(wbits=47)  # either, by its head
    try:
        found = opener.decompress(body, limits.body + 1)
    except zlib.error as error:
        raise Refused("INVALID_ARGUMENT", f"The body is no {how.decode()}: {error}") from None
    if len(found) > limits.body:
        raise too_large(len(found), limits)
    if not opener.eof:
        raise Refused("INVALID_ARGUMENT", f"The body ends in the middle of its {how.decode()}.")
    return found


def too_large(size: int, limits: Limits) -> Refused:
    return Refused(
        "INVALID_ARGUMENT",
        f"The body has {size:,} bytes or more, and this server takes {limits.body:,}.",
        status=413,
    )


async def answer(
    scope: Scope,
    send: Send,
    body: bytes,
    *,
    status: int = 200,
    kind: bytes = JSON,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send an answer of one piece."""
    given = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


async def refuse(scope: Scope, send: Send, refused: Refused) -> None:
    """Send an error, as TensorFlow Serving words it: `{"error": "..."}`."""
    headers = [(b"retry-after", str(max(1, round(refused.after))).encode())] if refused.after else []
    if refused.code == "UNAUTHENTICATED":
        headers.append((b"www-authenticate", b"Bearer"))
    body = encoded({"error": str(refused)})
    await answer(scope, send, body, status=refused.status, headers=headers)


def told(scope: Scope, **facts: Any) -> None:
    """Facts of a request for its line in the access log."""
    scope["state"].setdefault("facts", {}).update(facts)
