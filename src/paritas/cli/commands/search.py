# SPDX-License-Identifier: Apache-2.0
"""`paritas search`: index texts, and ask for what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.bar import Bar
from paritas.cli.commands.translate import EngineOption
from paritas.cli.options import Debug, Json, Quiet
from paritas.cli.outcome import DIVERGES, OK, console, print_json, say
from paritas.errors import InputError
from paritas.printable import printable

Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Tables (.csv, .tsv, .jsonl, .parquet), or folders of text files."),
]
Place = Annotated[str, typer.Argument(metavar="INDEX", help="A directory, a URL of PostgreSQL, or a name in --store.")]
OutIndex = Annotated[
    str,
    typer.Option(
        "--out", "-o", metavar="INDEX", help="Where to write, or to go on: a directory, a URL, or a name in --store."
    ),
]
Store = Annotated[
    str,
    typer.Option("--store", metavar="URL", help="A database of PostgreSQL with pgvector: postgresql://USER@HOST/DB"),
]
Text = Annotated[str, typer.Option("--text", metavar="COLUMN", help="The column whose texts are searched.")]
Split = Annotated[
    str,
    typer.Option("--split", metavar="WAY", help="How texts are cut: verses (by empty lines), sentences, tokens (128)."),
]
Key = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="COLUMN",
        help="By which a row is known again: a new text takes the old one's place. Without it, by all that is in it.",
    ),
]
Encoding = Annotated[str, typer.Option("--encoding", help="Of files that do not say it themselves.")]
Model = Annotated[str, typer.Option("--model", metavar="MODEL", help="A model of sentence-transformers.")]
IndexModel = Annotated[
    str, typer.Option("--model", metavar="MODEL", help="Where the index's model is now, if not where it was.")
]
Precision = Annotated[str, typer.Option("--precision", metavar="P", help="fp32, bf16, or int8 for weights of 8 bits.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FILTER", help="As 'year >= 1990', 'artist = Nobody', 'title ~ rain'; repeat it."),
]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="What is looked for, in any words.")]
Top = Annotated[int, typer.Option("--top", "-n", min=1, help="How many texts.")]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="Let the words count too, by BM25: the ranks are fused.")]
OnRay = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Embed through Ray Data on a cluster: auto, local, HOST:PORT or ray://HOST:PORT. All have the model.",
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Of Ray's: how many models there are at most.")]
Rerank = Annotated[
    str, typer.Option("--rerank", metavar="MODEL", help="A CrossEncoder that reads query and passage together.")
]
Candidates = Annotated[int, typer.Option("--candidates", min=1, help="How many texts --rerank reads.")]


def index(
    files: Files,
    out: OutIndex,
    text: Text = "text",
    split: Split = "verses",
    key: Key = "",
    encoding: Encoding = "utf-8",
    model: Model = "all-MiniLM-L6-v2",
    precision: Precision = "fp32",
    engine: EngineOption = None,
    store: Store = "",
    ray: OnRay = "",
    workers: Workers = 2,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Cut texts into passages, embed them on an engine, and keep them in a directory that can be searched.

    It can be interrupted at any time: what is there is passed over when the same is run again, and nothing is there
    twice. Needs pip install 'paritas[search]'.

    **Examples**

      paritas search index songs.csv --text lyrics --out songs.idx

      paritas search index poems/ --split sentences --precision bf16 --out poems.idx

      paritas search index songs.csv --text lyrics --out songs --store postgresql://ana@db.example.org/texts
    """
    return _index(
        files, _place(out, store), text, split, key, encoding, model, precision, engine, quiet, as_json, ray, workers
    )


def add(
    place: Place,
    files: Files,
    encoding: Encoding = "utf-8",
    model: IndexModel = "",
    engine: EngineOption = None,
    store: Store = "",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Put more texts into an index, by the model and in the way that it was made.

    **Example**

      paritas search add songs.idx new-songs.csv
    """
    from paritas.apps.search.places import opened

    place = _place(place, store)
    with opened(place) as found:
        had, settings = found.identity, found.settings
    return _index(
        files,
        place,
        settings["text"],
        settings["split"],
        settings["key"],
        encoding,
        model or had.name,
        had.precision,
        engine,
        quiet,
        as_json,
    )


def _place(index: str, store: str) -> str:
    """Where an index is: in a database, if one is named."""
    from paritas.apps.search.places import within
    from paritas.apps.search.store import is_url

    if not store:
        return index
    if index and is_url(index):
        raise InputError("INDEX is a URL already: leave out --store, or give the name that the index has there.")
    return within(store, index)


def _index(
    files: list[Path],
    out: str,
    text: str,
    split: str,
    key: str,
    encoding: str,
    model: str,
    precision: str,
    engine: str | None,
    quiet: bool,
    as_json: bool,
    ray: str = "",
    workers: int = 2,
) -> int:
    import functools

    from paritas.apps.search.embedding import Embedder
    from paritas.apps.search.indexing import Progress
    from paritas.apps.search.indexing import index as indexed
    from paritas.apps.search.places import shown

    name = shown(out)
    make = functools.partial(Embedder, model, engine=engine, precision=precision)
    embeds = None
    if ray:
        from paritas.extras import require

        require("ray", "paritas search index --ray")
        from paritas.apps.search.on_ray import embedded

        def embeds(here: Embedder) -> Any:
            return lambda batches: embedded(batches, make, here.identity, ray, workers)

    with Bar(f"index into {name}", "passages", quiet=quiet) as bar:

        def told(progress: Progress) -> None:
            bar(progress.passages, progress.passages, f"{progress.documents} texts in {name}")

        done = indexed(
            out,
            files,
            make,
            text=text,
            split=split,
            key=key,
            encoding=encoding,
            told=told,
            embeds=embeds,
        )
    beside = [
        (done.known, "known already"),
        (done.empty, "without words"),
        (done.too_long, "of more than 100 million characters, left out"),
    ]
    words = "".join(f"; {count} {what}" for count, what in beside if count)
    if as_json:
        print_json({"index": name, **vars(done)})
    else:
        rate = f", {done.passages / done.seconds:.0f} passages/s" if done.passages and done.seconds else ""
        say(f"{done.documents} texts with {done.passages} passages added to {name}{rate}{words}.")
    return OK


def query(
    place: Place,
    query: Query,
    top: Top = 9,
    where: Where = None,
    hybrid: Hybrid = False,
    rerank: Rerank = "",
    candidates: Candidates = 50,
    model: IndexModel = "",
    engine: EngineOption = None,
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Find the texts that mean what the query means: each once, with its best passage.

    **Examples**

      paritas search query songs.idx "Running wild and free" --top 9

      paritas search query songs.idx "leaving home" --where "year >= 1990" --hybrid --json
    """
    from paritas.apps.search.filters import parsed
    from paritas.apps.search.searching import Searcher, check, cross_encoder

    check(query, top)
    filters = [parsed(one) for one in where or ()]
    searcher = Searcher(_place(place, store), model=model, engine=engine)
    searcher.reranker = cross_encoder(rerank, engine) if rerank else None
    hits = searcher.search(query, top, filters=filters, hybrid=hybrid, rerank=max(candidates, top) if rerank else 0)
    searcher.close()
    if as_json:
        print_json({"query": query, "index": searcher.index.shown, "hits": [hit.to_json() for hit in hits]})
        return OK
    if not hits:
        say("Nothing was found.")
        return OK
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text as Line

    parts: list[Any] = []
    for number, hit in enumerate(hits, 1):
        head = Line(f"{number}. ", style="dim")
        head.append(hit.title, style="bold")
        known = ", ".join(f"{n} {v}" for n, v in hit.columns.items() if v not in (None, "", hit.title))
        head.append(f"   {hit.score:.3f}" + (f"   {known}" if known else ""), style="dim")
        parts += [head, Padding(Line(hit.passage, style="yellow"), (0, 0, 1, 3))]
    console().print(Group(*parts))
    return OK


def delete(
    place: Place,
    where: Where = None,
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Remove texts from an index: those for which all filters hold.

    **Example**

      paritas search delete songs.idx --where "artist = Nobody"
    """
    from paritas.apps.search.filters import parsed
    from paritas.apps.search.indexing import delete as deleted
    from paritas.apps.search.places import shown

    place = _place(place, store)
    count = deleted(place, [parsed(one) for one in where or ()])
    if as_json:
        print_json({"index": shown(place), "deleted": count})
    else:
        say(f"{count} {'text' if count == 1 else 'texts'} deleted from {shown(place)}.")
    return OK


Check = Annotated[bool, typer.Option("--check", help="Read everything, and compare it with what was written.")]
Repair = Annotated[
    bool, typer.Option("--repair", help="Make the graph of neighbours again, of the vectors in the database.")
]


def info(
    place: Place,
    check: Check = False,
    repair: Repair = False,
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """What is in an index: how many texts, of which model, how large.

    **Examples**

      paritas search info songs.idx

      paritas search info songs.idx --check
    """
    from paritas.apps.search.places import opened, writing

    place = _place(place, store)
    if repair:
        with writing(place, repair=True) as writer:
            writer.fold(again=True)
    with opened(place) as found:
        if check:
            found.check()
        name, had, settings = found.shown, found.identity, found.settings
        documents, passages = found.count("documents"), found.count("passages")
        size, inside = found.sizes()
        about = {
            "index": name,
            "texts": documents,
            "passages": passages,
            "in_the_graph": inside,
            "dimensions": had.dimensions,
            "model": had.name,
            "sha256": had.digest,
            "precision": had.precision,
            **settings,
            "columns": found.columns(),
            "bytes": size,
            **({"checked": True} if check else {}),
        }
    if as_json:
        print_json(about)
        return OK
    say(f"{documents} texts with {passages} passages, {size / 1e6:.1f} MB in {name}")
    say(f"by {had.name} in {had.precision} ({had.dimensions} dimensions, sha256 {had.digest[:12]})")
    say(f"cut into {settings['split']} from the column {settings['text']}; columns: {', '.join(about['columns'])}")
    say(f"{inside} passages in the graph of neighbours, {passages - inside} compared one by one")
    if check:
        say("Everything was read, and is what was written.")
    return OK


Vectors = Annotated[bool, typer.Option("--vectors", help="With the vector of each passage.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help=".jsonl for text, .npz for vectors alone.")]


def export(
    place: Place,
    out: OutFile,
    vectors: Vectors = False,
    store: Store = "",
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Write what is in an index into a file: a passage a line, as JSON, or vectors for NumPy.

    **Examples**

      paritas search export songs.idx --out songs.jsonl --vectors

      paritas search export songs.idx --out songs.npz
    """
    from paritas.apps.search.exporting import exported

    count = exported(_place(place, store), out, vectors=vectors)
    if as_json:
        print_json({"file": str(out), "passages": count})
    else:
        say(f"{count} passages written to {printable(str(out))}.")
    return OK


Queries = Annotated[int, typer.Option("--queries", min=1, help="How many passages are asked for, for the recall.")]
Engines = Annotated[
    list[str] | None, typer.Option("--engine", "-e", help="Compare these with PyTorch; without it, all that are here.")
]
Recall = Annotated[float, typer.Option("--recall", min=0, max=1, help="Below it the exit code is 1.")]


def evaluate(
    place: Annotated[
        str, typer.Argument(metavar="[INDEX]", help="A directory, a URL of PostgreSQL, or a name in --store.")
    ] = "",
    queries: Queries = 200,
    engine: Engines = None,
    model: Model = "all-MiniLM-L6-v2",
    recall: Recall = 0.99,
    store: Store = "",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """How good a search is: recall of an index against comparing everything; of a model, ranks on every engine.

    With INDEX: how many of the ten nearest passages its graph finds, and how long that takes. Without: nDCG@10 on a
    small labelled set and Spearman's correlation on pairs of sentences, both of which ship, for every engine and
    precision beside PyTorch.

    **Examples**

      paritas search eval songs.idx

      paritas search eval --model all-MiniLM-L6-v2
    """
    from paritas.apps.search import quality

    if place or store:
        found = quality.of_index(_place(place, store), queries)
        if as_json:
            print_json(found)
        else:
            say(
                f"recall@10 {found['recall']:.4f} of {found['queries']} queries among {found['passages']} passages; "
                f"{found['p50_ms']:.2f} ms in the middle, {found['p99_ms']:.2f} ms for one in a hundred"
            )
        return OK if found["recall"] >= recall else DIVERGES
    rows = quality.of_model(model, engine, progress=lambda line: None if quiet else say(line, err=True))
    if not rows:
        raise InputError("No engine was measured.")
    if as_json:
        print_json({"model": model, "rows": rows})
    else:
        console().print(quality.table(model, rows))
    return OK
