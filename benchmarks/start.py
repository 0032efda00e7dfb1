# SPDX-License-Identifier: Apache-2.0
"""How soon does a model speak that was ported before, and what does each step cost above the engine's own call?

    python benchmarks/start.py

A Llama of 100 million random parameters on OpenVINO, loaded in a process of its own for each start: the first makes
the port, the others read it. Times are those of the imports, of `from_pretrained`, and until the first token is there.
The overhead is the time of one step of the network, less that of the engine's own call with the same inputs.
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

PROMPT = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5, help="starts after the first (5)")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    with tempfile.TemporaryDirectory() as directory:
        millions = make(Path(directory))
        rows = [start(directory) for _ in range(options.starts + 1)]
    first, later = rows[0], rows[1:]
    found = {key: statistics.median(row[key] for row in later) for key in first}
    print(f"Llama, {millions:.0f} million parameters, OpenVINO float32, prompt of {PROMPT} tokens")
    print(f"{'':14}{'imports':>10}{'loading':>10}{'first token':>13}{'together':>10}")
    for name, row in (("first start", first), ("later starts", found)):
        together = row["load"] + row["token"]
        print(f"{name:14}{row['imports']:>8.2f} s{row['load']:>8.2f} s{row['token']:>11.2f} s{together:>8.2f} s")
    print(f"a step: {found['step']:.2f} ms, of which the engine {found['engine']:.2f} ms")
    print(machine())
    write("start", {"first": first, "later": found})
    return 0


def make(directory: Path) -> float:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=768, num_hidden_layers=8, num_attention_heads=12, intermediate_size=2048, vocab_size=32_000,
        eos_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def start(directory: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--serve", directory],
        env={**os.environ, "PARITAS_CACHE": directory + "/ports"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def serve(directory: str) -> int:
    begun = time.perf_counter()
    import torch

    import paritas.transformers as ours

    cls = ours.LlamaForCausalLM
    imported = time.perf_counter()
    model = cls.from_pretrained(directory, engine="openvino")
    loaded = time.perf_counter()
    ids = torch.arange(5, 5 + PROMPT)[None]
    model.generate(ids, max_new_tokens=1, do_sample=False)
    spoken = time.perf_counter()
    steps, own = overhead(model, ids)
    print(
        json.dumps(
            {
                "imports": imported - begun,
                "load": loaded - imported,
                "token": spoken - loaded,
                "step": steps,
                "engine": own,
            }
        )
    )
    return 0


def overhead(model: Any, ids: Any, steps: int = 60) -> tuple[float, float]:
    """Medians in milliseconds: a call of the model that goes on by one token, and the engine's own part of it."""
    import openvino

    spent: list[float] = []
    infer = openvino.InferRequest.infer

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return infer(self, *args, **kwargs)
        finally:
            spent.append(time.perf_counter() - start)

    openvino.InferRequest.infer = timed
    try:
        out = model(input_ids=ids, use_cache=True)
        token, cache, took = ids[:, -1:], out.past_key_values, []
        del spent[:]
        for _ in range(steps):
            start = time.perf_counter()
            out = model(input_ids=token, past_key_values=cache, use_cache=True)
            took.append(time.perf_counter() - start)
    finally:
        openvino.InferRequest.infer = infer
    assert len(spent) == steps
    return 1e3 * statistics.median(took), 1e3 * statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
