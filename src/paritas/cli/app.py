# SPDX-License-Identifier: Apache-2.0
"""The commands in one place. Their modules import torch and the engines inside the functions: help is instant."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from paritas.cli.commands import (
    adopt,
    batch,
    bench,
    bisect,
    cache,
    chat,
    compare,
    convert,
    demo,
    difference,
    doctor,
    evaluate,
    generate,
    inspect,
    parity,
    port,
    reinforcement,
    report,
    scaffold,
    search,
    serve,
    speech,
    support,
    train,
    translate,
    verify,
)
from paritas.cli.outcome import guarded

EPILOG = (
    "Exit codes: 0 all is well; 1 the port diverges, or could not be compared in full; 2 bad input; "
    "3 a bug in Paritas; 130 Ctrl-C."
)

app = typer.Typer(
    name="paritas",
    help="Port pretrained PyTorch models to other engines, and prove that nothing changed on the way.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: What runs where only ports are run. All others port or verify something, for which torch has to be there.
BARE = (generate, chat, report, bench, inspect, doctor)

PORTS, FAULTS, APPS, MACHINE, MAINTAIN = (
    "Port and use", "Find the fault", "Applications", "This machine", "Work on Paritas",
)  # fmt: skip

for panel, modules in (
    (PORTS, (port, generate, chat, serve, batch, verify, report, bench, inspect, adopt)),
    (FAULTS, (bisect, compare)),
    (MACHINE, (doctor,)),
    (APPS, (translate, speech)),
    (MAINTAIN, (support, parity, difference)),
):
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        needs = "" if module in BARE else "serve" if module in (serve, batch) else "port"
        app.command(name, epilog=EPILOG, rich_help_panel=panel)(guarded(getattr(module, name), needs, name))

for name, panel, words, commands in (
    (
        "cache",
        MACHINE,
        "The ports that are kept for the next start.",
        (cache.ls, cache.rm, cache.warm),
    ),
    ("eval", APPS, "Measure the quality of a translator.", (evaluate.bleu, evaluate.search)),
    (
        "convert",
        APPS,
        "Checkpoints of other libraries, for transformers and MindSpore.",
        (convert.fairseq, convert.clip),
    ),
    ("scaffold", MAINTAIN, "Files for what is to be added to Paritas.", (scaffold.op,)),
    (
        "search",
        APPS,
        "Index texts, and ask for what they mean.",
        (search.index, search.query, search.add, search.delete, search.info, search.export, search.evaluate),
    ),
):
    group = typer.Typer(
        help=words,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in commands:
        needs = "" if command in (cache.ls, cache.rm) else "search" if name == "search" else "port"
        called = "eval" if command is search.evaluate else command.__name__  # which Python has of its own
        group.command(called, epilog=EPILOG)(guarded(command, needs, f"{name} {called}"))
    app.add_typer(group, name=name, rich_help_panel=panel)

trainers = typer.Typer(
    cls=train.Scripts,
    help="Train on an engine: by a script of PyTorch's (paritas train SCRIPT), by a library, or in environments.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: What is none of our options is the library's.
THEIRS = {"ignore_unknown_options": True, "allow_interspersed_args": True}
trainers.command("clip", epilog=EPILOG, context_settings=THEIRS)(guarded(train.clip, "port", "train clip"))
trainers.command("script", epilog=EPILOG, context_settings=THEIRS)(guarded(train.script, "port", "train SCRIPT"))
for learns in (reinforcement.ppo, reinforcement.dqn, reinforcement.reinforce):
    trainers.command(learns.__name__, epilog=EPILOG)(guarded(learns, "rl", f"train {learns.__name__}"))
app.add_typer(trainers, name="train", rich_help_panel=APPS)

# The main job, and beside it demonstrations of single models.
demos = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
demos.callback(epilog=EPILOG)(guarded(demo.demo, "port", "demo"))
demos.command("clip", epilog=EPILOG)(guarded(demo.clip, "port", "demo clip"))
demos.command("pixart", epilog=EPILOG)(guarded(demo.pixart, "port", "demo pixart"))
demos.command("playlist", epilog=EPILOG)(guarded(demo.playlist, "port", "demo playlist"))
app.add_typer(demos, name="demo", rich_help_panel=MACHINE)


def _version(wanted: bool) -> None:
    if wanted:
        from paritas import __version__

        typer.echo(f"paritas {__version__}")
        raise typer.Exit


@app.callback()
def paritas(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Port pretrained PyTorch models to other engines, and prove that nothing changed on the way."""


def main() -> None:
    """The entry point `paritas`."""
    # Python looks for garbage after every 700 objects: a fifth of the time that importing torch takes.
    gc.set_threshold(10_000)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except KeyboardInterrupt:  # before a command began, or in the middle of leaving one
        sys.exit(130)


def _terminated(number: int, frame: FrameType | None) -> None:
    # As an exception, so that temporary directories are removed as they are after Ctrl-C.
    sys.exit(128 + number)
