# SPDX-License-Identifier: Apache-2.0
"""`paritas batch`: the answers of a port to a whole table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.bar import Bar
from paritas.cli.options import Debug, Device, Json, OvConfig, Quiet
from paritas.cli.outcome import DIVERGES, OK, print_json, say
from paritas.cli.properties import properties_of
from paritas.errors import InputError

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a port.")]
Input = Annotated[
    list[Path], typer.Option("--input", "-i", metavar="FILE.parquet", help="A table, or a folder of them; repeatable.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="What is written, or gone on with if it was begun.")
]
Signature = Annotated[
    str,
    typer.Option("--signature", help="What is asked, as paritas serve lists it in a model's metadata: tensors, say."),
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="INPUT=COLUMN", help="Where an input is that the table calls otherwise."),
]
Keep = Annotated[
    list[str] | None, typer.Option("--keep", metavar="COLUMN", help="Copied beside the answers; repeatable.")
]
Part = Annotated[int, typer.Option("--part", min=1, help="Rows of a file of answers.")]
Largest = Annotated[int, typer.Option("--max-batch-size", min=1, help="Rows that are computed at once.")]
Processes = Annotated[
    int, typer.Option("--processes", min=0, help="So many at a time, each with an engine of its own; 0: this one.")
]
Ray = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Through Ray Data on a cluster: auto, local, HOST:PORT or ray://HOST:PORT. All see the same folders.",
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Of Ray's: how many engines there are at most.")]


def batch(
    directory: Directory,
    tables: Input,
    output: Output,
    signature: Signature = "",
    column: Column = None,
    keep: Keep = None,
    part: Part = 1024,
    max_batch_size: Largest = 32,
    processes: Processes = 0,
    ray: Ray = "",
    workers: Workers = 2,
    device: Device = "",
    ov_config: OvConfig = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Answer every row of a table: classes of images, embeddings of texts, raw tensors.

    The answers are files of Parquet in a folder, with the number of each row and an `error` where there is no answer.
    It may be killed at any time, and goes on where it was when the same is run again: no row is lost, none is there
    twice. Exit code 1 says that rows have failed. Needs pip install 'paritas[serve,parquet]', and with --ray
    'paritas[ray]'.

    **Examples**

      paritas batch vit-openvino --input images.parquet --output classes/ --keep id

      paritas batch bert-openvino --input data/ --output out/ --column text=review --ray auto --workers 8
    """
    from paritas.serve import batch as batches

    plan = batches.planned(
        directory,
        tables,
        signature=signature,
        columns=_pairs(column or ()),
        keep=keep or (),
        part=part,
        device=device,
        config=properties_of(ov_config),
        together=max_batch_size,
    )
    with Bar("rows answered", "rows", quiet=quiet or as_json) as bar:
        if ray:
            from paritas.serve.on_ray import run_batch

            found = run_batch(plan, output, ray, bar, workers=workers)
        else:
            found = batches.run(plan, output, bar, processes=processes)
    about: dict[str, Any] = {"rows": found.rows, "failed": found.failed, "parts": found.parts, "passed": found.passed}
    if as_json:
        print_json({"output": str(output), **about})
    elif not quiet:
        before = f", {found.passed} of them from before" if found.passed else ""
        say(f"{found.rows} rows in {found.parts} parts{before}: {output}")
    if found.failed:
        say(f"{found.failed} rows have no answer: their column `error` says why.", err=True)
    return DIVERGES if found.failed else OK


def _pairs(given: Any) -> dict[str, str]:
    found = {}
    for one in given:
        name, _, column = one.partition("=")
        if not name or not column:
            raise InputError(f"--column {one!r} is no INPUT=COLUMN, as text=review.")
        found[name] = column
    return found
