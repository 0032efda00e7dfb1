# SPDX-License-Identifier: Apache-2.0
"""The original's lines as comments: those that say more than the statement below, whole."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from paritas.capture.origin import TORCH
from paritas.lower.mindspore.write.names import Statement
from paritas.lower.mindspore.write.source import LINE_LENGTH

_WORD = re.compile(r"[^\W\d]\w*|\d+\.?\d*")
_OURS = frozenset({"ops", "ms", "return", "self"})


def worth_reading(lines: Sequence[str], comments: Mapping[str, Statement]) -> list[str]:
    """The lines without those comments that only repeat what is below them. comments: line -> what it quotes."""
    found: list[str] = []
    for number, line in enumerate(lines):
        statement = comments.get(line)
        if statement is not None:
            below: list[str] = []
            for following in lines[number + 1 :]:
                if following in comments:
                    break
                below.append(following)
            if not below or _is_repeated(statement, below):
                continue
        found.append(line)
    return found


def _is_repeated(statement: Statement, below: Sequence[str]) -> bool:
    if statement.file.startswith(TORCH):
        return True  # what torch's own module does, its name says
    first, *rest = [line for line in below if not _BESIDE.fullmatch(line)] or below
    if any(not _PLAIN_RETURN.fullmatch(line) for line in rest):
        return False
    called = _CALL.match(first)
    if called is not None and statement.callee == called["callee"] and statement.targets:
        return called["target"].split(", ")[0] == statement.targets[0]
    said = set(_WORD.findall(statement.text))
    return set(_WORD.findall(first)) - _OURS <= said


#: "batch, length, _ = x.shape" and "residual = x"; "return cos, sin"; "x = self.dense("
_BESIDE = re.compile(r"[\w, ]+ = \w+(\.shape(\[\d+\])?)?")
_PLAIN_RETURN = re.compile(r"return [\w, ]+")
_CALL = re.compile(r"(?P<target>[\w, ]+) = (?:self\.)?(?P<callee>\w+)\(")


def wrap_comment(line: str, indent: int) -> list[str]:
    """A comment on as many lines as it needs."""
    pad = " " * indent
    return textwrap.wrap(
        line,
        LINE_LENGTH,
        initial_indent=pad,
        subsequent_indent=f"{pad}#     ",
        break_on_hyphens=False,
        break_long_words=False,
    )
