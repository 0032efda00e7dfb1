# SPDX-License-Identifier: Apache-2.0
"""`paritas cache`: the ports that `paritas.transformers` keeps: which there are, removing them, making them before."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated, Any

import typer

from paritas.cli.commands.translate import EngineOption
from paritas.cli.options import Debug, Device, Json, Quiet, Weights
from paritas.cli.outcome import OK, console, print_json, say
from paritas.cli.progress import Stages
from paritas.errors import InputError

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="As paritas cache ls shows them: names, models, classes."),
]
All = Annotated[bool, typer.Option("--all", help="Everything that is kept.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A hub id or the directory of a checkpoint.")]
PipelineTask = Annotated[
    str, typer.Option("--task", help="As transformers.pipeline names it; what config.json says if not given.")
]


def ls(as_json: Json = False, debug: Debug = False) -> int:
    """List the ports that are kept: of which model, for which calls, how large, and when last used.

    **Examples**

      paritas cache ls

      paritas cache ls --json | jq '.ports[].model'
    """
    from paritas.dropin import kept

    found, place = kept.entries(), kept.directory()
    total = sum(one.bytes for one in found)
    if as_json:
        ports = [{**dataclasses.asdict(one), "place": str(one.place), "name": one.name} for one in found]
        print_json({"directory": str(place or ""), "bytes": total, "ports": ports})
        return OK
    if place is None:
        say("No ports are kept: PARITAS_CACHE is empty.")
        return OK
    if found:
        console().print(_table(found))
    say(f"{len(found)} ports, {total / 1e6:.1f} MB, in {place}")
    return OK


def _table(found: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("name", "model", "class", "call", "engine", "weights", "MB", "last used"):
        table.add_column(title, justify="right" if title == "MB" else "left", overflow="fold")
    for one in found:
        used = datetime.datetime.fromtimestamp(one.used).strftime("%Y-%m-%d %H:%M")
        cells = (one.name, one.model or "in memory", one.model_class, one.call, one.engine, one.weights)
        table.add_row(*map(Text, (*cells, f"{one.bytes / 1e6:.1f}", used)))
    return table


def rm(names: Names = None, everything: All = False, as_json: Json = False, debug: Debug = False) -> int:
    """Remove ports that are kept. They are made again when they are next needed.

    **Examples**

      paritas cache rm openai/whisper-tiny

      paritas cache rm 3f9c1a7b20de

      paritas cache rm --all
    """
    from paritas.dropin import kept

    if bool(names) == everything:
        raise InputError("Say what to remove: names, as paritas cache ls shows them, or --all.")
    meant = kept.entries() if everything else kept.chosen(names or [])
    freed = kept.remove(meant)
    if as_json:
        print_json({"removed": [one.name for one in meant], "bytes": freed})
    else:
        say(f"Removed {len(meant)} ports, {freed / 1e6:.1f} MB.")
    return OK


def warm(
    model: Model,
    task: PipelineTask = "",
    engine: EngineOption = None,
    weights: Weights = None,
    device: Device = "",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make the ports now that a first call would make, so that it need not wait.

    The model is called once as its tokenizer or processor would call it, and generates two tokens if it generates.

    **Examples**

      paritas cache warm ./my-bert

      paritas cache warm openai/whisper-tiny --task automatic-speech-recognition
    """
    with Stages(model, quiet=quiet) as stages:
        stages("load")
        from paritas.apps.warm import warm as warmed

        made = warmed(model, task=task, engine=engine, weights=weights or "", device=device, progress=stages)
    if as_json:
        print_json({"model": model, "ports": made})
    else:
        for line in made:
            say(line)
        say(f"{len(made)} ports are kept for the next start of {model}.")
    return OK
