# SPDX-License-Identifier: Apache-2.0
"""How a server listens, batches and bounds what it is sent: plain values, which every part takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request, and one connection, may cost. Sizes in bytes, times in seconds."""

    body: int = 64 << 20
    pixels: int = 50_000_000  # of one image, before anything of it is decoded
    tokens: int = 0  # of one text; 0: what the model has places for
    context: int = 4096  # tokens of a text that is gone on with, and of what follows
    new_tokens: int = 1024  # of what follows
    seconds_of_sound: float = 600.0
    elements: int = 1 << 28  # of all tensors of a request
    rows: int = 1024  # of one request
    request: float = 30.0  # from its first byte to its answer, unless the client asks for less
    header_read: float = 10.0
    body_read: float = 30.0
    keep_alive: float = 75.0
    connections: int = 2048


@dataclasses.dataclass(frozen=True)
class Batching:
    """How requests are computed together.

    largest: rows that the engine gets at most; 1 computes each request by itself. wait: seconds that the first row
    waits for others while the model is idle. sizes: numbers of rows that the engine gets, smaller ones filled up; ()
    for any. queue: requests that are waiting or computed, beyond which more are refused. pad: texts of several lengths
    in one batch, of models whose answers do not change by it.
    """

    largest: int = 32
    wait: float = 0.0
    sizes: tuple[int, ...] = ()
    queue: int = 256
    pad: bool = True


@dataclasses.dataclass(frozen=True)
class Engine:
    """How ports are loaded. config: `ov_config` of `paritas.load`. warm: rows of the requests that warm a version
    up.
    """

    device: str = ""
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warm: bool = True


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of a server. tokens: bearer tokens of which one has to be sent; () admits everybody."""

    host: str = "127.0.0.1"
    rest_port: int = 8501  # 0: a free one; -1: none
    grpc_port: int = 8500  # likewise
    limits: Limits = Limits()
    batching: Batching = Batching()
    engine: Engine = Engine()
    tokens: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    access_log: bool = True
    poll: float = 1.0  # seconds between looks for new versions; 0: never
    drain: float = 30.0  # seconds that requests get to end when the server stops
    grace: float = 0.0  # seconds between "not ready" and the last accepted connection
