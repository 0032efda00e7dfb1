# SPDX-License-Identifier: Apache-2.0
"""Songs in a file, and places for them in each of the stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stores import SONGS, STORES, placed


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    path = tmp_path / "songs.csv"
    path.write_text(SONGS)
    return path


@pytest.fixture(params=STORES)
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str | Path]:
    """Names places in each of the stores."""
    return placed(request.param, tmp_path)
