# SPDX-License-Identifier: Apache-2.0
"""Where indexes are, and which store opens them: a directory, or a URL of PostgreSQL, whose client is imported late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paritas.apps.search.embedding import Identity
from paritas.apps.search.store import Index, Place, Writer, is_url


def within(store: str, name: str) -> str:
    """The index `name` in a database, by its URL: that of `--store`."""
    from paritas.apps.search import address

    return address.within(store, name)


def shown(place: Place) -> str:
    """How messages name a place: without a password."""
    if not is_url(place):
        return str(place)
    from paritas.apps.search import address

    return address.Address(place).shown


def exists(place: Place) -> bool:
    """Whether there is an index. Raises `InputError` for a server that does not answer."""
    if is_url(place):
        from paritas.apps.search import postgres

        return postgres.exists(place)
    from paritas.apps.search import directory

    return directory.is_index(Path(place))


def opened(place: Place) -> Index:
    """The index that is there.

    Raises:
        InputError: there is none, or it is of another version.
        IndexDamaged: it cannot be read.
    """
    if is_url(place):
        from paritas.apps.search import postgres

        return postgres.ServerIndex(place)
    from paritas.apps.search import directory

    return directory.DirectoryIndex(place)


def writing(place: Place, *, repair: bool = False) -> Writer:
    """The index that is there, to be written to; repair: though its graph is damaged.

    Raises:
        InputError: there is none, or another process writes into the directory.
        IndexDamaged: it cannot be read.
    """
    if is_url(place):
        from paritas.apps.search import postgres

        return postgres.ServerWriter(place)
    from paritas.apps.search import directory

    return directory.DirectoryWriter(place, repair=repair)


def create(place: Place, identity: Identity, settings: dict[str, Any]) -> None:
    """Make an empty index. settings: how texts are cut, and from which column. Raises `InputError`."""
    if is_url(place):
        from paritas.apps.search import postgres

        postgres.create(place, identity, settings)
    else:
        from paritas.apps.search import directory

        directory.create(Path(place), identity, settings)
