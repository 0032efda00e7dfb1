# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of `paritas train SCRIPT`, says why they ended, and ports and verifies what was trained."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.apps.training import zero
from paritas.apps.training.wish import Wish
from paritas.errors import EngineError, InputError
from paritas.run.engine import about

_WORKER = "paritas.apps.training.worker"


#: How a process ended of which its launcher has heard first.
_UNKNOWN = 1 << 8


@dataclasses.dataclass(frozen=True)
class Trained:
    """model: the directory of what was trained, "" where none was asked for. held: what each process of ZeRO held."""

    model: str
    held: Sequence[Mapping[str, int]] = ()


def train(wish: Wish, arguments: Sequence[str], say: Callable[[str], None] = print) -> Trained:
    """Run the script in as many processes as are wished, and wait for them.

    Raises:
        InputError, ExtraMissing: what is wished for cannot be, before anything is started.
        EngineError: a process failed; says which one, why, and where.
    """
    wish.check()
    wish = dataclasses.replace(wish, script=str(Path(wish.script).resolve()))
    if wish.config:
        wish = dataclasses.replace(wish, zero=zero.stage_of(wish.config), config=str(Path(wish.config).resolve()))
    with tempfile.TemporaryDirectory(prefix="paritas-train-") as folder:
        wish = dataclasses.replace(wish, run=folder)
        command, environment = _command(wish, arguments)
        said: deque[str] = deque(maxlen=400)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", env={**os.environ, **wish.environment(), **environment}, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        watch = _Watch(process, Path(folder))
        try:
            for line in process.stdout:
                said.append(line)
                say(line.rstrip("\n"))
            code = process.wait()
        finally:
            watch.end()
            _stop(process, Path(folder))
        if code or watch.ended:
            raise EngineError(_why(wish, Path(folder), said, code, watch.ended))
        held = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.held"))]
    if wish.out and not Path(wish.out, "model").is_dir():
        raise EngineError(f"{wish.script} ended, and left no model for {wish.out}.")
    return Trained(str(Path(wish.out, "model")) if wish.out else "", held)


class _Watch(threading.Thread):
    """Looks whether the processes are there, and stops all once one has ended that had not come to its end.

    Launchers take longer, or wait for the others for ever, in the middle of a collective.

    ended: rank -> how, as `os.waitstatus_to_exitcode` says it, of the first that ended so, and left no reason.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        super().__init__(daemon=True)
        self.process, self.folder = process, folder
        self.ended: dict[int, int] = {}
        self._over = threading.Event()
        self.start()

    def end(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.05):
            if gone := self._gone():
                self._over.wait(0.5)  # until who failed because of it, or before it, has said so
                said = {rank for rank in gone if self._has(rank, "reason") or self._has(rank, "stopped")}
                self.ended = {rank: how for rank, how in gone.items() if rank not in said}
                _stop(self.process, self.folder)
                return

    def _gone(self) -> dict[int, int]:
        found = {}
        for path in self.folder.glob("*.pid"):
            rank = int(path.stem)
            how = _how(int(path.read_text() or 0))
            if how is not None and not self._has(rank, "done"):
                found[rank] = how
        return found

    def _has(self, rank: int, what: str) -> bool:
        return (self.folder / f"{rank}.{what}").exists()


def _how(process: int) -> int | None:
    """How a process ended; None while it is there, `_UNKNOWN` where nobody knows any more."""
    if not process:
        return None  # its file is just being written
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return _UNKNOWN
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] in "ZX" else None


def _stop(process: subprocess.Popen[str], folder: Path) -> None:
    """Whatever is still there ends: the processes, which launchers put into sessions of their own, and the launcher."""
    for path in folder.glob("*.pid"):
        if not path.with_suffix(".done").exists() and _how(int(path.read_text() or 0)) is None:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command(wish: Wish, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    engine = about(wish.engine)
    script = [wish.script, *arguments]
    alone = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if wish.processes > 1 else {}
    if engine.is_original and (wish.zero or wish.config):
        return zero.launcher(wish, [_WORKER, *script]), {**alone, **zero.built(wish)}
    if wish.processes == 1:
        return [sys.executable, "-m", _WORKER, *script], {}
    if engine.is_original:
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wish.processes}", "-m", _WORKER]
        return [sys.executable, *run, *script], alone
    worker = Path(__file__).with_name("worker.py")
    logs = Path(wish.run, "logs")
    return engine.launched(wish.processes, _free_port(), logs, [str(worker), *script]), alone


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _why(wish: Wish, folder: Path, said: Sequence[str], code: int, ended: Mapping[int, int]) -> str:
    """Which process ended first, and its reason. ended: those that left none."""
    reasons = {int(path.stem): path for path in folder.glob("*.reason")}
    others = ", and the others were stopped" if wish.processes > 1 else ""
    if ended:
        rank, how = min(ended.items())
        if how == _UNKNOWN:
            said_how = "was killed"
        else:
            said_how = f"was killed by signal {-how}" if how < 0 else f"ended with {how}, and said nothing"
        hint = ": out of memory, perhaps" if how in (-signal.SIGKILL, _UNKNOWN) else ""
        return f"Process {rank} of {wish.processes} {said_how}{others}{hint}."
    if reasons:  # what the others say may be that this one is gone
        rank, path = min(reasons.items(), key=lambda item: item[1].stat().st_mtime_ns)
        return f"Process {rank} of {wish.processes} failed{others}: {path.read_text()}"
    last = [line.strip() for line in said if line.strip()][-3:]
    return f"{wish.script} ended with {code}: {' / '.join(last) or 'it said nothing'}"


def proven(model: str, out: str, engine: str, progress: Callable[[str], None] = lambda stage: None) -> Any:
    """Port what was trained, verify the port, and save it in `out`/port. Returns the report.

    Raises `InputError` where the model has no configuration to make it again from.
    """
    from paritas.pipeline import port

    if not Path(model, "config.json").is_file():
        raise InputError(f"{model} has weights and no configuration: port the module itself, with paritas.port().")
    made = port(model, engine=engine, progress=progress)
    progress("verify")
    report = made.verify()
    made.save(Path(out, "port"), force=True)
    return report
