# SPDX-License-Identifier: Apache-2.0
"""The store that is a schema in a database of PostgreSQL with pgvector, for many readers and many writers.

    meta         which model it was, and how texts are cut
    documents    texts and their columns
    passages     where they are, their vectors in float16, and their words for BM25
    totals       what each batch has added and taken away: counts for BM25, which no writer waits for

A batch is one transaction, of which what others ask sees all or nothing. Vectors are compared one by one until there
are `WAITING` of them; then pgvector makes its graph of neighbours (HNSW), which the server keeps up to date.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Self, TypeVar

import numpy as np

from paritas.apps.search.address import Address, said
from paritas.apps.search.embedding import Identity
from paritas.apps.search.filters import Filter, folded
from paritas.apps.search.store import (
    Document,
    Kept,
    Nearest,
    Passage,
    Place,
    compared,
    grouped,
    halves,
    in_order,
    no_index,
)
from paritas.apps.search.wire import Half, Lexemes, learn, tokens
from paritas.errors import IndexDamaged, InputError
from paritas.extras import require

#: The version of these tables.
FORMAT = 1

#: So many passages are compared one by one before there is a graph.
WAITING = 5_000

#: Of the graph of neighbours: edges of each, and how far a search looks around while it is built and asked.
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 200

#: A vector with more numbers has no place in pgvector's graph of float16.
LONGEST_VECTOR = 4_000

#: pgvector's first with vectors of float16, and searches that go on until there is enough.
OLDEST = (0, 8)

#: BM25 as SQLite has it: how soon a word's repetition counts no more, and how much a passage's length counts.
K1, B = 1.2, 0.75

#: Rows that are read at once.
_BATCH = 5_000

#: Queries that are compared with everything by the server, one after another; more are compared here, in one pass.
_BY_THE_SERVER = 4

#: How often a batch is tried that another writer's got in the way of.
_TRIES = 5

_TABLES = """
create table meta (name text primary key, value text not null);
create table documents (
    id bigint generated always as identity primary key, key text not null unique,
    columns json not null, sought jsonb not null, text text not null);
create table passages (
    id bigint generated always as identity primary key,
    document bigint not null references documents on delete cascade,
    start integer not null, stop integer not null, vector halfvec({dimensions}) not null,
    words tsvector not null, length integer not null);
alter table passages alter vector set storage plain;
create index passages_of on passages (document);
create index passages_words on passages using gin (words);
create table totals (documents bigint not null, passages bigint not null, words bigint not null);
"""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def exists(place: Place) -> bool:
    address = Address(place)
    with contextlib.closing(address.connected()) as connection, said(address):
        return _has_tables(connection, address)


def _has_tables(connection: Any, address: Address) -> bool:
    found = "select 1 from pg_tables where schemaname = %s and tablename = 'totals'"
    return connection.execute(found, (address.schema,)).fetchone() is not None


def _vectors_at(connection: Any, address: Address) -> str:
    """The schema that pgvector is in. Raises `InputError`."""
    found = "select n.nspname, e.extversion from pg_extension e join pg_namespace n on n.oid = e.extnamespace"
    row = connection.execute(f"{found} where e.extname = 'vector'").fetchone()
    if row is None:
        raise InputError(f"{address.shown} has no pgvector: its administrator runs CREATE EXTENSION vector in it.")
    version = tuple(int(part) for part in re.findall(r"\d+", row[1])[:2])
    if version < OLDEST:
        raise InputError(
            f"{address.shown} has pgvector {row[1]}, and {'.'.join(map(str, OLDEST))} is needed: "
            "ALTER EXTENSION vector UPDATE"
        )
    return str(row[0])


def create(place: Place, identity: Identity, settings: dict[str, Any]) -> None:
    """Make an empty index, in one transaction. One that another program has made meanwhile is left as it is."""
    import psycopg
    from psycopg import errors, sql

    address = Address(place)
    schema = sql.Identifier(address.schema)
    with contextlib.closing(address.connected()) as connection, said(address):
        if (encoding := connection.execute("show server_encoding").fetchone()[0]) != "UTF8":
            raise InputError(f"{address.shown} keeps its texts in {encoding}: an index needs a database in UTF8.")
        with contextlib.suppress(psycopg.Error):
            connection.execute("create extension if not exists vector")
        where = _vectors_at(connection, address)
        try:
            with connection.transaction():
                there = connection.execute(
                    "select 1 from pg_namespace where nspname = %s", (address.schema,)
                ).fetchone()
                if there is None:
                    connection.execute(sql.SQL("create schema {}").format(schema))
                used = "select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s"
                if connection.execute(used, (address.schema,)).fetchone() and not _has_tables(connection, address):
                    raise InputError(f"{address.shown}: this schema has other tables. Choose another name.")
                connection.execute(sql.SQL("set local search_path = {}, {}").format(schema, sql.Identifier(where)))
                connection.execute(_TABLES.replace("{dimensions}", str(int(identity.dimensions))))
                kept = {"format": FORMAT, "model": dataclasses.asdict(identity), "settings": settings}
                for name, value in kept.items():
                    connection.execute("insert into meta values (%s, %s)", (name, json.dumps(value)))
        except (errors.DuplicateSchema, errors.DuplicateTable, errors.UniqueViolation):
            if not _has_tables(connection, address):
                raise


class ServerIndex:
    """See `store.Index`. It may be asked from several threads; they take turns."""

    def __init__(self, place: Place) -> None:
        require("search", "paritas search")
        self._address = Address(place)
        self.shown = self._address.shown
        self._lock = threading.RLock()
        self._connection = self._connect()
        self._dimensions = self.identity.dimensions

    def _connect(self) -> Any:
        from psycopg import sql

        address = self._address
        connection = address.connected()
        try:
            with said(address):
                if not _has_tables(connection, address):
                    raise no_index(self.shown)
                where = _vectors_at(connection, address)
                path = sql.SQL("set search_path = {}, {}").format(*map(sql.Identifier, (address.schema, where)))
                connection.execute(path)
                connection.execute(f"set hnsw.ef_search = {EXPANSION_SEARCH}")
                connection.execute("set hnsw.iterative_scan = strict_order")
                learn(connection, where)
                row = connection.execute("select value from meta where name = 'format'").fetchone()
            version = json.loads(row[0]) if row else 0
            if version != FORMAT:
                raise InputError(f"{self.shown} is an index of format {version}, and this version reads {FORMAT}.")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, text: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds; of a server that was started anew meanwhile, too."""

        def asked() -> list[tuple[Any, ...]]:
            found: list[tuple[Any, ...]] = self._connection.execute(text, given).fetchall()
            return found

        return self._tried(asked)

    def _tried(self, what: Callable[[], _T]) -> _T:
        import psycopg

        with self._lock, said(self._address):
            try:
                return what()
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
            self._connection = self._connect()
            return what()

    def _each(self, text: str) -> Iterator[tuple[Any, ...]]:
        """The same row by row, of which the server keeps the rest."""
        with self._lock, said(self._address), self._connection.transaction():
            cursor = self._connection.cursor(name="each")
            cursor.itersize = _BATCH
            yield from cursor.execute(text)

    # --- what it says of itself ---

    def _meta(self, name: str) -> Any:
        rows = self._rows("select value from meta where name = %s", (name,))
        if not rows:
            raise IndexDamaged(f"{self.shown} is damaged: it has no {name}. Take it from a backup.")
        return json.loads(rows[0][0])

    @property
    def identity(self) -> Identity:
        return Identity(**self._meta("model"))

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self._meta("settings")
        return found

    def count(self, what: str) -> int:
        assert what in ("documents", "passages")
        return int(self._rows(f"select coalesce(sum({what}), 0) from totals")[0][0])

    def numbers(self, what: str) -> np.ndarray:
        assert what in ("documents", "passages")
        return np.array([row[0] for row in self._rows(f"select id from {what} order by id")], np.int64)

    def sizes(self) -> tuple[int, int]:
        tables = "select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c"
        found = self._rows(f"{tables} where c.relkind = 'r' and c.relnamespace = %s::regnamespace", (self._quoted(),))
        return int(found[0][0]), self.count("passages") if self._graph() else 0

    def _quoted(self) -> str:
        return '"' + self._address.schema.replace('"', '""') + '"'

    def _graph(self) -> bool | None:
        """Whether there is a graph that is whole; None where there is none at all."""
        found = (
            "select i.indisvalid and i.indisready from pg_index i join pg_class c on c.oid = i.indexrelid "
            "where c.relname = 'passages_near' and c.relnamespace = %s::regnamespace"
        )
        rows = self._rows(found, (self._quoted(),))
        return bool(rows[0][0]) if rows else None

    def columns(self) -> list[str]:
        rows = self._rows("select columns from documents order by id limit 200")
        return list(dict.fromkeys(name for (columns,) in rows for name in columns))

    def has_column(self, name: str) -> bool:
        return bool(self._rows("select 1 from documents where sought ? %s limit 1", (name,)))

    def values(self, column: str, most: int) -> list[Any]:
        found = "select distinct sought -> %s -> 0 from documents limit %s"
        return [row[0] for row in self._rows(found, (column, most)) if row[0] is not None]

    def span(self, column: str) -> tuple[int, int] | None:
        found = (
            "select min(value), max(value) from (select case when jsonb_typeof(sought -> %s -> 0) = 'number' "
            "then (sought -> %s -> 0)::numeric end as value from documents) v "
            "where scale(value) = 0 and abs(value) < 2 ^ 63"
        )
        ((low, high),) = self._rows(found, (column, column))
        return None if low is None else (int(low), int(high))

    def check(self) -> None:
        found = (
            "select (select count(*) from documents), count(*), coalesce(sum(length), 0), "
            "count(*) filter (where stop > char_length(d.text) or start >= stop or vector_norm(vector::vector) < 0.5) "
            "from passages p join documents d on d.id = p.document"
        )
        told = "select coalesce(sum(documents), 0), coalesce(sum(passages), 0), coalesce(sum(words), 0) from totals"
        ((*counted, wrong),) = self._rows(found)
        if list(counted) != list(map(int, self._rows(told)[0])) or wrong:
            raise IndexDamaged(
                f"{self.shown} is damaged: {wrong} passages are not in their texts, or have no vector, and counted are "
                f"{counted}. Nothing was changed. Take it from a backup, or index the files again."
            )
        if self._graph() is False:
            raise IndexDamaged(
                f"{self.shown} has a graph of neighbours that was not finished. It is made again, of its vectors:   "
                f"paritas search info '{self.shown}' --repair"
            )

    # --- searching ---

    def nearest(self, vectors: np.ndarray, count: int) -> list[Nearest]:
        wanted = np.atleast_2d(np.asarray(vectors, np.float32))
        text = "select id, vector <=> %s from passages order by vector <=> %s limit %s"
        found = []
        for one in map(Half, wanted):
            pairs = [(row[0], 1.0 - row[1]) for row in self._rows(text, (one, one, count))]
            if len(pairs) < count and len(pairs) < self.count("passages"):  # pgvector gave up
                (pairs,) = self.exactly(one.vector, count)
            found.append(in_order(pairs))
        return found

    def exactly(self, vectors: np.ndarray, count: int, filters: Sequence[Filter] = ()) -> list[Nearest]:
        wanted = np.atleast_2d(np.asarray(vectors, np.float32))
        if len(wanted) > _BY_THE_SERVER and not filters:
            return compared(self.matrices(), wanted, count)
        where, given = _condition(filters)
        joined = f" join documents d on d.id = p.document where {where}" if where else ""
        # A sum is in no order that the graph has: it is not asked.
        text = f"select p.id, p.vector <=> %s from passages p{joined} order by (p.vector <=> %s) + 0, p.id limit %s"
        return [
            in_order((row[0], 1.0 - row[1]) for row in self._rows(text, (one, *given, one, count)))
            for one in map(Half, wanted)
        ]

    def by_words(self, words: Sequence[str], count: int, filters: Sequence[Filter] = ()) -> list[int]:
        """By BM25 as SQLite has it, of the words that `passages.words` keeps."""
        asked = list(dict.fromkeys(one for word in words for one in tokens(word)))
        if not asked:
            return []
        where, given = _condition(filters)
        joined = " join documents d on d.id = p.document" if where else ""
        text = f"""
            with total as (select greatest(sum(passages), 1)::float8 as n, sum(words)::float8 as words from totals),
            weighed as (
                select a.word, greatest(ln((t.n - c.n + 0.5) / (c.n + 0.5)), 1e-6) as weight
                from unnest(%s::text[]) a (word), total t, lateral (
                    select least(count(*), t.n)::float8 as n from passages
                    where words @@ quote_literal(a.word)::tsquery) c)
            select p.id from passages p{joined}, total t, unnest(p.words) w join weighed a on a.word = w.lexeme
            where p.words @@ %s::tsquery{" and " + where if where else ""}
            group by p.id
            order by sum(a.weight * cardinality(w.positions) * {K1 + 1} / (cardinality(w.positions)
                + {K1} * ({1 - B} + {B} * p.length * t.n / greatest(t.words, 1)))) desc, p.id limit %s"""
        either = " | ".join(f"'{word}'" for word in asked)
        return [row[0] for row in self._rows(text, (asked, either, *given, count))]

    def left(self, filters: Sequence[Filter], most: int) -> int:
        where, given = _condition(filters)
        joined = f" join documents d on d.id = p.document where {where}" if where else ""
        return int(
            self._rows(f"select count(*) from (select 1 from passages p{joined} limit %s) f", (*given, most))[0][0]
        )

    # --- what is in it ---

    def places(self, passages: Sequence[int], filters: Sequence[Filter] = ()) -> dict[int, tuple[int, int, int]]:
        where, given = _condition(filters)
        joined, also = (" join documents d on d.id = p.document", f" and {where}") if where else ("", "")
        text = f"select p.id, p.document, p.start, p.stop from passages p{joined} where p.id = any(%s::bigint[]){also}"
        return {row[0]: (row[1], row[2], row[3]) for row in self._rows(text, (list(passages), *given))}

    def documents(self, numbers: Sequence[int]) -> dict[int, Kept]:
        text = "select id, key, text, columns from documents where id = any(%s::bigint[])"
        return {row[0]: Kept(*row[1:]) for row in self._rows(text, (list(numbers),))}

    def keyed(self, key: str) -> Kept | None:
        rows = self._rows("select key, text, columns from documents where key = %s", (key,))
        return Kept(*rows[0]) if rows else None

    def vectors(self, passages: Sequence[int]) -> dict[int, np.ndarray]:
        text = "select id, halfvec_send(vector) from passages where id = any(%s::bigint[]) order by id"
        rows = self._rows(text, (list(passages),))
        return dict(zip((row[0] for row in rows), self._matrix(row[1] for row in rows), strict=True))

    def vectors_of(self, documents: Sequence[int]) -> dict[int, np.ndarray]:
        text = "select document, halfvec_send(vector) from passages where document = any(%s::bigint[]) order by id"
        rows = self._rows(text, (list(documents),))
        return grouped(zip((row[0] for row in rows), self._matrix(row[1] for row in rows), strict=True))

    def matrices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        part: list[tuple[Any, ...]] = []
        for row in self._each("select id, halfvec_send(vector) from passages order by id"):
            part.append(row)
            if len(part) == _BATCH:
                yield self._part(part)
                part = []
        if part:
            yield self._part(part)

    def _part(self, rows: list[tuple[Any, ...]]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([row[0] for row in rows], np.int64), self._matrix(row[1] for row in rows)

    def passages(self) -> Iterator[Passage]:
        text = (
            "select p.id, d.key, d.columns, substr(d.text, p.start + 1, p.stop - p.start), halfvec_send(p.vector) "
            "from passages p join documents d on d.id = p.document order by p.id"
        )
        for number, key, columns, words, vector in self._each(text):
            yield Passage(number, key, columns, words, self._matrix([vector])[0])

    def _matrix(self, sent: Iterable[bytes]) -> np.ndarray:
        """Vectors as pgvector sends them: two numbers of 16 bits before each, and the other end first."""
        return halves((bytes(one)[4:] for one in sent), self._dimensions, ">f2")


class ServerWriter(ServerIndex):
    """See `store.Writer`. Many may write: of two that add a text with the same key, the later one's stays."""

    def add(self, documents: Sequence[Document]) -> int:
        return self._written(lambda: self._add(documents))

    def _add(self, documents: Sequence[Document]) -> int:
        # A text that is there as it is was embedded by another writer a moment ago.
        text = """
            insert into documents as d (key, columns, sought, text)
            select * from unnest(%s::text[], %s::json[], %s::jsonb[], %s::text[])
            on conflict (key) do update set columns = excluded.columns, sought = excluded.sought, text = excluded.text
            where (d.text, d.columns::text) is distinct from (excluded.text, excluded.columns::text)
            returning key, id, xmax = 0"""
        ordered = sorted(documents, key=lambda one: one.key)  # so that no two writers wait for each other
        given = (
            [one.key for one in ordered],
            [json.dumps(one.columns, ensure_ascii=False) for one in ordered],
            [json.dumps({name: [v, folded(v)] for name, v in one.columns.items()}) for one in ordered],
            [one.text for one in ordered],
        )
        execute = self._connection.execute
        written = {key: (number, is_new) for key, number, is_new in execute(text, given)}
        replaced = [number for number, is_new in written.values() if not is_new]
        gone = self._emptied(replaced) if replaced else (0, 0)
        passages = words = 0
        with (
            self._connection.cursor() as cursor,
            cursor.copy(
                "copy passages (document, start, stop, vector, words, length) from stdin (format binary)"
            ) as copy,
        ):
            copy.set_types(["int8", "int4", "int4", "halfvec", "tsvector", "int4"])
            for one in documents:
                if one.key not in written:
                    continue
                for (start, stop), vector in zip(one.passages, one.vectors, strict=True):
                    found = tokens(one.text[start:stop])
                    row = written[one.key][0], start, stop, Half(vector), Lexemes(found), len(found)
                    copy.write_row(row)
                    passages, words = passages + 1, words + len(found)
        new = sum(is_new for _, is_new in written.values())
        execute("insert into totals values (%s, %s, %s)", (new, passages - gone[0], words - gone[1]))
        return passages

    def _emptied(self, documents: Sequence[int]) -> tuple[int, int]:
        """Remove the passages of documents. How many, with how many words."""
        text = (
            "with gone as (delete from passages where document = any(%s::bigint[]) returning length) "
            "select count(*), coalesce(sum(length), 0)::bigint from gone"
        )
        found: tuple[int, int] = self._connection.execute(text, (list(documents),)).fetchone()
        return found

    def known(self, keys: Sequence[str]) -> set[str]:
        rows = self._rows("select key from documents where key = any(%s::text[])", (list(keys),))
        return {row[0] for row in rows}

    def delete(self, filters: Sequence[Filter]) -> int:
        return self._written(lambda: self._delete(filters))

    def _delete(self, filters: Sequence[Filter]) -> int:
        where, given = _condition(filters)
        execute = self._connection.execute
        # Locked first: what another writer adds to one of them meanwhile is seen by the next statement.
        rows = execute(
            f"select d.id from documents d where {where or 'true'} order by d.key for update", given
        ).fetchall()
        numbers = [row[0] for row in rows]
        if numbers:
            passages, words = self._emptied(numbers)
            execute("delete from documents where id = any(%s::bigint[])", (numbers,))
            execute("insert into totals values (%s, %s, %s)", (-len(numbers), -passages, -words))
        return len(numbers)

    def fold(self, *, share: float | None = None, now: bool = False, again: bool = False) -> None:
        """Let pgvector make its graph, while others read and write; and add up what the batches have counted."""
        self._sum_up()
        if self._dimensions > LONGEST_VECTOR:
            return
        whole = None if again else self._graph()
        if whole or (not now and not again and self.count("passages") <= WAITING):
            return
        (key,) = self._rows("select %s::regnamespace::oid::bigint", (self._quoted(),))[0]
        if not self._rows("select pg_try_advisory_lock(%s)", (key,))[0][0]:
            return  # another writer makes it
        heard: list[str] = []
        self._connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        try:
            with self._lock, said(self._address):
                self._connection.execute("drop index concurrently if exists passages_near")
                self._connection.execute(
                    "create index concurrently passages_near on passages using hnsw (vector halfvec_cosine_ops) "
                    f"with (m = {CONNECTIVITY}, ef_construction = {EXPANSION_ADD})"
                )
                self._connection.execute("analyze documents, passages")
        finally:
            self._rows("select pg_advisory_unlock(%s)", (key,))
        for line in heard:
            if "maintenance_work_mem" in line:
                _log.warning("%s: %s. A larger maintenance_work_mem makes the graph in less time.", self.shown, line)

    def _sum_up(self) -> None:
        if self._rows("select count(*) from (select 1 from totals limit 1000) t")[0][0] < 1000:
            return
        text = (
            "with old as (delete from totals where ctid = any(array("
            "select ctid from totals for update skip locked)) returning *) insert into totals "
            "select coalesce(sum(documents), 0), coalesce(sum(passages), 0), coalesce(sum(words), 0) from old"
        )
        self._written(lambda: self._connection.execute(text))

    def discard(self) -> None:
        """Raises nothing where another writer has put something into it meanwhile: it stays."""
        from psycopg import errors, sql

        with said(self._address), contextlib.suppress(errors.LockNotAvailable, errors.DependentObjectsStillExist):
            with self._connection.transaction():
                self._connection.execute("lock table documents, passages, totals in access exclusive mode nowait")
                if self._connection.execute("select 1 from documents limit 1").fetchone():
                    return
                self._connection.execute("drop table passages, documents, totals, meta")
            if self._address.schema != "public":
                with contextlib.suppress(errors.InsufficientPrivilege):
                    self._connection.execute(sql.SQL("drop schema {}").format(sql.Identifier(self._address.schema)))

    def _written(self, what: Callable[[], _T]) -> _T:
        """Do something in a transaction, again if another writer's got in the way."""
        from psycopg import errors

        with self._lock, said(self._address):
            for left in reversed(range(_TRIES)):
                try:
                    with self._connection.transaction():
                        return what()
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    if not left:
                        raise
        raise AssertionError


def _condition(filters: Sequence[Filter]) -> tuple[str, list[Any]]:
    """Filters as a condition in SQL on documents `d`, and what is put into it: what each means says `filters`."""
    parts: list[str] = []
    given: list[Any] = []
    cell = "(d.sought -> %s -> 0)"
    for one in filters:
        name, value = one.column, one.value
        put: list[Any]
        if one.operator == "~":
            parts.append("coalesce(position(%s in d.sought -> %s ->> 1) > 0, false)")
            given += [folded(value), name]
        elif one.operator in ("=", "!="):
            if value is None:
                same, put = f"coalesce(jsonb_typeof({cell}), 'null') = 'null'", [name]
            elif isinstance(value, str):
                same, put = f"jsonb_typeof({cell}) = 'string' and {cell} #>> '{{}}' = %s", [name, name, value]
            else:
                same = (
                    f"case jsonb_typeof({cell}) when 'number' then {cell}::numeric = %s "
                    f"when 'boolean' then {cell}::boolean::int::numeric = %s "
                    f"when 'string' then {cell} #>> '{{}}' = %s else false end"
                )
                number = _number(value)
                put = [name, name, number, name, number, name, str(value)]
            parts.append(f"{'not ' * (one.operator == '!=')}coalesce({same}, false)")
            given += put
        elif isinstance(value, (int, float)):
            parts.append(
                f"case when jsonb_typeof({cell}) = 'number' then {cell}::numeric {one.operator} %s else false end"
            )
            given += [name, name, _number(value)]
        else:
            parts.append(
                f"coalesce(jsonb_typeof({cell}) = 'string' "
                f"and {cell} #>> '{{}}' collate \"C\" {one.operator} %s, false)"
            )
            given += [name, name, value]
    return " and ".join(parts), given


def _number(value: float) -> Decimal:
    return Decimal(str(int(value) if isinstance(value, bool) else value))
