# SPDX-License-Identifier: Apache-2.0
"""How much the small model draws right on each engine: `python benchmarks/drawing.py`.

Captions of combinations that no training saw, of two seeds, 4 steps without guidance; a classifier, trained apart on
true pictures alone, tells what is seen. The first row is what it says of true pictures of the same scenes.
"""

from __future__ import annotations

import argparse
from typing import Any

from results import machine, write

from paritas.apps.pixart import small_model
from paritas.apps.pixart.measure import measured
from paritas.run.engine import engines


def main() -> int:
    installed = [name for name, info in engines().items() if info.available]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", default=installed, help="all that are installed if not given")
    parser.add_argument("--count", type=int, default=400, help="of captions of each seed")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for seed in (0, 1):
        for what, found in measured(small_model(), options.engine, options.count, seed=seed):
            print(f"{what}: {found.right} of {found.count} right, wrong in {found.wrong}", flush=True)
            row = rows.setdefault(what, {"count": 0, "right": 0, "wrong": dict.fromkeys(found.wrong, 0)})
            row["count"] += found.count
            row["right"] += found.right
            row["wrong"] = {kind: row["wrong"][kind] + wrong for kind, wrong in found.wrong.items()}
    print(machine())
    write("drawing", {"rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
