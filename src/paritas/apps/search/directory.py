# SPDX-License-Identifier: Apache-2.0
"""The store that is a directory, with a database and a file of vectors that can be searched fast.

    index.db             SQLite: texts, columns, passages with their vectors, words for BM25, and which model it was
    vectors-N.usearch    the vectors of the passages up to number N, as a graph of neighbours, memory-mapped

The database is the truth, and what it has confirmed stays: a batch is one transaction. The file is made of it, now and
then: passages behind N are searched one by one, passages that were deleted are passed over. So a process that is killed
leaves nothing half-made, and readers go on while one writer writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from paritas import leftovers
from paritas.apps.search import graph
from paritas.apps.search.embedding import Identity
from paritas.apps.search.filters import Filter, folded
from paritas.apps.search.store import (
    Document,
    Kept,
    Nearest,
    Passage,
    compared,
    grouped,
    halves,
    in_order,
    largest,
    no_index,
)
from paritas.errors import IndexDamaged, InputError
from paritas.extras import require

try:
    import fcntl
except ImportError:  # Windows: two writers are kept apart by the database alone
    fcntl = None  # type: ignore[assignment]

DATABASE, LOCK = "index.db", "writing"

#: The version of this layout.
FORMAT = 1

#: So many passages may be outside of the file of vectors, or this share of what is in it, before it is made again.
WAITING, SHARE = 5_000, 0.1

#: Rows that are read at once.
_BATCH = 20_000

#: Values that one query is given.
_AMONG = 500

_TABLES = """
create table meta (name text primary key, value text not null) without rowid;
create table documents (
    id integer primary key autoincrement, key text not null unique, columns text not null, text text not null);
create table passages (
    id integer primary key autoincrement, document integer not null, start integer not null, stop integer not null,
    vector blob not null);
create index passages_of on passages (document);
create table gone (id integer primary key);
create virtual table words using fts5 (text, content='', tokenize="unicode61 remove_diacritics 2");
"""


@contextlib.contextmanager
def _said(place: Path) -> Iterator[None]:
    """What SQLite raises, as errors that say what it means for this index."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise InputError(f"The disk is full: {place} is as it was before the last batch.") from error
        if "locked" in str(error) or "busy" in str(error):
            raise InputError(f"Another program is writing into {place}. Try again when it is done.") from error
        if "readonly" in str(error) or "unable to open" in str(error):
            raise InputError(f"{place} cannot be written to: {error}.") from error
        raise _damaged(place, error) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(place, error) from error


def _damaged(place: Path, error: object) -> IndexDamaged:
    return IndexDamaged(
        f"{place / DATABASE} is damaged: {error}. Nothing was changed. Take it from a backup, or index the files again."
    )


def is_index(place: Path) -> bool:
    return (place / DATABASE).is_file()


def _connected(place: Path, *, write: bool) -> sqlite3.Connection:
    if not is_index(place):
        raise no_index(str(place))
    connection = sqlite3.connect(
        f"file:{_quoted(place / DATABASE)}?mode={'rw' if write else 'ro'}",
        uri=True,
        isolation_level=None,
        timeout=5,
        check_same_thread=False,
    )
    with _said(place):
        connection.create_function("folded", 1, folded, deterministic=True)
        if write:
            connection.execute("pragma synchronous = full")
        found = dict(connection.execute("select name, value from meta"))
    version = json.loads(found.get("format", "0"))
    if version != FORMAT:
        raise InputError(f"{place} is an index of format {version}, and this version of Paritas reads {FORMAT}.")
    return connection


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def create(place: Path, identity: Identity, settings: dict[str, Any]) -> None:
    """Make an empty index: beside, and moved into place. settings: how texts are cut, and from which column."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place} is there already and is no index. Choose another place.")
    place.parent.mkdir(parents=True, exist_ok=True)
    made = leftovers.beside(place, "tmp")
    made.mkdir()
    try:
        with _said(place), contextlib.closing(sqlite3.connect(made / DATABASE, isolation_level=None)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(_TABLES)
            kept = {"format": FORMAT, "model": dataclasses.asdict(identity), "settings": settings, "file": None}
            connection.executemany("insert into meta values (?, ?)", [(n, json.dumps(v)) for n, v in kept.items()])
            connection.execute("pragma wal_checkpoint(truncate)")
        if place.is_dir():
            place.rmdir()
        os.rename(made, place)
    except BaseException:
        for one in made.glob("*"):
            one.unlink()
        with contextlib.suppress(OSError):
            made.rmdir()
        raise


class DirectoryIndex:
    """See `store.Index`."""

    def __init__(self, place: str | Path, *, write: bool = False) -> None:
        require("search", "paritas search")
        self.place, self.shown = Path(place), str(place)
        self._connection = _connected(self.place, write=write)
        self._seen: Any = None
        self._file: Any = None
        self._file_name = ""
        self._waiting: tuple[np.ndarray, np.ndarray] | None = None
        self._gone = np.empty(0, np.int64)
        with _said(self.place):
            self._look()

    def close(self) -> None:
        self._file = None
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it says of itself ---

    def meta(self, name: str) -> Any:
        with _said(self.place):
            row = self._connection.execute("select value from meta where name = ?", (name,)).fetchone()
        if row is None:
            raise _damaged(self.place, f"it has no {name}")
        return json.loads(row[0])

    @property
    def identity(self) -> Identity:
        return Identity(**self.meta("model"))

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.meta("settings")
        return found

    def count(self, what: str) -> int:
        assert what in ("documents", "passages", "gone")
        found: int = self._rows(f"select count(*) from {what}")[0][0]
        return found

    def numbers(self, what: str) -> np.ndarray:
        assert what in ("documents", "passages")
        return np.array([row[0] for row in self._rows(f"select id from {what} order by id")], np.int64)

    def sizes(self) -> tuple[int, int]:
        told = self.meta("file")
        inside = told["count"] - self.count("gone") if told else 0
        return sum(one.stat().st_size for one in self.place.iterdir()), inside

    def columns(self) -> list[str]:
        first = "(select columns from documents order by id limit 200)"
        return [row[0] for row in self._rows(f"select distinct e.key from {first} d, json_each(d.columns) e")]

    def has_column(self, name: str) -> bool:
        found = "select 1 from documents where json_type(columns, ?) is not null limit 1"
        return bool(self._rows(found, (_path(name),)))

    def values(self, column: str, most: int) -> list[Any]:
        found = "select distinct json_extract(columns, ?) from documents limit ?"
        return [row[0] for row in self._rows(found, (_path(column), most)) if row[0] is not None]

    def span(self, column: str) -> tuple[int, int] | None:
        path = _path(column)
        found = (
            "select min(json_extract(columns, ?)), max(json_extract(columns, ?)) from documents "
            "where json_type(columns, ?) = 'integer'"
        )
        ((low, high),) = self._rows(found, (path, path, path))
        return None if low is None else (int(low), int(high))

    def _rows(self, text: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _said(self.place):
            return self._connection.execute(text, given).fetchall()

    def _rows_among(self, text: str, among: Sequence[Any], given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds that asks for one of many: `{}` in it is their list, before what else is given."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(among), _AMONG):
            part = list(among[start : start + _AMONG])
            found += self._rows(text.replace("{}", ", ".join("?" * len(part)), 1), [*part, *given])
        return found

    def check(self) -> None:
        """Read everything. Raises `IndexDamaged`."""
        with _said(self.place):
            (found,) = self._connection.execute("pragma integrity_check").fetchone()
        if found != "ok":
            raise _damaged(self.place, found)
        told = self.meta("file")
        if told and graph.digest(self.place / told["name"]) != told["sha256"]:
            raise self._broken(told["name"], "it is not what was written")

    # --- searching ---

    def nearest(self, vectors: np.ndarray, count: int) -> list[Nearest]:
        """What is in the file is found by its graph; what waits outside is compared one by one."""
        with _said(self.place):
            self._look()
        wanted = np.atleast_2d(np.asarray(vectors, np.float32))
        found: list[dict[int, float]] = [{} for _ in wanted]
        if self._file is not None and len(self._file):
            most = min(count + len(self._gone), len(self._file))
            for place, one in enumerate(wanted):
                matches = self._file.search(one, most)
                keys, scores = np.asarray(matches.keys, np.int64), 1.0 - np.asarray(matches.distances)
                kept = ~np.isin(keys, self._gone)
                found[place].update(zip(keys[kept].tolist(), scores[kept].tolist(), strict=True))
        if self._waiting is not None and len(self._waiting[0]):
            numbers, matrix = self._waiting
            for place, row in enumerate(wanted @ matrix.T):
                best = largest(row, count)
                found[place].update(zip(numbers[best].tolist(), row[best].tolist(), strict=True))
        return [in_order(one.items())[:count] for one in found]

    def exactly(self, vectors: np.ndarray, count: int, filters: Sequence[Filter] = ()) -> list[Nearest]:
        where, given = _condition(filters)
        joined = f" join documents d on d.id = p.document where {where}" if where else ""
        parts = self._vectors(f"select p.id, p.vector from passages p{joined}", given)
        return compared(parts, np.atleast_2d(np.asarray(vectors, np.float32)), count)

    def by_words(self, words: Sequence[str], count: int, filters: Sequence[Filter] = ()) -> list[int]:
        """By SQLite's BM25."""
        asked = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        if not asked:
            return []
        where, given = _condition(filters)
        # The words' own order first: the condition is asked of the best alone.
        condition = (
            f" and exists (select 1 from passages p join documents d on d.id = p.document "
            f"where p.id = words.rowid and {where})"
            if where
            else ""
        )
        text = f"select rowid from words where words match ?{condition} order by rank limit ?"
        return [row[0] for row in self._rows(text, (asked, *given, count))]

    def left(self, filters: Sequence[Filter], most: int) -> int:
        where, given = _condition(filters)
        joined = f" join documents d on d.id = p.document where {where}" if where else ""
        found: int = self._rows(f"select count(*) from (select 1 from passages p{joined} limit ?)", (*given, most))[0][
            0
        ]
        return found

    # --- what is in it ---

    def places(self, passages: Sequence[int], filters: Sequence[Filter] = ()) -> dict[int, tuple[int, int, int]]:
        where, given = _condition(filters)
        joined, also = (" join documents d on d.id = p.document", f" and {where}") if where else ("", "")
        text = f"select p.id, p.document, p.start, p.stop from passages p{joined} where p.id in ({{}}){also}"
        return {row[0]: (row[1], row[2], row[3]) for row in self._rows_among(text, passages, given)}

    def documents(self, numbers: Sequence[int]) -> dict[int, Kept]:
        text = "select id, key, text, columns from documents where id in ({})"
        return {row[0]: Kept(row[1], row[2], json.loads(row[3])) for row in self._rows_among(text, numbers)}

    def keyed(self, key: str) -> Kept | None:
        rows = self._rows("select key, text, columns from documents where key = ?", (key,))
        return Kept(rows[0][0], rows[0][1], json.loads(rows[0][2])) if rows else None

    def vectors(self, passages: Sequence[int]) -> dict[int, np.ndarray]:
        rows = self._rows_among("select id, vector from passages where id in ({})", passages)
        return dict(zip((row[0] for row in rows), self._matrix(row[1] for row in rows), strict=True))

    def vectors_of(self, documents: Sequence[int]) -> dict[int, np.ndarray]:
        rows = self._rows_among("select document, vector from passages where document in ({})", documents)
        return grouped(zip((row[0] for row in rows), self._matrix(row[1] for row in rows), strict=True))

    def matrices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._vectors("select id, vector from passages order by id")

    def passages(self) -> Iterator[Passage]:
        text = (
            "select p.id, d.key, d.columns, substr(d.text, p.start + 1, p.stop - p.start), p.vector "
            "from passages p join documents d on d.id = p.document order by p.id"
        )
        with _said(self.place):
            for number, key, columns, words, vector in self._connection.execute(text):
                yield Passage(number, key, json.loads(columns), words, self._matrix([vector])[0])

    def _vectors(self, text: str, given: Sequence[Any] = ()) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with _said(self.place):
            cursor = self._connection.execute(text, given)
            while rows := cursor.fetchmany(_BATCH):
                yield np.array([row[0] for row in rows], np.int64), self._matrix(row[1] for row in rows)

    def _matrix(self, blobs: Iterable[bytes]) -> np.ndarray:
        """Vectors as they are in the database, float32 [vectors, dimensions]."""
        try:
            return halves(blobs, self._dimensions)
        except ValueError as error:
            raise _damaged(self.place, error) from error

    def _look(self) -> None:
        """Read again what another process may have changed."""
        connection = self._connection
        (seen,) = connection.execute("pragma data_version").fetchone()
        if seen == self._seen:
            return
        for _ in range(3):  # the file may be replaced between being named and being opened
            connection.execute("begin")
            try:
                self._dimensions = int(self.meta("model")["dimensions"])
                told = self.meta("file")
                last = told["last"] if told else 0
                self._gone = np.array([row[0] for row in connection.execute("select id from gone")], np.int64)
                rows = connection.execute("select id, vector from passages where id > ?", (last,)).fetchall()
            finally:
                connection.execute("commit")
            self._waiting = np.array([row[0] for row in rows], np.int64), self._matrix(row[1] for row in rows)
            if self._mapped(told):
                break
        else:
            raise self._broken(told["name"], "it is not there")
        self._seen = seen

    def _mapped(self, told: dict[str, Any] | None) -> bool:
        """Open the file of vectors; False where it is no longer there."""
        if not told:
            self._file, self._file_name = None, ""
            return True
        if told["name"] == self._file_name:
            return True
        path = self.place / told["name"]
        try:
            size, ends = path.stat().st_size, graph.ends(path)
        except FileNotFoundError:
            return False
        if size != told["size"] or ends != told["ends"]:
            raise self._broken(told["name"], "it is not what was written")
        made = graph.made(self._dimensions, lookups=False)
        try:
            made.view(path)
            made.expansion_search = graph.EXPANSION_SEARCH  # which the file does not keep
        except Exception as error:
            raise self._broken(told["name"], str(error)) from error
        self._file, self._file_name = made, told["name"]
        return True

    def _broken(self, name: str, why: str) -> IndexDamaged:
        return IndexDamaged(
            f"{self.place / name} is damaged: {why}. Its vectors are in {DATABASE} as well, and the file is made again "
            f"of them:   paritas search info {self.place} --repair"
        )


class DirectoryWriter(DirectoryIndex):
    """See `store.Writer`. By one process at a time: raises `InputError` where another one writes."""

    def __init__(self, place: str | Path, *, repair: bool = False) -> None:
        self._held = _locked(Path(place))
        self._repairing = repair
        try:
            super().__init__(place, write=True)
            self._sweep()
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._let_go()

    def discard(self) -> None:
        self._connection.close()
        for one in self.place.iterdir():
            one.unlink()
        self.place.rmdir()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _mapped(self, told: dict[str, Any] | None) -> bool:
        return True if self._repairing else super()._mapped(told)

    def add(self, documents: Sequence[Document]) -> int:
        with self._transaction():
            known = self._numbers([one.key for one in documents])
            self._remove(list(known.values()))
            passages = 0
            for one in documents:
                number = self._connection.execute(
                    "insert into documents (key, columns, text) values (?, ?, ?)",
                    (one.key, json.dumps(one.columns, ensure_ascii=False), one.text),
                ).lastrowid
                for (start, stop), vector in zip(one.passages, np.asarray(one.vectors, "<f2"), strict=True):
                    place = self._connection.execute(
                        "insert into passages (document, start, stop, vector) values (?, ?, ?, ?)",
                        (number, start, stop, vector.tobytes()),
                    ).lastrowid
                    self._connection.execute(
                        "insert into words (rowid, text) values (?, ?)", (place, one.text[start:stop])
                    )
                    passages += 1
        return passages

    def known(self, keys: Sequence[str]) -> set[str]:
        return set(self._numbers(keys))

    def delete(self, filters: Sequence[Filter]) -> int:
        where, given = _condition(filters)
        numbers = [row[0] for row in self._rows(f"select d.id from documents d where {where or 'true'}", given)]
        for start in range(0, len(numbers), _BATCH):
            with self._transaction():
                self._remove(numbers[start : start + _BATCH])
        return len(numbers)

    def fold(self, *, share: float | None = None, now: bool = False, again: bool = False) -> None:
        """Put what waits into the file of vectors, if it is more than `WAITING` passages and than a share of it."""
        told = None if again else self.meta("file")
        inside, last = (told["count"], told["last"]) if told else (0, 0)
        waiting = self._rows("select count(*) from passages where id > ?", (last,))[0][0]
        gone = self.count("gone")
        if not now and not again and waiting + gone <= max(WAITING, (SHARE if share is None else share) * inside):
            return
        made = graph.made(self._dimensions)
        if told:
            made.load(self.place / told["name"])
            made.expansion_add = graph.EXPANSION_ADD  # which the file does not keep
            for (number,) in self._rows("select id from gone"):
                made.remove(number)
        top = last
        for numbers, matrix in self._vectors("select id, vector from passages where id > ? order by id", (last,)):
            made.add(numbers.astype(np.uint64), matrix)
            top = int(numbers[-1])
        name = f"vectors-{top}-{os.urandom(4).hex()}.usearch"
        path, written = self.place / name, leftovers.beside(self.place / name, "tmp")
        try:
            made.save(written)
            with written.open("rb+") as file:
                os.fsync(file.fileno())
            size, ends, whole = written.stat().st_size, graph.ends(written), graph.digest(written)
            if not graph.made(self._dimensions).metadata(written):
                raise OSError("it cannot be read back")
            os.rename(written, path)
        except (OSError, RuntimeError) as error:
            written.unlink(missing_ok=True)
            raise InputError(
                f"The file of vectors could not be written: {error}. Is the disk full? {self.place} is as it was."
            ) from error
        about = {"name": name, "last": top, "count": len(made), "size": size, "ends": ends, "sha256": whole}
        with self._transaction():
            self._connection.execute("update meta set value = ? where name = 'file'", (json.dumps(about),))
            self._connection.execute("delete from gone")
        self._repairing = False
        self._seen = None
        self._sweep()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _said(self.place):
            self._connection.execute("begin immediate")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
            finally:
                self._seen = None

    def _numbers(self, keys: Sequence[str]) -> dict[str, int]:
        return dict(self._rows_among("select key, id from documents where key in ({})", keys))

    def _remove(self, documents: Sequence[int]) -> None:
        told = None if self._repairing or not documents else self.meta("file")
        last = told["last"] if told else 0
        for number in documents:
            (text,) = self._connection.execute("select text from documents where id = ?", (number,)).fetchone()
            rows = self._connection.execute("select id, start, stop from passages where document = ?", (number,))
            for place, start, stop in rows.fetchall():
                self._connection.execute(
                    "insert into words (words, rowid, text) values ('delete', ?, ?)", (place, text[start:stop])
                )
                if place <= last:
                    self._connection.execute("insert into gone values (?)", (place,))
            self._connection.execute("delete from passages where document = ?", (number,))
            self._connection.execute("delete from documents where id = ?", (number,))

    def _sweep(self) -> None:
        """Remove files of vectors that nobody names any more: a process was killed between two steps."""
        told = self.meta("file")
        for one in self.place.iterdir():
            old = one.name.startswith("vectors-") and one.name != (told or {}).get("name")
            if old or leftovers.is_beside(one.name):
                one.unlink(missing_ok=True)


def _path(column: str) -> str:
    """A column in SQLite's language of paths in JSON."""
    return '$."' + column.replace('"', '\\"') + '"'


def _condition(filters: Sequence[Filter]) -> tuple[str, list[Any]]:
    """Filters as a condition in SQL on documents `d`, and what is put into it: what each means says `filters`."""
    parts: list[str] = []
    given: list[Any] = []
    cell = "json_extract(d.columns, ?)"
    for one in filters:
        path = _path(one.column)
        if one.operator == "~":
            parts.append(f"instr(folded({cell}), ?) > 0")
            given += [path, folded(one.value)]
        elif one.operator in ("=", "!="):
            parts.append(f"{'not ' * (one.operator == '!=')}({cell} is ? or {cell} is ?)")
            given += [path, one.value, path, None if one.value is None else str(one.value)]
        else:
            kind = "('integer', 'real')" if isinstance(one.value, (int, float)) else "('text')"
            parts.append(f"(json_type(d.columns, ?) in {kind} and {cell} {one.operator} ?)")
            given += [path, path, one.value]
    return " and ".join(parts), given


def _locked(place: Path) -> int | None:
    if fcntl is None or not is_index(place):
        return None
    held = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise InputError(f"Another program is writing into {place}. Try again when it is done.") from error
    return held
