# SPDX-License-Identifier: Apache-2.0
"""`paritas train`: libraries' own training, with models whose forward and backward an engine computes."""

from __future__ import annotations

from typing import Annotated

import typer

from paritas.cli.options import ENGINE_NAMES, Debug, Mode, either, engine_names
from paritas.cli.outcome import OK

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
