# SPDX-License-Identifier: Apache-2.0
"""ZeRO by accelerate and DeepSpeed on two CPU processes, beside plain data parallel: the tables of "Accelerate Large
Model Training using DeepSpeed".

    PYTHONPATH=.venv/zero:.venv/trainer python benchmarks/zero.py [--write] [--ways ddp 1 2 3 3-offload]

A GPT-2 of 40 million parameters. Of each way: what a process holds of parameters, gradients and the optimizer's state
just before a step, counted tensor by tensor, beside what the paper says (Rajbhandari et al. 2020; float32, Adam: 4, 4
and 8 bytes for each parameter, divided by the processes from stage 3, 2 and 1 on); the resident memory of a process
above what it had before the model; seconds for an epoch of 64 batches of 8 in all; and the largest batch of a process
whose peak stays within --limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WAYS = {
    "ddp": ("DDP", ()),
    "1": ("ZeRO-1", ("--zero", "1")),
    "2": ("ZeRO-2", ("--zero", "2")),
    "3": ("ZeRO-3", ("--zero", "3")),
    "3-offload": ("ZeRO-3, offloaded", ("--zero", "3", "--offload", "optimizer,param")),
}
PROCESSES, TOKENS, STEPS, EPOCH = 2, 64, 5, 64


def status(field: str) -> float:
    """MiB of a line of /proc/self/status: VmRSS is what is resident, VmHWM the peak since it was reset."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) / 1024


def size(tensors: Iterable[Any]) -> float:
    """MiB of the memory behind tensors, each storage once."""
    import torch

    found = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if isinstance(t, torch.Tensor)
    }
    return sum(found.values()) / 2**20


def held(model: Any, optimizer: Any) -> dict[str, float]:
    """MiB of parameters, of gradients and of the optimizer's state, as they are just before a step."""
    divided = getattr(model, "optimizer", None)
    inner = getattr(divided if divided is not None else optimizer, "optimizer", divided or optimizer)
    parameters = [getattr(p, "ds_tensor", p) for p in model.parameters()]
    gradients = [p.grad for p in model.parameters()]
    for values in (getattr(divided, "averaged_gradients", None) or {}).values():
        gradients += list(values or ())
    gradients.append(getattr(divided, "grad_partitions_flat_buffer", None))
    state = [value for values in inner.state.values() for value in values.values() if getattr(value, "ndim", 0)]
    return {"parameters": size(parameters), "gradients": size(gradients), "optimizer": size(state)}


def recipe(out: Path, limit: float) -> None:
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    before = status("VmRSS")
    config = GPT2Config(
        vocab_size=16000, n_positions=TOKENS, n_embd=512, n_layer=10, n_head=8, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    model: Any = GPT2LMHeadModel(config).train()
    count = sum(p.numel() for p in model.parameters())
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rows = torch.randint(0, 16000, (8 * STEPS, TOKENS))
    model, optimizer, loader = accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(rows, batch_size=8))
    found: dict[str, Any] = {}

    def look() -> None:
        if optimizer is not None and not found and looked:
            found.update(held(model, optimizer), resident=status("VmRSS") - before)

    looked: list[bool] = []
    if hasattr(model, "zero_optimization_stage"):  # accelerate steps in backward()
        step = model.step
        model.step = lambda *given, **named: (look(), step(*given, **named))[1]
    seconds = []

    def trained(ids: Any) -> float:
        loss = model(input_ids=ids, labels=ids).loss
        accelerator.backward(loss)
        if not hasattr(model, "zero_optimization_stage"):
            look()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    for index, ids in enumerate(loader):
        looked[:] = [True] * (index == 2)
        began = time.perf_counter()
        trained(ids)
        seconds.append(time.perf_counter() - began)
    largest, batch, peaks = 0, 4, {}
    while batch <= 512:
        Path("/proc/self/clear_refs").write_text("5")
        trained(torch.randint(0, 16000, (batch, TOKENS)))
        here = torch.tensor([status("VmHWM") - before])
        peaks[batch] = float(accelerator.gather(here).max())
        if peaks[batch] > limit:
            break
        largest, batch = batch, batch * 2
    found |= {
        "count": count, "epoch": statistics.median(seconds[1:]) * EPOCH, "largest": largest, "peaks": peaks,
    }  # fmt: skip
    (out / f"{accelerator.process_index}.json").write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument(
        "--limit", type=float, default=1200.0, help="MiB of a process above what it had before the model"
    )
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    measured = {}
    for way in given.ways:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    sys.executable, "-m", "paritas", "train", __file__, "--engine", "torch",
                    "--processes", str(PROCESSES), *WAYS[way][1], "--", "--recipe", folder, "--limit", str(given.limit),
                ],
                check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            measured[way] = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
        print(row(way, measured[way]), flush=True)
    if given.write:
        import results

        results.write("zero", {"processes": PROCESSES, "limit": given.limit, "ways": measured})


def expected(way: str, count: int) -> dict[str, float]:
    """What the paper says, in MiB."""
    stage = 0 if way == "ddp" else int(way[0])
    million = count / 2**20
    return {
        name: size / (PROCESSES if stage >= first else 1) * million
        for name, size, first in (("parameters", 4, 3), ("gradients", 4, 2), ("optimizer", 8, 1))
    }


def row(way: str, processes: list[dict[str, Any]]) -> str:
    first = processes[0]
    want = expected(way, first["count"])
    cells = [f"{max(p[name] for p in processes):.0f} ({want[name]:.0f})" for name in want]
    cells += [f"{max(p['resident'] for p in processes):.0f}", f"{first['epoch']:.0f} s", f"{first['largest']}"]
    return f"| {WAYS[way][0]} | {' | '.join(cells)} |"


if __name__ == "__main__":
    if "--recipe" in sys.argv:
        place = sys.argv.index("--recipe")
        recipe(Path(sys.argv[place + 1]), float(sys.argv[sys.argv.index("--limit") + 1]))
    else:
        main()
