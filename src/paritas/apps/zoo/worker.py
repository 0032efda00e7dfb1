# SPDX-License-Identifier: Apache-2.0
"""One worker of `paritas support`: ports and verifies zoo entries that it is told on stdin, one JSON line each.

A line is {"entry": {..}, "cells": ["mindspore graph", ..]}. The answers, also lines: {"name": .., "cell": ..,
"result": {..}} as each cell is done, then {"name": .., "done": {..}}; {"name": .., "captured": true} once the
model is. Errors are answers; a crash is seen by the parent, which knows from the last answer which cell it was.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from paritas import workers
from paritas.errors import first_lines

Answer = Callable[[dict[str, Any]], None]


def main() -> None:
    import torch

    from paritas.apps.zoo import entries

    torch.set_num_threads(1)
    workers.serve(lambda task, answer: examine(entries.entry_of(task["entry"]), task["cells"], answer))


def examine(entry: Any, cells: Sequence[str], answer: Answer) -> None:
    """Port `entry` once, lower it to every engine of `cells`, and verify each cell on the entry's own inputs."""
    from paritas import pipeline
    from paritas.capture import capture
    from paritas.making import build_options
    from paritas.modes import with_mode
    from paritas.program import Source

    began = time.perf_counter()
    shared: dict[str, Any] = {}

    def captured() -> Any:
        if "error" in shared:
            raise shared["error"]
        if "program" not in shared:
            try:
                model, inputs = entry.model(), entry.values()
                source = Source("module", model_class=entry.model_class.replace(":", "."))
                shared["program"] = capture(model, inputs, source=source)
                shared["model"], shared["inputs"] = model, inputs
                answer({"name": entry.name, "captured": True})
            except Exception as error:
                shared["error"] = error
                raise
        return shared["program"]

    ports: dict[str, Any] = {}
    for cell in cells:
        answer({"name": entry.name, "cell": cell, "begun": True})
        engine, _, mode = cell.partition(" ")
        start = time.perf_counter()
        try:
            program = captured()
            if engine in ports and mode:
                port = with_mode(ports[engine], mode)
            else:
                port = pipeline.port_program(program, shared["model"], build_options(engine, mode=mode)[0])
                ports[engine] = port
            result = _judged(port, shared["inputs"])
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            result = {"verdict": "refused", "reason": f"{type(error).__name__}: {first_lines(error, 4)}"}
        result["seconds"] = round(time.perf_counter() - start, 2)
        answer({"name": entry.name, "cell": cell, "result": result})
    notes = [str(note) for note in shared["program"].notes] if "program" in shared else []
    answer({"name": entry.name, "done": {"seconds": round(time.perf_counter() - began, 2), "notes": notes}})
    for port in ports.values():
        port.close()
    ports.clear()
    shared.clear()
    # What is left are the libraries' own objects: to look through them again and again takes a fifth of the time.
    gc.collect()
    gc.freeze()


def _judged(port: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    report = port.verify(inputs, level="outputs")
    worst = max(report.outputs, key=lambda row: (bool(row.fault), row.error), default=None)
    result: dict[str, Any] = {"verdict": report.verdict}
    if worst is not None and not worst.fault:
        result["error"] = float(f"{worst.error:.3g}")
    if report.verdict != "agrees":
        rows = [row for row in report.outputs if row.fault or row.excess > 1]
        result["reason"] = (
            "; ".join(f"{row.output}: {row.fault or f'{row.excess:.3g}x over tolerance'}" for row in rows[:3])
            or "; ".join(f"{what}: {why}" for what, why in report.unseen.items())
            or report.verdict
        )
    return result


if __name__ == "__main__":
    main()
