# SPDX-License-Identifier: Apache-2.0
"""`paritas bench`: how long a call takes, as a ratio to PyTorch eager."""

from __future__ import annotations

import json

from paritas.cli.options import (
    AllowModified,
    Baseline,
    Debug,
    Device,
    Inputs,
    Json,
    Mode,
    Original,
    OvConfig,
    PortDirectory,
    Quiet,
    Seconds,
)  # fmt: skip
from paritas.cli.outcome import OK, print_json, say
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of
from paritas.cli.verify import arrays, original_of


def bench(
    directory: PortDirectory,
    inputs: Inputs = None,
    seconds: Seconds = 10.0,
    baseline: Baseline = True,
    original: Original = None,
    mode: Mode = None,
    device: Device = "",
    ov_config: OvConfig = None,
    allow_modified: AllowModified = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Time a port against PyTorch eager: each in a process of its own, alternately, medians.

    **Examples**

      paritas bench clip-ms

      paritas bench clip-ms --seconds 30 --inputs real-batch.npz --json

      paritas bench clip-openvino --device GPU --ov-config NUM_STREAMS=1
    """
    properties = properties_of(ov_config)
    with Stages(f"{directory}", quiet=quiet) as stages:
        stages("run")
        from paritas import pipeline

        port = pipeline.load_port(
            directory, mode=mode or "", device=device, ov_config=properties, allow_modified=allow_modified
        )
        feed = arrays(inputs) if inputs else None
        if original and baseline:
            stages("load")
            port.original(original_of(port, original))
        stages("measure")
        report = port.bench(feed, seconds=seconds, baseline=baseline)
    if as_json:
        print_json(json.loads(report.to_json()))
    else:
        say(str(report))
    return OK
