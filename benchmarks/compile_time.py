# SPDX-License-Identifier: Apache-2.0
"""How does MindSpore's Graph mode compile time grow with depth? Seconds, and seconds per 12 further layers.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --layers 12 24 48 --hidden 768

BERT at the given width with random weights, batch 1 x 64, each depth in a fresh process: the time of the first
call less that of a warm one. The bars: at most 1 s per 12 layers after the first 12, 48 layers in under 30 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from results import machine, write

STEP, WHOLE = 1.0, 30.0  # seconds: per 12 layers after the first 12, and for 48

MEASURE = """
import sys, time
import numpy as np, torch
from transformers import BertConfig, BertModel
import paritas

layers, hidden = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
config = BertConfig(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=hidden // 64,
                    intermediate_size=4 * hidden, vocab_size=1000)
port = paritas.port(BertModel(config), engine="mindspore")
feed = {"input_ids": np.ones((1, 64), np.int64), "attention_mask": np.ones((1, 64), np.int64)}
times = []
for _ in range(4):
    begin = time.perf_counter()
    port(**feed)
    times.append(time.perf_counter() - begin)
print(times[0] - min(times[1:]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", type=int, default=[12, 24, 36, 48])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=2, help="how often, of which the fastest counts (2)")
    options = parser.parse_args()
    print(f"{'layers':>8}{'compile':>12}{'per 12 more':>14}", flush=True)
    found: list[tuple[int, float]] = []
    for layers in options.layers:
        seconds = min(_measured(layers, options.hidden) for _ in range(options.repeat))
        found.append((layers, seconds))
        grown = _per_twelve(found)
        print(f"{layers:8}{seconds:10.2f} s{f'{grown:.2f} s' if len(found) > 1 else '':>14}", flush=True)
    print(machine())
    rows = [{"layers": layers, "seconds": seconds} for layers, seconds in found]
    write("compile_time", {"bars": {"per 12": STEP, "48": WHOLE}, "hidden": options.hidden, "rows": rows})
    return 0 if _per_twelve(found) <= STEP and all(s < WHOLE for n, s in found if n <= 48) else 1


def _per_twelve(found: list[tuple[int, float]]) -> float:
    (first, least), (last, most) = found[0], found[-1]
    return (most - least) * 12 / (last - first) if last > first else 0.0


def _measured(layers: int, hidden: int) -> float:
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(layers), str(hidden)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("\n".join(done.stderr.strip().splitlines()[-3:]))
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
