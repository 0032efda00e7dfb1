# SPDX-License-Identifier: Apache-2.0
"""Texts as tokens, as OpenAI's package counts them: with a limit that is an error, and not a silent cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip import SimpleTokenizer

from paritas.errors import InputError

_tokenizer: list[SimpleTokenizer] = []


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> torch.Tensor:
    """The tokens of one text or several: int64 [texts, context_length], padded with 0.

    truncate: whether a text that is too long is cut, its end token kept. Raises `InputError` for one that is too long
    where it is not, and for what is no text.
    """
    given = [texts] if isinstance(texts, str) else list(texts)
    for place, text in enumerate(given):
        if not isinstance(text, str):
            raise InputError(f"texts[{place}] is a {type(text).__name__}, and no text.")
    if context_length < 3:
        raise InputError(f"context_length is {context_length}: a text has a beginning, an end and something between.")
    if not _tokenizer:
        _tokenizer.append(SimpleTokenizer())
    tokenizer = _tokenizer[0]
    for place, text in enumerate(given if not truncate else ()):
        count = len(tokenizer.encode(text)) + 2
        if count > context_length:
            short = text if len(text) <= 60 else f"{text[:57]}..."
            raise InputError(
                f"texts[{place}] has {count} tokens, its beginning and end included, and the context has "
                f"{context_length}: {short!r}. Shorten it, or pass truncate=True."
            )
    if not given:
        return torch.zeros(0, context_length, dtype=torch.int64)
    found: torch.Tensor = tokenizer(given, context_length=context_length)
    return found
