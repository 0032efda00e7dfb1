# SPDX-License-Identifier: Apache-2.0
"""What does it cost to make a port, and to get the first answer of one? Seconds and peak memory.

    python benchmarks/porting.py
    python benchmarks/porting.py --engines mindspore --repeat 5

all-MiniLM-L6-v2 for the times, BERT-base for the memory, each in a fresh process, imports included; the
fastest of --repeat. The bars: porting 20 s (OpenVINO) and 40 s (MindSpore), load and first answer 2 s and
10 s (Graph mode's compilation included), memory 2.5 times the weights and 1 GiB.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from results import machine, write

from models import original

#: engine -> seconds for porting, seconds for load and first answer
BARS = {"openvino": (20.0, 2.0), "mindspore": (40.0, 10.0)}

PORT = """
import sys
import paritas
paritas.port(sys.argv[1], engine=sys.argv[2]).save(sys.argv[3])
"""
ANSWER = """
import sys
import numpy as np
import paritas
feed = {"input_ids": np.ones((4, 77), np.int64), "attention_mask": np.ones((4, 77), np.int64)}
paritas.load(sys.argv[1])(**feed)
"""
PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@dataclasses.dataclass(frozen=True)
class Cost:
    """One engine's figures, and what is allowed."""

    engine: str
    port: float
    first_answer: float
    memory: int
    allowed: int

    def __str__(self) -> str:
        port, answer = BARS[self.engine]
        return (
            f"{self.engine:12}{f'{self.port:.1f} s (bar {port:.0f} s)':>24}"
            f"{f'{self.first_answer:.1f} s (bar {answer:.0f} s)':>24}"
            f"{f'{self.memory / 2**30:.2f} GiB (bar {self.allowed / 2**30:.2f} GiB)':>32}"
        )

    @property
    def reached(self) -> bool:
        port, answer = BARS[self.engine]
        return self.port <= port and self.first_answer <= answer and self.memory <= self.allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=BARS, default=list(BARS))
    parser.add_argument("--repeat", type=int, default=3, help="how often, of which the fastest counts (3)")
    options = parser.parse_args()
    print(f"{'':12}{'port MiniLM':>24}{'load and first answer':>24}{'peak, porting BERT-base':>32}", flush=True)
    costs = []
    for engine in options.engines:
        costs.append(measure(engine, options.repeat))
        print(costs[-1], flush=True)
    print(machine())
    write("porting", {"bars": BARS, "costs": [dataclasses.asdict(cost) for cost in costs]})
    return 0 if all(cost.reached for cost in costs) else 1


def measure(engine: str, repeat: int) -> Cost:
    from paritas.capture.source import minilm_directory

    bert = original("bert-base")
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder, "minilm"), Path(folder, "bert")
        port = min(run(PORT, minilm_directory(), engine, small)[0] for _ in range(repeat))
        answer = min(run(ANSWER, small)[0] for _ in range(repeat))
        peak = int(run(PORT + PEAK, bert, engine, large)[1].split()[-1]) * 1024
    return Cost(engine, port, answer, peak, int(2.5 * (bert / "model.safetensors").stat().st_size) + 2**30)


def run(code: str, *arguments: object) -> tuple[float, str]:
    """Seconds from the start of a process to its end, and what it printed."""
    command: Sequence[str] = [sys.executable, "-c", code, *map(str, arguments)]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit("\n".join(done.stderr.strip().splitlines()[-3:]))
    return time.perf_counter() - begin, done.stdout


if __name__ == "__main__":
    sys.exit(main())
