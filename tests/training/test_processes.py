# SPDX-License-Identifier: Apache-2.0
"""The same script in one process and in two, on MindSpore's collectives, and with ZeRO: the curves are one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import paritas
from apart import only_apart
from paritas.apps.training import launch
from paritas.run.mindspore import processes

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "training" / "several.py"

pytestmark = [pytest.mark.slow, only_apart("trainer", "accelerate")]


def _trained(script: Path, *flags: str, beside: tuple[str, ...] = ("trainer",)) -> subprocess.CompletedProcess[str]:
    places = [str(ROOT / "src"), *(str(Path(sys.prefix, folder)) for folder in beside)]
    return subprocess.run(
        [sys.executable, "-m", "paritas", "train", str(script), *flags],
        capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _losses(folder: Path, *flags: str, **how: Any) -> list[float]:
    path = folder / "losses.json"
    done = _trained(SCRIPT, *flags, "--steps", "20", "--losses", str(path), **how)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: list[float] = json.loads(path.read_text())
    assert found[-1] < found[0]
    return found


@pytest.fixture(scope="module")
def of_torch(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Two processes of PyTorch's, in plain data parallel."""
    return _losses(tmp_path_factory.mktemp("ddp"), "--engine", "torch", "--processes", "2")


def test_two_processes_of_mindspore_are_one_with_the_doubled_batch(tmp_path: Path, of_torch: list[float]) -> None:
    one, two = (_losses(tmp_path, "--processes", count) for count in ("1", "2"))
    assert two == pytest.approx(one, rel=1e-4)
    assert two == pytest.approx(of_torch, rel=1e-4)


@pytest.mark.parametrize(
    "flags",
    [("--zero", "1"), ("--zero", "2"), ("--zero", "3"), ("--zero", "3", "--offload", "optimizer,param"), ("file",)],
    ids=["1", "2", "3", "3-offload", "file"],
)
@pytest.mark.skipif(not Path(sys.prefix, "zero").is_dir(), reason="DeepSpeed is not in .venv/zero: make setup")
def test_zero_is_plain_data_parallel(tmp_path: Path, of_torch: list[float], flags: tuple[str, ...]) -> None:
    if flags == ("file",):
        (tmp_path / "ds.json").write_text(
            json.dumps(
                {
                    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
                    "gradient_clipping": 1.0, "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",
                }
            )
        )  # fmt: skip
        flags = ("--zero-config", str(tmp_path / "ds.json"))
    out = ("--out", str(tmp_path / "out"), "--port-to", "openvino")
    found = _losses(tmp_path, "--engine", "torch", *flags, *out, beside=("zero", "trainer"))
    assert found == pytest.approx(of_torch, rel=1e-4)
    report = json.loads((tmp_path / "out" / "port" / "parity.json").read_text())
    assert report["verdict"] == "agrees"


DYING = """
import os, signal, sys, time
import torch
from accelerate import Accelerator
import paritas
how = sys.argv[1]
accelerator = Accelerator(cpu=True)
model = paritas.trainable(torch.nn.Linear(4, 2).train())
model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
for step in range(1000):
    if step == 3 and accelerator.process_index == 1:
        if how == "raises":
            raise ValueError("no more data")
        os.kill(os.getpid(), signal.SIGKILL)
    loss = model(torch.ones(3, 4)).sum()
    accelerator.backward(loss)
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "raises",
            "Process 1 of 2 failed, and the others were stopped: ValueError: no more data (line 13 of dying",
        ),
        ("killed", "Process 1 of 2 was killed"),
    ],
)
@pytest.mark.parametrize("engine", ["mindspore", "torch"])
def test_a_worker_that_dies_ends_the_others(tmp_path: Path, engine: str, how: str, message: str) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    done = _trained(tmp_path / "dying.py", how, "--engine", engine, "--processes", "2")
    assert done.returncode == 2 and message in done.stderr, done.stdout[-2000:] + done.stderr[-2000:]


OWN = """
import json, os, sys
import mindspore as ms, numpy as np
from mindspore import ops
several = "MS_WORKER_NUM" in os.environ
ms.set_device("CPU")
if several:
    ms.communication.init()
rank, size = (ms.communication.get_rank(), ms.communication.get_group_size()) if several else (0, 1)
sys.path.insert(0, os.getcwd())
from {module} import Classifier
net = Classifier()
ms.load_param_into_net(net, ms.load_checkpoint("model.safetensors", format="safetensors"))
net.set_train()
optimizer = ms.nn.Adam(net.trainable_params(), 1e-2)
step = ms.value_and_grad(lambda x, t: net(x, t)[0], None, optimizer.parameters)
reduce = ms.nn.DistributedGradReducer(optimizer.parameters, True, size) if several else lambda gradients: gradients
mean = (lambda value: float(ops.AllReduce()(value)) / size) if several else float
draw, losses = np.random.default_rng(0), []
for _ in range(6):
    x, t = draw.normal(size=(8, 5)).astype(np.float32), draw.integers(0, 3, 8)
    rows = slice(rank * 8 // size, (rank + 1) * 8 // size)
    loss, gradients = step(ms.Tensor(x[rows]), ms.Tensor(t[rows]))
    optimizer(reduce(gradients))
    losses.append(mean(loss))
if not rank:
    with open(sys.argv[1], "w") as file:
        json.dump(losses, file)
"""


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))


def test_mindspore_s_own_loop_in_two_processes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = {"x": torch.randn(8, 5), "target": torch.zeros(8, dtype=torch.int64)}
    port = paritas.port(
        Classifier(), engine="mindspore", train=True, loss=torch.nn.CrossEntropyLoss(), inputs=given, dynamic=True
    )
    port.save(tmp_path / "port")
    script = tmp_path / "own.py"
    script.write_text(OWN.replace("{module}", port.manifest.entry.removesuffix(".py")))
    found = []
    for count in (1, 2):
        command = [str(script), str(tmp_path / f"{count}.json")]
        if count == 1:
            command = [sys.executable, *command]
        else:
            command = processes.command(2, launch._free_port(), tmp_path / "logs", command)
        done = subprocess.run(
            command, cwd=tmp_path / "port", capture_output=True, text=True, timeout=300, check=False,
            stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found.append(json.loads((tmp_path / f"{count}.json").read_text()))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0][-1] != found[0][0]
