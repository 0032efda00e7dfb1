# SPDX-License-Identifier: Apache-2.0
"""`paritas bisect`: the smallest part of a port that is wrong, as a script for the engine's bug tracker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from paritas.cli.options import (
    AllowModified,
    BisectOut,
    BisectSeconds,
    ComponentName,
    Debug,
    Device,
    Inputs,
    Json,
    Mode,
    Original,
    OvConfig,
    PortDirectory,
    Quiet,
)  # fmt: skip
from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of
from paritas.cli.verify import arrays, original_of
from paritas.errors import InputError

if TYPE_CHECKING:
    from paritas.verify.bisect.report import BisectReport


def bisect(
    directory: PortDirectory,
    out: BisectOut = None,
    original: Original = None,
    inputs: Inputs = None,
    component: ComponentName = "",
    mode: Mode = None,
    device: Device = "",
    ov_config: OvConfig = None,
    seconds: BisectSeconds = 600.0,
    allow_modified: AllowModified = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Halve a port that is wrong to the smallest part that is, and write that as a script.

    For what appears only in combination: fusions, graph mode, crashes. Every part is fed with the original's values.
    NODE.repro.py and NODE.safetensors run without paritas, and end with status 1 while the engine is wrong.

    **Examples**

      paritas bisect gpt2-ov

      paritas bisect clip-ms --mode graph --out for-the-tracker --seconds 120

      paritas bisect stable-diffusion-openvino --component unet
    """
    properties = properties_of(ov_config)
    # Beside nobody's files, and under a name that says of what it is.
    place = out if out is not None else Path(f"{directory.resolve().name}-bisect")
    with Stages(f"{directory}", quiet=quiet) as stages:
        from paritas import pipeline
        from paritas.cli.commands.port_pipeline import bisect_pipeline, is_saved

        if is_saved(directory):
            if inputs or allow_modified or properties:
                raise InputError("A port of a pipeline is bisected without --inputs, --ov-config, --allow-modified.")
            report = bisect_pipeline(
                directory, place, component=component, original=original, seconds=seconds, stages=stages,
                mode=mode, engine_device=device,
            )  # fmt: skip
            return _said(report, directory, as_json)
        if component:
            raise InputError(f"--component is for pipelines, and {directory} is none.")
        stages("run")
        port = pipeline.load_port(
            directory, mode=mode or "", device=device, ov_config=properties, allow_modified=allow_modified
        )
        feed = arrays(inputs) if inputs else None
        stages("load")
        module = original_of(port, original) if original else port.original()
        stages("bisect")
        report = port.bisect(feed, place, original=module, seconds=seconds, progress=stages.detail)
    return _said(report, directory, as_json)


def _said(report: BisectReport, directory: Path, as_json: bool) -> int:
    if as_json:
        print_json({"directory": str(directory), **json.loads(report.to_json())})
    else:
        console().print(str(report), markup=False, soft_wrap=True)
    return OK if report.verdict == "clean" else DIVERGES
