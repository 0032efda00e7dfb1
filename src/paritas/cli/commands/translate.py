# SPDX-License-Identifier: Apache-2.0
"""`paritas translate`: lines of text into another language, and back if wanted."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.bar import Bar
from paritas.cli.options import ENGINE_NAMES, Debug, Device, Json, OvConfig, Quiet, either, engine_names
from paritas.cli.outcome import OK, print_json, say
from paritas.cli.properties import where

Translators = Annotated[
    str, typer.Argument(metavar="MODEL", help="A hub id or a directory, as paritas convert fairseq writes it.")
]
Texts = Annotated[
    list[str] | None, typer.Argument(metavar="TEXT", help="What to translate; the lines of stdin if none.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        "-e",
        autocompletion=engine_names,
        help=f"{either(ENGINE_NAMES)}; the best that is installed if not given.",
    ),
]
NumBeams = Annotated[int | None, typer.Option(min=1, help="The model's own if not given.")]
LengthPenalty = Annotated[
    float | None,
    typer.Option(help="The exponent of the length that scores are divided by; the model's own if not given."),
]
EarlyStopping = Annotated[
    bool | None,
    typer.Option(
        "--early-stopping/--no-early-stopping",
        help="Stop when there are as many translations as beams; the model's own if not given.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Sentences at once.")]
OutputFile = Annotated[
    Path | None, typer.Option("--out", "-o", "--output", metavar="FILE", help="Write there, a line for each text.")
]
Back = Annotated[
    str | None,
    typer.Option("--back", metavar="MODEL2", help="Translate the result back with this one: a paraphrase of the text."),
]


def translate(
    model: Translators,
    text: Texts = None,
    back: Back = None,
    engine: EngineOption = None,
    device: Device = "",
    ov_config: OvConfig = None,
    num_beams: NumBeams = None,
    length_penalty: LengthPenalty = None,
    early_stopping: EarlyStopping = None,
    batch_size: BatchSize = 16,
    output: OutputFile = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Translate texts, with the network on an engine. A line for each, an empty one for an empty one.

    **Examples**

      paritas translate wmt19-en-de "Machine learning is great, isn't it?"

      paritas translate wmt19-en-de --num-beams 8 --out news.de < news.en

      paritas translate wmt19-en-ru --back wmt19-ru-en "He was a famous linguist."
    """
    from paritas.apps.translate.translate import Search, Translator, lines_of
    from paritas.errors import InputError

    place = where(engine, device, ov_config)
    if text:
        texts = [one.replace("\n", " ") for one in text]
    else:
        if sys.stdin.isatty():
            say("Type lines to translate, and Ctrl-D at the end.", err=True)
        texts = lines_of(sys.stdin.buffer.read(), "stdin")
    if not texts:
        raise InputError("There is nothing to translate: give texts as arguments, or lines on stdin.")
    if output is not None and not output.parent.is_dir():
        raise InputError(f"There is no directory {output.parent} to write {output.name} in.")
    search = Search(num_beams, length_penalty, early_stopping)
    began = time.perf_counter()
    steps: list[dict[str, Any]] = []
    found = texts
    for name in (model, *([back] if back else [])):
        with Bar(name, "lines", quiet=quiet) as bar:
            translator = Translator.load(name, engine, **place)
            found = translator.translate(found, search=search, batch_size=batch_size, told=bar)
        steps.append(
            {
                "model": name,
                "engine": translator.model.engine,
                "search": dataclasses.asdict(search.completed(translator.model)),
                "cut": translator.cut,
                "texts": found,
            }
        )
        if translator.cut:
            say(f"note: {translator.cut} texts were longer than {name} reads, and were cut", err=True)
    if output is not None:
        from paritas import store

        store.replace_text(output, "".join(f"{line}\n" for line in found))
    if as_json:
        print_json({"source": texts, "steps": steps, "seconds": time.perf_counter() - began})
    elif output is None:
        for line in found:
            say(line)
    return OK
