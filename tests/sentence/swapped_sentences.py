# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: sentence-transformers' own tests see our classes under its names, where PARITAS_SWAP is set."""

from __future__ import annotations

import os
from typing import Any


def pytest_configure(config: Any) -> None:
    config.addinivalue_line("markers", "slow: theirs")
    if os.environ.get("PARITAS_SWAP"):
        import sentence_transformers as theirs

        import paritas.sentence_transformers as ours

        for name in ("SentenceTransformer", "CrossEncoder", "SparseEncoder"):
            setattr(theirs, name, getattr(ours, name))
