# SPDX-License-Identifier: Apache-2.0
"""Texts that are gone on with, of many clients at once: what a port computes, and in which order.

Where an engine batches generations by itself (`Engine.pages`), its own process does, after it has written the same
tokens as the port; else texts take turns, each to its end.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paritas import texts
from paritas.errors import EngineError, InputError, ParitasError, PortError
from paritas.serve.refusals import Refused

log = logging.getLogger("paritas.serve")

#: Hears of new tokens, and of an end: "" while it goes on, "stop", "length", or "error: ...". Of another thread.
Tell = Callable[[list[int], str], None]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One text to go on with. ids: its tokens. most: new ones. temperature: 0 takes the likeliest. top_k: 0 for all."""

    ids: tuple[int, ...]
    most: int
    least: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    ends: tuple[int, ...] = ()


class Writes(Protocol):
    """What goes on with texts, in an order of its own. how: in words."""

    how: str

    def begin(self, number: int, wanted: Wanted, tell: Tell) -> None: ...

    def cancel(self, number: int) -> None: ...

    def close(self) -> None: ...


class InTurn:
    """One text after the other, by our own loop, for every engine."""

    how = "one text after the other"

    def __init__(self, writer: texts.Writer) -> None:
        self._writer = writer
        self._waiting: deque[tuple[int, Wanted, Tell]] = deque()
        self._cancelled: set[int] = set()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="paritas-texts")
        self._thread.start()

    def begin(self, number: int, wanted: Wanted, tell: Tell) -> None:
        with self._wake:
            self._waiting.append((number, wanted, tell))
            self._wake.notify()

    def cancel(self, number: int) -> None:
        with self._wake:
            self._cancelled.add(number)

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)
        self._writer.port.session.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._cancelled.clear()
                    self._wake.wait()
                if self._closed:
                    return
                number, wanted, tell = self._waiting.popleft()
            try:
                self._write(number, wanted, tell)
            except Exception as error:  # noqa: BLE001 - of one text: the others are none the worse
                tell([], f"error: {error}")

    def _write(self, number: int, wanted: Wanted, tell: Tell) -> None:
        if number in self._cancelled:
            return
        left = wanted.most
        for token in self._writer.tokens(wanted.ids, options_of(wanted)):
            if number in self._cancelled or self._closed:
                return
            left -= 1
            end = "stop" if token in wanted.ends else "" if left else "length"
            tell([token], end)
            if end:
                return


class InPages:
    """Texts at once, in the process of an engine that batches them by itself."""

    how = "several texts at once, in pages of keys and values"

    def __init__(self, open_pages: Callable[[], Any]) -> None:
        self._open = open_pages
        self._pages = open_pages()
        self._telling: dict[int, Tell] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._hear, daemon=True, name="paritas-texts")
        self._thread.start()

    def begin(self, number: int, wanted: Wanted, tell: Tell) -> None:
        with self._lock:
            if self._closed:
                raise Refused("UNAVAILABLE", "The process that goes on with texts could not be started again.")
            self._telling[number] = tell
            self._pages.add(number, wanted.ids, config_of(wanted))

    def cancel(self, number: int) -> None:
        with self._lock:
            if self._telling.pop(number, None) is not None:
                self._pages.cancel(number)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._pages.stop()
        self._thread.join(timeout=30)
        self._pages.close()

    def _hear(self) -> None:
        while not self._closed:
            said = self._pages.next()
            if self._closed:
                return
            if "failed" in said:
                self._begin_again(str(said["failed"]))
                continue
            for number, tokens, end in said["told"]:
                with self._lock:
                    tell = self._telling.pop(number, None) if end else self._telling.get(number)
                if tell is not None:
                    tell(tokens, end)

    def _begin_again(self, why: str) -> None:
        """The process has ended: its texts are lost and told so, and another one is started for the next."""
        log.error("the process that goes on with texts has %s; it is started again", why)
        with self._lock:
            lost, self._telling = list(self._telling.values()), {}
            self._pages.close()
            if not self._closed:
                try:
                    self._pages = self._open()
                except ParitasError as error:
                    log.critical("it cannot be started again: %s", error)
                    self._closed = True
        for tell in lost:
            tell([], "error: the process that went on with it has ended; send it again")


def options_of(wanted: Wanted) -> texts.Options:
    """By the names of our own loop."""
    return texts.Options(
        max_new_tokens=wanted.most,
        min_new_tokens=wanted.least,
        do_sample=wanted.temperature > 0,
        temperature=wanted.temperature or 1.0,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        repetition_penalty=wanted.repetition_penalty,
        presence_penalty=wanted.presence_penalty,
        frequency_penalty=wanted.frequency_penalty,
        eos_token_id=wanted.ends,
        seed=wanted.seed,
    )


def config_of(wanted: Wanted) -> dict[str, Any]:
    """By the names of openvino-genai, whose processes batch."""
    found: dict[str, Any] = {
        "max_new_tokens": wanted.most,
        "min_new_tokens": wanted.least,
        "do_sample": wanted.temperature > 0,
        "repetition_penalty": wanted.repetition_penalty,
        "presence_penalty": wanted.presence_penalty,
        "frequency_penalty": wanted.frequency_penalty,
        "stop_token_ids": list(wanted.ends),
    }
    if wanted.ends:
        found["eos_token_id"] = wanted.ends[0]
    else:
        found["ignore_eos"] = True
    if wanted.temperature > 0:
        found |= {"temperature": wanted.temperature, "top_p": wanted.top_p, "rng_seed": wanted.seed}
        if wanted.top_k:
            found["top_k"] = wanted.top_k
    return found


class Generator:
    """A model that goes on with texts: its tokenizer, its places, and what computes. Its methods may be called from
    several threads.

    context: tokens of a text with all that is added. longest: tokens that are added at most. queue: texts that are
    waiting or written, beyond which more are refused.
    """

    def __init__(self, directory: Path, name: str, writes: Writes, *, context: int, longest: int, queue: int) -> None:

        self.directory, self.name, self.writes = directory, name, writes
        self.context, self.longest, self.queue = context, min(longest, context), queue
        self.tokenizer = texts.tokenizer_in(directory)
        self.says = {**texts.said_in(directory, "config.json"), **texts.said_in(directory, "generation_config.json")}
        ends = self.says.get("eos_token_id")
        self.ends = tuple(ends) if isinstance(ends, list) else () if ends is None else (int(ends),)
        self.vocabulary = self.tokenizer.get_vocab_size(with_added_tokens=True)
        self._numbers = itertools.count(1)
        self._open: dict[int, Tell] = {}
        self._lock = threading.Lock()

    @property
    def room(self) -> int:
        """How many more texts are taken now."""
        return max(0, self.queue - len(self._open))

    def tokens(self, text: str, *, whole: bool = False) -> list[int]:
        """whole: it has its special tokens already, as a template writes them."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=not whole).ids
        return found

    def conversation(self, messages: Any, more: Mapping[str, Any] | None = None) -> str:
        """As the tokenizer's chat template writes them. Raises `PortError` where there is none."""
        return texts.conversation(self.directory, messages, more)

    def begin(self, wanted: Wanted, tell: Tell) -> int:
        """Go on with a text; `tell` hears of it in another thread. Returns its number.

        Raises `Refused`: RESOURCE_EXHAUSTED where too many are waiting, INVALID_ARGUMENT for a text that is too long or
        has tokens that the model does not know.
        """
        self._check(wanted)
        with self._lock:
            if len(self._open) >= self.queue:
                raise Refused(
                    "RESOURCE_EXHAUSTED", f"{self.name} has {self.queue} texts to go on with already.", after=1.0
                )
            number = next(self._numbers)
            self._open[number] = tell
        try:
            self.writes.begin(number, wanted, lambda tokens, end: self._told(number, tokens, end))
        except BaseException:
            self._open.pop(number, None)
            raise
        return number

    def _told(self, number: int, tokens: list[int], end: str) -> None:
        tell = self._open.get(number)
        if end:
            self._open.pop(number, None)
        if tell is not None:
            tell(tokens, end)

    def _check(self, wanted: Wanted) -> None:
        if not wanted.ids:
            raise Refused("INVALID_ARGUMENT", "The prompt has no token.")
        if strange := [token for token in wanted.ids if not 0 <= token < self.vocabulary]:
            raise Refused(
                "INVALID_ARGUMENT", f"{self.name} knows the tokens 0 to {self.vocabulary - 1}, and not {strange[0]}."
            )
        if len(wanted.ids) + wanted.most > self.context:
            raise Refused(
                "INVALID_ARGUMENT",
                f"This model's maximum context length is {self.context} tokens. However, you requested "
                f"{len(wanted.ids) + wanted.most} tokens ({len(wanted.ids)} in the prompt, {wanted.most} in the "
                "completion). Please reduce the length of the prompt or completion.",
            )

    def cancel(self, number: int) -> None:
        """Nobody hears any more what would be written."""
        if self._open.pop(number, None) is not None:
            self.writes.cancel(number)

    def write(self, wanted: Wanted) -> tuple[list[int], str]:
        """The tokens that are added, and why they end: for who waits. Raises `EngineError`."""
        done, found, why = threading.Event(), list[int](), ""

        def tell(tokens: list[int], end: str) -> None:
            nonlocal why
            found.extend(tokens)
            if end:
                why = end
                done.set()

        number = self.begin(wanted, tell)
        try:
            done.wait()
        finally:
            self.cancel(number)
        if why.startswith("error"):
            raise EngineError(why)
        return found, why

    def close(self) -> None:
        self.writes.close()


def why_not(port: Any) -> str:
    """Why a port does not go on with texts here; "" if it does."""
    return texts.why_not(port, {}) if hasattr(port, "artifact") else "it has several components"


def context_of(port: Any, most: int) -> int:
    """Tokens of the longest text that a port has places for, at most `most`."""
    highs = [spec.high for spec in port.inputs if spec.name == "position_ids" and spec.high is not None]
    told = texts.said(port, "config.json").get("max_position_embeddings")
    return min([most, *highs, *([told] if isinstance(told, int) and told > 0 else [])])


def open_generator(
    port: Any,
    name: str,
    *,
    config: Mapping[str, str] | None = None,
    device: str = "",
    context: int = 4096,
    longest: int = 1024,
    queue: int = 64,
    together: int = 32,
) -> Generator:
    """What goes on with texts by a port, which is used up. Raises `PortError` where it does not.

    The log says where texts take turns, and why.
    """
    from paritas.run.engine import engine

    if why := why_not(port):
        raise PortError(f"{name} does not go on with texts: {why}.")
    directory = port.artifact.directory
    context = context_of(port, context)
    writer = texts.Writer(port)
    writes: Writes
    try:
        open_pages = engine(port.manifest.engine).pages(
            directory, port.manifest, device=device, config=config or {}, context=context, together=together
        )
        prompt = _prompt(writer, context)
        wanted = list(itertools.islice(_scores(writer, prompt), 8))
        writes = InPages(open_pages)
        try:
            _compare(writes, prompt, wanted)
        except BaseException:
            writes.close()
            raise
        port.session.close()
    except EngineError as error:
        log.warning("%s goes on with one text after the other: %s", name, error)
        writes = InTurn(writer)
    return Generator(directory, name, writes, context=context, longest=longest, queue=queue)


def _prompt(writer: texts.Writer, context: int) -> list[int]:
    ids: list[int] = writer.tokenizer.encode("The quick brown fox jumps over the lazy dog. 1, 2, 3").ids
    return ids[: max(1, context - 9)]


def _scores(writer: texts.Writer, prompt: list[int]) -> Iterator[np.ndarray]:
    """The scores of each next token, where the likeliest is taken: float32 [vocabulary]."""
    waiting = writer.rest(list(prompt))
    while True:
        scores = writer.step(waiting)
        yield scores
        waiting = [int(scores.argmax())]


#: How far below the likeliest a token's score may be that another way of computing takes for it, of the scores' spread.
CLOSE = 1e-3


def _compare(writes: Writes, prompt: list[int], wanted: list[np.ndarray]) -> None:
    """Whether other pages write what the port does. Raises `EngineError`."""
    done, found = threading.Event(), list[int]()
    ends: list[str] = []

    def tell(tokens: list[int], end: str) -> None:
        found.extend(tokens)
        if end:
            ends.append(end)
            done.set()

    writes.begin(0, Wanted(tuple(prompt), len(wanted), temperature=0), tell)
    if not done.wait(300) or ends[0].startswith("error"):
        raise EngineError(f"its first text came to no end ({''.join(ends) or 'in 300 s'})")
    for place, (token, scores) in enumerate(zip(found, wanted, strict=True)):
        best = int(scores.argmax())
        if token != best:
            if scores[best] - scores[token] > CLOSE * float(np.ptp(scores)):
                raise EngineError(f"token {place + 1} of its first text is {token}, and the port's is {best}")
            return  # as good as equal: from here on both go ways of their own


def a_seed() -> int:
    """Of a text for which none was asked."""
    return secrets.randbits(31)


__all__ = ["Generator", "InPages", "InTurn", "InputError", "Wanted", "Writes", "open_generator", "why_not"]
