# SPDX-License-Identifier: Apache-2.0
"""`paritas port`: capture, lower, run, verify, and a directory with the port and its report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas.cli.commands.port_pipeline import by_network, index_of, port_pipeline
from paritas.cli.options import (
    AllLayers,
    Autocast,
    Awq,
    BackupMode,
    Call,
    Dataset,
    Debug,
    Device,
    Dynamic,
    EngineName,
    Examples,
    Force,
    Gptq,
    GroupSize,
    Json,
    Level,
    LevelName,
    LoraCorrection,
    Mode,
    ModelClass,
    Out,
    OvConfig,
    Precision,
    Quiet,
    Ratio,
    Revision,
    ScaleEstimation,
    SensitivityMetric,
    SourceName,
    Subfolder,
    SubsetSize,
    Symmetric,
    Target,
    Task,
    Train,
    Verify,
    Weights,
)  # fmt: skip
from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of
from paritas.errors import InputError

if TYPE_CHECKING:
    from paritas.components import Components
    from paritas.pipeline import Port
    from paritas.verify import ComponentReports, ParityReport


def port(
    source: SourceName,
    out: Out,
    engine: EngineName = "openvino",
    dtype: Precision = None,
    mode: Mode = None,
    target: Target = None,
    weights: Weights = None,
    group_size: GroupSize = None,
    symmetric: Symmetric = False,
    dataset: Dataset = None,
    subset_size: SubsetSize = None,
    ratio: Ratio = None,
    sensitivity_metric: SensitivityMetric = None,
    all_layers: AllLayers = False,
    backup_mode: BackupMode = None,
    awq: Awq = False,
    scale_estimation: ScaleEstimation = False,
    gptq: Gptq = False,
    lora_correction: LoraCorrection = False,
    task: Task = "",
    train: Train = False,
    autocast: Autocast = "",
    device: Device = "",
    ov_config: OvConfig = None,
    revision: Revision = None,
    subfolder: Subfolder = "",
    model_class: ModelClass = None,
    dynamic: Dynamic = True,
    inputs: Examples = None,
    call: Call = None,
    verify: Verify = True,
    level: Level = LevelName.modules,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Port a model to another engine, verify the port, and write it with its report.

    The port is a directory: the engine's files, the weights, port.json, and PARITY.md with parity.json, which say
    how far its outputs are from the original's. A port that diverges is written all the same, and the exit code is 1.

    **Examples**

      paritas port openai/clip-vit-base-patch32 --engine mindspore --out clip-ms

      paritas port ./my-bert --dtype bf16 --out bert-bf16

      paritas port ./llama --out llama-openvino

      paritas port ./llama --weights int4 --awq --scale-estimation --dataset text.txt --out llama-int4

      paritas generate llama-openvino "Once upon a time"

      paritas port mine.py:build --input x=2x16:float32 --out mine-openvino

      paritas port ./gpt2 --class AutoModelForCausalLM --input input_ids=1x8:int64 --static --out gpt2-static

      paritas port ./bert -e mindspore --train --input input_ids=8x64:int64 --input labels=8:int64 --out bert-train

      paritas port ./vit --device NPU --static --out vit-npu

      paritas port ./stable-diffusion --out stable-diffusion-openvino

      paritas port ./stable-diffusion --weights unet=int8 --call height=256 --call width=256 --out small

      paritas port PixArt-alpha/PixArt-LCM-XL-2-1024-MS --out pixart-openvino
    """
    # What cannot succeed is refused before torch is imported and minutes pass.
    index = index_of(source) if not subfolder else None
    pipeline_engines = by_network("--engine", engine) if index is not None else engine
    if isinstance(pipeline_engines, dict):
        for each in pipeline_engines.values():
            refuse_options(each, mode=False, target=False, weights=False)
    else:
        refuse_options(engine, mode=bool(mode), target=bool(target), weights=bool(weights))
    asked = {
        "format": weights or "", "group_size": group_size, "symmetric": symmetric, "dataset": dataset,
        "subset_size": subset_size, "ratio": ratio, "sensitivity_metric": sensitivity_metric, "all_layers": all_layers,
        "backup_mode": backup_mode, "awq": awq, "scale_estimation": scale_estimation, "gptq": gptq,
        "lora_correction": lora_correction,
    }  # fmt: skip
    if index is not None:
        others: dict[str, Any] = {
            "task": task,
            "train": train,
            "autocast": autocast,
            "device": device,
            "inputs": inputs,
            "revision": revision,
            "class": model_class,
        }
        others |= {name.replace("_", "-"): value for name, value in asked.items() if name != "format"}
        return port_pipeline(
            source, index, out, engine, dynamic=dynamic, verify=verify, level=level.value, call=call, quiet=quiet,
            as_json=as_json, mode=mode, target=target, weights=weights, dtype=dtype, ov_config=ov_config, **others,
        )  # fmt: skip
    if call:
        raise InputError("--call is for pipelines. An example of a model:   --input NAME=SHAPE[:DTYPE]")
    from paritas import details, store
    from paritas.making import build_options, refuse_free_sizes

    properties = properties_of(ov_config)
    options, _ = build_options(engine, weights=asked, device=device, ov_config=properties)
    refuse_free_sizes(options, dynamic, task)
    store.check_target(out, force=force)
    given = examples_of(inputs) if inputs else None
    with Stages(f"{source} to {engine}", quiet=quiet) as stages, details.heard(stages.detail):
        stages("load")
        from paritas import pipeline
        from paritas.cli.models import named

        made = pipeline.port(
            named(source),
            engine,
            given,
            dtype.value if dtype else None,
            dynamic=dynamic,
            mode=mode or "",
            revision=revision,
            subfolder=subfolder,
            model_class=model_class,
            target=target or "cpu",
            weights=options.weights,
            task=task,
            device=device,
            ov_config=properties,
            train=train,
            autocast=autocast,
            progress=lambda stage: None if stage == "load" else stages(stage),
        )
        report: ParityReport | ComponentReports | None = None
        if verify:
            stages("verify")
            report = verified(made, level.value, source, stages)
        stages("save")
        made.save(out, force=force)
    show(made, out, report, stages.seconds, as_json)
    return OK if report is None or report.verdict == "agrees" else DIVERGES


#: Of a port for training, before it is written: `paritas verify --train` makes more.
FIRST_STEPS = 3


def verified(port: Port | Components[Port], level: str, source: str, stages: Stages) -> ParityReport | ComponentReports:
    """The port's report. A module in memory is loaded again as the command line named it, `file.py:factory`."""
    from paritas.components import Components

    one = next(iter(port.values())) if isinstance(port, Components) else port
    trained: dict[str, Any] = {"train": FIRST_STEPS} if one.manifest.settings.get("train") else {}
    report: Any = port.verify(level=level, progress=stages.detail, **trained)
    if one.manifest.source.kind == "module":
        steps = "".join(f" --train {count}" for count in trained.values())
        report = report.again_with(f"--original {shlex.quote(source)}{steps}")
    port.report = report
    return report


def refuse_options(name: str, *, mode: bool, target: bool, weights: bool) -> None:
    """Raise `InputError` for options that are other engines', `UnknownEngine` for an engine that is none."""
    from paritas.run.engine import about, all_about

    engine = about(name)
    if (mode and len(engine.modes) == 1) or (target and len(engine.targets) == 1):
        able = " and ".join(one.name for one in all_about() if len(one.modes) > 1 or len(one.targets) > 1)
        raise InputError(f"--mode and --target are for --engine {able}, not for {name}.")
    if weights and not engine.weight_formats:
        able = " and ".join(one.name for one in all_about() if one.weight_formats)
        raise InputError(f"--weights is for --engine {able}, not for {name}.")


def show(
    port: Port | Components[Port],
    out: Path,
    report: ParityReport | ComponentReports | None,
    seconds: dict[str, float],
    as_json: bool,
) -> None:
    """Print what was written to `out`, and its report."""
    from paritas import store
    from paritas.components import Components

    files = store.read_any(out, verify_checksums=False).manifest.files
    size = sum(int(entry["bytes"]) for entry in files.values())
    one = next(iter(port.values())) if isinstance(port, Components) else port
    manifest = one.manifest
    if as_json:
        value: dict[str, Any] = {
            "directory": str(out),
            "engine": manifest.engine,
            "dtype": manifest.dtype,
            "precision": one.session.precision,
            "mode": manifest.mode,
            "verdict": "not verified" if report is None else report.verdict,
            "bytes": size,
            "seconds": {stage: round(taken, 3) for stage, taken in seconds.items()},
            "notes": [str(note) for note in port.notes],
            "report": None if report is None else json.loads(report.to_json()),
        }
        print_json(value)
        return
    screen = console()
    if report is not None:
        from paritas.cli.report import print_reports

        print_reports(str(out), report)
    else:
        for note in port.notes:
            screen.print(f"note: {note}", markup=False)
        screen.print(f"Not verified. Do it:   paritas verify {out}", markup=False)
    pages = ", with PARITY.md and PARITY.html" if report is not None else ""
    screen.print(f"\nWritten: {out}, {size / 1e6:.1f} MB, {port!r}{pages}", markup=False)
    if report is not None:
        from paritas.verify import ComponentReports
        from paritas.verify.report.conclusion import next_steps

        several = isinstance(report, ComponentReports)
        telling = (
            next(one for one in report.values() if one.verdict == report.verdict)
            if isinstance(report, ComponentReports)
            else report
        )
        # Of several graphs none is measured or bisected by its directory.
        for what, command in next_steps(telling, str(out))[: 1 if several else None]:
            screen.print(f"To {what}:   {command}", markup=False, soft_wrap=True)
    for line in on_generation(port, out):
        screen.print(line, markup=False, soft_wrap=True)
    if report is not None and report.verdict != "agrees":
        words = {"diverges": "It DIVERGES from its original", "incomplete": "Its comparison is INCOMPLETE"}[
            report.verdict
        ]
        screen.print(
            f"{words}: it was written all the same, see {out / 'PARITY.md'} before you use it.", style="bold red"
        )


#: What `paritas generate` takes of a task's components.
_GIVEN = {"text2text-generation-with-past": '"TEXT"', "automatic-speech-recognition-with-past": "FILE.wav"}


def on_generation(port: Port | Components[Port], out: Path) -> list[str]:
    """How the port of a model that generates is used for it; what it cannot, if it has no cache."""
    from paritas.caches import remembered
    from paritas.capture.generation import can_generate
    from paritas.components import Components

    if isinstance(port, Components):
        return [f"To generate:   paritas generate {out} {_GIVEN[port.task]}"] if port.task in _GIVEN else []
    if remembered(port.manifest):
        return [f'To generate:   paritas generate {out} "Once upon a time"   or   paritas chat {out}']
    if not can_generate(port.original(in_files=True)):
        return []
    source = port.manifest.source.id or "MODEL"
    return [
        "This port has no cache: it computes all tokens again for each new one. To generate, go on with a cache:",
        f"  paritas port {source} --engine openvino --task text-generation-with-past --out OTHER",
        f"  paritas.transformers.AutoModelForCausalLM.from_pretrained({source!r}, engine={port.manifest.engine!r})",
    ]


def examples_of(given: list[str]) -> dict[str, Any]:
    """`name=2x16:int64` as tensors: whole numbers 0 and 1, ones for masks, floats normal; seeded."""
    import torch

    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        shape, _, kind = rest.partition(":")
        dtype = getattr(torch, kind or "float32", None)
        try:
            sizes = [int(size) for size in shape.split("x")]
        except ValueError:
            sizes = []
        if not (equals and name.isidentifier() and sizes and min(sizes) > 0 and isinstance(dtype, torch.dtype)):
            raise InputError(f"--input {text!r} is not NAME=SHAPE[:DTYPE], as in input_ids=2x16:int64.")
        if name in found:
            raise InputError(f"--input {name} is given twice.")
        if dtype.is_floating_point:
            found[name] = torch.randn(sizes, generator=generator).to(dtype)
        elif name.endswith("mask"):
            found[name] = torch.ones(sizes, dtype=dtype)
        else:
            found[name] = torch.randint(0, 2, sizes, generator=generator).to(dtype)
    return found
