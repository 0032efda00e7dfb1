# SPDX-License-Identifier: Apache-2.0
"""`paritas compare`: is a re-implementation in PyTorch the model that it was written after?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from paritas.cli.options import Debug, Examples, Inputs, Json, Quiet
from paritas.cli.outcome import DIVERGES, OK, print_json, say
from paritas.cli.progress import Stages

Name = "A hub id, a directory, or package.module:factory (or file.py:factory), whose code is then run."


def compare(
    original: Annotated[str, typer.Argument(help=Name)],
    other: Annotated[str, typer.Argument(help=f"The re-implementation. {Name}")],
    rules: Annotated[
        Path | None,
        typer.Option("--rules", "-r", metavar="FILE.toml", help="Which weight of the one is which of the other."),
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print rules guessed from shapes and names, and do no more.")
    ] = False,
    inputs: Inputs = None,
    examples: Examples = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", metavar="FILE.safetensors", help="The original's weights under the other model's names."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.md", help="Write the whole report as Markdown.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare a re-implementation in PyTorch with its original: weights, outputs, and module by module.

    Weights go where the rules say, those of the same name to one another. Then each module gets the inputs that its
    twin in the original got, in float64, where any difference is a fault; the innermost ones are named, with lines.

    **Examples**

      paritas compare ./original mine.py:build --suggest > rules.toml

      paritas compare ./original mine.py:build --rules rules.toml

      paritas compare theirs.model:make mine.model:make -r rules.toml --input x=2x16:float32 --write mine.safetensors
    """
    with Stages(f"{other} against {original}", quiet=quiet) as stages:
        stages("load")
        from paritas.apps.reimplementation import compare
        from paritas.cli.commands.port import examples_of
        from paritas.cli.models import named
        from paritas.cli.verify import arrays

        one, two = named(original), named(other)
        if suggest:
            found = compare.suggested(one, two, rules)
        else:
            stages("compare")
            feed = arrays(inputs) if inputs else examples_of(examples) if examples else None
            result = compare.compare(one, two, rules=rules, inputs=feed, write=write)
    if suggest:
        if as_json:
            print_json({"rules": found})
        else:
            say(found)
        return OK
    if report is not None:
        beside = report.with_name(f".{report.name}.new")
        beside.write_text(result.to_markdown(), encoding="utf-8")
        beside.replace(report)
    if as_json:
        print_json({"verdict": result.verdict, "report": json.loads(result.to_json())})
    else:
        say(str(result))
    return OK if result.verdict == "agrees" else DIVERGES
