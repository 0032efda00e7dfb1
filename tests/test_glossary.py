# SPDX-License-Identifier: Apache-2.0
"""The glossary tells the words that the source uses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_word_of_the_glossary_is_used_in_the_source() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    words = [word for line in lines for word in re.findall(r"\*\*(\w+)\*\*", line.split("|")[1] if "|" in line else "")]
    assert len(words) >= 20 and len(set(words)) == len(words)
    text = "\n".join(path.read_text() for path in (ROOT / "src" / "paritas").rglob("*.py"))
    assert [word for word in words if not re.search(rf"\b{word}s?\b", text)] == []


def test_every_meaning_is_one_sentence() -> None:
    rows = re.findall(r"^\| \*\*.*\*\* \| (.*) \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert rows and [row for row in rows if row.endswith(".") or ". " in row] == []
