# SPDX-License-Identifier: Apache-2.0
"""The options of the commands, each with the words of its help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.options import BACKUP, SENSITIVITY, SUBSET
from paritas.run.engine import Engine, all_about


class Dtype(StrEnum):
    fp32, bf16, fp16 = "fp32", "bf16", "fp16"
    float32, bfloat16, float16 = "float32", "bfloat16", "float16"


class LevelName(StrEnum):
    outputs, modules, nodes = "outputs", "modules", "nodes"


# --- what engines have -------------------------------------------------------------------------

#: The best one first.
_EVERY = sorted(all_about(), key=lambda one: one.rank)
_WITH_MODES = [one for one in _EVERY if len(one.modes) > 1]
_WITH_TARGETS = [one for one in _EVERY if len(one.targets) > 1]
_WITH_FORMATS = [one for one in _EVERY if one.weight_formats]

ENGINE_NAMES = [one.name for one in _EVERY]

#: Those that are compared with the original.
OTHER_ENGINES = [one.name for one in _EVERY if not one.is_original]


def engine_names(incomplete: str) -> list[str]:
    """What a shell completes an engine to."""
    return [name for name in ENGINE_NAMES if name.startswith(incomplete.casefold())]


def either(names: Sequence[str]) -> str:
    """ "a, b or c"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _choice(lists: Iterable[Iterable[str]]) -> dict[str, Any]:
    """What makes an option take one of these words, as it does for those of an Enum."""
    words = list(dict.fromkeys(name for names in lists for name in names))

    def one_of(value: str) -> str:
        if value not in words:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, words))}.")
        return value

    return {"parser": one_of, "metavar": f"<{'|'.join(words)}>"}


def _only(engines: Sequence[Engine]) -> str:
    return f"{either([one.label for one in engines])} only"


# --- all commands ------------------------------------------------------------------------------

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout, errors too; progress stays on stderr.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# --- port --------------------------------------------------------------------------------------

SourceName = Annotated[
    str,
    typer.Argument(
        help="A hub id (openai/clip-vit-base-patch32), the directory of a checkpoint, or your own code as "
        "package.module:factory or file.py:factory, which is then run."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The directory to write: new, empty, or a port to replace.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        "-e",
        autocompletion=engine_names,
        help=f"{either(ENGINE_NAMES)}; see paritas doctor. Of a pipeline also by network: unet=openvino,vae=mindspore.",
    ),
]
Precision = Annotated[
    Dtype | None, typer.Option("--dtype", help="Precision of the port; the model's own if not given.")
]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        **_choice(one.modes for one in _WITH_MODES),
        help=f"{_only(_WITH_MODES)}; graph, or the port's own, if not given.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        **_choice(one.targets for one in _WITH_TARGETS),
        help=f"{_only(_WITH_TARGETS)}: whose idioms to write; cpu if not given.",
    ),
]
Task = Annotated[
    str,
    typer.Option(
        "--task",
        help="What the model is for; what its architecture says if not given. text-generation-with-past: it goes on "
        "with a cache, which an OpenVINO file keeps itself. text-generation: one call, without a cache.",
    ),
]
_FORMATS = _choice(one.weight_formats for one in _WITH_FORMATS)


def _formats(value: str) -> str:
    """One for all, or one for each network of a pipeline: unet=int8,vae=fp16."""
    for part in value.split(","):
        _FORMATS["parser"](part.partition("=")[2].strip() if "=" in value else part)
    return value


Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        parser=_formats,
        metavar=_FORMATS["metavar"],
        help=f"{_only(_WITH_FORMATS)}: round the weights to so many bits; the report says what that costs. Of a "
        "pipeline also by network: unet=int8,vae=fp16.",
    ),
]
Call = Annotated[
    list[str] | None,
    typer.Option(
        "--call",
        metavar="NAME=VALUE",
        help="Of a pipeline: an argument of the call that is made, as height=512 or image=cat.png; repeatable.",
    ),
]
ComponentName = Annotated[
    str,
    typer.Option("--component", metavar="NAME", help="Of a pipeline: this port alone, as unet or vae_decoder."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="CPU|GPU|NPU|AUTO",
        help="Where the port runs, as paritas doctor lists it; the CPU if not given. An NPU wants --static.",
    ),
]
OvConfig = Annotated[
    list[str] | None,
    typer.Option(
        "--ov-config",
        metavar="NAME=VALUE",
        help="OpenVINO only: a property of its own, as NUM_STREAMS=2 or INFERENCE_NUM_THREADS=8; repeatable.",
    ),
]
GroupSize = Annotated[
    int | None,
    typer.Option(
        "--group-size", metavar="N", help="With --weights int4: how many share a scale; 128 if not given; -1: a row."
    ),
]
Symmetric = Annotated[bool, typer.Option("--symmetric", help="With --weights int8 or int4: no zero points.")]
_NNCF = "What int4 costs less with: NNCF, by the extra nncf"
Dataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="FILE", rich_help_panel=_NNCF, help="A text on which weights are rounded."),
]
SubsetSize = Annotated[
    int | None,
    typer.Option(
        "--subset-size", metavar="N", min=1, rich_help_panel=_NNCF, help=f"Samples of the text; {SUBSET} if not given."
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio", metavar="0..1", rich_help_panel=_NNCF, help="The share of the weights that get 4 bits; others get 8."
    ),
]
SensitivityMetric = Annotated[
    str | None,
    typer.Option(
        "--sensitivity-metric",
        **_choice([SENSITIVITY]),
        rich_help_panel=_NNCF,
        help="With --ratio: by which the weights that get 8 bits are found.",
    ),
]
AllLayers = Annotated[
    bool, typer.Option("--all-layers", rich_help_panel=_NNCF, help="4 bits for tables and the last matrix too.")
]
BackupMode = Annotated[
    str | None,
    typer.Option("--backup-mode", **_choice([BACKUP]), rich_help_panel=_NNCF, help="What others get than 4 bits."),
]
Awq = Annotated[bool, typer.Option("--awq", rich_help_panel=_NNCF, help="Scale activations; without a text too.")]
ScaleEstimation = Annotated[
    bool, typer.Option("--scale-estimation", rich_help_panel=_NNCF, help="Choose scales by what is computed.")
]
Gptq = Annotated[bool, typer.Option("--gptq", rich_help_panel=_NNCF, help="Make up for each error in what follows.")]
LoraCorrection = Annotated[
    bool, typer.Option("--lora-correction", rich_help_panel=_NNCF, help="Small matrices beside that hold the error.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Subfolder = Annotated[str, typer.Option(help="Where in the checkpoint the model is.")]
ModelClass = Annotated[
    str | None, typer.Option("--class", help="A class of transformers; the one that config.json names if not given.")
]
Dynamic = Annotated[
    bool, typer.Option("--dynamic/--static", help="Leave free every dimension that the model does, or none.")
]
Examples = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=SHAPE[:DTYPE]", help="An example input, as input_ids=2x16:int64; repeatable."
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Compare the port with its original before writing it.")
]
Level = Annotated[
    LevelName,
    typer.Option(
        "--level",
        help="outputs; modules for the table of where the error arises; nodes to compute each node by itself.",
    ),
]
Gradients = Annotated[
    bool,
    typer.Option("--gradients", help="Compare backwards too: every parameter's gradient, and every node's by itself."),
]
Train = Annotated[
    bool,
    typer.Option(
        "--train", help="For training, MindSpore only: the loss in the graph. Its --input has labels=SHAPE:int64 too."
    ),
]
Autocast = Annotated[
    str,
    typer.Option(
        "--autocast", metavar="DTYPE", help="With --train: in mixed precision, bfloat16 or float16, as torch.autocast."
    ),
]
TrainSteps = Annotated[
    int | None,
    typer.Option(
        "--train",
        metavar="STEPS",
        min=1,
        help="Of a port for training: train it beside the original for so many steps, on the same batches.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a port even if files in it were added or edited.")]

# --- adopt -------------------------------------------------------------------------------------

AdoptedFile = Annotated[Path, typer.Argument(help="An OpenVINO model: its .xml file.")]
AdoptedOriginal = Annotated[
    str, typer.Option("--original", metavar="SOURCE", help="Hub id or directory of what it was converted from.")
]

# --- ports on disk -----------------------------------------------------------------------------

PortDirectory = Annotated[Path, typer.Argument(help="A port, as paritas port wrote it.")]
AllowModified = Annotated[
    bool,
    typer.Option(
        "--allow-modified",
        help="Take a port whose files were edited. Its code runs unchecked: only for your own edits.",
    ),
]
Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", metavar="FILE.npz", help="Arrays by input name to use; generated if not given."),
]
Original = Annotated[
    str | None,
    typer.Option(
        "--original",
        metavar="SOURCE",
        help="Hub id, directory or package.module:factory of the original; what port.json says if not given.",
    ),
]
Search = Annotated[
    float | None,
    typer.Option(
        "--search",
        metavar="SECONDS",
        min=0.1,
        help="Then look so long for the inputs on which the port is furthest off; the port keeps the worst.",
    ),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help="Of a language model: compare perplexity and most probable tokens on this text."
    ),
]
StepName = Annotated[
    str | None,
    typer.Option(
        "--step",
        metavar="NAME",
        help='Look into one step of a generation alone, as "left padding, step 3" (the report has their names).',
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the generated inputs and of the search.")]
Attach = Annotated[bool, typer.Option("--attach", help="Replace the port's parity.json, PARITY.md and PARITY.html.")]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page that needs nothing else.")
]
Png = Annotated[
    Path | None,
    typer.Option("--png", metavar="FILE", help="Draw the error per layer (needs matplotlib: paritas[report])."),
]
ReportPaths = Annotated[list[Path], typer.Argument(metavar="PATH...", help="Ports, or files of reports: parity.json.")]
Repro = Annotated[
    Path | None,
    typer.Option(
        "--repro",
        metavar="OUTDIR",
        help="With --level nodes: write a script for each guilty node that runs without paritas.",
    ),
]
BisectOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The directory of the script and its tensors; DIRECTORY-bisect if not given."),
]
BisectSeconds = Annotated[float, typer.Option("--seconds", min=1, help="How long to search at most.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long to measure each contender.")]
Baseline = Annotated[bool, typer.Option("--baseline/--no-baseline", help="Measure PyTorch eager beside the port.")]

# --- demo --------------------------------------------------------------------------------------

DemoOut = Annotated[Path, typer.Option("--out", "-o", help="Where the ports go, one directory each.")]
DemoEngines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        autocompletion=engine_names,
        help=f"{either(OTHER_ENGINES)}; repeatable; all that are here if not given.",
    ),
]
Measure = Annotated[bool, typer.Option("--bench/--no-bench", help="Measure the time per call against PyTorch eager.")]
