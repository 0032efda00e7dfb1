# SPDX-License-Identifier: Apache-2.0
"""`paritas convert`: checkpoints of other libraries, for transformers and for MindSpore."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from paritas.cli.options import Debug, Json, Quiet
from paritas.cli.outcome import DIVERGES, OK, print_json, say
from paritas.cli.progress import Stages

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="model*.pt or checkpoint*.pt, dict.LANG.txt twice, and bpecodes.")
]
ConvertOut = Annotated[Path, typer.Argument(metavar="OUT", help="The directory to write: new or empty.")]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option("--checkpoint", metavar="NAME", help="Which file of DIR, where there are several; repeatable."),
]
Average = Annotated[
    bool, typer.Option("--average", help="The mean of several checkpoints of one training (not of an ensemble).")
]
Beams = Annotated[int, typer.Option(min=1, help="Beams to search with, if nothing else is asked for.")]
Penalty = Annotated[float, typer.Option(help="The exponent of the length by which a translation's score is divided.")]
Stopping = Annotated[
    bool, typer.Option("--early-stopping/--no-early-stopping", help="Stop when there are as many as beams.")
]


def fairseq(
    directory: Directory,
    out: ConvertOut,
    checkpoint: Checkpoints = None,
    average: Average = False,
    num_beams: Beams = 5,
    length_penalty: Penalty = 1.0,
    early_stopping: Stopping = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Turn a translator of fairseq's, as wmt19's are, into a checkpoint of transformers' FSMT.

    Nothing of it is executed: only tensors, plain values and argparse.Namespace are unpickled. Transformers then
    loads what was written, and every weight is compared.

    **Examples**

      paritas convert fairseq wmt19.en-de wmt19-en-de --checkpoint model4.pt

      paritas convert fairseq my-training my-model --average
    """
    with Stages(f"{directory} -> {out}", quiet=quiet) as stages:
        from paritas.apps.translate.fairseq import Search, convert

        done = convert(
            directory,
            out,
            checkpoints=checkpoint or (),
            average=average,
            search=Search(num_beams, length_penalty, early_stopping),
            told=stages,
        )
    if as_json:
        print_json({**dataclasses.asdict(done), "directory": str(done.directory)})
    else:
        say(str(done))
    return OK


Source = Annotated[Path, typer.Argument(metavar="FILE", help="A .pt, .bin, .safetensors or .ckpt with weights.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .ckpt, .safetensors or .pt.")]
OfModel = Annotated[
    str,
    typer.Option("--model", metavar="NAME", help="Whose weights they should be: of open_clip's names, or OpenAI's."),
]


def clip(
    source: Source,
    out: Target,
    model: OfModel = "",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Turn weights of OpenAI's CLIP or of open_clip into a file of another kind, PyTorch's or MindSpore's.

    Nothing of the file is executed, of a TorchScript archive the tensors are read. What was written is read again,
    and every tensor compared by name, shape, dtype and value. With --model the exit code is 1 if names or shapes are
    not the model's; they are listed.

    **Examples**

      paritas convert clip ViT-B-32.pt ViT-B-32.ckpt --model ViT-B/32

      paritas convert clip open_clip_model.safetensors RN50.ckpt
    """
    with Stages(f"{source} -> {out}", quiet=quiet):
        from paritas.open_clip.conversion import convert

        done = convert(source, out, model=model)
    if as_json:
        print_json({**dataclasses.asdict(done), "source": str(done.source), "out": str(done.out)})
    else:
        say(str(done))
    return OK if done.fits else DIVERGES
