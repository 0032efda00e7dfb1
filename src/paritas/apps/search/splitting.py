# SPDX-License-Identifier: Apache-2.0
"""Where a text is cut into passages: what a model embeds at once, and what is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

#: A place in a text: its first character, and the one behind its last.
Span = tuple[int, int]

#: Lines with something on them, until one that has nothing.
_VERSE = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")

#: Up to what ends a sentence, with the quotes and brackets that close behind it; a line ends one too.
_SENTENCE = re.compile(r"[^\s][^.!?…。！？\n]*[.!?…。！？]*[\"'”’»)\]]*")

WAYS = ("verses", "sentences", "tokens")

#: Of windows of tokens: how many, and how many of them are in the one before.
WINDOW, OVERLAP = 128, 32


def splitter(way: str, tokenizer: Any, longest: int | None) -> Callable[[str], list[Span]]:
    """What cuts texts in that way, one of `WAYS`.

    tokenizer: the model's. longest: how many tokens it takes, those that it adds itself among them. A verse or a
    sentence that has more is cut into windows, since the model would leave out the rest without a word.
    """
    room = max((longest or 512) - tokenizer.num_special_tokens_to_add(), 2)
    pattern = _SENTENCE if way == "sentences" else _VERSE

    def windows(text: str, start: int, stop: int, size: int, overlap: int) -> Iterator[Span]:
        given = tokenizer(
            text[start:stop],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        places = [place for place in given["offset_mapping"] if place[1] > place[0]]
        for first in range(0, max(len(places) - overlap, 1), size - overlap):
            part = places[first : first + size]
            if part:
                yield start + part[0][0], start + part[-1][1]

    def cut(text: str) -> list[Span]:
        if way == "tokens":
            size = min(WINDOW, room)
            return list(windows(text, 0, len(text), size, min(OVERLAP, size // 2)))
        found: list[Span] = []
        for match in pattern.finditer(text):
            stop = match.start() + len(match[0].rstrip())
            if stop - match.start() <= room:  # a token has a character at least
                found.append((match.start(), stop))
            else:
                found.extend(windows(text, match.start(), stop, room, 0))
        return found

    return cut
