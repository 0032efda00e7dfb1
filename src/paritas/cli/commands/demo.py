# SPDX-License-Identifier: Apache-2.0
"""`paritas demo`: the main job on a real checkpoint, which `make port` runs."""

from __future__ import annotations

from pathlib import Path

from paritas.cli.options import Debug, DemoEngines, DemoOut, Json, Measure, Quiet, Seconds
from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages


def demo(
    out: DemoOut = Path("ports"),
    engine: DemoEngines = None,
    seconds: Seconds = 2.0,
    measure: Measure = True,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Port the real checkpoint all-MiniLM-L6-v2 to every engine and precision, and show that nothing changed.

    Prints parity, worst module, speed against PyTorch eager, size and load time, then embeds real sentences on each
    engine and shows the ranking of neighbours beside PyTorch's. The exit code is 1 if anything diverges.

    **Examples**

      paritas demo

      paritas demo --engine openvino --no-bench --out /tmp/ports
    """
    from paritas.apps import demo as main_job

    with Stages("all-MiniLM-L6-v2", quiet=quiet) as stages:
        result = main_job.run(out, engine, seconds=seconds, measure=measure, progress=stages, detail=stages.detail)
    if as_json:
        print_json(result.to_json())
    else:
        console().print(result.terminal())
    return OK if result.agrees else DIVERGES
