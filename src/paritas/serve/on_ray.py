# SPDX-License-Identifier: Apache-2.0
"""The same server, and the same parts of a table, on the machines of a Ray cluster.

All of them have Paritas, and see the ports under the same paths.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paritas import clusters
from paritas.errors import InputError, first_line
from paritas.serve import batch
from paritas.serve.registry import ModelConfig
from paritas.serve.settings import Settings

#: Without it, requests pass a proxy in Python: a seventh of the requests per second, measured with Ray 2.60.
PROXY = "RAY_SERVE_ENABLE_HA_PROXY"

#: When the proxy asks another server. An answer depends on nothing but its request, so that it may be asked twice.
#: What it keeps of a request for that are so many bytes.
RETRY = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(1 << 18),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How many servers there are, and of how many cores. ongoing: requests at a time that a server is to have: above,
    there are more.
    """

    least: int = 1
    most: int = 4
    cores: float = 1.0
    ongoing: int = 32


def connected(address: str, door: str) -> Any:
    """Ray, connected. address: "local" begins a cluster on this machine. Raises `InputError` where there is none."""
    os.environ.setdefault(PROXY, "1")
    for name, value in RETRY.items():
        os.environ.setdefault(name, value)
    return clusters.connected(address, door)


# --- a server ------------------------------------------------------------------------------------------------


class Replica:
    """One server, as an ASGI application that loads its models when it is started. It travels before that."""

    def __init__(self, models: Sequence[ModelConfig], settings: Settings) -> None:
        # What the proxy in front does by itself: it listens, and says which server is ready.
        self._models, self._settings = tuple(models), settings
        self._application: Any = None
        self._registry: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._application(scope, receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        from paritas.serve import openai
        from paritas.serve.app import Application
        from paritas.serve.metrics import Metrics
        from paritas.serve.openai_models import models_of
        from paritas.serve.registry import Registry

        await receive()
        self._registry = Registry(self._models, self._settings, metrics=Metrics(on=True))
        await self._registry.start()
        broken = [
            f"{name}: {version.error}"
            for name, model in self._registry.models.items()
            if not model.live
            for version in model.versions.values()
        ]
        if broken:
            await send({"type": "lifespan.startup.failed", "message": "; ".join(broken)})
            return
        self._application = Application(self._registry, more=openai.routes(models_of(self._registry)))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._registry.drained(self._settings.drain)
        await self._registry.stop()
        await send({"type": "lifespan.shutdown.complete"})


def deployed(models: Sequence[ModelConfig], settings: Settings, scale: Scale) -> Any:
    """The application as `ray.serve.run` takes it."""
    from ray import serve

    @serve.deployment(
        name="paritas",
        ray_actor_options={"num_cpus": scale.cores},
        autoscaling_config={
            "min_replicas": scale.least,
            "max_replicas": scale.most,
            "target_ongoing_requests": scale.ongoing,
        },
        max_ongoing_requests=settings.batching.queue,
        graceful_shutdown_timeout_s=settings.drain + 5,
        health_check_period_s=2,
        health_check_timeout_s=10,
    )
    @serve.ingress(Replica(models, settings))
    class Paritas:
        """A replica: what it serves is in `Replica`."""

    made: Any = Paritas
    return made.bind()


def serve_on(
    models: Sequence[ModelConfig], settings: Settings, address: str, scale: Scale, *, proxies: str = "EveryNode"
) -> None:
    """Deploy, and return when every model answers. The deployment stays when this process ends.

    proxies: on which nodes there is a door, "EveryNode" or "HeadOnly", by Ray's names.

    Raises `InputError` for a cluster that is not there, or servers that do not start.
    """
    if settings.certificate is not None:
        raise InputError("--certificate: TLS on Ray ends before its proxy: leave it out.")
    connected(address, "paritas serve --ray")
    from ray import serve

    serve.start(http_options={"host": settings.host, "port": settings.rest_port, "location": proxies})
    try:
        serve.run(deployed(models, settings, scale), name="paritas", route_prefix="/", blocking=False)
    except RuntimeError as error:
        raise InputError(f"No server has started on Ray: {first_line(error)}") from error


def stay() -> None:
    """Until Ctrl-C or SIGTERM; a cluster that this process began ends with it."""
    from ray import serve

    try:
        while True:
            time.sleep(1)
    finally:
        serve.shutdown()


# --- a table -------------------------------------------------------------------------------------------------


class Maker:
    """Makes parts on one machine: Ray Data starts it there, and again elsewhere if that machine is lost."""

    def __init__(self, plan: batch.Plan, out: str) -> None:
        self._out = Path(out)
        self._parts = batch.Parts(plan)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        made = [self._parts.make(int(part), self._out) for part in rows["part"]]
        return {"rows": [rows for rows, _ in made], "failed": [failed for _, failed in made]}


def run_batch(
    plan: batch.Plan, out: Path, address: str, tell: batch.Progress | None = None, *, workers: int = 2
) -> batch.Outcome:
    """As `batch.run`, with Ray Data's actors. A part of a machine that was lost is made again on another one."""
    ray: Any = connected(address, "paritas batch --ray")
    with batch.begun(plan, out) as left:
        done = batch.told(plan, left, tell)
        if left:
            ray.data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray.data").setLevel(logging.WARNING)  # `tell` shows how far it is
            parts = ray.data.from_items([{"part": part} for part in left], override_num_blocks=len(left))
            made = parts.map_batches(
                Maker,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(left))),
                fn_constructor_args=(plan, str(out.resolve())),
                num_cpus=1,
            )
            for row in made.iter_rows():
                done(int(row["rows"]), int(row["failed"]))
        return batch.finished(plan, out, len(left))
