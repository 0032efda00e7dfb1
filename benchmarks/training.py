# SPDX-License-Identifier: Apache-2.0
"""A step of training and the memory that it takes, on PyTorch and on MindSpore.

    python benchmarks/training.py [--rounds 3] [--steps 3] [--layers 12] [--ways torch trainable] [--write]

A BERT-base with a head for sentences, batch 8 x 128, dropout and AdamW: PyTorch eager, `paritas.trainable` in the same
loop, with its layers' activations kept or computed again, and MindSpore's own loop with `port.cell` and
`paritas.optimizer` in one `ms.jit`. Each is a process of its own, begun anew in each round and alternately; medians of
the steps after the first. Memory is the peak of the whole process, with what capture and compile took, and beside it
what is resident while it trains.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results
from contender import peak

WAYS = {
    "torch": "PyTorch eager",
    "trainable": "`paritas.trainable`, torch's loop and AdamW",
    "recomputed": "`paritas.trainable`, activations computed again",
    "native": "MindSpore's loop, `paritas.optimizer`",
}
BATCH, TOKENS = 8, 128


def resident() -> int:
    """Bytes that are in this process's memory now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _torch(model: Any, batch: Any) -> Callable[[], float]:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> float:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def _native(model: Any, batch: Any) -> Callable[[], float]:
    import mindspore as ms
    import torch

    import paritas

    port = paritas.port(model, engine="mindspore", train=True, inputs=batch, dynamic=False)
    net = port.cell.set_train()
    optimizer = paritas.optimizer(torch.optim.AdamW(model.parameters(), lr=1e-4), model, net)
    names = [spec.name for spec in port.inputs]

    def forward(*given):  # type: ignore[no-untyped-def]
        loss, _ = net(*given)
        return loss

    found = ms.value_and_grad(forward, None, optimizer.parameters)

    @ms.jit
    def step(*given):  # type: ignore[no-untyped-def]
        loss, gradients = found(*given)
        optimizer(gradients)
        return loss

    tensors = [ms.Tensor(batch[name].numpy()) for name in names]
    return lambda: float(step(*tensors).asnumpy())


def one(way: str, steps: int, layers: int, threads: int) -> dict[str, Any]:
    """A process: seconds of the first step and of the others, bytes, the losses."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=layers, num_labels=3)
    model = transformers.BertForSequenceClassification(config).train()
    ids = torch.randint(5, 30000, (BATCH, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 3}
    begun = time.perf_counter()
    if way in ("trainable", "recomputed"):
        import paritas

        model = paritas.trainable(model, engine="mindspore")
    if way == "recomputed":
        model.activation_checkpointing_enable()
    step = (_native if way == "native" else _torch)(model, batch)
    losses = [step()]
    first, seconds = time.perf_counter() - begun, []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    return {"first": first, "seconds": seconds, "peak": peak(), "resident": resident(), "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--write", action="store_true", help="into benchmarks/results")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.steps, given.layers, given.threads)))
        return
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in given.ways}
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "GLOG_v": "4"}
    for _ in range(given.rounds):
        for way in given.ways:
            how = ["--one", way, "--steps", str(given.steps), "--layers", str(given.layers)]
            command = [sys.executable, __file__, *how, "--threads", str(given.threads)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-2000:]}")
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, json.dumps(runs[way][-1]), flush=True)
    rows = {way: summary(found) for way, found in runs.items()}
    base = rows.get("torch")
    print("| | a step | of PyTorch's | the first | peak, GiB | of PyTorch's | while it trains |")
    print("|---|---|---|---|---|---|---|")
    for way, row in rows.items():
        time_ratio, memory_ratio = (f"{row[k] / base[k]:.2f}" if base else "" for k in ("seconds", "peak"))
        print(
            f"| {WAYS[way]} | {row['seconds']:.2f} s | {time_ratio} | {row['first']:.1f} s "
            f"| {row['peak'] / 2**30:.2f} | {memory_ratio} | {row['resident'] / 2**30:.2f} |"
        )
    if given.write:
        figures = {"layers": given.layers, "batch": [BATCH, TOKENS], "threads": given.threads, "rows": rows}
        print(results.write("training", {**figures, "runs": runs}))


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    medians = {key: statistics.median(run[key] for run in found) for key in ("first", "peak", "resident")}
    return {**medians, "seconds": statistics.median(second for run in found for second in run["seconds"])}


if __name__ == "__main__":
    main()
