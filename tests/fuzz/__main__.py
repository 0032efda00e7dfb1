# SPDX-License-Identifier: Apache-2.0
"""Random statements and programs through the engines, against PyTorch: `python -m tests.fuzz --engine openvino`.

Prints what was run, what came of it and each failure cut down, as a table entry for tests/fuzz/found.py. The exit
status is 1 if a port was silently wrong, or let another library's exception through.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.making import pack, program, statement, takes_all
from tests.fuzz.sample import Sample
from tests.fuzz.shrink import shrink
from tests.fuzz.worker import Worker

#: What has to be cut down and shown.
FAULTS = ("wrong", "raw", "hung", "unplaced", "failed")


class Run:
    """One engine's share of a run: counts by outcome, failures by what they look like."""

    def __init__(self, engine: str, options: argparse.Namespace) -> None:
        self.engine, self.options = engine, options
        self.worker = Worker()
        self.counts: dict[str, Counter[str]] = {"statement": Counter(), "program": Counter()}
        self.special = self.compared = self.frozen = 0
        self.seen: Counter[str] = Counter()
        self.log = open(options.log, "a") if options.log else None  # noqa: SIM115 - for the whole run

    def ask(self, sample: Sample, number: int) -> dict[str, Any]:
        graph = self.engine != "mindspore" or (self.options.graph and number % self.options.graph == 0)
        return self.worker.ask(sample, self.engine, "graph" if graph else "pynative")

    def statements(self, several: list[Sample], number: int) -> None:
        """Together first: only where that does not agree, or keeps no size free, in halves."""
        together = [one for one in several if takes_all(one)]
        self.halves(together, number)
        for one in several:
            if one not in together:
                self.count("statement", one, self.ask(one, number), number)

    def halves(self, several: list[Sample], number: int) -> None:
        if len(several) < 2:
            for one in several:
                self.count("statement", one, self.ask(one, number), number)
            return
        answer = self.ask(pack(several), number)
        if answer["outcome"] == "agrees" and not answer["froze"]:
            self.counts["statement"]["agrees"] += len(several)
            self.special += bool(answer["special"])
            self.compared += answer["compared"]
            return
        middle = len(several) // 2
        self.halves(several[:middle], number)
        self.halves(several[middle:], number)

    def count(self, kind: str, sample: Sample, answer: dict[str, Any], number: int) -> None:
        self.counts[kind][answer["outcome"]] += 1
        self.compared += answer["compared"]
        self.frozen += answer["froze"]
        self.special += bool(answer["special"])
        if self.log:
            record = {
                "engine": self.engine,
                "kind": kind,
                "number": number,
                **answer,
                "sample": sample.to_json(),
            }
            if answer["outcome"] not in ("agrees", "invalid"):
                self.log.write(json.dumps(record) + "\n")
                self.log.flush()
        if answer["outcome"] not in FAULTS:
            return
        if len(sample.lines) > 1 and answer["outcome"] != "hung":
            sample = shrink(sample, lambda s: self.ask(s, number)["outcome"] == answer["outcome"], self.options.shrink)
            answer = self.ask(sample, number)
        likeness = answer["text"].strip().rpartition("\n")[2] if answer["outcome"] == "raw" else sample.lines[-1].text
        key = f"{answer['outcome']} {_shape_of(likeness)}"
        self.seen[key] += 1
        if self.seen[key] <= 2:
            self.show(sample, answer, number)

    def show(self, sample: Sample, answer: dict[str, Any], number: int) -> None:
        print(f"\n--- {self.engine}: {answer['outcome']} ({answer['feed']}), number {number}")
        print(f"    {answer['text']}".replace("\n", "\n    "))
        print(entry(sample), flush=True)

    def report(self) -> bool:
        bad = False
        for kind, counts in self.counts.items():
            if total := sum(counts.values()):
                print(f"{self.engine}: {total} {kind}s: " + ", ".join(f"{n} {o}" for o, n in counts.most_common()))
            bad |= any(counts[outcome] for outcome in ("wrong", "raw", "hung"))
        print(
            f"{self.engine}: {self.compared} elements compared, {self.frozen} captured with fixed sizes, "
            f"{self.special} differ where inputs hold NaN or infinities"
        )
        self.worker.close()
        return bad


def _shape_of(text: str) -> str:
    import re

    return re.sub(r"[xv]\d+", "_", re.sub(r"-?\d+(\.\d+)?", "0", text))


def entry(sample: Sample) -> str:
    """The sample as an entry of tests/fuzz/found.py."""
    givens = {name: {k: v for k, v in vars(given).items() if v is not None} for name, given in sample.inputs.items()}
    inputs = ", ".join(f"{n}=Given({', '.join(f'{k}={v!r}' for k, v in g.items())})" for n, g in givens.items())
    lines = [str(line) for line in sample.lines]
    more = f", modules={sample.modules!r}" if sample.modules else ""
    inner = f", inner={sample.inner!r}" if sample.inner != (0, 0) else ""
    return f"    found({lines!r}, {sample.outputs!r}, dict({inputs}), seed={sample.seed}{more}{inner}),"


def batches(rng: random.Random, count: int, size: int) -> Iterator[list[Sample]]:
    for first in range(0, count, size):
        seed = rng.getrandbits(30)
        yield [statement(rng, first=20 * i, seed=seed) for i in range(min(size, count - first))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--engine",
        action="append",
        choices=("openvino", "mindspore", "torch"),
        help="several times for several",
    )
    parser.add_argument("--statements", type=int, default=5000)
    parser.add_argument("--programs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="chosen and printed if left out")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long; 0 for never")
    parser.add_argument("--pack", type=int, default=6, help="statements in one capture")
    parser.add_argument("--graph", type=int, default=10, help="MindSpore: one in so many in Graph mode; 0 for none")
    parser.add_argument("--shrink", type=int, default=40, help="tries to cut one failure down")
    parser.add_argument("--log", default="", help="a file for everything that did not agree, a JSON object a line")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    engines = options.engine or ["openvino", "mindspore"]
    print(
        f"seed {seed}: {options.statements} statements, {options.programs} programs on {' and '.join(engines)}",
        flush=True,
    )
    began, bad = time.monotonic(), False
    for engine in engines:
        run = Run(engine, options)
        rng = random.Random(seed)
        for number, several in enumerate(batches(rng, options.statements, options.pack)):
            if options.seconds and time.monotonic() - began > options.seconds:
                break
            run.statements(several, number)
            if number % 100 == 99:
                print(
                    f"[{time.monotonic() - began:.0f} s] {dict(run.counts['statement'])}",
                    file=sys.stderr,
                    flush=True,
                )
        rng = random.Random(seed + 1)
        for number in range(options.programs):
            if options.seconds and time.monotonic() - began > options.seconds:
                break
            one = program(rng)
            run.count("program", one, run.ask(one, number), number)
        bad |= run.report()
    print(f"seed {seed}, {time.monotonic() - began:.0f} s")
    return int(bad)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main())
