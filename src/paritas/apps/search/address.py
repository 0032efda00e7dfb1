# SPDX-License-Identifier: Apache-2.0
"""Where an index in PostgreSQL is, and what its server says: in messages that have no password."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from paritas.apps.search.store import Place, is_url, no_index
from paritas.errors import IndexDamaged, InputError
from paritas.extras import require

#: Where an index is, if its URL does not say it.
SCHEMA = "paritas"


class Address:
    """Where an index is: a database as libpq names it, and a schema in it.

    shown: the URL without a password. Raises `InputError` for a URL that cannot be read, whose text the message does
    not repeat: it may have a password.
    """

    def __init__(self, place: Place) -> None:
        require("postgres", "--store postgresql://")
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        text = str(place)
        scheme, slashes, rest = text.partition("://")
        if not slashes:
            raise InputError("The URL of a store begins with postgresql:// , and is given as a string, not as a Path.")
        front, _, asked = rest.partition("?")
        authority, _, path = front.partition("/")
        if authority.count("@") > 1 or "@" in path:
            raise _unread("a character of its own meaning in a password is written %40 for @, %2F for /, %3A for :")
        schema, kept = SCHEMA, []
        for name, value in parse_qsl(asked, keep_blank_values=True):
            if name == "schema":
                schema = value
            else:
                kept.append((name, value))
        try:
            self.given: dict[str, Any] = {
                "connect_timeout": 10,
                "application_name": "paritas search",
                **conninfo_to_dict(f"{scheme}://{front}" + (f"?{urlencode(kept, quote_via=quote)}" if kept else "")),
            }
        except (psycopg.Error, UnicodeError):
            raise _unread("the options after ? are those of libpq, and schema=NAME") from None
        if not schema or len(schema.encode()) > 63 or schema.startswith("pg_") or "\0" in schema:
            raise InputError(f"{schema!r} cannot be the name of an index in PostgreSQL: 1 to 63 bytes, not pg_...")
        self.schema = schema
        user = f"{quote(str(self.given['user']))}@" if self.given.get("user") else ""
        port = f":{self.given['port']}" if self.given.get("port") else ""
        host = str(self.given.get("host") or "")
        host = quote(host, safe="") if host.startswith("/") else host
        self.shown = f"postgresql://{user}{host}{port}/{self.given.get('dbname') or ''}?schema={quote(schema)}"

    def connected(self) -> Any:
        """A connection to the database. Raises `InputError`."""
        import psycopg

        try:
            return psycopg.connect(**self.given, autocommit=True)
        except (psycopg.Error, ValueError) as error:
            raise InputError(f"{self.shown} cannot be reached: {_line(error, self)}.") from None


def within(store: str, name: str) -> str:
    """The URL of the index `name` in the database that `store` names."""
    if not is_url(store):
        raise InputError(f"--store is the URL of a database, postgresql://USER@HOST/DATABASE, and not {store!r}.")
    front, _, asked = store.partition("?")
    pairs = parse_qsl(asked, keep_blank_values=True)
    if name and any(key == "schema" for key, _ in pairs):
        raise InputError("--store has a schema= already, which is the name of the index: leave out one of them.")
    if name:
        pairs.append(("schema", name))
    return f"{front}?{urlencode(pairs, quote_via=quote)}" if pairs else front


def _unread(why: str) -> InputError:
    return InputError(f"The URL of the store cannot be read (postgresql://USER@HOST:PORT/DATABASE?schema=NAME): {why}.")


def _line(error: BaseException, address: Address) -> str:
    """What a server says, in a line, without the password."""
    text = " ".join(str(error).split()).removeprefix("connection failed: ").rstrip(".")
    secret = str(address.given.get("password") or "")
    for one in filter(None, (secret, unquote(secret), quote(secret))):
        text = text.replace(one, "***")
    return text or type(error).__name__


@contextlib.contextmanager
def said(address: Address) -> Iterator[None]:
    """What PostgreSQL raises, as errors that say what it means for this index."""
    import psycopg
    from psycopg import errors

    shown = address.shown
    try:
        yield
    except errors.DiskFull:
        raise InputError(f"The server's disk is full: {shown} is as it was before the last batch.") from None
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        raise InputError(f"{shown} cannot be written to or read: {_line(error, address)}.") from None
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise no_index(shown) from None
    except (errors.DataCorrupted, errors.IndexCorrupted) as error:
        raise IndexDamaged(
            f"{shown} is damaged: {_line(error, address)}. Nothing was changed. Take it from a backup; if it is "
            f"only the graph of neighbours:   paritas search info '{shown}' --repair"
        ) from None
    except psycopg.OperationalError as error:
        raise InputError(
            f"The connection to {shown} was lost: {_line(error, address)}. What was confirmed is there: "
            "run the same again."
        ) from None
    except psycopg.Error as error:
        raise InputError(f"{shown}: {_line(error, address)}.") from None
