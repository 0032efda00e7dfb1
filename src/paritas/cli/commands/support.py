# SPDX-License-Identifier: Apache-2.0
"""`paritas support`: the zoo on every engine, and a table of what agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.bar import Bar
from paritas.cli.options import OTHER_ENGINES, Debug, Json, Quiet, either, engine_names
from paritas.cli.outcome import DIVERGES, OK, console, print_json, say
from paritas.errors import InputError

Names = Annotated[list[str] | None, typer.Argument(help="Only entries whose name contains one of these; all if none.")]
Zoo = Annotated[Path, typer.Option(help="The zoo: a directory of LIBRARY/MODEL_TYPE.json files.")]
SupportOut = Annotated[Path, typer.Option("--out", "-o", help="Where SUPPORT.md and support.json go.")]
Cells = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        autocompletion=engine_names,
        help=f"{either(OTHER_ENGINES)}; may be given several times. All if not given.",
    ),
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Worker processes, of one thread each.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that one cell of the table may take.")]
Memory = Annotated[float, typer.Option(min=0.5, help="GiB that one worker may take.")]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Begin anew; without it an interrupted sweep goes on where it was.")
]
Add = Annotated[
    list[str] | None,
    typer.Option("--add", help="Add a class to the zoo, tiny: transformers.BertModel. May be repeated."),
]


def support(
    names: Names = None,
    zoo: Zoo = Path("tests/zoo"),
    out: SupportOut = Path("docs"),
    engine: Cells = None,
    jobs: Jobs = 2,
    timeout: Timeout = 180.0,
    memory: Memory = 6.0,
    fresh: Fresh = False,
    add: Add = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Port and verify the whole zoo of tiny models, and write SUPPORT.md and support.json.

    Every entry is ported to every engine and mode in a worker process, with limits of time and memory; what does
    not agree is in the table with its reason, and the exit code is then 1.

    **Examples**

      paritas support

      paritas support bert llama --engine mindspore --out /tmp/support

      paritas support --add transformers.BertForMaskedLM
    """
    from paritas import store
    from paritas.apps.zoo import add as zoo_add
    from paritas.apps.zoo import entries as zoos
    from paritas.apps.zoo import sweep as sweeping
    from paritas.apps.zoo import table

    if add:
        for name in add:
            entry, file = zoo_add.add(name, zoo)
            say(f"{entry.name} is in {file}: {', '.join(entry.inputs)}")
        wanted = {zoo_add.entry_name(name) for name in add}
    entries = zoos.read(zoo)
    if add:
        entries = [entry for entry in entries if entry.name in wanted]
    elif names:
        entries = [entry for entry in entries if any(name in entry.name for name in names)]
    if not entries:
        raise InputError(f"No entry of {zoo} has {' or '.join(names or ())} in its name.")
    known = sorted({cell.partition(" ")[0] for cell in sweeping.CELLS})
    if engine and (wrong := [e for e in engine if e not in known]):
        raise InputError(f"--engine {wrong[0]} is none of {', '.join(known)}.")
    cells = [cell for cell in sweeping.CELLS if not engine or cell.partition(" ")[0] in engine]
    with Bar("the zoo", "entries", quiet=quiet) as bar:
        results = sweeping.sweep(
            entries, out, cells=cells, jobs=jobs, limits=sweeping.Limits(timeout, memory), fresh=fresh, told=bar
        )
    whole = not names and not add
    if whole:
        store.replace_text(out / "SUPPORT.md", table.to_markdown(results, cells))
        store.replace_text(out / "support.json", table.to_json(results, cells))
        (out / sweeping.JOURNAL).unlink(missing_ok=True)
    counts = {cell: table.summary(results, cell) for cell in cells}
    bad = sweeping.failed(results, cells)
    if as_json:
        print_json({"summary": counts, "failed": {r.entry.name: dict(r.cells) for r in bad}})
    else:
        _show(counts, bad, cells, whole, out)
    return DIVERGES if bad else OK


def _show(counts: dict[str, Any], bad: list[Any], cells: list[str], whole: bool, out: Path) -> None:
    screen = console()
    for cell, count in counts.items():
        words = ", ".join(f"{key} {value}" for key, value in count.items() if key != "entries")
        screen.print(
            f"{cell}: {count['entries']} {'entry' if count['entries'] == 1 else 'entries'}, {words}",
            markup=False,
            highlight=False,
        )
    for result in bad[:10]:
        for cell in cells:
            found = result.cells[cell]
            if found["verdict"] != "agrees":
                screen.print(
                    f"  {result.entry.name}, {cell}: {found['verdict']}: {found.get('reason', '')}", markup=False
                )
    if len(bad) > 10:
        screen.print(f"  and {len(bad) - 10} more", markup=False)
    if whole:
        screen.print(f"{out / 'SUPPORT.md'} has every entry.", markup=False)
