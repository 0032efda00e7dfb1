# SPDX-License-Identifier: Apache-2.0
"""Ports that somebody has damaged or made hostile: loaded and called, each answers or refuses in one clear error.

    python tests/fuzz/ports.py --count 10000 --seed 0

One worker for each engine loads and calls one mutated copy after the other, with a limit on time and memory, and
records what Python tells its audit hooks: every file that is opened, every program that is started, every module that
is imported. The kernel says besides who else opens the bait that is laid out beside the port. A worker that dies or
hangs is replaced, and the port that did it is told. What answers although its checksums no longer fit has to answer as
the port did before.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # it is run as a script too
    sys.path.insert(0, str(ROOT))

from tests.fuzz.mutations import mutate  # noqa: E402

SECONDS = 60.0
#: Of a mutated port's process, beside what the engines take: bombs end in an error of memory.
MEMORY = 12 << 30
#: What a port of some kilobytes may ask for before it counts as a bomb.
GROWTH = 2 << 30

# --- the worker --------------------------------------------------------------------------------

#: Events of Python's that mean that something was executed.
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")


def _memory(what: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))


def _values(out: Any) -> list[Any]:
    import numpy as np

    if isinstance(out, dict):
        return [found for value in out.values() for found in _values(value)]
    if isinstance(out, (tuple, list)):
        return [found for value in out for found in _values(value)]
    return [np.asarray(out, np.float64).round(4).tolist()]


def _use(place: str, way: str) -> dict[str, Any]:
    """Load a port as `way` says, ask everything of it that its files answer, and call it."""
    from paritas import pipeline
    from paritas.verify.inputs import regression

    if way == "kept":
        from paritas.dropin import port_cache
        from paritas.options import BuildOptions

        # Any engine's: which one it is stands in the port.
        found = port_cache.read(Path(place).parent, BuildOptions("openvino"))
        if found is None:
            return {"end": "refused", "text": "made anew"}
        port = found
    else:
        port = pipeline.load(place, allow_modified=way == "modified")
    repr(port)
    example = port.examples()
    regression.cases(port.artifact, port.feed)
    values = _values(port(**example))
    port.close()
    return {"end": "answered", "values": values}


def work() -> None:
    """Load and call the ports that are named on stdin, and answer with a line of JSON for each."""
    import resource
    import warnings

    import numpy.testing  # noqa: F401 - runs `lscpu` as it is imported, which MindSpore does by way of SciPy

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    from paritas.errors import ParitasError

    seen: list[str] = []
    inside: dict[str, Any] = {"port": "", "bait": ""}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not inside["port"]:
            return
        if event in _STARTS:
            seen.append(f"executed {event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if os.path.dirname(inside["bait"]) in path and not path.startswith(inside["port"]):
                seen.append(f"read {path}"[:200])
        elif event == "import" and str(arguments[0]) in ("sitecustomize", "modeling_net", "modeling_ids"):
            seen.append(f"executed import {arguments[0]}")

    sys.addaudithook(hook)
    limited = False
    for line in sys.stdin:
        place, bait, way = line.rstrip("\n").split("\t")
        seen.clear()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is counted from here
        before = _memory("VmRSS")
        inside.update(port=os.path.abspath(Path(place).parent if way == "kept" else place), bait=bait)
        try:
            said = _use(place, way)
        except ParitasError as error:
            said = {"end": "refused", "text": str(error)[:2000]}
            if not all(c.isprintable() or c == "\n" for c in str(error)):
                said["end"] = "escapes"
        except BaseException as error:  # noqa: BLE001 - what is being looked for
            last = error.__traceback__
            while last is not None and last.tb_next is not None:
                last = last.tb_next
            at = f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last is not None else ""
            said = {"end": "raw", "text": f"{type(error).__name__}: {error}"[:300] + f" at {at}"}
        inside["port"] = ""
        if (grown := _memory("VmHWM") - before) > GROWTH:
            said = {"end": "bomb", "text": f"{grown >> 20} MiB: {said.get('text', '')}"}
        said["seen"] = list(seen)
        print(json.dumps(said), file=answers, flush=True)
        if not limited:  # what the engines have mapped by now is not counted in
            now = _memory("VmSize")
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
            limited = True


class Worker:
    """A process that loads ports; made anew when it dies or takes too long."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._served = 0

    def load(self, port: Path, bait: Path, way: str = "") -> dict[str, Any]:
        if self._served >= 2000:  # engines keep what they have compiled
            self.close()
        if self._process is None or self._process.poll() is not None:
            self._served = 0
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "GLOG_v": "4"},
            )  # fmt: skip
        process = self._process
        self._served += 1
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{port}\t{bait}\t{way}\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        process.kill()
        code = process.wait()
        return {"end": "died" if ready else "hung", "text": f"exit code {code}", "seen": []}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Watched:
    """Who opens a file, engines' own code too: the kernel says so, by the file itself and not by its names."""

    _OPENED = 0x20

    def __init__(self, file: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        self._libc.inotify_add_watch(self._descriptor, os.fsencode(file), self._OPENED)

    def opened(self) -> bool:
        """Whether it was opened since this was asked last."""
        found = False
        while True:
            try:
                found = bool(os.read(self._descriptor, 1 << 16)) or found
            except BlockingIOError:
                return found


# --- the run -----------------------------------------------------------------------------------


def bases(folder: Path) -> list[Path]:
    """Small ports, two for each engine.

    One has weights, constants, a list of cells and nested outputs; one takes ids and a nested mask, asks something of
    its sizes, watches its sums and returns a size.
    """
    import torch

    import paritas
    from paritas import store

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 3)
            self.register_buffer("table", torch.randn(100, 3))
            self.blocks = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.first(x).relu()
            for block in self.blocks:
                y = block(y)
            return {"y": y, "z": y + torch.arange(300.0).reshape(100, 3)[: y.shape[0]]}

    class Ids(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm = torch.nn.Embedding(11, 4), torch.nn.LayerNorm(4)

        def forward(self, ids: torch.Tensor, more: dict[str, torch.Tensor], scale: float = 2.0) -> Any:
            x = self.norm(self.table(ids)) * scale
            if ids.shape[1] % 2 == 0:
                x = x.flip(1)
            return (x * more["mask"][..., None]).sum(1), [ids.cumsum(1)], ids.shape[1] // 2

    torch.manual_seed(0)
    inputs: list[tuple[torch.nn.Module, dict[str, Any]]] = [
        (Net(), {"x": torch.randn(5, 4)}),
        (Ids(), {"ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 10]]), "more": {"mask": torch.ones(2, 4)}}),
    ]
    found = []
    for engine in ("openvino", "mindspore"):
        for module, example in inputs:
            mode = {"mode": "pynative"} if engine == "mindspore" else {}
            port = paritas.port(module.eval(), engine, example, **mode)  # type: ignore[arg-type]
            place = folder / engine / type(module).__name__ / "port"
            port.save(place)
            store.attach(place, "parity.json", "{}\n")
            artifact = store.read(place)
            data = (place / "example.safetensors").read_bytes()
            store.keep(artifact, "regression/search-0.safetensors", data)
            port.close()
            found.append(place)
    return found


def _remove(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
    shutil.rmtree(place)


def run(
    count: int,
    seed: int,
    folder: Path,
    told: Callable[[str], None] = print,
    first: int = 0,
    seconds: float = float("inf"),
) -> Counter[str]:
    """Mutate, load and call so many ports: how many ended how. What must not be is told, with its seed and number."""
    originals = bases(folder / "originals")
    workers, ends = {place.parents[1].name: Worker() for place in originals}, Counter[str]()
    bait = folder / "outside" / "bait"
    bait.parent.mkdir()
    bait.write_bytes(b"\x00" * 64)
    watched, wants = Watched(bait), {}
    for original in originals:
        wants[original] = workers[original.parents[1].name].load(original, bait)
        assert wants[original]["end"] == "answered", wants[original]
    began = time.perf_counter()
    for number in range(first, first + count):
        if time.perf_counter() - began > seconds:
            told(f"go on with --first {number}")
            break
        rng = random.Random(f"{seed} {number}")
        original = rng.choice(originals)
        engine = original.parents[1].name
        way = rng.choice(("", "", "", "kept", "modified"))
        if way == "modified" and engine == "mindspore":  # its owner says that whatever is there may run
            way = ""
        place = folder / "outside" / f"kept{number}" / "port"
        shutil.copytree(original, place)
        place.parent.chmod(0o700)
        manifest = (place / "port.json").read_bytes()
        try:
            done = mutate(place, rng, bait)
        except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            done = f"could not be mutated whole: {error!r}"
        linked = os.stat(bait).st_nlink > 1
        watched.opened()
        said = workers[engine].load(place, bait, way)
        marks = sorted(bait.parent.glob("bait.*"))
        wrong = said["end"] if said["end"] not in ("answered", "refused") else ""
        seen = list(said["seen"])
        if watched.opened() and not linked:
            seen.append("read the bait")
        if seen or marks:
            wrong = f"{wrong} {seen or 'executed'}"
        same = said["end"] != "answered" or said["values"] == wants[original]["values"]
        if not same and not way and _same_manifest(place, manifest):
            wrong = f"{wrong} other values"
        ends[said["end"] if not wrong else wrong.split()[0].strip("['")] += 1
        if wrong:
            name = f"{engine} {original.parent.name} {way}"
            told(f"{seed} {number} {name}: {done}: {wrong} {said.get('text', '')}")
        for mark in marks:
            mark.unlink()
        if place.parent.exists():
            _remove(place.parent)
        if (number + 1) % 500 == 0:
            told(f"{number + 1} ports, {time.perf_counter() - began:.0f} s: {dict(ends)}")
    for worker in workers.values():
        worker.close()
    return ends


def _same_manifest(place: Path, manifest: bytes) -> bool:
    try:
        return (place / "port.json").read_bytes() == manifest
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first, to go on or to repeat one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long, if not for all of them")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work()
    else:
        with tempfile.TemporaryDirectory() as name:
            ends = run(given.count, given.seed, Path(name), first=given.first, seconds=given.seconds)
        print(f"seed {given.seed}: {sum(ends.values())} ports: {dict(ends)}")
        sys.exit(any(end not in ("answered", "refused") for end in ends))
