# SPDX-License-Identifier: Apache-2.0
"""How long does a call take, as a ratio to PyTorch eager? Real sizes, seeded weights, 2 cores.

    python benchmarks/speed.py
    python benchmarks/speed.py --models bert-base --seconds 30

Every contender runs in a process of its own, in turns (`paritas.bench.race`). The bars: MindSpore in Graph
mode 1.0x, OpenVINO 1.4x in float32. 3.5x in bfloat16 is for processors with AMX: without it, AVX512-BF16
does at most twice the products of float32 per cycle, so 2 x the float32 ratio is the ceiling.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from results import machine, write

from models import MODELS, original, ported, qualified
from paritas.bench.race import BenchReport, Contender, race
from paritas.program import Source

#: name -> (engine, mode, precision, bar)
CONTENDERS = {
    "mindspore graph": ("mindspore", "graph", "", 1.0),
    "openvino float32": ("openvino", "", "float32", 1.4),
    "openvino bfloat16": ("openvino", "", "bfloat16", 3.5),
    "mindspore pynative": ("mindspore", "pynative", "", None),
}
USUAL = ["mindspore graph", "openvino float32", "openvino bfloat16"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=USUAL)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each contender is timed (20)")
    parser.add_argument("--rounds", type=int, default=10, help="in how many turns (10)")
    parser.add_argument("--cores", type=int, default=2, help="how many cores each may use (2)")
    options = parser.parse_args()
    reports: dict[str, BenchReport] = {}
    for name in options.models:
        contenders = [baseline(name), *(contender(name, who) for who in options.contenders)]
        report = race(
            contenders, MODELS[name].feed(), options.seconds,
            subject=MODELS[name].title, rounds=options.rounds, cores=options.cores,
        )  # fmt: skip
        reports[name] = report
        print(report, "", sep="\n", flush=True)
    print(table(reports, options.contenders))
    write("speed", {"reports": {name: _small(report) for name, report in reports.items()}})
    return 0


def baseline(name: str) -> Contender:
    source = Source("directory", str(original(name)), model_class=qualified(name))
    fixed = {"use_cache": False} if MODELS[name].caches else {}
    return Contender("torch eager", source=source, dtype="float32", constants=fixed)


def contender(name: str, who: str) -> Contender:
    engine, mode, precision, _ = CONTENDERS[who]
    return Contender(who, str(ported(name, engine)), mode=mode, precision=precision)


def table(reports: dict[str, BenchReport], names: list[str]) -> str:
    """Ratios, the one of the fastest calls behind that of the medians: they differ where others were busy."""
    lines = ["PyTorch eager's time / the port's: medians (fastest calls)"]
    lines.append(f"{'':34}{'torch eager':>14}" + "".join(f"{name:>20}" for name in names))
    for report in reports.values():
        want = report.timings[0]
        row = f"{report.subject:34}{1000 * want.median:>11.0f} ms"
        for timing in report.timings[1:]:
            cell = "failed" if timing.fault else f"{timing.ratio:.2f}x ({want.best / timing.best:.2f}x)"
            row += f"{cell:>20}"
        lines.append(row + ("" if report.quiet else f"   {report.noise:.0%} of the machine was busy otherwise"))
    bars = "".join(f"{f'{bar:.1f}x' if (bar := CONTENDERS[name][3]) else '':>20}" for name in names)
    return "\n".join([*lines, f"{'bar':34}{'':>14}{bars}", machine()])


def _small(report: BenchReport) -> dict[str, object]:
    """Without the time of every call: a result that is committed stays readable."""
    timings = tuple(dataclasses.replace(timing, rounds=()) for timing in report.timings)
    data = json.loads(dataclasses.replace(report, timings=timings).to_json())
    for row, timing in zip(data["timings"], report.timings, strict=True):
        del row["rounds"], row["process"]
        row |= {"median": timing.median, "best": timing.best, "p90": timing.p90, "calls": len(timing.calls)}
    return dict(data)


if __name__ == "__main__":
    sys.exit(main())
