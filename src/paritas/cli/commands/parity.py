# SPDX-License-Identifier: Apache-2.0
"""`paritas parity`: the numerical parity tables that hand ports publish, for the same models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from paritas.cli.bar import Bar
from paritas.cli.options import OTHER_ENGINES, Debug, Json, Quiet, either, engine_names
from paritas.cli.outcome import DIVERGES, OK, console, print_json, say
from paritas.errors import InputError

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", "--models", help="Only models whose name contains this; repeatable. All if not given."
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        "--engines",
        autocompletion=engine_names,
        help=f"{either(OTHER_ENGINES)}; repeatable. All that are here if not given.",
    ),
]
ParityOut = Annotated[Path, typer.Option("--out", "-o", help="Where PARITY-TABLES.md, .html and parity.json go.")]
Layers = Annotated[
    int, typer.Option(min=0, help="At most so many layers of models that may be cut; 0 for as many as memory allows.")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that one column of one model may take.")]
Memory = Annotated[
    float | None, typer.Option(min=1, help="GiB that the worker may take; three quarters of what is free if not given.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew; without it an interrupted run goes on where it was.")]


def parity(
    models: Models = None,
    engines: Engines = None,
    out: ParityOut = Path(),
    layers: Layers = 0,
    timeout: Timeout = 1800.0,
    memory: Memory = None,
    fresh: Fresh = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write the parity tables that two hand ports to MindSpore published, for the same models at their real sizes.

    CLIP's, Stable Diffusion's and T5's encoders and open_clip's models, with seeded random weights, on every engine,
    mode and dtype: by the documents' formulas, beside their figures, and beside PyTorch's own error against float64.
    One worker process at a time. The exit code is 1 if a row misses its bar.

    **Examples**

      paritas parity --out tables

      paritas parity --model t5-small --model RN50 --engine openvino --out /tmp/tables
    """
    from paritas import store
    from paritas.apps.published import run as measuring
    from paritas.apps.published import table
    from paritas.apps.published.models import MODELS
    from paritas.run.engine import about, all_about
    from paritas.run.engine import engines as known_engines
    from paritas.workers import Limits

    names = [name for name in MODELS if not models or any(part in name for part in models)]
    if wrong := [part for part in models or () if not any(part in name for name in MODELS)]:
        raise InputError(f"--model {wrong[0]} is in no name. They are: {', '.join(MODELS)}.")
    here = [name for name, info in known_engines().items() if info.available and not about(name).is_original]
    others = sorted(one.name for one in all_about() if not one.is_original)
    engines = [about(name).name for name in engines or ()]
    if base := [name for name in engines if about(name).is_original]:
        raise InputError(f"--engine {base[0]} is what the others are compared with. Name {' or '.join(others)}.")
    columns, absent = measuring.columns_of(engines or here)
    limits = Limits(timeout, memory or round(0.75 * measuring.available_gib(), 1))
    with Bar("parity", "columns", quiet=quiet) as bar:
        results = measuring.tables(
            [MODELS[name] for name in names], columns, out, limits=limits, layers=layers, fresh=fresh, told=bar
        )
    text = table.to_json(results, absent)
    store.replace_text(out / "PARITY-TABLES.md", table.to_markdown(results, absent))
    store.replace_text(out / "PARITY-TABLES.html", table.to_html(results, absent))
    store.replace_text(out / "parity.json", text)
    bad = [row for row in results.rows if row.verdict in ("missed", "failed")]
    if not (bad or models or engines or results.missing):  # else there may be more to do with what is known
        measuring.clear(out)
    if as_json:
        print_json(json.loads(text))
    else:
        console().print(table.terminal(results, absent))
        say(f"{out / 'PARITY-TABLES.md'} has all of it.")
    return DIVERGES if bad or results.missing else OK
