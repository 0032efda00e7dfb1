# SPDX-License-Identifier: Apache-2.0
"""How long does it take to generate 64 tokens after 128? A Llama of 271 million random parameters, batch 1.

    python benchmarks/generation.py
    python benchmarks/generation.py --rounds 3 --contenders "torch eager" "openvino float32"

Every contender is a process of its own, and they take turns: a warm-up each, then `--rounds` generations, medians.
The first token is the time until a streamer gets it. Tokens are compared with PyTorch's.
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
from pathlib import Path
from typing import Any

from results import machine, write

PROMPT, NEW = 128, 64

#: name -> (engine, dtype, weights); no engine is transformers itself.
CONTENDERS = {
    "torch eager": ("", "float32", ""),
    "openvino float32": ("openvino", "float32", ""),
    "openvino bfloat16": ("openvino", "bfloat16", ""),
    "openvino int8": ("openvino", "float32", "int8"),
    "openvino bf16 int8": ("openvino", "bfloat16", "int8"),
    "openvino bf16 int4": ("openvino", "bfloat16", "int4"),
    "mindspore graph": ("mindspore", "float32", ""),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5, help="generations of each (5)")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve)
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory))
        processes = {name: start(name, directory) for name in options.contenders}
        figures: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
        for number in range(options.rounds + 1):
            for name, process in processes.items():
                found = ask(name, process)
                if number:  # the first one compiles
                    figures[name].append(found)
                print(f"round {number}, {name}: {found['seconds']:.2f} s", file=sys.stderr, flush=True)
        for process in processes.values():
            process.kill()
    rows = {name: summary(rounds, figures[options.contenders[0]]) for name, rounds in figures.items()}
    print(table(rows))
    write("generation", {"prompt": PROMPT, "new": NEW, "contenders": rows})
    return 0


def make(directory: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1024, num_hidden_layers=16, num_attention_heads=16, intermediate_size=2816,
        vocab_size=32_000, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)


def start(name: str, directory: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, "--serve", name, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PARITAS_CACHE": directory + "/ports", "GLOG_v": "4"},
        text=True,
    )


def ask(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{name} ended with exit code {process.wait()}")
    return json.loads(line)


def serve(name: str, directory: str) -> int:
    """Generate once for every line of stdin."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import torch
    import transformers

    engine, dtype, weights = CONTENDERS[name]
    if engine:
        import paritas.transformers as ours

        model = ours.LlamaForCausalLM.from_pretrained(directory, engine=engine, dtype=dtype, weights=weights)
    else:
        model = transformers.LlamaForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
    ids = torch.randint(0, 32_000, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    class Clock(transformers.generation.streamers.BaseStreamer):
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    for _ in sys.stdin:
        clock = Clock()
        start = time.perf_counter()
        out = model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, streamer=clock)
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "first": clock.times[1] - start, "tokens": out[0, PROMPT:].tolist()}
        protocol.write(json.dumps(answer) + "\n")
        protocol.flush()
    return 0


def summary(rounds: list[dict[str, Any]], baseline: list[dict[str, Any]]) -> dict[str, Any]:
    seconds, first = (statistics.median(one[key] for one in rounds) for key in ("seconds", "first"))
    pairs = zip(rounds[0]["tokens"], baseline[0]["tokens"], strict=True)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(rounds[0]["tokens"]))
    return {
        "seconds": seconds,
        "first": first,
        "ratio": statistics.median(one["seconds"] for one in baseline) / seconds,
        "same": same,
        "all": [one["seconds"] for one in rounds],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"Llama 271 M, prompt {PROMPT}, {NEW} new tokens, batch 1",
        f"{'':20}{'seconds':>9}{'first':>9}{'tokens/s':>10}{'ratio':>8}   tokens as PyTorch's",
    ]
    for name, row in rows.items():
        rate = (NEW - 1) / (row["seconds"] - row["first"])
        lines.append(
            f"{name:20}{row['seconds']:>9.2f}{row['first']:>9.2f}{rate:>10.1f}{row['ratio']:>7.2f}x"
            f"   {row['same']} of {NEW}"
        )
    return "\n".join([*lines, machine()])


if __name__ == "__main__":
    sys.exit(main())
