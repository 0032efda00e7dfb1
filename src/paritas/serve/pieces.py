# SPDX-License-Identifier: Apache-2.0
"""Tokens become text as they come, up to the first of the strings at which a text is to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: What stands for bytes that are no sign, or not yet.
BROKEN = "\ufffd"


class Pieces:
    """The text of one answer. Joined, what `add` and `end` return is the whole of it, without a string to stop at.

    stopped: whether one of those was met.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._begin = self._read = 0
        self._held = ""
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text that these tokens add, as far as it is sure: the end of a sign that more tokens spell is not, nor is
        what a string to stop at begins with."""
        found = ""
        for token in tokens:
            if self.stopped:
                break
            self._ids.append(token)
            found += self._sure(self._decoded())
        return found

    def end(self) -> str:
        """What was held back, where nothing more comes."""
        if self.stopped:
            return ""
        text = self._held + self._text()
        self._held, self._begin, self._read = "", len(self._ids), len(self._ids)
        return self._cut(text)

    def _text(self) -> str:
        """What the tokens behind `_read` add to those before: a tokenizer writes the first word without a space."""
        before: str = self._tokenizer.decode(self._ids[self._begin : self._read])
        now: str = self._tokenizer.decode(self._ids[self._begin :])
        return now[len(before) :]

    def _decoded(self) -> str:
        text = self._text()
        if not text or text.endswith(BROKEN):
            return ""
        self._begin, self._read = self._read, len(self._ids)
        return text

    def _sure(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        text = self._cut(text)
        if not self.stopped:
            most = max((_begun(text, stop) for stop in self._stops), default=0)
            if most:
                text, self._held = text[:-most], text[-most:]
        return text

    def _cut(self, text: str) -> str:
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped = True
            return text[: min(places)]
        return text


def _begun(text: str, stop: str) -> int:
    """How many signs at the end of a text a string begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
