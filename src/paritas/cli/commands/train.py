# SPDX-License-Identifier: Apache-2.0
"""`paritas train`: libraries' own training, with models whose forward and backward an engine computes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from paritas.cli.options import ENGINE_NAMES, Debug, Json, Mode, either, engine_names
from paritas.cli.outcome import DIVERGES, OK, print_json, say

TrainEngine = Annotated[
    str,
    typer.Option("--engine", "-e", autocompletion=engine_names, help=f"{either(ENGINE_NAMES)}, if it has gradients."),
]
Flags = Annotated[
    list[str] | None,
    typer.Argument(metavar="FLAGS", help="Those of open_clip_train.main, as --train-data, --epochs, --batch-size."),
]


def clip(
    flags: Flags = None,
    engine: TrainEngine = "mindspore",
    mode: Mode = None,
    debug: Debug = False,
) -> int:
    """Train a model of OpenCLIP by open_clip's own code, with its flags, on an engine.

    Losses (CLIP's, local and gathered, SigLIP's, CoCa's, distillation), schedulers, accumulation, data and
    checkpoints are open_clip_train's: what is written resumes in open_clip, and its checkpoints here. --model may be
    a file of a configuration. --device is cpu and --precision fp32 where they are not given. Needs
    pip install 'paritas[clip-train]'.

    **Examples**

      paritas train clip --model ViT-B-32 --dataset-type csv --train-data pairs.tsv --epochs 5 --batch-size 64

      paritas train clip --model small.json --dataset-type synthetic --train-num-samples 64 --resume latest --name a
    """
    from paritas.open_clip.training import train

    train(flags or (), engine, mode or "")
    return OK


class Scripts(TyperGroup):
    """A group of which a word that is no command is the script of one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["script", *args])


Script = Annotated[str, typer.Argument(metavar="SCRIPT", help="A file of Python's.")]
ItsFlags = Annotated[list[str] | None, typer.Argument(metavar="FLAGS", help="What the script is given.")]
Processes = Annotated[int, typer.Option("--processes", "-p", help="How many train together on this machine.")]
Zero = Annotated[
    int, typer.Option(help="The stage of ZeRO: 1, 2 or 3, by accelerate and DeepSpeed.", show_default=False)
]
Offload = Annotated[str, typer.Option(help="With --zero 2 or 3: optimizer, or with 3 optimizer,param.")]
ZeroConfig = Annotated[
    Path | None, typer.Option(help="A configuration of DeepSpeed's own, as JSON, in the place of --zero and --offload.")
]
MixedPrecision = Annotated[
    str,
    typer.Option(
        metavar="bf16|fp16", help="What accelerate and TrainingArguments compute in where the script says nothing."
    ),
]
TrainOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write the trained model into OUT/model, and a verified port into OUT/port."),
]
PortTo = Annotated[
    str, typer.Option(autocompletion=engine_names, help="The engine of the port in OUT; by default the best one here.")
]


def script(
    script: Script,
    flags: ItsFlags = None,
    engine: TrainEngine = "mindspore",
    mode: Mode = None,
    processes: Processes = 0,
    zero: Zero = 0,
    offload: Offload = "",
    zero_config: ZeroConfig = None,
    mixed_precision: MixedPrecision = "",
    out: TrainOut = None,
    port_to: PortTo = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Run a script that trains, with its model on an engine, in one process or several, and prove what comes out.

    The script is as it is for PyTorch: it gives its model to transformers' Trainer, to accelerate's prepare() or to
    paritas.trainable(). Several processes are started by msrun for MindSpore, whose collectives they use, by
    torchrun for torch, and with --zero by accelerate launch, in which case it is checked that DeepSpeed divides what
    it was asked to. Where a process fails, the others are stopped, and its reason is told. Needs
    pip install 'paritas[train]', and with --zero 'paritas[zero]'.

    **Examples**

      paritas train finetune.py --epochs 3

      paritas train finetune.py --engine mindspore --processes 2 --out tuned

      paritas train finetune.py --mixed-precision fp16

      paritas train finetune.py --engine torch --zero 3 --offload optimizer,param --out tuned --port-to openvino
    """
    from paritas.apps.training.launch import proven, train
    from paritas.apps.training.wish import Wish
    from paritas.run.engine import about, default_engine

    divided = tuple(filter(None, (word.strip() for word in offload.split(","))))
    count = processes or (2 if zero or zero_config else 1)
    target = str(out.resolve()) if out else ""
    wish = Wish(
        script, about(engine).name, mode or "", count, zero, divided, str(zero_config or ""), target,
        precision=mixed_precision,
    )  # fmt: skip
    done = train(wish, flags or (), lambda line: say(line, err=as_json))
    told: dict[str, Any] = {"model": done.model, "processes": [dict(held) for held in done.held]}
    for rank, held in enumerate(done.held):
        megabytes = held["optimizer_bytes"] / 2**20
        say(f"Process {rank}: ZeRO-{held['stage']}, {megabytes:.1f} MiB of the optimizer's state", err=as_json)
    code = OK
    if done.model:
        report = proven(done.model, wish.out, port_to or default_engine())
        say(f"{done.model} is the trained model; its port is in {wish.out}/port: {report.verdict}", err=as_json)
        told |= {"port": f"{wish.out}/port", "verdict": report.verdict}
        code = OK if report.verdict == "agrees" else DIVERGES
    if as_json:
        print_json(told)
    return code
