# SPDX-License-Identifier: Apache-2.0
"""An index in PostgreSQL: what its URL is and never shows, many writers at once, and what a server can do to it.

What is the same in a directory is tested in `test_text_search`, for both.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hashed import Hashed
from stores import placed, server

from paritas.extras import missing

if missing("postgres"):
    pytest.skip("paritas[postgres] is not installed", allow_module_level=True)

from paritas.apps.search import places, postgres, songs
from paritas.apps.search.address import Address, within
from paritas.apps.search.filters import parsed
from paritas.apps.search.indexing import add_rows
from paritas.apps.search.reading import Row
from paritas.apps.search.searching import Searcher, words_of
from paritas.apps.search.store import Place
from paritas.errors import IndexDamaged, InputError

SETTINGS = {"text": "text", "split": "verses", "key": ""}

# --- its name -----------------------------------------------------------------------------------------------------

SHOWN = [
    (
        "postgresql://ana:s3cret@db.example.org:5433/texts?schema=songs",
        "postgresql://ana@db.example.org:5433/texts?schema=songs",
    ),
    ("postgres://db/texts", "postgresql://db/texts?schema=paritas"),
    ("postgresql://ana:s3%40cret%2F@db/texts?sslmode=require", "postgresql://ana@db/texts?schema=paritas"),
    ("postgresql://db/texts?password=s3cret&user=ana&schema=a b", "postgresql://ana@db/texts?schema=a%20b"),
    ("postgresql:///texts?host=/run/pg", "postgresql://%2Frun%2Fpg/texts?schema=paritas"),
]


@pytest.mark.parametrize(("url", "want"), SHOWN)
def test_a_url_is_shown_without_its_password(url: str, want: str) -> None:
    assert places.shown(url) == want
    assert places.shown(want) == want


REFUSED = [
    ("postgresql://ana:s3cret@rest@db/texts", "cannot be read"),
    ("postgresql://ana:s3cret/rest@db/texts", "cannot be read"),
    ("postgresql://ana:s3cret@db:port/texts?sslmode", "cannot be read|cannot be reached"),
    ("postgresql://ana:s3cret@db/texts?s3cret=1", "the options after"),
    ("postgresql://ana:s3cret@[db/texts", "cannot be read"),
    ("postgresql://ana:s3cret@db/texts?schema=pg_x", "'pg_x' cannot be the name"),
    ("postgresql://ana:s3cret@db/texts?schema=", "'' cannot be the name"),
    (Path("postgresql://ana:s3cret@db/texts"), "given as a string"),
    (
        "postgresql://ana:s3cret@127.0.0.1:1/texts?connect_timeout=2",
        "ana@127.0.0.1:1/texts.* cannot be reached: .*refused",
    ),
    ("postgresql://ana:s3cret@127.0.0.1:99999/texts", "cannot be re"),
]


@pytest.mark.parametrize(("url", "want"), REFUSED)
def test_no_error_repeats_a_password(url: Place, want: str) -> None:
    with pytest.raises(InputError, match=want) as caught:
        places.opened(url)
    error: BaseException | None = caught.value
    while error is not None:  # what --debug shows
        assert "s3cret" not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_a_name_in_a_store() -> None:
    assert within("postgresql://db/texts", "my songs") == "postgresql://db/texts?schema=my%20songs"
    assert within("postgresql://db/texts?sslmode=require", "") == "postgresql://db/texts?sslmode=require"
    assert Address(within("postgresql://db/texts", "songs.idx")).schema == "songs.idx"
    with pytest.raises(InputError, match="is the URL of a database"):
        within("songs.db", "songs")
    with pytest.raises(InputError, match="has a schema= already"):
        within("postgresql://ana:s3cret@db/texts?schema=a", "b")


# --- a server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(placed("postgres", tmp_path)("served"))


@pytest.fixture
def raw(place: str) -> Iterator[Any]:
    """A connection of one's own, as another program has it."""
    with Address(place).connected() as connection:
        yield connection


def _rows(count: int, first: int = 0) -> list[Row]:
    return [Row(str(n), f"text {n}\n\nrain {n % 7}", {"n": n}) for n in range(first, first + count)]


@pytest.mark.slow
def test_words_rank_as_in_a_directory(place: str, tmp_path: Path) -> None:
    some = [Row(str(n), song.lyrics, song.columns()) for n, song in enumerate(songs.songs(300))]
    odd = ["Café über-groß naïve", "don't stop; 3.14 a_b", "ÇA VA, Ça va ça", "日本 Ελλάδα ελλάδα"]
    odd += ["rain rain rain rain", "x" * 700]
    some += [Row(f"odd {n}", text, {"year": 2000}) for n, text in enumerate(odd)]
    there = tmp_path / "songs.idx"
    for one in (place, there):
        add_rows(one, some, Hashed(), SETTINGS)
    with places.opened(place) as served, places.opened(there) as kept:
        first = int(served.numbers("passages")[0]) - int(kept.numbers("passages")[0])
        asked = ["the rain", "love and the sea", "CAFE", "uber", "groß", "a_b", "3.14", "ça", "Ελλάδα", "日本"]
        asked += ["don't", "x" * 700, "nothing-such", "_"]
        for query in [*asked, *(query for query, _ in songs.queries())]:
            for filters in ([], [parsed("year >= 1990")]):
                want = kept.by_words(words_of(query), 50, filters)
                assert [number - first for number in served.by_words(words_of(query), 50, filters)] == want, query


@pytest.mark.slow
def test_two_writers_and_a_reader_at_once(place: str) -> None:
    add_rows(place, _rows(1), Hashed(), SETTINGS)
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            mixed = _rows(1200)
            random.Random(seed).shuffle(mixed)
            for first in range(0, 1200, 300):
                add_rows(place, mixed[first : first + 300], Hashed(), SETTINGS)
                with places.writing(place) as writer:
                    writer.delete([parsed(f"n = {seed * 10 + first // 300}")])
        except BaseException as error:  # noqa: BLE001 - of a thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for one in threads:
        one.start()
    searcher = Searcher(place, Hashed())
    while any(one.is_alive() for one in threads):
        assert searcher.search("rain", 3)
    for one in threads:
        one.join()
    assert not wrong
    add_rows(place, _rows(1200), Hashed(), SETTINGS)
    with places.opened(place) as found:
        found.check()
        assert found.count("documents") == 1200
        assert found.count("passages") == 2400


@pytest.mark.slow
@pytest.mark.parametrize("times", [10])
def test_what_was_confirmed_survives_a_killed_writer(times: int, place: str) -> None:
    chance = random.Random(0)
    there: set[int] = set()
    gone: set[int] = set()
    for turn in range(times):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "hashed.py"), place, "delete", str(1000 * turn)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        said = [line.split() for line in lines if len(line.split()) == 2]
        there |= {int(number) for word, number in said if word == "there" and number.isdigit()}
        gone |= {int(number) for word, number in said if word == "gone" and number.isdigit()}
    time.sleep(0.5)  # until the server has noticed
    with places.opened(place) as found:
        found.check()
        numbers = [one.columns["batch"] for one in found.documents(found.numbers("documents").tolist()).values()]
    assert {numbers.count(one) for one in set(numbers)} == {8}
    last = {max(n for n in there if n // 1000 == turn) for turn in {n // 1000 for n in there}}
    assert there - gone - last <= set(numbers)
    assert not gone & set(numbers)


@pytest.mark.slow
def test_a_schema_of_others_and_one_that_was_made_ready(place: str, raw: Any) -> None:
    schema = Address(place).schema
    raw.execute(f'create schema "{schema}"')
    add_rows(place, _rows(3), Hashed(), SETTINGS)
    other = within(server(), f"{schema}_other")
    with pytest.raises(InputError, match=r"There is no index in .*_other"):
        places.opened(other)
    raw.execute(f'create schema "{schema}_other"')
    raw.execute(f'create table "{schema}_other".theirs (n int)')
    with pytest.raises(InputError, match="has other tables"):
        add_rows(other, _rows(3), Hashed(), SETTINGS)
    raw.execute(f'select * from "{schema}_other".theirs')


@pytest.mark.slow
def test_what_fails_at_once_leaves_nothing(place: str, raw: Any) -> None:
    def given() -> Iterator[Row]:
        raise InputError("no")
        yield

    with pytest.raises(InputError, match="no"):
        add_rows(place, given(), Hashed(), SETTINGS)
    assert not places.exists(place)
    assert not raw.execute("select 1 from pg_namespace where nspname = %s", (Address(place).schema,)).fetchall()
    create = lambda: places.create(place, Hashed().identity, SETTINGS)  # noqa: E731
    create()
    create()  # as by another program, a moment later
    add_rows(place, _rows(2), Hashed(), SETTINGS)


@pytest.mark.slow
def test_a_user_who_may_only_read(place: str, raw: Any) -> None:
    add_rows(place, _rows(20), Hashed(), SETTINGS)
    address = Address(place)
    role = f"reader_{os.getpid()}"
    raw.execute(f"create role {role} login password 's3cret'")
    raw.execute(f'grant usage on schema "{address.schema}" to {role}')
    raw.execute(f'grant select on all tables in schema "{address.schema}" to {role}')
    reader = place.replace("postgres:@", f"{role}:s3cret@")
    if reader == place:
        pytest.skip("another server's users have other passwords")
    assert Searcher(reader, Hashed()).search("rain", 2)
    with pytest.raises(InputError, match="cannot be written to or read: permission denied") as caught:
        add_rows(reader, _rows(5, 100), Hashed(), SETTINGS)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(InputError, match="permission denied"):
        add_rows(f"{reader}_new", _rows(5), Hashed(), SETTINGS)


@pytest.mark.slow
def test_a_connection_that_was_cut(place: str, raw: Any) -> None:
    add_rows(place, _rows(20), Hashed(), SETTINGS)
    searcher = Searcher(place, Hashed())
    cut = (
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'paritas search' and pid <> pg_backend_pid()"
    )
    raw.execute(cut)
    time.sleep(0.2)
    assert searcher.search("rain", 2)
    with places.writing(place) as writer:
        raw.execute(cut)
        time.sleep(0.2)
        with pytest.raises(InputError, match=r"The connection to .* was lost.* run the same again"):
            writer.delete([parsed("n < 10")])
    with places.opened(place) as found:
        found.check()
        assert found.count("documents") == 20


@pytest.mark.slow
def test_damage_is_found_and_a_graph_made_again(place: str, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "WAITING", 10)
    add_rows(place, _rows(40), Hashed(), SETTINGS)
    schema = Address(place).schema
    with places.writing(place) as writer:
        assert writer.sizes()[1] == 80
        raw.execute(f"update pg_index set indisvalid = false where indexrelid = '\"{schema}\".passages_near'::regclass")
        with pytest.raises(IndexDamaged, match=r"was not finished.* --repair"):
            writer.check()
        assert writer.nearest(Hashed().embed(["text 3"]), 3)[0][0][1] > 0.99
        writer.fold(again=True)
        writer.check()
        raw.execute(f'delete from "{schema}".passages where id in (select id from "{schema}".passages limit 1)')
        with pytest.raises(IndexDamaged, match=r"counted are .* Nothing was changed"):
            writer.check()
    raw.execute(f"update \"{schema}\".meta set value = '9' where name = 'format'")
    with pytest.raises(InputError, match="is an index of format 9"):
        places.opened(place)


@pytest.mark.slow
def test_a_text_that_changed_takes_the_old_ones_place_once(place: str) -> None:
    keyed = {**SETTINGS, "key": "n"}
    add_rows(place, _rows(20), Hashed(), keyed)
    changed = [dataclasses.replace(one, text=one.text + "\n\nmore") for one in _rows(20)[:5]]
    assert add_rows(place, [*changed, *_rows(20)[5:]], Hashed(), keyed).known == 15
    with places.opened(place) as found:
        found.check()
        assert (found.count("documents"), found.count("passages")) == (20, 45)
