# SPDX-License-Identifier: Apache-2.0
"""How long do convolutions take in MindSpore's Graph mode, as a ratio to PyTorch eager? float32, seeded weights.

    python benchmarks/convolution.py
    python benchmarks/convolution.py --cases "3x3" "depthwise 7x7" --rounds 10

PyTorch and the port run in processes of their own, in turns. "ratio" is that of the medians, "(best)" that of the
fastest calls, "cpu" that of the processor's time, which a busy machine changes least. The error is
max|port - torch| / mean|torch|.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import known, machine, write
from torch import nn


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    bar: float  # at most this times PyTorch's time
    more: Callable[[], dict[str, torch.Tensor]] = dict  # further inputs
    name: str = "input"

    def inputs(self) -> dict[str, torch.Tensor]:
        return {self.name: torch.randn(self.shape), **self.more()}


def _conv(*sizes: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*sizes, **options)


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(ResNetConfig())


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextModel

    return ConvNextModel(ConvNextConfig())


def _unet() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def _prompt() -> dict[str, torch.Tensor]:
    return {"timestep": torch.tensor(10), "encoder_hidden_states": torch.randn(1, 77, 768)}


CASES = {
    "3x3": Case(_conv(320, 320, 3, padding=1), (1, 320, 64, 64), 2),
    "3x3, 1280 channels": Case(_conv(1280, 1280, 3, padding=1), (1, 1280, 16, 16), 2),
    "3x3 stride 2": Case(_conv(320, 320, 3, stride=2, padding=1), (1, 320, 64, 64), 2),
    "3x3 as ResNet's": Case(_conv(64, 64, 3, padding=1), (1, 64, 56, 56), 2),
    "7x7 stride 2": Case(_conv(3, 64, 7, stride=2, padding=3), (1, 3, 224, 224), 2),
    "1x1": Case(_conv(320, 320, 1), (1, 320, 64, 64), 2),
    "patches 16x16": Case(_conv(3, 768, 16, stride=16), (1, 3, 224, 224), 2),
    "32 groups": Case(_conv(256, 256, 3, padding=1, groups=32), (1, 256, 56, 56), 2),
    "dilation 2": Case(_conv(256, 256, 3, padding=2, dilation=2), (1, 256, 32, 32), 2),
    "transposed 4x4 stride 2": Case(lambda: nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1), (1, 256, 32, 32), 2),
    "1-d": Case(lambda: nn.Conv1d(80, 512, 3, padding=1), (1, 80, 3000), 2),
    "1-d stride 2": Case(lambda: nn.Conv1d(512, 512, 3, stride=2, padding=1), (1, 512, 3000), 2),
    "depthwise 3x3": Case(_conv(144, 144, 3, padding=1, groups=144), (1, 144, 56, 56), 4),
    "depthwise 7x7": Case(_conv(96, 96, 7, padding=3, groups=96), (1, 96, 56, 56), 4),
    "group norm": Case(lambda: nn.GroupNorm(32, 320), (1, 320, 64, 64), 4),
    "ResNet-50": Case(_resnet, (1, 3, 224, 224), 2.5, name="pixel_values"),
    "ConvNeXt-T": Case(_convnext, (1, 3, 224, 224), 2.5, name="pixel_values"),
    "UNet of Stable Diffusion": Case(_unet, (1, 4, 64, 64), 2, more=_prompt, name="sample"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=8, help="turns of each contender (8)")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a turn is (0.5)")
    parser.add_argument("--cores", type=int, default=2, help="how many threads each may use (2)")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        return contender(*options.contender, options.seconds, options.cores)
    found = known("convolution", "cases")  # what was measured before with the same versions stays
    print(f"{'':26}{'torch':>11}{'MindSpore':>11}{'ratio':>8}{'(best)':>8}{'cpu':>7}{'bar':>6}{'error':>10}")
    for name in options.cases:
        found[name] = row = race(name, options)
        print(
            f"{name:26}{row['torch']:>8.1f} ms{row['mindspore']:>8.1f} ms{row['ratio']:>7.2f}x"
            f"{row['best']:>7.2f}x{row['processor']:>6.2f}x"
            f"{CASES[name].bar:>5.1f}x{row['error']:>10.1e}",
            flush=True,
        )
        write("convolution", {"load": os.getloadavg()[0], "cases": found})
    print(machine())
    return 0


def race(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Medians of both, in milliseconds; of calls spread over all turns, so that others disturb both alike."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__)), "--cores", str(options.cores)]
    children = {}
    for who in ("torch", "mindspore"):
        child = subprocess.Popen(
            [*command, "--seconds", str(options.seconds), "--contender", who, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(options.cores)},
        )  # fmt: skip
        children[who] = child
        _answer(child)  # loaded, compiled and warm before the other one starts
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in children}
    for _ in range(options.rounds):
        for who, child in children.items():
            times[who] += _ask(child, "run")
    outputs = [np.array(_ask(child, "output")) for child in children.values()]
    for child in children.values():
        child.communicate("stop\n")
    walls = {who: [wall for wall, _ in calls] for who, calls in times.items()}
    used = {who: statistics.median(cpu for _, cpu in calls) for who, calls in times.items()}
    torch_time, port_time = (1000 * statistics.median(walls[who]) for who in ("torch", "mindspore"))
    error = float(np.abs(outputs[1] - outputs[0]).max() / np.abs(outputs[0]).mean())
    return {
        "torch": torch_time, "mindspore": port_time, "ratio": port_time / torch_time,
        "best": min(walls["mindspore"]) / min(walls["torch"]),
        "processor": used["mindspore"] / used["torch"], "error": error, "bar": CASES[name].bar,
    }  # fmt: skip


def _ask(child: subprocess.Popen[str], what: str) -> Any:
    assert child.stdin
    child.stdin.write(what + "\n")
    child.stdin.flush()
    return _answer(child)


def _answer(child: subprocess.Popen[str]) -> Any:
    assert child.stdout
    for line in child.stdout:
        if line.startswith("answer "):  # an engine may print what it likes
            return json.loads(line.removeprefix("answer "))
    raise RuntimeError("a contender has stopped")


# --- in a process of its own ---


def contender(who: str, name: str, seconds: float, cores: int) -> int:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    case = CASES[name]
    model, inputs = case.make().eval(), case.inputs()
    call = _torch(model, inputs) if who == "torch" else _port(model, inputs)
    out = call()
    call()
    print("answer true", flush=True)
    for line in sys.stdin:
        if line == "stop\n":
            break
        answer = _timed(call, seconds) if line.strip() == "run" else _sample(out)
        print(f"answer {json.dumps(answer)}", flush=True)
    return 0


def _timed(call: Callable[[], Any], seconds: float) -> list[tuple[float, float]]:
    """Of every call, the time and the processor's time summed over the cores."""
    call()  # the caches are warm again
    times: list[tuple[float, float]] = []
    while sum(wall for wall, _ in times) < seconds:
        start, used = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - used))
    return times


def _sample(out: np.ndarray) -> list[float]:
    flat = out.reshape(-1)
    return [float(value) for value in flat[:: max(flat.size // 5000, 1)]]


def _torch(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Callable[[], np.ndarray]:
    def call() -> np.ndarray:
        with torch.inference_mode():
            out = model(**inputs)
        return (out if isinstance(out, torch.Tensor) else out[0]).numpy()

    return call


def _port(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Callable[[], np.ndarray]:
    import paritas

    port = paritas.port(model, engine="mindspore", inputs=inputs, dynamic=False)
    feed = {name: value.numpy() for name, value in inputs.items()}
    return lambda: port.session.run(feed)[0]


if __name__ == "__main__":
    sys.exit(main())
