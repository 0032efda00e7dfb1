# SPDX-License-Identifier: Apache-2.0
"""What does the proof cost? `paritas verify` of BERT-base, 4 x 77 tokens, at each level: seconds and peak memory.

    python benchmarks/lockstep.py
    python benchmarks/lockstep.py --engines openvino --levels nodes --rounds 3

Each verification is a process of its own, imports, both models and their loading included; they take turns, and the
median of the rounds is shown. The inputs are the ones that the other benchmarks time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from porting import PEAK, run
from results import machine, write

from models import MODELS, original, ported

MODEL = "bert-base"
ENGINES = ("openvino", "mindspore")
LEVELS = ("outputs", "modules", "nodes")

VERIFY = f"""
from paritas.cli import main
try:
    main()
finally:
    {PEAK.strip()}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--rounds", type=int, default=2, help="how often each is run (2)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "2"
    pairs = [(engine, level) for engine in options.engines for level in options.levels]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder, "feed.npz")
        np.savez(feed, **MODELS[MODEL].feed())
        for _ in range(options.rounds):
            for pair in pairs:
                found[pair].append(verified(*pair, feed))
    rows = []
    print(f"{MODELS[MODEL].title}\n{'':12}{'level':>10}{'seconds':>10}{'peak':>12}{'nodes':>8}")
    for (engine, level), rounds in found.items():
        row = {
            "engine": engine,
            "level": level,
            "seconds": [one["seconds"] for one in rounds],
            "memory": max(one["memory"] for one in rounds),
            "nodes": rounds[0]["nodes"],
        }
        rows.append(row)
        print(
            f"{engine:12}{level:>10}{statistics.median(row['seconds']):>8.1f} s{row['memory'] / 2**30:>8.2f} GiB"
            f"{row['nodes'] or '':>8}"
        )
    print(machine())
    write("lockstep", {"model": MODELS[MODEL].title, "rows": rows})
    return 0


def verified(engine: str, level: str, feed: Path) -> dict[str, Any]:
    """One verification: its seconds, its peak of bytes, and how many nodes were compared.

    Ends the benchmark where the port does not agree: its time would be that of another search.
    """
    port, source = ported(MODEL, engine), original(MODEL)
    arguments = ["verify", str(port), "--original", str(source), "--inputs", str(feed), "--level", level]
    seconds, printed = run(VERIFY, *arguments, "--quiet", "--json")
    told, _, peak = printed.rstrip().rpartition("\n")
    report = json.loads(told)["report"]
    nodes = len(report["nodes"] or ())
    return {"seconds": seconds, "memory": int(peak) * 1024, "nodes": nodes}


if __name__ == "__main__":
    sys.exit(main())
