# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told. Without the package prometheus_client everything is counted by nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paritas.extras import missing

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class OfVersion:
    """What is observed of one version of a model, its labels bound once."""

    def __init__(self, metrics: Metrics, model: str, version: int) -> None:
        named = (model, str(version))
        self._on = metrics.registry is not None
        if self._on:
            self._rows = metrics.rows.labels(*named)
            self._engine = metrics.engine.labels(*named)
            self._queue = metrics.queue.labels(*named)

    def batch(self, rows: int, seconds: float, waited: Sequence[float]) -> None:
        """A batch was computed. waited: seconds in the queue, of each of its requests."""
        if self._on:
            self._rows.observe(rows)
            self._engine.observe(seconds)
            for one in waited:
                self._queue.observe(one)


class Metrics:
    """All of a server's. Each server has a registry of its own, so that two in one process do not meet."""

    def __init__(self, *, on: bool = False) -> None:
        self.registry: Any = None
        if not on or "prometheus_client" in missing("serve"):
            return
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        where, of = self.registry, ("model", "version")
        self.requests = Counter(
            "paritas_requests_total", "Requests, by how they ended.", ("model", "protocol", "code"), registry=where
        )
        self.seconds = Histogram(
            "paritas_request_seconds", "From head to answer.", ("model", "protocol"), registry=where, buckets=SECONDS
        )
        self.queue = Histogram("paritas_queue_seconds", "Waiting for the engine.", of, registry=where, buckets=SECONDS)
        self.engine = Histogram("paritas_engine_seconds", "A batch in it.", of, registry=where, buckets=SECONDS)
        self.rows = Histogram("paritas_batch_rows", "Rows of a batch.", of, registry=where, buckets=ROWS)
        self.refused = Counter("paritas_refused_total", "Requests without a place.", ("model",), registry=where)
        self.open = Gauge("paritas_requests_open", "Requests that are being answered.", ("model",), registry=where)
        self.versions = Gauge("paritas_model_ready", "1 for a version that answers.", of, registry=where)
        self.loads = Counter("paritas_loads_total", "Versions loaded, or not.", ("model", "outcome"), registry=where)
        self._bound: dict[tuple[str, ...], Any] = {}

    def of(self, model: str, version: int) -> OfVersion:
        """What observes one version."""
        return OfVersion(self, model, version)

    def answered(self, model: str, protocol: str, code: str, seconds: float) -> None:
        """A request ended with gRPC's `code`."""
        if self.registry is None:
            return
        key = (model, protocol, code)
        if key not in self._bound:
            self._bound[key] = self.requests.labels(*key), self.seconds.labels(model, protocol)
        count, spent = self._bound[key]
        count.inc()
        spent.observe(seconds)

    def page(self) -> tuple[bytes, str]:
        """The text for Prometheus and its content type."""
        if self.registry is None:
            return b"", "text/plain"
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
