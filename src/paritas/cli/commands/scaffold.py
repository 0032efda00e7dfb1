# SPDX-License-Identifier: Apache-2.0
"""`paritas scaffold op`: the files of an operator that has no lowering yet, in a source checkout."""

from __future__ import annotations

from typing import Annotated

import typer

from paritas.cli.options import Debug, Json, Quiet, engine_names
from paritas.cli.outcome import OK, print_json, say


def op(
    target: Annotated[
        str, typer.Argument(help="The exact overload, as a report of what is missing names it: aten.foo.default")
    ],
    engine: Annotated[
        str, typer.Option("--engine", "-e", autocompletion=engine_names, help="mindspore or openvino.")
    ] = "mindspore",
    file: Annotated[
        str, typer.Option("--file", help="The family's file, special.py; that of similar operators if not given.")
    ] = "",
    calls: Annotated[
        str, typer.Option("--calls", metavar="ops.NAME", help="A function of the engine's that computes it: the body.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be added, and write nothing.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the function, the schema and the test cases of an operator: all but its body.

    The function refuses until it has a body, and its cases, made of PyTorch's own samples where there are any, fail
    until that body is right. Beside it, as a comment, is how PyTorch computes the operator out of simpler ones.

    **Examples**

      paritas scaffold op aten.special_airy_ai.default --dry-run

      paritas scaffold op aten.special_bessel_j0.default --calls ops.bessel_j0
    """
    from pathlib import Path

    import paritas
    from paritas.apps.scaffold.operator import scaffold

    made = scaffold(target, engine=engine, file=file, calls=calls)
    if not dry_run:
        made.write(Path(paritas.__file__).resolve().parents[2])
    if as_json:
        edits = [{"file": str(edit.path), "added": edit.added} for edit in made.edits]
        print_json({"target": made.target, "schema": made.schema, "written": not dry_run, "edits": edits})
    else:
        say(str(made))
        if not dry_run:
            say(f"\nFill in the body, and add the arguments at which it could go wrong; then   {made.next}")
    return OK
