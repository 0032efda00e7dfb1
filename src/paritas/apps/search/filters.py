# SPDX-License-Identifier: Apache-2.0
"""Conditions on the columns of texts: `year >= 1990`, `artist = Nobody`, `title ~ rain`.

What they mean is the same in every store:

    =  and  !=       of a value as it is, or of the text of it: `year = 1990` holds for the text "1990" as well
    <  <=  >  >=     of numbers among numbers, of texts among texts, by the numbers of their characters
    ~                the value is in the column's text, whatever the case of both
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import Any

from paritas.errors import InputError

_WRITTEN = re.compile(r"\s*(?P<column>.+?)\s*(?P<operator>>=|<=|!=|=|<|>|~)\s*(?P<value>.*?)\s*", re.S)


@dataclasses.dataclass(frozen=True)
class Filter:
    """operator: =, !=, <, <=, > and >= compare; ~ asks whether the value is in the column's text, whatever its case."""

    column: str
    operator: str
    value: str | int | float | None


def parsed(text: str) -> Filter:
    """A filter as it is written. Raises `InputError`."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is no filter. Write one as 'year >= 1990', 'artist = Nobody' or 'title ~ rain'.")
    value: str | int | float | None = found["value"].strip("\"'")
    if found["operator"] == "~":
        return Filter(found["column"], "~", value)
    with contextlib.suppress(ValueError):  # else it is a text without quotes
        value = json.loads(found["value"], parse_constant=_no_number)
    if value is not None and not isinstance(value, (str, int, float)):
        value = found["value"]
    if isinstance(value, int) and abs(value) >= 1 << 63:  # which SQLite has no number for
        value = float(found["value"])
    return Filter(found["column"], found["operator"], value)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is a text")


def folded(value: Any) -> str | None:
    """A value of a column as `~` looks at it: its text, without a difference of case; true is 1, as in SQLite."""
    if value is None:
        return None
    return str(int(value) if isinstance(value, bool) else value).lower()
