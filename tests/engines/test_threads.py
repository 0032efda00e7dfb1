# SPDX-License-Identifier: Apache-2.0
"""Ports called by many threads at once, and by forked processes. Each in a process of its own: failures end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import paritas

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Net(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(6, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(x), -1) @ self.linear.weight


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ports")
    for engine in ("mindspore", "openvino"):
        for width in (5, 9):
            x = {"x": torch.randn(3, 6)}
            port = paritas.port(Net(width), engine=engine, mode="pynative", inputs=x)
            port.save(folder / f"{engine}-{width}")
    return folder


def _run(program: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"


THREADS = """
import sys, threading, numpy as np, paritas
folder = sys.argv[1]
xs = [np.random.default_rng(n).standard_normal((1 + n % 3, 6)).astype(np.float32) for n in range(6)]
jobs = []
for engine, mode in [("mindspore", "graph"), ("mindspore", "pynative"), ("openvino", "")]:
    for width in (5, 9):
        port = paritas.load(f"{folder}/{engine}-{width}", mode=mode)
        jobs.append((port, [port(x=x) for x in xs]))
wrong = []
def work(number):
    for turn in range(30):
        port, wants = jobs[(number + turn) % len(jobs)]
        at = (number * 7 + turn) % len(xs)
        if not np.array_equal(port(x=xs[at]), wants[at]):
            wrong.append((number, turn))
    own = paritas.load(f"{folder}/mindspore-5", mode="graph" if number % 2 else "pynative")
    for at, x in enumerate(xs):
        if not np.allclose(own(x=x), jobs[0][1][at], rtol=1e-5, atol=1e-6):
            wrong.append((number, "own"))
    own.close()
threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
[t.start() for t in threads]
[t.join(200) for t in threads]
alive = sum(t.is_alive() for t in threads)
print(wrong, alive)
import os
sys.stdout.flush()
os._exit(bool(wrong or alive))
"""

FORKED = """
import os, sys, time, numpy as np, paritas
from paritas.errors import EngineError
folder = sys.argv[1]
x = np.ones((2, 6), np.float32)
def in_a_fork(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except EngineError as error:
            print(error, flush=True)
            os._exit(7 if "spawn" in str(error) else 8)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(9)
    for _ in range(600):
        done = os.waitpid(pid, os.WNOHANG)
        if done[0]:
            return os.waitstatus_to_exitcode(done[1])
        time.sleep(0.1)
    os.kill(pid, 9)
    return "hangs"
ports = {engine: paritas.load(f"{folder}/{engine}-5") for engine in ("mindspore", "openvino")}
for port in ports.values():
    port(x=x)
again = lambda engine: paritas.load(f"{folder}/{engine}-9")(x=x)
assert in_a_fork(lambda: ports["mindspore"](x=x)) == 7
assert in_a_fork(lambda: again("mindspore")) == 7
assert in_a_fork(ports["mindspore"].close) == 0
assert in_a_fork(lambda: ports["openvino"](x=x)) == 0
assert in_a_fork(lambda: again("openvino")) == 0
assert ports["mindspore"](x=x).shape == (2, 6)
"""

BEFORE = """
import os, sys, numpy as np, paritas, mindspore
pid = os.fork()
if pid == 0:
    os._exit(paritas.load(f"{sys.argv[1]}/mindspore-5")(x=np.ones((2, 6), np.float32)).shape != (2, 6))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_eight_threads_get_right_answers(saved: Path) -> None:
    _run(THREADS, saved)


def test_after_a_fork_mindspore_refuses_and_openvino_computes(saved: Path) -> None:
    _run(FORKED, saved)


@pytest.mark.slow
def test_a_fork_from_a_process_that_has_computed_nothing_may(saved: Path) -> None:
    _run(BEFORE, saved)
