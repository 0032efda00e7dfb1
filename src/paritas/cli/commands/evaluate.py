# SPDX-License-Identifier: Apache-2.0
"""`paritas eval`: the BLEU of a translator, and of every way to search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from paritas.cli.bar import Bar
from paritas.cli.commands.translate import BatchSize, EarlyStopping, EngineOption, LengthPenalty, NumBeams, Translators
from paritas.cli.options import Debug, Device, Json, OvConfig, Quiet
from paritas.cli.outcome import OK, print_json, say
from paritas.cli.properties import where

T = TypeVar("T")

Src = Annotated[Path | None, typer.Option(metavar="FILE", help="Sentences to translate, one a line.")]
Ref = Annotated[Path | None, typer.Option(metavar="FILE", help="Their translations, one a line.")]
TestSet = Annotated[
    str | None, typer.Option("--testset", metavar="NAME", help="A test set that sacrebleu fetches: wmt19.")
]
Pair = Annotated[str | None, typer.Option(metavar="XX-YY", help="The languages of --testset: en-de.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many of the first sentences.")]
TableFile = Annotated[
    Path | None, typer.Option("--out", "-o", "--output", metavar="FILE", help="Write the table there.")
]
BeamList = Annotated[
    str | None, typer.Option("--num-beams", metavar="N,...", help="Numbers of beams to try: 5,8,11,15")
]
PenaltyList = Annotated[
    str | None,
    typer.Option("--length-penalty", metavar="X,...", help="Exponents of the length to try: 0.6,0.8,1.0,1.1"),
]
StoppingList = Annotated[
    str | None,
    typer.Option(
        "--early-stopping",
        metavar="B,...",
        help="Whether to stop when there are as many as beams; what to try: true,false",
    ),
]


def bleu(
    model: Translators,
    src: Src = None,
    ref: Ref = None,
    testset: TestSet = None,
    pair: Pair = None,
    limit: Limit = None,
    engine: EngineOption = None,
    device: Device = "",
    ov_config: OvConfig = None,
    num_beams: NumBeams = None,
    length_penalty: LengthPenalty = None,
    early_stopping: EarlyStopping = None,
    batch_size: BatchSize = 16,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Translate a file, and compare with its reference: BLEU, as sacrebleu measures it.

    **Examples**

      paritas eval bleu wmt19-en-de --src news.en --ref news.de

      paritas eval bleu wmt19-en-de --testset wmt19 --pair en-de --num-beams 8
    """
    from paritas.apps.translate import bleu as measuring
    from paritas.apps.translate.translate import Search, Translator

    place = where(engine, device, ov_config)
    sources, references = _sentences(src, ref, testset, pair, limit)
    with Bar(model, "sentences", quiet=quiet) as bar:
        score = measuring.evaluate(
            Translator.load(model, engine, **place),
            sources,
            references,
            search=Search(num_beams, length_penalty, early_stopping),
            batch_size=batch_size,
            told=bar,
        )
    if as_json:
        print_json({"model": model, **dataclasses.asdict(score)})
    else:
        say(str(score))
    return OK


def search(
    model: Translators,
    src: Src = None,
    ref: Ref = None,
    testset: TestSet = None,
    pair: Pair = None,
    limit: Limit = None,
    engine: EngineOption = None,
    device: Device = "",
    ov_config: OvConfig = None,
    num_beams: BeamList = None,
    length_penalty: PenaltyList = None,
    early_stopping: StoppingList = None,
    batch_size: BatchSize = 16,
    output: TableFile = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Measure the BLEU of every combination of ways to search, and print them as a table, the best first.

    What is not given stays as the model has it.

    **Examples**

      paritas eval search wmt19-en-de --src news.en --ref news.de --num-beams 5,8 --length-penalty 0.6,1.0,1.1

      paritas eval search wmt19-ru-en --testset wmt19 --pair ru-en --limit 500 --early-stopping true,false --json
    """
    from paritas.apps.translate import bleu as measuring
    from paritas.apps.translate.translate import Translator

    searches = measuring.grid(
        _values("--num-beams", num_beams, _count),
        _values("--length-penalty", length_penalty, float),
        _values("--early-stopping", early_stopping, _switch),
    )
    place = where(engine, device, ov_config)
    sources, references = _sentences(src, ref, testset, pair, limit)
    with Bar(model, "sentences", quiet=quiet) as bar:
        translator = Translator.load(model, engine, **place)
        scores = measuring.search(translator, sources, references, searches, batch_size=batch_size, told=bar)
    text = measuring.table(scores)
    if output is not None:
        from paritas import store

        store.replace_text(output, text + "\n")
    if as_json:
        print_json({"model": model, "scores": [dataclasses.asdict(score) for score in scores]})
    elif output is None:
        say(text)
    return OK


def _sentences(
    src: Path | None, ref: Path | None, testset: str | None, pair: str | None, limit: int | None
) -> tuple[list[str], list[str]]:
    from paritas.apps.translate import bleu as measuring
    from paritas.errors import InputError

    if src and ref and not testset and not pair:
        found = measuring.pairs(src, ref)
    elif testset and pair and not src and not ref:
        found = measuring.fetched(testset, pair)
    else:
        raise InputError("Give --src and --ref, or --testset and --pair, and not both.")
    return found[0][:limit], found[1][:limit]


def _values(option: str, text: str | None, kind: Callable[[str], T]) -> list[T | None]:
    from paritas.errors import InputError

    if text is None:
        return [None]
    found: list[Any] = []
    for part in text.split(","):
        try:
            found.append(kind(part.strip()))
        except ValueError:
            what = {"--num-beams": "numbers above 0", "--early-stopping": "true and false"}.get(option, "numbers")
            raise InputError(f"{option} is {text!r}; it has to be {what}, with commas between.") from None
    return found


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError
    return int(text)


def _switch(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in known:
        raise ValueError
    return known[text.lower()]
