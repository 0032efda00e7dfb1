# SPDX-License-Identifier: Apache-2.0
"""A port for training is a cell for MindSpore's own loops, in either mode, and needs no Paritas."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import paritas
from paritas.errors import InputError

ms = pytest.importorskip("mindspore")

ROOT = Path(__file__).parents[2]

nn = torch.nn
X, TARGET = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


class Classifier(nn.Module):
    """With what is in one mode and not in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop, self.last = (
            nn.Linear(5, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(0.5),
            nn.Linear(8, 3),
        )
        self.last.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture(scope="module")
def port(model: Any) -> Any:
    given = {"x": X, "target": TARGET}
    return paritas.port(model, engine="mindspore", train=True, loss=nn.CrossEntropyLoss(), inputs=given)


def test_its_parameters_are_the_original_s(model: Any, port: Any) -> None:
    trained = [parameter.name for parameter in port.cell.trainable_params()]
    assert trained == [name for name, p in model.named_parameters() if p.requires_grad]
    assert not model.training and not any("evaluation mode" in note.text for note in port.notes)


@pytest.mark.parametrize("mode", ["pynative", "graph"])
def test_mindspore_s_loop_trains_it(port: Any, mode: str) -> None:
    net = port.cell
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    try:
        net.set_train()
        optimizer = ms.nn.Momentum(net.trainable_params(), learning_rate=0.1, momentum=0.9)

        def forward(x: Any, target: Any) -> Any:
            return net(x, target)[0]

        step = ms.value_and_grad(forward, None, optimizer.parameters)
        before = port.cell.norm.running_mean.asnumpy().copy()
        x, target = ms.Tensor(X.numpy()), ms.Tensor(TARGET.numpy())
        losses = []
        for _ in range(12):
            loss, gradients = step(x, target)
            optimizer(gradients)
            losses.append(float(loss))
        assert len(set(losses)) == len(losses)  # other masks each time
        assert (port.cell.norm.running_mean.asnumpy() != before).all()
        net.set_train(False)
        again = {float(net(x, target)[0]) for _ in range(3)}
        assert len(again) == 1 and again.pop() < losses[0]
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_in_evaluation_mode_it_is_the_original(model: Any) -> None:
    given = {"x": X, "target": TARGET}
    port = paritas.port(model, engine="mindspore", train=True, loss=nn.CrossEntropyLoss(), inputs=given)
    loss, out = port(**given)
    torch.testing.assert_close(out, model(X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(model(X), TARGET), rtol=1e-5, atol=1e-6)


def test_what_it_draws_is_compared_with_nothing(port: Any) -> None:
    with pytest.raises(InputError, match="This port is for training: it draws dropout itself"):
        port.verify()


WITHOUT_PARITAS = """
import sys
sys.modules["paritas"] = sys.modules["torch"] = None
import mindspore as ms, numpy as np
from mindspore import nn
from {module} import Classifier
net = Classifier()
ms.load_param_into_net(net, ms.load_checkpoint("model.safetensors", format="safetensors"))
net.set_train()
optimizer = nn.SGD(net.trainable_params(), 0.1)
step = ms.value_and_grad(lambda x, t: net(x, t)[0], None, optimizer.parameters)
x, t = ms.Tensor(np.ones((4, 5), np.float32)), ms.Tensor(np.array([0, 1, 2, 1]))
for _ in range(3):
    loss, gradients = step(x, t)
    optimizer(gradients)
print("loss", np.isfinite(float(loss)))
"""


def test_it_is_trained_without_paritas(port: Any, tmp_path: Path) -> None:
    directory = port.save(tmp_path / "port").artifact and tmp_path / "port"
    entry = port.manifest.entry.removesuffix(".py")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PARITAS.format(module=entry)],
        capture_output=True, text=True, cwd=directory, timeout=300, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "GLOG_v": "4"},
    )  # fmt: skip
    assert done.stdout.strip().endswith("loss True"), done.stderr[-2000:]


@pytest.mark.slow
def test_the_example_learns() -> None:
    main = runpy.run_path(str(ROOT / "examples" / "training" / "native.py"))["main"]
    assert main() > 0.9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "openvino", "train": True}, 'openvino computes no gradients: train=True is for engine="mindspore"'),
        ({"train": True}, "train=True needs inputs=, with the labels"),
        ({"loss": torch.nn.MSELoss()}, "loss= and autocast= are of a port for training: pass train=True too"),
        ({"train": True, "task": "text-generation", "inputs": {"x": X}}, "none for the task 'text-generation'"),
    ],
)
def test_what_cannot_be_made_is_refused(model: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        paritas.port(model, **{"engine": "mindspore", **given})
