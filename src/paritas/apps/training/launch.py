# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of `paritas train SCRIPT`, says why they ended, and ports and verifies what was trained."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.apps.training import zero
from paritas.apps.training.wish import Wish
from paritas.errors import EngineError, InputError
from paritas.run.engine import about

_WORKER = "paritas.apps.training.worker"

#: How launchers say that a process ended: msrun, torch's.
_ENDED = (
    re.compile(r"Worker process (?P<pid>\d+) exit with exception. Error code: (?P<code>-?\d+)"),
    re.compile(r"exitcode\s*:\s*(?P<code>-?\d+)\s*\(pid:\s*(?P<pid>\d+)\)"),
    re.compile(r"failed \(exitcode: (?P<code>-?\d+)\).*pid: (?P<pid>\d+)"),
)


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
        try:
            for line in process.stdout:
                said.append(line)
                say(line.rstrip("\n"))
                if any(form.search(line) for form in _ENDED):  # the rest is the launcher's own time-outs
                    break
            code = 1 if any(form.search(said[-1]) for form in _ENDED if said) else process.wait()
        finally:
            _stop(process, Path(folder))
        if code:
            raise EngineError(_why(wish, Path(folder), said, code))
        held = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.held"))]
    if wish.out and not Path(wish.out, "model").is_dir():
        raise EngineError(f"{wish.script} ended, and left no model for {wish.out}.")
    return Trained(str(Path(wish.out, "model")) if wish.out else "", held)


def _stop(process: subprocess.Popen[str], folder: Path) -> None:
    """Whatever is still there ends: the launcher, and the processes that it has put into sessions of their own."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for path in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
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


def _why(wish: Wish, folder: Path, said: Sequence[str], code: int) -> str:
    """Which process ended first, and its reason."""
    reasons = {int(path.stem): path for path in folder.glob("*.reason")}
    if reasons:  # what the others say may be that this one is gone
        rank, path = min(reasons.items(), key=lambda item: item[1].stat().st_mtime_ns)
        return f"Process {rank} of {wish.processes} failed, and the others were stopped: {path.read_text()}"
    ranks = {path.read_text(): int(path.stem) for path in folder.glob("*.pid")}
    for line in said:
        for form in _ENDED:
            if (found := form.search(line)) and found["pid"] in ranks:
                number = int(found["code"])
                how = f"was killed by signal {-number}" if number < 0 else f"ended with {number}"
                hint = ": out of memory, perhaps" if number == -9 else ""
                return f"Process {ranks[found['pid']]} of {wish.processes} {how}, and the others were stopped{hint}."
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
