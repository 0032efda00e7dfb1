# SPDX-License-Identifier: Apache-2.0
"""An index on disk: a directory with a database and a file of vectors that can be searched fast.

    index.db             SQLite: texts, columns, passages with their vectors, words for BM25, and which model it was
    vectors-N.usearch    the vectors of the passages up to number N, as a graph of neighbours, memory-mapped

The database is the truth, and what it has confirmed stays: a batch is one transaction. The file is made of it, now and
then: passages behind N are searched one by one, passages that were deleted are passed over. So a process that is killed
leaves nothing half-made, and readers go on while one writer writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from paritas import leftovers
from paritas.apps.search.embedding import Identity
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

#: Of the graph of neighbours: edges of each, and how far a search looks around while it is built and asked.
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 384

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


@dataclasses.dataclass(frozen=True)
class Document:
    """A text to keep. passages: where they are in it; vectors: theirs, float32 [passages, dimensions], of length 1."""

    key: str
    text: str
    columns: dict[str, Any]
    passages: Sequence[tuple[int, int]]
    vectors: np.ndarray


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


def check_is_index(place: Path) -> None:
    """Raise `InputError` where there is none."""
    if not is_index(place):
        raise InputError(f"There is no index in {place}: paritas search index FILE --text COLUMN --out {place}")


def _connected(place: Path, *, write: bool) -> sqlite3.Connection:
    check_is_index(place)
    connection = sqlite3.connect(
        f"file:{_quoted(place / DATABASE)}?mode={'rw' if write else 'ro'}",
        uri=True,
        isolation_level=None,
        timeout=5,
        check_same_thread=False,
    )
    with _said(place):
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


class Index:
    """An index that is read. Another process may write meanwhile: what it has confirmed is seen by the next search.

    Raises:
        InputError: there is none, or it is of another version.
        IndexDamaged: it cannot be read.
    """

    def __init__(self, place: str | Path, *, write: bool = False) -> None:
        require("search", "paritas search")
        self.place = Path(place)
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

    def count(self, table: str) -> int:
        """How many documents, or passages."""
        assert table in ("documents", "passages", "gone")
        with _said(self.place):
            found: int = self._connection.execute(f"select count(*) from {table}").fetchone()[0]
        return found

    def rows(self, text: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query of ours finds."""
        with _said(self.place):
            return self._connection.execute(text, given).fetchall()

    def rows_among(self, text: str, among: Sequence[Any], given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds that asks for one of many: `{}` in it is their list, before what else is given."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(among), _AMONG):
            part = list(among[start : start + _AMONG])
            found += self.rows(text.replace("{}", ", ".join("?" * len(part)), 1), [*part, *given])
        return found

    def each(self, text: str, given: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The same one by one."""
        with _said(self.place):
            yield from self._connection.execute(text, given)

    def check(self) -> None:
        """Read everything. Raises `IndexDamaged`."""
        with _said(self.place):
            (found,) = self._connection.execute("pragma integrity_check").fetchone()
        if found != "ok":
            raise _damaged(self.place, found)
        told = self.meta("file")
        if told and _hash(self.place / told["name"]) != told["sha256"]:
            raise self._broken(told["name"], "it is not what was written")

    # --- searching ---

    def nearest(self, vectors: np.ndarray, count: int) -> list[list[tuple[int, float]]]:
        """For each vector the passages that are nearest to it, (number, cosine), the nearest first.

        vectors: float32 [queries, dimensions], of length 1. What is in the file is found by its graph, which may miss
        some; what waits outside is compared one by one.
        """
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
                best = _largest(row, count)
                found[place].update(zip(numbers[best].tolist(), row[best].tolist(), strict=True))
        return [sorted(one.items(), key=lambda pair: (-pair[1], pair[0]))[:count] for one in found]

    def exactly(
        self, vectors: np.ndarray, count: int, where: str = "", given: Sequence[Any] = ()
    ) -> list[list[tuple[int, float]]]:
        """The same of the passages for which a condition holds, every one compared. where: in SQL, of documents `d`."""
        wanted = np.atleast_2d(np.asarray(vectors, np.float32))
        best: list[list[tuple[int, float]]] = [[] for _ in wanted]
        joined = f" join documents d on d.id = p.document where {where}" if where else ""
        for numbers, matrix in self._vectors(f"select p.id, p.vector from passages p{joined}", given):
            for place, row in enumerate(wanted @ matrix.T):
                top = _largest(row, count)
                merged = [*best[place], *zip(numbers[top].tolist(), row[top].tolist(), strict=True)]
                best[place] = sorted(merged, key=lambda pair: (-pair[1], pair[0]))[:count]
        return best

    def by_words(self, words: Sequence[str], count: int, where: str = "", given: Sequence[Any] = ()) -> list[int]:
        """Passages by SQLite's BM25, the best first: those with any of these words."""
        asked = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
        if not asked:
            return []
        # The words' own order first: the condition is asked of the best alone.
        condition = (
            f" and exists (select 1 from passages p join documents d on d.id = p.document "
            f"where p.id = words.rowid and {where})"
            if where
            else ""
        )
        text = f"select rowid from words where words match ?{condition} order by rank limit ?"
        return [row[0] for row in self.rows(text, (asked, *given, count))]

    def _vectors(self, text: str, given: Sequence[Any] = ()) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with _said(self.place):
            cursor = self._connection.execute(text, given)
            while rows := cursor.fetchmany(_BATCH):
                yield np.array([row[0] for row in rows], np.int64), self.matrix(row[1] for row in rows)

    def matrix(self, blobs: Iterable[bytes]) -> np.ndarray:
        """Vectors as they are in the database, float32 [vectors, dimensions]."""
        width = self._dimensions
        found = np.frombuffer(b"".join(blobs), "<f2")
        if found.size % width:
            raise _damaged(self.place, f"a vector has not {width} numbers")
        return found.reshape(-1, width).astype(np.float32)

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
            self._waiting = np.array([row[0] for row in rows], np.int64), self.matrix(row[1] for row in rows)
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
            size, ends = path.stat().st_size, _ends(path)
        except FileNotFoundError:
            return False
        if size != told["size"] or ends != told["ends"]:
            raise self._broken(told["name"], "it is not what was written")
        made = _graph(self._dimensions, lookups=False)
        try:
            made.view(path)
            made.expansion_search = EXPANSION_SEARCH  # which the file does not keep
        except Exception as error:
            raise self._broken(told["name"], str(error)) from error
        self._file, self._file_name = made, told["name"]
        return True

    def _broken(self, name: str, why: str) -> IndexDamaged:
        return IndexDamaged(
            f"{self.place / name} is damaged: {why}. Its vectors are in {DATABASE} as well, and the file is made again "
            f"of them:   paritas search info {self.place} --repair"
        )


class Writer(Index):
    """An index that is written to, by one process at a time.

    What `add` and `delete` have returned from is on disk. Raises `InputError` where another process writes.
    """

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
        """Remove the index: it was made, and nothing came into it."""
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
        """Keep documents, all of them or none; one with the key of another takes its place. How many passages."""
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
        """Which of these keys are those of documents."""
        return set(self._numbers(keys))

    def delete(self, where: str, given: Sequence[Any] = ()) -> int:
        """Remove the documents `d` for which a condition holds. How many."""
        numbers = [row[0] for row in self.rows(f"select d.id from documents d where {where}", given)]
        for start in range(0, len(numbers), _BATCH):
            with self._transaction():
                self._remove(numbers[start : start + _BATCH])
        return len(numbers)

    def fold(self, *, share: float = SHARE, now: bool = False, again: bool = False) -> None:
        """Put what waits into the file of vectors, if that is much: more than `WAITING` passages, and a share of them.

        now: in any case. again: make all of it anew.
        """
        told = None if again else self.meta("file")
        inside, last = (told["count"], told["last"]) if told else (0, 0)
        waiting = self.rows("select count(*) from passages where id > ?", (last,))[0][0]
        gone = self.count("gone")
        if not now and not again and waiting + gone <= max(WAITING, share * inside):
            return
        made = _graph(self._dimensions)
        if told:
            made.load(self.place / told["name"])
            made.expansion_add = EXPANSION_ADD  # which the file does not keep
            for (number,) in self.rows("select id from gone"):
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
            size, ends, whole = written.stat().st_size, _ends(written), _hash(written)
            if not _graph(self._dimensions).metadata(written):
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
        return dict(self.rows_among("select key, id from documents where key in ({})", keys))

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


def _graph(dimensions: int, *, lookups: bool = True) -> Any:
    with contextlib.suppress(OSError):
        # usearch 2.26 brings a C++ library whose symbols whatever is loaded later takes for its own: OpenVINO 2026.4
        # then reads no model. Where the system's is there first, for all to see, that is the one.
        ctypes.CDLL("libstdc++.so.6", mode=ctypes.RTLD_GLOBAL)
    from usearch.index import Index as Graph

    return Graph(
        ndim=dimensions,
        metric="cos",
        dtype="f16",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
        enable_key_lookups=lookups,
    )


def _largest(row: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest numbers, in no order."""
    return np.argpartition(row, -count)[-count:] if count < len(row) else np.arange(len(row))


def _ends(path: Path, length: int = 1 << 16) -> str:
    """sha256 of the beginning and the end of a file: what is looked at whenever it is opened."""
    with path.open("rb") as file:
        found = hashlib.sha256(file.read(length))
        file.seek(max(path.stat().st_size - length, 0))
        found.update(file.read(length))
    return found.hexdigest()


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
