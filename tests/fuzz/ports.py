# SPDX-License-Identifier: Apache-2.0
"""Ports that somebody has damaged or made hostile: loaded and called, each answers or refuses in one clear error.

    python tests/fuzz/ports.py --count 10000 --seed 0

A worker loads and calls one mutated copy after the other, with a limit on time and memory, and records what Python
tells its audit hooks: every file that is opened, every program that is started, every module that is imported. A port
may read its own directory and nothing that is laid out as bait outside of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 60.0
#: Of a mutated port's process, beside what the engines take: bombs end in an error of memory.
MEMORY = 12 << 30

Mutation = Callable[[Path, random.Random, Path], str]


# --- mutations ---------------------------------------------------------------------------------


def _files(port: Path) -> list[Path]:
    return sorted(path for path in port.rglob("*") if path.is_file() and not path.is_symlink())


def _some_bytes(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 4, 30))):
        if data:
            at = (
                min(int(rng.expovariate(1 / 300)), len(data) - 1)
                if rng.random() < 0.5
                else rng.randrange(len(data))
            )
            data[at] = rng.randrange(256)
    file.write_bytes(data)
    return f"bytes of {file.name}"


def _cut(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = file.read_bytes()
    kind = rng.randrange(4)
    if kind == 0:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind == 1:
        data += rng.randbytes(rng.choice((1, 100, 5000)))
    elif kind == 2:
        data = b""
    else:
        data = data + data
    file.write_bytes(data)
    return f"length of {file.name}"


_ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, "", "x", "../b", "/etc/passwd", "a\0b", "\x1b[31m", "9**9**9",
    [], {}, [[]], {"kind": "tensor", "index": 99}, "s0", "s0*s1", "model.safetensors", "port.json", "os.system",
    "__import__",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 6)):
            found += _places(value[index], (*path, index))
    return found


def _json_field(port: Path, rng: random.Random, bait: Path) -> str:
    file = port / "port.json"
    data = json.loads(file.read_text())
    # A field at the top first: there are few of them, and they mean most.
    top = rng.choice(list(data))
    path = (top, *rng.choice([(), *_places(data[top])]))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    kind = rng.randrange(4)
    if kind == 0:
        del holder[path[-1]]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("extra", "weights", "constants", "class", "kind"))] = rng.choice(
            [*_ODD_VALUES, str(bait)]
        )
    else:
        holder[path[-1]] = rng.choice([*_ODD_VALUES, str(bait), os.path.relpath(bait, port)])
    file.write_text(json.dumps(data))
    return f"port.json {'.'.join(map(str, path))[:60]}"


def _json_text(port: Path, rng: random.Random, bait: Path) -> str:
    file = port / "port.json"
    text = file.read_text()
    texts = (
        text.replace("{", "[", 1), text[:-3], "[" * 100000 + "]" * 100000, "\ufeff" + text, "null", text.upper(),
        text.replace('"format_version": 1', '"format_version": ' + "9" * 5000), text.replace("}", ", }", 1),
        text.replace('"engine"', '"engine": "torch", "engine"', 1),
    )  # fmt: skip
    file.write_text(rng.choice(texts))
    return "text of port.json"


_SNIPPETS = [
    "import os", "os.system('touch {bait}.ran')", "open('{bait}')", "__import__('os').system('touch {bait}.ran')",
    "x = 9**9**9**9", "self.big = ops.zeros((10**12,), ms.float32)", "y = [0 for _ in range(10**12)]", "lambda: 0",
    "z = 'a' * 10**11", "w = 1 << 10**12", "ms.context.os.system('touch {bait}.ran')", "self.__class__", "exec('1')",
    "return ms.load_checkpoint('{bait}')", "while True:\n            pass", "return x.asnumpy().tofile('{bait}.ran')",
    "# coding: unicode_escape", "\x0cimport os", "x = x" + ".shape" * 50,
]  # fmt: skip


def _module(port: Path, rng: random.Random, bait: Path) -> str:
    found = sorted(port.glob("*.py"))
    if not found:
        return _xml(port, rng, bait)
    file = found[0]
    lines = file.read_text().split("\n")
    kind = rng.randrange(6)
    if kind == 0:
        at = rng.randrange(len(lines) + 1)
        indent = re.match(" *", lines[min(at, len(lines) - 1)])[0]  # type: ignore[index]
        lines.insert(at, indent + rng.choice(_SNIPPETS).replace("{bait}", str(bait)))
    elif kind == 1:
        lines.insert(
            rng.randrange(2),
            "# coding: " + rng.choice(("unicode_escape", "utf-7", "latin-1", "utf-16", "rot13")),
        )
        lines.append("# \\x0aimport os; os.system('touch " + str(bait) + ".ran')")
    elif kind == 2:
        del lines[rng.randrange(len(lines))]
    elif kind == 3:
        at = rng.randrange(len(lines))
        lines.insert(at, lines[rng.randrange(len(lines))])
    else:
        text = "\n".join(lines)
        tokens = [match.span() for match in re.finditer(r"[A-Za-z_]\w*|\d+|[-+*/()=,.]", text)]
        begin, end = rng.choice(tokens)
        other = rng.choice(
            [
                text[slice(*rng.choice(tokens))],
                "os",
                "10**12",
                "ms",
                "self",
                "",
                "9**9**9**9",
                "-1",
                "None",
                "(",
                "ops.Custom",
            ]
        )
        lines = (text[:begin] + other + text[end:]).split("\n")
    file.write_text("\n".join(lines))
    return "the module"


def _xml(port: Path, rng: random.Random, bait: Path) -> str:
    found = sorted(port.glob("*.xml"))
    if not found:
        return _module(port, rng, bait)
    text = found[0].read_text()
    kind = rng.randrange(7)
    if kind == 0:
        bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
        text = re.sub(r"(<\?xml[^>]*>)?", lambda m: m[0] + bomb, text, count=1)
    elif kind == 1:
        text = text.replace("<net ", f'<net weights="{bait}" ', 1)
    else:
        pattern = (
            r'(offset|size|shape|id|to-layer|from-port|element_type|type|version|name|precision)="([^"]*)"',
            r"<dim>(-?\d+)</dim>",
        )
        places = list(re.finditer(pattern[rng.random() < 0.4], text))
        if not places:
            return _some_bytes(port, rng, bait)
        place = rng.choice(places)
        group = place.lastindex or 1
        other = rng.choice(
            (
                "-1",
                "0",
                "99999999999999",
                "1000000000000",
                "",
                "x",
                str(bait),
                "If",
                "Loop",
                "Custom",
                "2,3",
                "i64",
                "f64",
                "3",
                "17",
                "dynamic",
            )
        )
        begin, end = place.span(group)
        text = text[:begin] + other + text[end:]
    found[0].write_text(text)
    return "the xml"


def _tensors(port: Path, rng: random.Random, bait: Path) -> str:
    found = sorted(port.glob("*.safetensors"))
    if not found:
        return _xml(port, rng, bait)
    file = rng.choice(found)
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    kind = rng.randrange(8)
    if kind == 0:
        header[rng.choice((name + "x", "../x", "", "weight"))] = header.pop(name)
    elif kind == 1:
        header[name]["dtype"] = rng.choice(
            ("F32", "I64", "F16", "BF16", "U8", "BOOL", "F8_E4M3", "X", None, 3)
        )
    elif kind == 2:
        shape = header[name]["shape"]
        header[name]["shape"] = rng.choice(
            ([*shape, 1], shape[::-1], [10**12], [-1], [2**62, 4], None, [0], "3")
        )
    elif kind == 3:
        header[name]["data_offsets"] = rng.choice(([0, 4], [0, 10**12], [8, 4], [-4, 0], [0], None, [0.5, 4]))
    elif kind == 4:
        del header[name]
    elif kind == 5:
        header[name], header[rng.choice(names)] = header[rng.choice(names)], header[name]
    raw = json.dumps(header).encode()
    if kind == 6:
        raw = raw[:-1] + b"," + json.dumps(name).encode() + b":" + json.dumps(header[name]).encode() + b"}"
    if kind == 7:
        raw = rng.choice((b"[" * 100000, b"{}", b"[]", raw[:-2], raw + b" " * 3))
    length = len(raw) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**63, len(data)))
    file.write_bytes(length.to_bytes(8, "little") + raw + body)
    return f"the header of {file.name}"


def _kind_of_file(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = file.read_bytes()
    kind = rng.randrange(8)
    if kind != 7:
        file.unlink()
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.symlink_to(bait)
    elif kind == 2:
        file.mkdir()
    elif kind == 3:
        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(port)
            try:
                made.bind(file.name)
            finally:
                os.chdir(here)
    elif kind == 4:
        (port / "real").write_bytes(data)
        file.symlink_to("real")
    elif kind == 5:
        os.link(bait, file)
    elif kind == 6:
        file.symlink_to(file.name)
    else:
        file.chmod(rng.choice((0o000, 0o777, 0o444)))
    return f"{file.name} is of another kind ({kind})"


def _added(port: Path, rng: random.Random, bait: Path) -> str:
    name = rng.choice(("sitecustomize.py", "mindspore.py", "x.so", "__init__.py", "constants.safetensors", "adapter_config.json", "a/b/c.txt", "openvino_model.bin", "d" * 200, "regression/x.safetensors"))  # noqa: E501  # fmt: skip
    (port / name).parent.mkdir(parents=True, exist_ok=True)
    (port / name).write_text(f"import os\nos.system('touch {bait}.ran')\n")
    if rng.random() < 0.3:
        os.symlink(rng.choice((str(bait), ".", "/dev/zero", "loop")), port / "loop")
    return f"added {name}"


MUTATIONS: tuple[Mutation, ...] = (_some_bytes, _cut, _json_field, _json_field, _json_field, _json_text, _module, _module, _xml, _tensors, _kind_of_file, _added)  # noqa: E501  # fmt: skip


def seal(port: Path) -> None:
    """What an attacker does who knows the format: checksums that fit."""
    try:
        data = json.loads((port / "port.json").read_text())
        assert isinstance(data["files"], dict)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AssertionError):
        return
    for file in _files(port):
        name = file.relative_to(port).as_posix()
        if name != "port.json":
            raw = file.read_bytes()
            data["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (port / "port.json").write_text(json.dumps(data))


def mutate(port: Path, rng: random.Random, bait: Path) -> str:
    """Change a port, seal it half of the time, and say what was done."""
    said = [rng.choice(MUTATIONS)(port, rng, bait) for _ in range(1 if rng.random() < 0.8 else 2)]
    if rng.random() < 0.6:
        seal(port)
        said.append("sealed")
    return ", ".join(said)


# --- the worker --------------------------------------------------------------------------------


def work() -> None:
    """Load and call the ports that are named on stdin, and answer with a line of JSON for each."""
    import resource
    import warnings

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    import numpy as np

    import paritas
    from paritas.errors import ParitasError

    seen: list[str] = []
    inside: dict[str, Any] = {"port": "", "bait": ""}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not inside["port"]:
            return
        if event in (
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
        ):
            seen.append(f"executed {event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if os.path.dirname(inside["bait"]) in os.path.abspath(path) and not os.path.abspath(
                path
            ).startswith(inside["port"]):
                seen.append(f"read {path}"[:200])
        elif event == "import" and str(arguments[0]) in ("sitecustomize", "modeling_net"):
            seen.append(f"executed import {arguments[0]}")

    sys.addaudithook(hook)
    limited = False
    for line in sys.stdin:
        place, bait = line.rstrip("\n").split("\t")
        seen.clear()
        inside.update(port=os.path.abspath(place), bait=bait)
        try:
            port = paritas.load(place)
            feed = {
                s.name: np.ones([d if isinstance(d, int) else 5 for d in s.dims], s.dtype)
                for s in port.inputs
            }
            out = port(**feed)
            values = [
                np.array(value, np.float64).tolist()
                for value in (out.values() if hasattr(out, "values") else [out])
            ]
            said = {"end": "answered", "values": values}
            port.close()
        except ParitasError as error:
            said = {"end": "refused", "text": str(error)[:300]}
        except BaseException as error:  # noqa: BLE001 - what is being looked for
            said = {"end": "raw", "text": f"{type(error).__name__}: {error}"[:300]}
        inside["port"] = ""
        said["seen"] = list(seen)
        print(json.dumps(said), file=answers, flush=True)
        if not limited:  # what the engines have mapped by now is not counted in
            with open("/proc/self/statm") as file:
                now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
            limited = True


class Worker:
    """A process that loads ports; made anew when it dies or takes too long."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def load(self, port: Path, bait: Path) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "GLOG_v": "4"},
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{port}\t{bait}\n")
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


# --- the run -----------------------------------------------------------------------------------


def bases(folder: Path) -> list[Path]:
    """Small ports with weights, constants, a list of cells and nested outputs, one for each engine."""
    import torch

    import paritas

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

    torch.manual_seed(0)
    found = []
    for engine in ("openvino", "mindspore"):
        mode = {"mode": "pynative"} if engine == "mindspore" else {}
        port = paritas.port(Net(), engine, {"x": torch.randn(5, 4)}, **mode)  # type: ignore[arg-type]
        port.save(folder / engine)
        port.close()
        found.append(folder / engine)
    return found


def run(count: int, seed: int, folder: Path, told: Callable[[str], None] = print) -> Counter[str]:
    """Mutate, load and call so many ports: how many ended how. What must not be is told, with its seed."""
    originals = bases(folder / "originals")
    worker, ends = Worker(), Counter[str]()
    bait = folder / "outside" / "bait"
    bait.parent.mkdir()
    bait.write_bytes(b"\x00" * 64)
    wants = {}
    for original in originals:
        wants[original] = worker.load(original, bait)
        assert wants[original]["end"] == "answered", wants[original]
    began = time.perf_counter()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        original = rng.choice(originals)
        place = folder / "outside" / f"port{number}"
        shutil.copytree(original, place)
        try:
            done = mutate(place, rng, bait)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            done = f"could not be mutated whole: {error!r}"
        said = worker.load(place, bait)
        marks = sorted(bait.parent.glob("bait.*"))
        wrong = said["end"] if said["end"] in ("raw", "hung", "died") else ""
        if said["seen"] or marks:
            wrong = f"{wrong} {said['seen'] or 'executed'}"
        ends[said["end"] if not wrong else wrong.split()[0].strip("['")] += 1
        if wrong:
            told(f"{seed} {number} {original.name}: {done}: {wrong} {said.get('text', '')}")
        for mark in marks:
            mark.unlink()
        for path in (place, *place.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)
        shutil.rmtree(place)
        if (number + 1) % 500 == 0:
            told(f"{number + 1} ports, {time.perf_counter() - began:.0f} s: {dict(ends)}")
    worker.close()
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work()
    else:
        with tempfile.TemporaryDirectory() as name:
            ends = run(given.count, given.seed, Path(name))
        print(f"seed {given.seed}: {sum(ends.values())} ports: {dict(ends)}")
        sys.exit(any(end not in ("answered", "refused") for end in ends))
