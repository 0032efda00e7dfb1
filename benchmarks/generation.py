# SPDX-License-Identifier: Apache-2.0
"""How long does it take to generate 64 tokens after 128? A Llama of 271 million random parameters, batch 1.

    python benchmarks/generation.py
    python benchmarks/generation.py --rounds 3 --contenders "torch eager" "openvino float32"

Every contender is a process of its own, and they take turns: a warm-up each, then `--rounds` generations, medians.
The first token is the time until a streamer gets it. Tokens are compared with PyTorch's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import answer
from results import write
from turns import Clock, compared, load, parser, table, take_turns

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
    options = parser(__doc__, CONTENDERS, rounds=5).parse_args()
    if options.serve:
        name, directory = options.serve
        return answer(lambda: prepare(name, directory))
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory))
        figures = take_turns(__file__, options.contenders, directory, options.rounds)
    rows = compared(figures)
    print(table(f"Llama 271 M, prompt {PROMPT}, {NEW} new tokens, batch 1", rows, NEW))
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


def prepare(name: str, directory: str) -> Callable[[Any], dict[str, Any]]:
    """What generates once each time it is called."""
    import torch

    engine, dtype, weights = CONTENDERS[name]
    model = load("LlamaForCausalLM", directory, engine, dtype, weights)
    ids = torch.randint(0, 32_000, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    def generate(_: Any) -> dict[str, Any]:
        clock = Clock()
        start = time.perf_counter()
        out = model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, streamer=clock)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "first": clock.times[1] - start, "tokens": out[0, PROMPT:].tolist()}

    return generate


if __name__ == "__main__":
    sys.exit(main())
