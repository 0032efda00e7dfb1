# SPDX-License-Identifier: Apache-2.0
"""`paritas support`: the whole zoo on every engine, in worker processes with limits; resumable; a table at the end.

A worker that hangs, dies or eats memory costs the cell it was at, and nothing else.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.apps.zoo import Entry
from paritas.run import engine

CELLS = ("mindspore graph", "mindspore pynative", "openvino")

#: Where results are kept as they come, until the table is written.
JOURNAL = "support.jsonl"

#: Called after each entry with (entries done, of how many, name).
Told = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one cell may take before its worker is ended."""

    seconds: float = 180.0
    gib: float = 6.0


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
    limits: Limits = Limits(),
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
    key = versions()
    known = _journal(journal, key)
    results = {}
    for entry in entries:
        found = known.get((entry.name, entry.digest))
        if found is not None and set(cells) <= set(found["cells"]):
            results[entry.name] = Result(entry, found["cells"], found["seconds"], tuple(found["notes"]))
    queue = collections.deque(e for e in entries if e.name not in results)
    total, lock = len(entries), threading.Lock()
    with journal.open("a", encoding="utf-8") as out:

        def done(result: Result) -> None:
            with lock:
                results[result.entry.name] = result
                line: dict[str, Any] = {
                    "name": result.entry.name,
                    "digest": result.entry.digest,
                    "versions": key,
                }
                line |= {"cells": result.cells, "seconds": result.seconds, "notes": result.notes}
                out.write(json.dumps(line) + "\n")
                out.flush()
                if told is not None:
                    told(len(results), total, result.entry.name)

        failures: list[BaseException] = []

        def work() -> None:
            worker = Worker(limits)
            try:
                while not failures:
                    try:
                        entry = queue.popleft()
                    except IndexError:
                        return
                    done(worker.examine(entry, cells))
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


def _journal(file: Path, key: Mapping[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            one = json.loads(line)
        except ValueError:  # the line that was being written when the power went
            continue
        if one["versions"] == dict(key):
            found[one["name"], one["digest"]] = one
    return found


def versions() -> dict[str, str]:
    return engine.versions(("paritas", "torch", "transformers", "diffusers", "mindspore", "openvino"))


class Worker:
    """A worker process, started when it is needed and again after it has ended."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def examine(self, entry: Entry, cells: Sequence[str]) -> Result:
        """Every cell of `entry`; a cell at which the worker ends is a result too, and the others go on."""
        results: dict[str, Mapping[str, Any]] = {}
        seconds, notes = 0.0, ()
        while left := [cell for cell in cells if cell not in results]:
            process = self._started()
            task = {"entry": _plain(entry), "cells": left}
            assert process.stdin is not None
            process.stdin.write((json.dumps(task) + "\n").encode())
            process.stdin.flush()
            at, captured = left[0], False
            while True:
                answer = self._answer()
                if isinstance(answer, str):
                    # What ends a worker before the model is captured would do so for the other cells too.
                    for cell in [at] if captured else left:
                        results[cell] = {
                            "verdict": "refused",
                            "reason": answer if captured else f"capture: {answer}",
                            "seconds": self.limits.seconds,
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
        if self._memory() > self.limits.gib / 2:  # engines keep what they have compiled
            self.end()
        return Result(entry, {cell: results[cell] for cell in cells}, round(seconds, 2), notes)

    def end(self) -> None:
        if self._process is not None:
            _signal(self._process, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._process, self._pending = None, b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            threads = {"OMP_NUM_THREADS": "1", "GLOG_v": "4", "HF_HUB_OFFLINE": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "paritas.apps.support_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **threads},
                start_new_session=True,  # so that Ctrl-C reaches the parent only, which ends it
            )
        return self._process

    def _answer(self) -> dict[str, Any] | str:
        """The next answer, or why there is none."""
        process, deadline = self._process, time.monotonic() + self.limits.seconds
        assert process is not None and process.stdout is not None
        while b"\n" not in self._pending:
            ready, _, _ = select.select([process.stdout], [], [], 0.5)
            if ready:
                read = os.read(process.stdout.fileno(), 1 << 16)
                if not read:
                    code = process.wait()
                    self.end()
                    return f"crashed: the process ended with {_ending(code)}"
                self._pending += read
            elif time.monotonic() > deadline:
                self.end()
                return f"no answer within {self.limits.seconds:g} s"
            elif self._memory() > self.limits.gib:
                self.end()
                return f"more than {self.limits.gib:g} GiB of memory"
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def _memory(self) -> float:
        """Resident memory in GiB."""
        if self._process is None:
            return 0.0
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, ValueError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _plain(entry: Entry) -> dict[str, Any]:
    one = dataclasses.asdict(entry)
    return {**one, "class": one.pop("model_class")}


def failed(results: Iterable[Result], cells: Sequence[str] = CELLS) -> list[Result]:
    return [r for r in results if not all(r.agrees(cell) for cell in cells)]
