# SPDX-License-Identifier: Apache-2.0
"""What a port of a language model costs on a text: perplexity and the most probable tokens, against the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from paritas.caches import keeps_inside
from paritas.errors import InputError, first_line
from paritas.run.session import State
from paritas.run.state import new_state
from paritas.verify.generation import memory_of, told_by
from paritas.verify.inputs.scenarios import Roles
from paritas.verify.report.rows import TextCost
from paritas.verify.subject import Subject

Array = np.ndarray

#: Tokens that are read at once, each window by itself.
WINDOW = 256

#: Rows and tokens of a text that the original writes where none is given.
ROWS, WRITTEN = 4, 48

#: Tokens of a row where each of them takes a reading of all weights from their files. The report says how many.
FEW_WRITTEN = 16

#: Places whose probabilities are computed at once.
_PLACES = 64

GIVEN, SAMPLED = "a text that was given", "a text that the original has sampled"

#: Beyond it, exp has no float.
_LARGEST = 700.0

Runner = Callable[[Mapping[str, Array]], Sequence[Array]]


def tokens_of(port: Subject, text: Any) -> Array:
    """The tokens [count] of a text, by the port's tokenizer or that of its original; tokens are taken as they are.

    Raises `InputError` where there is no tokenizer, or no more than one token.
    """
    if isinstance(text, str):
        from paritas.capture.tokenizer import tokenizer

        source = port.manifest.source
        places = [str(port.artifact.directory), *([source.id] if source.kind in ("directory", "hub") else [])]
        reason = ""
        for place in places:
            try:
                ids = tokenizer(place)(text, verbose=False)["input_ids"]
                break
            except Exception as error:  # noqa: BLE001 - of any kind: there is none in this place
                reason = first_line(error)
        else:
            raise InputError(f"The port has no tokenizer for the text ({reason}). Give its tokens: text=[1, 5, 7]")
    else:
        ids = list(text)
    found = np.array(ids, np.int64).reshape(-1)
    if len(found) < 2:
        raise InputError(f"The text has {len(found)} tokens; a next one is compared from the second on.")
    return found


class Readers:
    """How the original and the port read windows of tokens: int [rows, tokens] -> logits [rows, tokens, vocabulary]."""

    def __init__(self, port: Subject, original: Runner) -> None:
        from paritas.capture.generation import can_generate

        manifest = port.manifest
        self._port, self._original = port, original
        self._at = told_by(manifest)[1]
        if self._at is None:
            raise InputError("It has no logits, so no text has a perplexity.")
        self.roles = Roles(manifest, port.examples()) if keeps_inside(manifest) else None
        self._names = [spec.name for spec in port.inputs]
        self.tokens = "input_ids"
        if self.roles is None and not (self.tokens in self._names and can_generate(port.original(in_files=True))):
            raise InputError("It does not write text after a text, so none has a perplexity.")
        if self.roles is not None and not self.roles.writes:
            raise InputError("It does not read tokens, so it reads no text.")

    @property
    def largest(self) -> int:
        """Tokens that can be read at once."""
        if self.roles is not None:
            return min(self.roles.largest, WINDOW)
        known = [size for size in self._port.manifest.limits.values() if size > 1]
        return min([WINDOW, *known])

    def by_original(self, tokens: Array) -> Array:
        return self._read(tokens, memory_of(self._original, self._port.manifest), self._original)

    def by_port(self, tokens: Array) -> Array:
        return self._read(tokens, lambda: new_state(self._port.session, self._port.manifest), self._port.run)

    def remembering(self) -> State | None:
        """A generation of the original's, where it goes on with what it has read."""
        return None if self.roles is None else memory_of(self._original, self._port.manifest)()

    def next(self, state: State, tokens: Array, mask: Array) -> Array:
        """The logits at some more tokens. mask: of all."""
        assert self.roles is not None and self._at is not None
        return state.run(self.roles.feed(tokens, mask), tokens.shape[1])[self._at]

    def _read(self, tokens: Array, begin: Callable[[], State], run: Runner) -> Array:
        mask = np.ones(tokens.shape, bool)
        assert self._at is not None
        if self.roles is not None:
            return self.next(begin(), tokens, mask)
        given = {self.tokens: tokens}
        given |= {"attention_mask": mask.astype(np.int64)} if "attention_mask" in self._names else {}
        feed = self._port.feed({**self._port.manifest.constants, **given})
        return run(feed)[self._at]


def compare_text(
    readers: Readers,
    windows: Sequence[Array],
    of: str,
    progress: Callable[[str], None] | None = None,
) -> TextCost:
    """Read windows of tokens [rows, tokens], each from nothing, and compare what both think comes next."""
    tokens = same = 0
    wanted = got = apart = 0.0
    for number, window in enumerate(windows, 1):
        if progress is not None:
            progress(f"text, {number} of {len(windows)}")
        want, have = readers.by_original(window), readers.by_port(window)
        width = want.shape[-1]
        want, have = want[:, :-1].reshape(-1, width), have[:, :-1].reshape(-1, width)
        following = window[:, 1:].reshape(-1)
        for start in range(0, len(following), _PLACES):
            here = slice(start, start + _PLACES)
            p, q = _log_softmax(want[here]), _log_softmax(have[here])
            each = np.arange(len(p))
            wanted -= float(p[each, following[here]].sum())
            got -= float(q[each, following[here]].sum())
            apart += float((np.exp(p) * (p - q)).sum())
            same += int((p.argmax(-1) == q.argmax(-1)).sum())
            tokens += len(p)
    perplexity, of_port = (math.exp(min(total / tokens, _LARGEST)) for total in (wanted, got))
    return TextCost(of, tokens, perplexity, of_port, same, apart / tokens)


def windows_of(tokens: Array, largest: int) -> list[Array]:
    """A text [count] in windows [1, tokens]; what is left of fewer than two tokens is not read."""
    found = [tokens[None, start : start + largest] for start in range(0, len(tokens), largest)]
    return [window for window in found if window.shape[1] > 1]


def sampled(readers: Readers, seed: int, written: int = WRITTEN, begins: int | None = None) -> Array:
    """What the original writes, drawn as it thinks: int [ROWS, written]."""
    generator = np.random.default_rng(seed)
    count = min(written, readers.largest)
    if readers.roles is not None:
        tokens = readers.roles.draw(ROWS, 1, generator)
    else:
        tokens = generator.integers(0, 2, (ROWS, 1))
    if begins is not None:
        tokens[:] = begins
    state = readers.remembering()
    new = tokens
    while tokens.shape[1] < count:
        mask = np.ones(tokens.shape, bool)
        logits = readers.by_original(tokens) if state is None else readers.next(state, new, mask)
        # Plus Gumbel noise, the largest is a draw from the distribution that logits stand for.
        noisy = logits[:, -1].astype(np.float64) + generator.gumbel(size=logits[:, -1].shape)
        new = noisy.argmax(-1)[:, None].astype(tokens.dtype)
        tokens = np.concatenate([tokens, new], 1)
    return tokens


def _log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))
