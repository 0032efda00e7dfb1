# SPDX-License-Identifier: Apache-2.0
"""A worker process with limits of time and memory, told and answering in JSON lines. It may hang, die or eat memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a worker may take before it is ended: seconds between two answers, GiB of memory."""

    seconds: float = 180.0
    gib: float = 6.0


#: One of several that work at a time.
ALONE = {"OMP_NUM_THREADS": "1", "GLOG_v": "4", "HF_HUB_OFFLINE": "1"}


class Worker:
    """The process of one module, started when it is told something and again after it has ended.

    environment: what it has beside this process's. listens: whether the last line that it says on stderr is part of the
    reason why it has ended.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        environment: Mapping[str, str] = MappingProxyType(ALONE),
        *,
        listens: bool = False,
    ) -> None:
        self.limits = limits
        self._module, self._environment = module, environment
        self._said = tempfile.TemporaryFile() if listens else None  # noqa: SIM115 - closed with this object
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tell(self, task: Mapping[str, Any]) -> None:
        process = self._started()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why it has ended
            process.stdin.write((json.dumps(task) + "\n").encode())
            process.stdin.flush()

    def answer(self) -> dict[str, Any] | str:
        """The next answer, or why there is none; the process has then ended."""
        process, deadline = self._process, time.monotonic() + self.limits.seconds
        assert process is not None and process.stdout is not None
        while b"\n" not in self._pending:
            ready, _, _ = select.select([process.stdout], [], [], 0.5)
            if ready:
                read = os.read(process.stdout.fileno(), 1 << 16)
                if not read:
                    code = process.wait()
                    self.end()
                    return f"crashed: its process ended with {_ending(code)}{self._last_words()}"
                self._pending += read
            elif time.monotonic() > deadline:
                self.end()
                return f"no answer within {self.limits.seconds:g} s"
            elif self.memory() > self.limits.gib:
                self.end()
                return f"more than {self.limits.gib:g} GiB of memory"
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines()]
        return next((f": {line}" for line in reversed(lines) if line), "")

    def memory(self) -> float:
        """Resident memory in GiB, without what is mapped from files, which the system takes back when it must."""
        if self._process is None:
            return 0.0
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        except OSError:
            return 0.0
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**30

    def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._process, self._pending = None, b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said or subprocess.DEVNULL,
                env={**os.environ, **self._environment},
                start_new_session=True,  # so that Ctrl-C reaches the parent only, which ends it
            )
        return self._process


def answering() -> Callable[[dict[str, Any]], None]:
    """The worker's side: what writes an answer. Called once, before anything else of the process writes."""
    # Libraries print where they like; the protocol keeps the real stdout for itself.
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        protocol.write(json.dumps(value) + "\n")
        protocol.flush()

    return answer


def serve(work: Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], None]) -> None:
    """The worker's side: `work(task, answer)` for each line on stdin, until there are no more."""
    answer = answering()
    for line in sys.stdin:
        work(json.loads(line), answer)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else str(code)
