# SPDX-License-Identifier: Apache-2.0
"""How much time and memory does it take to port a large model to few bits, its first answer included?

    python benchmarks/large.py                                      # a Llama of 1.1 billion to int8
    python benchmarks/large.py --size 3B --weights int4 int8
    python benchmarks/large.py --contender optimum-intel=/path/to/its/environment/bin/python

Makes a Llama checkpoint of random bfloat16 weights in shards. Each contender is a process of its own, which begins
with nothing imported: it ports the checkpoint with its cache, saves it, answers a prompt of 32 tokens, and takes 16
steps. Its memory is looked at fifty times a second, by itself: what is resident, and how much of that no file backs.
Beside it, how fast this machine reads memory: a step reads every weight once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: hidden, layers, heads, heads of keys and values, intermediate
SHAPES = {
    "0.1B": (512, 8, 8, 4, 1408),
    "1.1B": (2048, 22, 32, 4, 5632),
    "3B": (3072, 28, 24, 8, 8192),
    "7B": (4096, 32, 32, 32, 11008),
}
VOCABULARY, SHARD = 32_000, 1 << 30
PROMPT, STEPS = 32, 16
TASK = "text-generation-with-past"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="1.1B")
    parser.add_argument("--weights", nargs="+", default=["int8"], help="int8, int4, bf16, fp16 (int8)")
    parser.add_argument("--contender", action="append", default=[], metavar="optimum-intel=PYTHON")
    parser.add_argument("--directory", type=Path, help="where the checkpoint is made, and kept (a temporary one)")
    parser.add_argument("--run", nargs=4, metavar=("NAME", "CHECKPOINT", "WEIGHTS", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(*options.run)))
        return 0
    from results import machine, write

    top = Path(tempfile.mkdtemp()) if options.directory is None else options.directory
    others = dict(text.split("=", 1) for text in options.contender)
    rows = []
    try:
        checkpoint = make(top / f"llama-{options.size}", *SHAPES[options.size])
        size = sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))
        print(f"Llama {options.size}, {size / 1e9:.1f} GB in bfloat16")
        for weights in options.weights:
            for name, python in {"paritas": sys.executable, **others}.items():
                rows.append(contend(name, python, checkpoint, weights, top / "out"))
    finally:
        if options.directory is None:
            shutil.rmtree(top)
    speed = bandwidth()
    print(f"{'':24}{'port':>9}{'answer':>9}{'all':>9}{'peak':>10}{'no file':>10}{'a step':>10}{'of reading':>13}")
    for row in rows:
        row["of_reading"] = row["bytes"] / row["step"] / speed
        print(
            f"{row['name'] + ' ' + row['weights']:24}{row['port']:>7.1f} s{row['answer']:>7.1f} s{row['all']:>7.1f} s"
            f"{row['peak']:>6.2f} GiB{row['anonymous']:>6.2f} GiB{row['step'] * 1e3:>7.1f} ms{row['of_reading']:>13.2f}"
        )
    print(f"memory is read at {speed / 1e9:.1f} GB/s; {machine()}")
    write(f"large_{options.size}", {"size": options.size, "rows": rows, "bandwidth": speed})
    return 0


def make(directory: Path, hidden: int, layers: int, heads: int, kv: int, inner: int) -> Path:
    """A checkpoint, shard by shard; one that is there already stays."""
    import torch
    from safetensors.torch import save_file

    if (directory / "config.json").exists():
        return directory
    directory.mkdir(parents=True)
    width = hidden // heads * kv
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(layers):
        attention = {"q": (hidden, hidden), "k": (width, hidden), "v": (width, hidden), "o": (hidden, hidden)}
        mlp = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": shape for name, shape in attention.items()}
        shapes |= {f"{at}.mlp.{name}_proj.weight": shape for name, shape in mlp.items()}
        shapes |= {f"{at}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (VOCABULARY, hidden)}
    generator = torch.Generator().manual_seed(0)
    held: dict[str, Any] = {}
    places: dict[str, str] = {}
    number = size = 0
    for name, shape in shapes.items():
        value = torch.ones(shape, dtype=torch.bfloat16)
        held[name] = value if len(shape) == 1 else value.normal_(0, 0.02, generator=generator)
        size += value.nbytes
        if size >= SHARD or name == "lm_head.weight":
            file = f"model-{number:05d}.safetensors"
            save_file(held, directory / file, metadata={"format": "pt"})
            places |= dict.fromkeys(held, file)
            held, size, number = {}, 0, number + 1
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": inner, "vocab_size": VOCABULARY, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def contend(name: str, python: str, checkpoint: Path, weights: str, out: Path) -> dict[str, Any]:
    began = time.perf_counter()
    command = [python, __file__, "--run", name, str(checkpoint), weights, str(out)]
    text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    row = {**json.loads(text.splitlines()[-1]), "name": name, "weights": weights, "all": time.perf_counter() - began}
    row["bytes"] = sum(path.stat().st_size for path in out.glob("openvino_model.bin"))
    shutil.rmtree(out)
    return row


def run(name: str, checkpoint: str, weights: str, out: str) -> dict[str, Any]:
    peak = Peak()
    with peak:
        began = time.perf_counter()
        step = (with_paritas if name == "paritas" else with_optimum)(checkpoint, weights, out)
        ported = time.perf_counter()
        step(list(range(10, 10 + PROMPT)), 0)
        answered = time.perf_counter()
        times = []
        for index in range(STEPS):
            start = time.perf_counter()
            step([10 + index], PROMPT + index)
            times.append(time.perf_counter() - start)
    figures = {"port": ported - began, "answer": answered - ported, "step": statistics.median(times)}
    return {**figures, "peak": peak.resident / 2**20, "anonymous": peak.anonymous / 2**20}


def with_paritas(checkpoint: str, weights: str, out: str) -> Callable[[list[int], int], Any]:
    import numpy as np

    import paritas

    port = paritas.port(checkpoint, weights=weights, task=TASK).save(out)
    state = port.session.state()  # type: ignore[attr-defined]

    def step(ids: list[int], seen: int) -> Any:
        count = len(ids)
        feed = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, seen + count), np.int64),
            "position_ids": np.arange(seen, seen + count)[None],
        }
        return state.run(feed, count)

    return step


def with_optimum(checkpoint: str, weights: str, out: str) -> Callable[[list[int], int], Any]:
    import torch
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    bits = {"int8": 8, "int4": 4}[weights]
    model = OVModelForCausalLM.from_pretrained(
        checkpoint, export=True, quantization_config=OVWeightQuantizationConfig(bits=bits)
    )
    model.save_pretrained(out)
    past: list[Any] = [None]

    def step(ids: list[int], seen: int) -> Any:
        mask = torch.ones(1, seen + len(ids), dtype=torch.long)
        answer = model(input_ids=torch.tensor([ids]), attention_mask=mask, past_key_values=past[0])
        past[0] = answer.past_key_values
        return answer

    return step


class Peak:
    """The most memory of this process while inside, in KiB: `resident`, and `anonymous`, which no file backs."""

    def __init__(self) -> None:
        self.resident = self.anonymous = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            status = Path("/proc/self/status").read_text()
            lines = (line.split() for line in status.splitlines())
            found = {line[0]: int(line[1]) for line in lines if line[0] in ("VmRSS:", "RssAnon:")}
            self.resident = max(self.resident, found["VmRSS:"])
            self.anonymous = max(self.anonymous, found["RssAnon:"])


def bandwidth() -> float:
    """Bytes in a second that all cores read together, at best."""
    import torch

    values = torch.ones(1 << 28)  # 1 GiB
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        values.sum()
        best = max(best, values.nbytes / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    sys.exit(main())
