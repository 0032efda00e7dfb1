# SPDX-License-Identifier: Apache-2.0
"""`paritas support`: the whole zoo on every engine, in worker processes with limits; resumable; a table at the end.

A worker that hangs, dies or eats memory costs the cell it was at, and nothing else.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.apps.journal import Journal
from paritas.apps.zoo.entries import Entry
from paritas.run import engine
from paritas.workers import Limits, Worker

#: cell -> its title: every engine but the original, in each of its modes.
TITLES = {
    " ".join(filter(None, (one.name, mode))): one.title(mode)
    for one in sorted(engine.all_about(), key=lambda one: one.name)
    if not one.is_original
    for mode in one.modes
}
CELLS = tuple(TITLES)

#: Where results are kept as they come, until the table is written.
JOURNAL = "support.jsonl"

#: Called after each entry with (entries done, of how many, name).
Told = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of an entry: a result for each cell, {"verdict", "error", "reason", "seconds"}."""

    entry: Entry
    cells: Mapping[str, Mapping[str, Any]]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def agrees(self, cell: str) -> bool:
        return self.cells.get(cell, {}).get("verdict") == "agrees"


def sweep(
    entries: Sequence[Entry],
    directory: Path,
    *,
    cells: Sequence[str] = CELLS,
    jobs: int = 2,
    limits: Limits | None = None,
    fresh: bool = False,
    told: Told | None = None,
) -> list[Result]:
    """Port and verify every entry in every cell, `jobs` at a time, and return the results in the order given.

    Results go to `support.jsonl` in `directory` as they come: a sweep that was interrupted goes on where it
    was, unless `fresh`, or unless the entry or a package has changed since.
    """
    directory.mkdir(parents=True, exist_ok=True)
    journal = directory / JOURNAL
    if fresh:
        journal.unlink(missing_ok=True)
    kept = Journal(journal, versions())
    known = {(line["name"], line["digest"]): line for line in kept.lines}
    results = {}
    for entry in entries:
        found = known.get((entry.name, entry.digest))
        if found is not None and set(cells) <= set(found["cells"]):
            results[entry.name] = Result(entry, found["cells"], found["seconds"], tuple(found["notes"]))
    queue = collections.deque(e for e in entries if e.name not in results)
    total, lock = len(entries), threading.Lock()

    def done(result: Result) -> None:
        with lock:
            results[result.entry.name] = result
            about = {"name": result.entry.name, "digest": result.entry.digest}
            kept.add({**about, "cells": result.cells, "seconds": result.seconds, "notes": result.notes})
            if told is not None:
                told(len(results), total, result.entry.name)

    failures: list[BaseException] = []

    def work() -> None:
        worker = Worker("paritas.apps.zoo.worker", limits or Limits())
        try:
            while not failures:
                try:
                    entry = queue.popleft()
                except IndexError:
                    return
                done(examine(worker, entry, cells))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failures.append(error)
        finally:
            worker.end()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, max(len(queue), 1)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)
    except BaseException:
        failures.append(KeyboardInterrupt())  # the workers finish the cell that they are at
        raise
    if failures:
        raise failures[0]
    return [results[entry.name] for entry in entries]


def versions() -> dict[str, str]:
    return engine.versions(("paritas", "torch", "transformers", "diffusers", *engine.packages()))


def examine(worker: Worker, entry: Entry, cells: Sequence[str]) -> Result:
    """Every cell of `entry`; a cell at which the worker ends is a result too, and the others go on."""
    results: dict[str, Mapping[str, Any]] = {}
    seconds, notes = 0.0, ()
    while left := [cell for cell in cells if cell not in results]:
        worker.tell({"entry": entry.to_json(), "cells": left})
        at, captured = left[0], False
        while True:
            answer = worker.answer()
            if isinstance(answer, str):
                # What ends a worker before the model is captured would do so for the other cells too.
                for cell in [at] if captured else left:
                    results[cell] = {
                        "verdict": "refused",
                        "reason": answer if captured else f"capture: {answer}",
                        "seconds": worker.limits.seconds,
                    }
                break
            captured = captured or "captured" in answer
            if "done" in answer:
                seconds += answer["done"]["seconds"]
                notes = tuple(answer["done"]["notes"]) or notes
                break
            at = answer.get("cell", at)
            if "result" in answer:
                results[at] = answer["result"]
    if worker.memory() > worker.limits.gib / 2:  # engines keep what they have compiled
        worker.end()
    return Result(entry, {cell: results[cell] for cell in cells}, round(seconds, 2), notes)


def failed(results: Iterable[Result], cells: Sequence[str] = CELLS) -> list[Result]:
    return [r for r in results if not all(r.agrees(cell) for cell in cells)]
