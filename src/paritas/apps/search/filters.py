# SPDX-License-Identifier: Apache-2.0
"""Conditions on the columns of texts: `year >= 1990`, `artist = Nobody`, `title ~ rain`."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

from paritas.apps.search.store import Index
from paritas.errors import InputError, did_you_mean

_WRITTEN = re.compile(r"\s*(?P<column>.+?)\s*(?P<operator>>=|<=|!=|=|<|>|~)\s*(?P<value>.*?)\s*", re.S)

#: How they are in SQL.
_OPERATORS = {"=": "is", "!=": "is not", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


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
    with contextlib.suppress(ValueError):  # else it is a text without quotes
        value = json.loads(found["value"])
    if value is not None and not isinstance(value, (str, int, float)):
        value = found["value"]
    return Filter(found["column"], found["operator"], value)


def condition(filters: Sequence[Filter], index: Index) -> tuple[str, list[Any]]:
    """The filters as a condition in SQL on documents `d`, and what is put into it.

    A filter by `year = 1990` holds for the text "1990" as well. Raises `InputError` for a column that no text has.
    """
    parts: list[str] = []
    given: list[Any] = []
    for one in filters:
        _check(one.column, index)
        path = '$."' + one.column.replace('"', '\\"') + '"'
        cell = "json_extract(d.columns, ?)"
        if one.operator == "~":
            parts.append(f"instr(lower({cell}), lower(?)) > 0")
            given += [path, str(one.value)]
        elif one.operator in ("=", "!="):
            joined = "or" if one.operator == "=" else "and"
            parts.append(f"({cell} {_OPERATORS[one.operator]} ? {joined} {cell} {_OPERATORS[one.operator]} ?)")
            given += [path, one.value, path, None if one.value is None else str(one.value)]
        else:
            kind = "('integer', 'real')" if isinstance(one.value, (int, float)) else "('text')"
            parts.append(f"(json_type(d.columns, ?) in {kind} and {cell} {_OPERATORS[one.operator]} ?)")
            given += [path, path, one.value]
    return " and ".join(parts), given


def columns(index: Index) -> list[str]:
    """The columns of the texts: of the first ones, which have them all in a table."""
    found = index.rows(
        "select distinct e.key from (select columns from documents order by id limit 200) d, json_each(d.columns) e"
    )
    return [row[0] for row in found]


def _check(column: str, index: Index) -> None:
    known = columns(index)
    if column in known:
        return
    path = '$."' + column.replace('"', '\\"') + '"'
    if not index.rows("select 1 from documents where json_type(columns, ?) is not null limit 1", (path,)):
        close = did_you_mean(difflib.get_close_matches(column, known, 1))
        raise InputError(f"No text has a column {column!r}.{close} There are {', '.join(known) or 'none'}.")
