# SPDX-License-Identifier: Apache-2.0
"""Texts are read, cut, kept and found; what goes wrong says so, and the index is as it was before."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hashed import DIMENSIONS, Hashed, Words
from stores import SONGS

from paritas.extras import missing

if missing("search"):  # which imports neither: see `graph.made` for why usearch is not to be the first
    pytest.skip("paritas[search] is not installed", allow_module_level=True)

from paritas.apps.search import directory, postgres
from paritas.apps.search.directory import DirectoryIndex, DirectoryWriter
from paritas.apps.search.exporting import exported
from paritas.apps.search.filters import parsed
from paritas.apps.search.indexing import add_rows, delete, index
from paritas.apps.search.places import create, opened, writing
from paritas.apps.search.quality import of_index
from paritas.apps.search.reading import Row, rows
from paritas.apps.search.searching import Searcher
from paritas.apps.search.splitting import splitter
from paritas.apps.search.store import Document, Place
from paritas.errors import IndexDamaged, InputError


@pytest.fixture
def made(songs: Path, at: Callable[[str], Place]) -> Place:
    place = at("songs")
    index(place, [songs], Hashed(), text="lyrics")
    return place


@pytest.fixture
def in_a_directory(songs: Path, tmp_path: Path) -> Path:
    place = tmp_path / "songs.idx"
    index(place, [songs], Hashed(), text="lyrics")
    return place


# --- cutting ----------------------------------------------------------------------------------------------------

CUT = [
    ("verses", "a b\nc\n\n  \nd\n", ["a b\nc", "d"]),
    ("verses", "\n\n  a  \n\n", ["a"]),
    ("verses", "", []),
    ("verses", " \n\t\n", []),
    ("sentences", 'One. Two? "Three!" Four', ["One.", "Two?", '"Three!"', "Four"]),
    ("sentences", "no end\nnext line", ["no end", "next line"]),
    ("tokens", "a b c", ["a b c"]),
    (
        "verses",
        " ".join("word" for _ in range(20)),
        [" ".join(["word"] * 8), " ".join(["word"] * 8), "word word word word"],
    ),
    ("tokens", " ".join(str(n) for n in range(10, 22)), ["10 11 12 13 14 15 16 17", "14 15 16 17 18 19 20 21"]),
]


@pytest.mark.parametrize(("way", "text", "want"), CUT)
def test_where_texts_are_cut(way: str, text: str, want: list[str]) -> None:
    spans = splitter(way, Words(), 10)(text)
    assert [text[start:stop] for start, stop in spans] == want


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_table_without_types_has_numbers(songs: Path) -> None:
    found = list(rows([songs], "lyrics"))
    assert found[0].columns == {"title": "Open Road", "artist": "The Wanderers", "year": 1987}
    assert len({row.key for row in found}) == 4
    assert [row.key for row in found] == [row.key for row in rows([songs], "lyrics")]


FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "lines": ("a.jsonl", b'{"text": "one"}\n\n{"text": "two", "n": 1}\n', ["one", "two"]),
    "tabs": ("a.tsv", b"n\ttext\n1\tone\n", ["one"]),
    "utf-16": ("a.csv", "text\nünë\n".encode("utf-16"), ["ünë"]),
    "utf-8 with a mark": ("a.csv", "\ufefftext\nünë\n".encode(), ["ünë"]),
    "windows' lines": ("a.csv", b'text\r\n"a\r\nb"\r\n', ["a\nb"]),
    "half a character": ("a.jsonl", b'{"text": "a\\ud800b", "x\\ud800": "\\udfff"}\n', ["a?b"]),
    "zeros": ("a.jsonl", b'{"text": "a\\u0000b"}\n', ["ab"]),
    "no text": ("a.jsonl", b'{"text": null}\n', [""]),
    "a number": ("a.csv", b"text\n007\n", ["007"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_read(name: str, tmp_path: Path) -> None:
    file, content, want = FILES[name]
    (tmp_path / file).write_bytes(content)
    assert [row.text for row in rows([tmp_path / file], "text")] == want


def test_a_folder_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "poems").mkdir()
    (tmp_path / "poems" / "sea.txt").write_text("waves")
    (row,) = rows([tmp_path / "poems"], "text")
    assert (row.text, row.columns) == ("waves", {"file": "sea.txt", "title": "sea"})
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["a", "b"], "year": [1, 2]}), tmp_path / "t.parquet")
    assert [row.columns["year"] for row in rows([tmp_path / "t.parquet"], "text")] == [1, 2]


BAD: dict[str, tuple[str, bytes, str]] = {
    "another encoding": (
        "a.csv",
        "text\nünë\n".encode("latin-1"),
        "a.csv is not utf-8: byte 0xfc .* --encoding latin-1",
    ),
    "no such column": ("a.csv", b"txt\nx\n", "has no column 'text' for --text. Did you mean txt\\? It has txt"),
    "an empty file": ("a.csv", b"", "is empty: a table begins with"),
    "a ragged row": ("a.csv", b"text,n\na,b,c\n", "line 2: this row has more fields than the 2 columns"),
    "a short row": ("a.csv", b"text,n\na\n", "line 2: this row has fewer fields"),
    "no JSON": ("a.jsonl", b'{"text": "a"}\n{no}\n', "line 2: this is no JSON"),
    "a list": ("a.jsonl", b"[1]\n", "line 1: this is no object"),
    "another kind": ("a.pdf", b"%PDF", "is none of what is read: .csv"),
    "no rows": ("a.csv", b"text\n", "There are no rows in"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    file, content, want = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=want):
        index(tmp_path / "x.idx", [tmp_path / file], Hashed())
    assert not (tmp_path / "x.idx").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        index(tmp_path / "x.idx", [tmp_path / "no.csv"], Hashed())
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no file of text: \*.txt"):
        index(tmp_path / "x.idx", [tmp_path / "empty"], Hashed())


# --- finding ----------------------------------------------------------------------------------------------------


def test_each_text_is_found_once_by_its_best_passage(made: Place) -> None:
    hits = Searcher(made, Hashed()).search("running wild across the plains", top=3)
    assert hits[0].title == "Open Road"
    assert len({hit.document for hit in hits}) == len(hits) == 3
    assert hits[0].passage == "Running wild across the plains\nno fence can hold us in"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].passages[0][:2] == (hits[0].start, hits[0].stop)


FILTERS = [
    (["year >= 1999"], {"Harbour", "Kitchen Light"}),
    (["year < 1999"], {"Open Road"}),
    (["year = 1999"], {"Harbour"}),
    (["year != 1999"], {"Open Road", "Kitchen Light"}),
    (["artist = Milk"], {"Kitchen Light"}),
    (["artist = 'Anna Grey'"], {"Harbour"}),
    (["artist ~ GREY"], {"Harbour"}),
    (["year > 1980", "artist ~ a"], {"Open Road", "Harbour"}),
    (["year > 'a'"], set()),
    (["title = Nothing"], set()),
    (["year = '1999'"], set()),
    (["year = 1999.0"], {"Harbour"}),
    (["year > '1980'"], set()),
    (["year ~ 99"], {"Harbour"}),
    (["artist ~ 'THE W'"], {"Open Road"}),
    (["artist > B"], {"Open Road", "Kitchen Light"}),
    (["artist >= Milk", "artist <= Milk"], {"Kitchen Light"}),
    (["artist = null"], set()),
    (["artist != null"], {"Open Road", "Harbour", "Kitchen Light"}),
    (["year > 99999999999999999999"], set()),
    (["year != 99999999999999999999"], {"Open Road", "Harbour", "Kitchen Light"}),
]

#: What columns can hold beside texts and whole numbers.
ODD = [
    {"x": True, "name": "ÜBER \"x' %s ?", "only": 1},
    {"x": 1.5, "name": "Straße"},
    {"x": None, "name": ""},
    {"x": "1.5", "name": None},
    {"x": 0.1, "name": 2e300},
    {"name": "1"},
    {"x": -3, "name": "a\nb"},
]
OF_ODD: list[tuple[str, list[int]]] = [
    ("x = 1", [0]),
    ("x = true", [0]),
    ("x = 1.5", [1, 3]),
    ("x = '1.5'", [3]),
    ("x = 0.1", [4]),
    ("x = null", [2, 5]),
    ("x != null", [0, 1, 3, 4, 6]),
    ("x != 1.5", [0, 2, 4, 5, 6]),
    ("x < 1.5", [4, 6]),
    ("x >= 1", [1]),
    ("x > ''", [3]),
    ("x ~ 1", [0, 1, 3, 4]),
    ("x ~ .5", [1, 3]),
    ("name ~ über", [0]),
    ("name ~ STRASSE", []),
    ("name ~ SSE", []),
    ("name ~ straß", [1]),
    ("name = 1", [5]),
    ("name > 1e300", [4]),
    ("name ~ %s ?", [0]),
    ("name = ''", [2]),
    ("name >= S", [0, 1, 6]),
    ("only = 1", [0]),
    ("only != 1", [1, 2, 3, 4, 5, 6]),
]


def test_filters_mean_the_same_in_every_store(at: Callable[[str], Place]) -> None:
    place = at("odd")
    given = (Row(str(n), "wind", columns) for n, columns in enumerate(ODD))
    add_rows(place, given, Hashed(), {"text": "text", "split": "verses", "key": ""})
    searcher = Searcher(place, Hashed())
    for text, want in OF_ODD:
        found = searcher.search("wind", 99, filters=[parsed(text)])
        assert sorted(int(hit.key) for hit in found) == want, text
        assert [hit.columns for hit in sorted(found, key=lambda hit: hit.key)] == [ODD[n] for n in want]
    assert searcher.index.columns() == ["x", "name", "only"]
    assert searcher.index.span("x") == (-3, -3)
    assert searcher.index.span("name") is None
    assert "Straße" in searcher.index.values("name", 99)


@pytest.mark.parametrize(("filters", "want"), FILTERS)
@pytest.mark.parametrize("few", [20_000, 0])
def test_filters(filters: list[str], want: set[str], few: int, made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paritas.apps.search.searching.FEW", few)
    found = Searcher(made, Hashed()).search("wild wind", filters=[parsed(one) for one in filters])
    assert {hit.title for hit in found} == want
    words = Searcher(made, Hashed()).search("wild wind", filters=[parsed(one) for one in filters], hybrid=True)
    assert {hit.title for hit in words} == want


def test_words_count_where_that_is_asked_for(made: Place) -> None:
    searcher = Searcher(made, Hashed())
    hits = searcher.search("radio 'OR \"*", top=1, hybrid=True)
    assert hits[0].passage == "You left the radio on for me"


def test_a_reranker_has_the_last_word(made: Place) -> None:
    searcher = Searcher(made, Hashed(), reranker=lambda pairs: np.array([-len(passage) for _, passage in pairs]))
    hits = searcher.search("the wind", top=2, rerank=3)
    assert [len(hit.passage) for hit in hits] == sorted(len(hit.passage) for hit in hits)
    assert hits[0].score == -len(hits[0].passage)


ASKED: list[tuple[dict[str, Any], str]] = [
    ({"query": "  "}, "The query is empty"),
    ({"query": "a", "top": 0}, "top=0"),
    ({"query": "a", "rerank": 3}, "There is no reranker"),
    ({"query": "a", "filters": [parsed("yaer = 1")]}, "No text has a column 'yaer'. Did you mean year\\?"),
]


@pytest.mark.parametrize(("asked", "want"), ASKED)
def test_what_cannot_be_asked(asked: dict[str, Any], want: str, made: Place) -> None:
    with pytest.raises(InputError, match=want):
        Searcher(made, Hashed()).search(**asked)


def test_what_is_no_filter() -> None:
    with pytest.raises(InputError, match="is no filter"):
        parsed("year")


# --- going on, taking away --------------------------------------------------------------------------------------


def test_what_is_there_is_passed_over(made: Place, songs: Path) -> None:
    model = Hashed()
    again = index(made, [songs], model, text="lyrics")
    assert (again.known, again.empty, again.documents, model.asked) == (3, 1, 0, 0)
    songs.write_text(SONGS + 'Rain,Anna Grey,2010,"It rains"\n')
    more = index(made, [songs], model, text="lyrics")
    assert (more.known, more.documents) == (3, 1)
    with opened(made) as found:
        assert (found.count("documents"), found.count("passages")) == (4, 7)
        found.check()


def test_a_key_is_known_again_and_its_text_replaced(songs: Path, at: Callable[[str], Place]) -> None:
    place = at("keyed")
    index(place, [songs], Hashed(), text="lyrics", key="title")
    songs.write_text(SONGS.replace("Butter melts upon the bread", "Honey on the bread"))
    done = index(place, [songs], Hashed(), text="lyrics", key="title")
    assert (done.known, done.documents) == (2, 1)
    searcher = Searcher(place, Hashed())
    assert searcher.search("honey bread", top=1)[0].passage == "Honey on the bread"
    assert searcher.index.by_words(["butter"], 5) == []
    assert searcher.index.count("documents") == 3
    searcher.index.check()


def test_a_row_that_comes_again_soon_is_there_once(at: Callable[[str], Place]) -> None:
    """While the first one waits for its batch to be full, the index knows neither."""
    some = [Row(f"{n}", f"text {n}", {"n": n}) for n in range(600)]
    again = [
        *some[:20],
        *(dataclasses.replace(one, text=f"other {one.key}") for one in some[5:10]),
        *some[20:],
        some[3],
    ]
    place = at("twice")
    add_rows(place, [*some[:200], *again, *some[510:]], Hashed(), {"text": "text", "split": "verses", "key": ""})
    with opened(place) as found:
        assert found.count("documents") == 600
        found.check()


def test_deleted_texts_are_gone(made: Place) -> None:
    searcher = Searcher(made, Hashed())
    assert delete(made, [parsed("artist = Milk")]) == 1
    assert {hit.title for hit in searcher.search("radio bread")} == {"Open Road", "Harbour"}
    assert searcher.index.by_words(["radio"], 5) == []
    with pytest.raises(InputError, match="Say which texts"):
        delete(made, [])


def _documents(count: int, first: int = 0) -> list[Document]:
    rng = np.random.default_rng(first)
    vectors = rng.normal(size=(count, 2, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return [
        Document(
            f"{first + n}", f"verse {n}\n\nmore {n}", {"n": first + n, "odd": n % 2}, [(0, 7), (9, 13)], vectors[n]
        )
        for n in range(count)
    ]


def _folded(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An index with a graph of neighbours."""
    for one in (directory, postgres):
        monkeypatch.setattr(one, "WAITING", 100)
    create(place, Hashed().identity, {"text": "text", "split": "verses", "key": ""})
    with writing(place) as writer:
        writer.add(_documents(400))
        writer.fold()
    return place


@pytest.fixture
def folded(at: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    return _folded(at("folded"), monkeypatch)


@pytest.fixture
def file_of_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return Path(_folded(tmp_path / "folded.idx", monkeypatch))


def test_the_graph_finds_what_comparing_everything_finds(folded: Place) -> None:
    assert of_index(folded, 50)["recall"] > 0.98
    with opened(folded) as found:
        assert found.sizes()[1] == 800
        found.check()


def test_a_reader_sees_what_a_writer_confirms(folded: Place) -> None:
    (new,) = _documents(1, first=5000)
    with opened(folded) as reader:
        assert reader.nearest(new.vectors[:1], 1)[0][0][1] < 0.99
        with writing(folded) as writer:
            writer.add([new])
            number = reader.nearest(new.vectors[:1], 1)[0][0][0]
            assert number == reader.numbers("passages")[-2]
            assert writer.delete([parsed("odd = 1")]) == 200
            assert all(pair[0] > 0 for pair in reader.nearest(new.vectors[:1], 400)[0])
            writer.fold(now=True)
        assert reader.count("passages") == 402
        assert len(reader.exactly(new.vectors[:1], 500)[0]) == 402
        there = set(reader.numbers("passages").tolist())  # of which a graph may miss some
        assert {pair[0] for pair in reader.nearest(new.vectors[:1], 500)[0]} <= there
        assert reader.nearest(new.vectors[:1], 1)[0][0][0] == number


def test_one_writer_at_a_time(in_a_directory: Path, songs: Path) -> None:
    with writing(in_a_directory):
        with pytest.raises(InputError, match="Another program is writing into"):
            index(in_a_directory, [songs], Hashed(), text="lyrics")
        assert Searcher(in_a_directory, Hashed()).search("wind")
    index(in_a_directory, [songs], Hashed(), text="lyrics")


OTHERS: list[tuple[Callable[[], Hashed], str]] = [
    (lambda: Hashed("another"), "was made by hashed .* and this is another .* cannot be compared"),
    (lambda: Hashed(precision="bf16"), "was made in fp32, and this model computes in bf16: --precision fp32"),
]


@pytest.mark.parametrize(("model", "want"), OTHERS)
def test_another_model_is_refused(model: Callable[[], Hashed], want: str, made: Place, songs: Path) -> None:
    with pytest.raises(InputError, match=want):
        Searcher(made, model())
    with pytest.raises(InputError, match=want):
        index(made, [songs], model(), text="lyrics")


def test_another_way_of_cutting_is_refused(made: Place, songs: Path) -> None:
    with pytest.raises(InputError, match="has verses and is keyed by whole rows"):
        index(made, [songs], Hashed(), text="lyrics", split="sentences")
    with pytest.raises(InputError, match="'words' is none of verses"):
        index(made, [songs], Hashed(), text="lyrics", split="words")


def test_what_is_no_index(tmp_path: Path, songs: Path) -> None:
    with pytest.raises(InputError, match="There is no index in"):
        opened(tmp_path)
    with pytest.raises(InputError, match="is there already and is no index"):
        index(tmp_path, [songs], Hashed(), text="lyrics")


# --- damage -----------------------------------------------------------------------------------------------------


def _cut_short(place: Path) -> None:
    (file,) = place.glob("vectors-*")
    file.write_bytes(file.read_bytes()[:-9])


def _removed(place: Path) -> None:
    (file,) = place.glob("vectors-*")
    file.unlink()


@pytest.mark.parametrize("damage", [_cut_short, _removed])
def test_a_damaged_file_of_vectors_is_made_again(damage: Callable[[Path], None], file_of_vectors: Path) -> None:
    damage(file_of_vectors)
    with pytest.raises(IndexDamaged, match=r"is damaged: .*   paritas search info .* --repair"):
        DirectoryIndex(file_of_vectors)
    with DirectoryWriter(file_of_vectors, repair=True) as writer:
        writer.fold(again=True)
    assert of_index(file_of_vectors, 20)["recall"] > 0.98


def test_a_byte_inside_is_found_when_everything_is_read(file_of_vectors: Path) -> None:
    (file,) = file_of_vectors.glob("vectors-*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with DirectoryIndex(file_of_vectors) as found, pytest.raises(IndexDamaged, match="is not what was written"):
        found.check()


def test_a_damaged_database_says_so(in_a_directory: Path) -> None:
    (in_a_directory / "index.db").write_bytes(b"x" * 8192)
    with pytest.raises(IndexDamaged, match=r"index.db is damaged: file is not a database. Nothing was changed"):
        DirectoryIndex(in_a_directory)


def test_an_index_of_another_version(in_a_directory: Path) -> None:
    with sqlite3.connect(in_a_directory / "index.db") as connection:
        connection.execute("update meta set value = '9' where name = 'format'")
    with pytest.raises(InputError, match="is an index of format 9"):
        DirectoryIndex(in_a_directory)


def test_a_full_disk_leaves_what_was_there(in_a_directory: Path) -> None:
    with DirectoryWriter(in_a_directory) as writer:
        (pages,) = writer._rows("pragma page_count")[0]
        writer._rows(f"pragma max_page_count = {pages}")
        with pytest.raises(InputError, match=r"The disk is full: .* is as it was before the last batch"):
            writer.add(_documents(400))
    with DirectoryIndex(in_a_directory) as found:
        found.check()
        assert found.count("documents") == 3


def test_a_full_disk_while_vectors_are_written(file_of_vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with DirectoryWriter(file_of_vectors) as writer:
        writer.add(_documents(1, first=9000))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(InputError, match="Is the disk full"):
                writer.fold(now=True)
    with DirectoryIndex(file_of_vectors) as found:
        found.check()
        assert found.count("passages") == 802
        assert len(list(file_of_vectors.glob("vectors-*"))) == 1


def test_what_was_written_for_a_while_is_swept(file_of_vectors: Path) -> None:
    for name in ("vectors-1-aaaa.usearch", ".vectors-2.usearch.tmp-1-0123abcd"):
        (file_of_vectors / name).write_text("x")
    with DirectoryWriter(file_of_vectors):
        assert len([one for one in file_of_vectors.iterdir() if "vectors" in one.name]) == 1


# --- out again --------------------------------------------------------------------------------------------------


def test_what_is_in_it_can_be_taken_out(made: Place, tmp_path: Path) -> None:
    assert exported(made, tmp_path / "out.jsonl", vectors=True) == 6
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[1]["text"] == "Running wild across the plains\nno fence can hold us in"
    assert lines[0]["columns"]["artist"] == "The Wanderers"
    exported(made, tmp_path / "out.npz")
    found = np.load(tmp_path / "out.npz")
    assert found["vectors"].shape == (6, DIMENSIONS)
    assert np.abs(found["vectors"][1] - lines[1]["vector"]).max() < 1e-5
    with pytest.raises(InputError, match="is of no kind that is written"):
        exported(made, tmp_path / "out.csv")


# --- beside an engine -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_openvino_computes_where_the_graph_was_loaded_first() -> None:
    code = (
        "from paritas.apps.search.graph import made; made(8); import numpy, openvino\n"
        "from openvino import opset13 as o\n"
        "x = o.parameter([2]); model = openvino.Model([o.relu(x)], [x]); import tempfile\n"
        "path = tempfile.mkdtemp() + '/m.xml'; openvino.save_model(model, path)\n"
        "found = openvino.Core().compile_model(openvino.Core().read_model(path), 'CPU')\n"
        "print(found(numpy.array([-1, 2], 'float32'))[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[0.0, 2.0]", done.stderr


# --- killed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_what_was_confirmed_survives_being_killed(times: int, tmp_path: Path) -> None:
    """Adding, deleting and writing the file of vectors, at random moments."""
    place, chance = tmp_path / "killed.idx", random.Random(0)
    there: dict[int, bool] = {}
    number = 0
    for _ in range(times):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "hashed.py"), str(place), "delete", str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # so that it is at work
        time.sleep(chance.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        for line in filter(None, map(str.split, lines)):
            if len(line) == 2 and line[1].isdigit():
                there[int(line[1])] = line[0] == "there"
        with DirectoryIndex(place) as found:
            found.check()
            known = {row[0] for row in found._rows("select distinct json_extract(columns, '$.batch') from documents")}
            whole = found._rows("select count(*) from documents group by json_extract(columns, '$.batch')")
            assert {row[0] for row in whole} <= {8}
            words = found._rows("select count(*) from words where words match 'rain'")[0][0]
            assert words == found.count("documents")
            last = max(there, default=0)
            # What was being written when it was killed may be there or not.
            assert {n for n, is_there in there.items() if is_there and n < last} <= known
            assert not {n for n, is_there in there.items() if not is_there} & known
            there[last] = last in known
        number = (last + 8) // 4 * 4
    assert any(there.values())
    assert not all(there.values()) or times < 10
