# SPDX-License-Identifier: Apache-2.0
"""The child process of `paritas.bench.race`: loads one contender, then answers one JSON line with another.

    {"name": ..., "directory": ..., "feed": "feed.npz", ...}  ->  {"load": 1.2, "first": 0.3, ...}
    {"seconds": 1.0}                                          ->  {"calls": [0.11, 0.11], "spent": 2.0}
    {"finish": true}                                          ->  {"memory": 123456789}

A failure is {"fault": "..."}; then the process ends. Between two lines it sleeps.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from paritas.dtypes import dtype_name
from paritas.errors import reason_of
from paritas.workers import serve

Call = Callable[[], object]


class _Contender:
    """Answers the first order by loading what it names, and every other one by calling that."""

    def __init__(self) -> None:
        self.call: Call | None = None

    def work(self, question: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
        try:
            if self.call is None:
                self.call, loaded = _load(question)
                answer(loaded)
            elif "finish" in question:
                answer({"memory": _peak()})
            else:
                answer(_turn(self.call, question["seconds"]))
        except Exception as error:  # noqa: BLE001 - it belongs into the report, whatever it is
            answer({"fault": reason_of(error)})


def _load(order: dict[str, Any]) -> tuple[Call, dict[str, Any]]:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order["cores"])
    call, precision, package = _original(order) if order["source"] else _port(order)
    load = time.monotonic() - order["started"]
    begin = time.perf_counter()
    call()
    first = time.perf_counter() - begin
    call()
    version = f"{package} {importlib.metadata.version(package)}"
    return call, {"load": load, "first": first, "precision": precision, "version": version}


def _port(order: dict[str, Any]) -> tuple[Call, str, str]:
    from paritas.pipeline import load_port
    from paritas.run.engine import about

    port = load_port(
        order["directory"],
        mode=order["mode"],
        precision=order["precision"],
        allow_modified=order["allow_modified"],
        device=order["device"],
        ov_config=order["config"],
    )
    feed = _feed(order)
    return lambda: port(**feed), port.session.precision, about(port.manifest.engine).package


def _original(order: dict[str, Any]) -> tuple[Call, str, str]:
    import torch

    from paritas.capture.source import load_again
    from paritas.program import Source

    torch.set_num_threads(len(order["cores"]))
    module = load_again(Source(**order["source"]), dtype=order["dtype"] or None)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    feed = {name: torch.from_numpy(value) for name, value in _feed(order).items()}
    feed = {name: value.to(dtype) if value.is_floating_point() else value for name, value in feed.items()}
    constants = order["constants"]

    def call() -> object:
        with torch.inference_mode():
            return module(**feed, **constants)

    return call, dtype_name(dtype), "torch"


def _feed(order: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    with np.load(order["feed"], allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _turn(call: Call, seconds: float) -> dict[str, Any]:
    """Calls until `seconds` are over, at least one; the first of all fills the caches again and is not told."""
    processor, calls = time.process_time(), list[float]()
    call()
    end = time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        calls.append(time.perf_counter() - begin)
    return {"calls": calls, "spent": time.process_time() - processor}


def _peak() -> int:
    """Peak resident bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    serve(_Contender().work)
