# SPDX-License-Identifier: Apache-2.0
"""`paritas verify`: is a port on disk still the model it was made from?"""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

from paritas.cli.options import (
    AllowModified,
    Attach,
    Call,
    ComponentName,
    Debug,
    Device,
    Gradients,
    Html,
    Inputs,
    Json,
    Level,
    LevelName,
    Mode,
    Original,
    OvConfig,
    Png,
    PortDirectory,
    Quiet,
    Repro,
    Search,
    Seed,
    StepName,
    TextFile,
    TrainSteps,
)  # fmt: skip
from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of
from paritas.errors import InputError


def verify(
    directory: PortDirectory,
    level: Level = LevelName.modules,
    gradients: Gradients = False,
    original: Original = None,
    inputs: Inputs = None,
    mode: Mode = None,
    device: Device = "",
    ov_config: OvConfig = None,
    search: Search = None,
    seed: Seed = 0,
    step: StepName = None,
    component: ComponentName = "",
    call: Call = None,
    text: TextFile = None,
    train: TrainSteps = None,
    attach: Attach = False,
    html: Html = None,
    png: Png = None,
    repro: Repro = None,
    allow_modified: AllowModified = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare a port with its original, and both with the same graph in float64.

    On several shapes, with padding on both sides and at the edges of masks, unless you give inputs.

    **Examples**

      paritas verify clip-ms

      paritas verify clip-ms --level outputs --mode pynative --json

      paritas verify clip-openvino --device GPU

      paritas verify clip-ms --search 60

      paritas verify clip-ms --level nodes --html parity.html --png curves.png

      paritas verify clip-ms --level nodes --repro scripts

      paritas verify llama-int8 --text wikitext.txt

      paritas verify llama-ov --level nodes --step "beams, step 3"

      paritas verify bert-train --train 20 --html training.html

      paritas verify my-port --original ./my-checkpoint --inputs real-batch.npz

      paritas verify stable-diffusion-openvino --component unet --level nodes
    """
    from paritas.cli.commands.port_pipeline import is_pipeline, is_saved, verify_pipeline

    if is_saved(directory):
        return verify_pipeline(
            directory, level=level.value, component=component, call=call, original=original, seed=seed, attach=attach,
            html=html, png=png, quiet=quiet, as_json=as_json,
            how={"mode": mode, "engine_device": device}, gradients=gradients, inputs=inputs, search=search,
            step=step, text=text, repro=repro, train=train,
            **{"allow-modified": allow_modified, "ov-config": ov_config},
        )  # fmt: skip
    if is_pipeline(str(directory)):
        raise InputError(f"{directory} is a pipeline in PyTorch. Port it:   paritas port {directory} --out DIR")
    if component or call:
        raise InputError(f"--component and --call are for pipelines, and {directory} is none.")
    from paritas import store
    from paritas.cli.report import check_files, pairs, print_reports, write_files
    from paritas.cli.verify import arrays, engines, original_of, text_of
    from paritas.verify import ComponentReports, ParityReport

    if gradients:
        from paritas.verify.of_port import check_differentiates

        # Its contents are checked when it is loaded: once is enough.
        read = store.read_any(directory, verify_checksums=False, allow_modified=allow_modified)
        for one in engines(read.manifest):
            check_differentiates(one)
    check_files(html=html, png=png)
    if train and (gradients or search or step or text or png or repro):
        raise InputError(
            "--train compares steps of training: leave out --gradients, --search, --step, --text, --repro and --png, "
            "or verify without it. Its picture is in --html."
        )
    if png and level is LevelName.outputs:
        raise InputError("--png draws the error per layer: it needs --level modules or nodes, not outputs.")
    if repro is not None and level is not LevelName.nodes:
        raise InputError("--repro writes a script per guilty node: add --level nodes. Or: paritas bisect")
    properties = properties_of(ov_config)
    scripts: tuple[Any, ...] = ()
    with Stages(f"{directory}", quiet=quiet) as stages:
        stages("run")
        from paritas import pipeline
        from paritas.components import Components

        port = pipeline.load(
            directory, mode=mode or "", device=device, ov_config=properties, allow_modified=allow_modified
        )
        if isinstance(port, Components) and (inputs or repro or step or train):
            raise InputError(
                f"--inputs, --step, --train and --repro are for one graph, and {directory} has {', '.join(port)}."
            )
        feed = arrays(inputs) if inputs else None
        words = text_of(text) if text else None
        stages("load")
        module = original_of(port, original) if original else None
        if module is None and not isinstance(port, Components):
            module = port.original(in_files=True)
        stages("verify")
        trained: dict[str, Any] = {"train": train} if train else {}
        report: ParityReport | ComponentReports = port.verify(
            feed,
            level.value,
            original=module,
            seed=seed,
            search=search or 0.0,
            progress=stages.detail,
            gradients=gradients,
            step=step or "",
            text=words,
            **trained,
        )
        given = {
            "--original": original,
            "--inputs": inputs,
            "--mode": mode,
            "--step": step,
            "--text": text,
            "--train": train,
        }
        again = [f"{option} {shlex.quote(str(value))}" for option, value in given.items() if value]
        report = report.again_with(" ".join([*again, *["--allow-modified"] * allow_modified]))
        if repro is not None and not isinstance(port, Components):
            assert isinstance(report, ParityReport)
            from paritas.verify.bisect.of_port import write_scripts

            stages("script")
            scripts = write_scripts(port, report, feed, repro)
        if attach or html or png:
            stages("save")
        if attach:
            from paritas.verify.report.files import attach as attach_report

            attach_report(directory, report)
        write_files(pairs(str(directory), report), html=html, png=png)
    if as_json:
        answer: dict[str, Any] = {"directory": str(directory), "verdict": report.verdict}
        answer |= {"report": json.loads(report.to_json())}
        if repro is not None:
            answer |= {"scripts": [dataclasses.asdict(row) for row in scripts]}
        print_json(answer)
    else:
        print_reports(str(directory), report)
        for row in scripts:
            console().print(f"script: {row}", markup=False)
    return OK if report.verdict == "agrees" else DIVERGES
