# SPDX-License-Identifier: Apache-2.0
"""One training step for one entry of each model type in tests/zoo: does MindSpore's agree with PyTorch's?

    python benchmarks/training_zoo.py --journal FILE [--only bert t5] [--minutes 30] [--write]

Dropout and all, of a random combination of what the model returns: the loss, and the gradient of every parameter, to
float64. Results go to the journal as they come, so that it goes on where it was interrupted. `--write` puts what is
known into benchmarks/results, from which docs/training.md has its table.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import results

from paritas.apps.journal import Journal
from paritas.apps.zoo import entries
from paritas.run import engine
from paritas.workers import ALONE, Limits, Worker

ROOT = Path(__file__).resolve().parents[1]


def chosen() -> list[Any]:
    """One entry of each model type: the one with a head, which has more in it, by the length of its class's name."""
    kinds: dict[tuple[str, str], list[Any]] = {}
    for entry in entries.read(ROOT / "tests" / "zoo"):
        kinds.setdefault((entry.library, entry.model_type), []).append(entry)
    return [max(found, key=lambda entry: ("For" in entry.model_class, -len(entry.name))) for found in kinds.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--again", action="store_true", help="those that do not agree, once more")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--write", action="store_true", help="into benchmarks/results")
    given = parser.parse_args()
    versions = engine.versions(("torch", "transformers", "diffusers", "mindspore"))
    journal = Journal(given.journal, versions)
    known = {line["name"]: line for line in journal.lines}
    until = time.monotonic() + 60 * given.minutes
    folder = str(Path(__file__).parent)
    path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    worker = Worker("training_step", Limits(seconds=240, gib=5), {**ALONE, "PYTHONPATH": path})
    every = chosen()
    try:
        for entry in every:
            old = known.get(entry.name)
            if given.only and entry.model_type not in given.only:
                continue
            if (old and not (given.again and old["verdict"] != "agrees")) or time.monotonic() > until:
                continue
            worker.tell({"entry": entry.to_json()})
            answer = worker.answer()
            if isinstance(answer, str):
                answer = {"verdict": "refused", "reason": answer}
            known[entry.name] = {"name": entry.name, "library": entry.library, "type": entry.model_type, **answer}
            journal.add(known[entry.name])
            print(entry.name, answer["verdict"], answer.get("reason", answer.get("gradient")), flush=True)
            if worker.memory() > 2.5:
                worker.end()
    finally:
        worker.end()
    rows = {entry.name: known[entry.name] for entry in every if entry.name in known}
    print(len(every), "model types;", dict(Counter(row["verdict"] for row in rows.values())))
    if given.write:
        kept = {n: {k: v for k, v in row.items() if k not in ("versions", "name")} for n, row in rows.items()}
        print(results.write("training_zoo", {"types": len(every), "entries": kept}))


if __name__ == "__main__":
    main()
