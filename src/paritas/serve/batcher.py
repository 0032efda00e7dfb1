# SPDX-License-Identifier: Apache-2.0
"""Requests of one version are computed together, as soon as the model is idle.

All of it lives on the event loop but for two things: reading what a client sent (images, texts) in a pool of threads,
and the engine in a thread of its own. What fails in a batch is computed again alone, so that it fails alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np

from paritas.errors import InputError
from paritas.serve import layout as layouts
from paritas.serve.metrics import Metrics
from paritas.serve.model import Servable, Signature
from paritas.serve.refusals import Refused
from paritas.serve.settings import Batching

Arrays = dict[str, np.ndarray]

#: Bytes of arrays up to which a request is read on the event loop: a thread costs more.
INLINE = 1 << 16


@dataclasses.dataclass(eq=False, slots=True)
class Waiting:
    """A request whose arrays are ready. key: those with the same may be computed together."""

    feed: Arrays
    rows: int
    key: tuple[Any, ...]
    length: int
    deadline: float
    since: float
    done: asyncio.Future[Arrays]


class Batcher:
    """Computes the requests of one version."""

    def __init__(
        self,
        servable: Servable,
        how: Batching | None = None,
        *,
        readers: Executor | None = None,
        metrics: Metrics | None = None,
        layout: layouts.Layout | None = None,
    ) -> None:
        self.servable, self.how = servable, how or Batching()
        self.metrics = metrics or Metrics()
        self.layout = layout or layouts.declared(servable.port)
        self._readers = readers
        self._engine = ThreadPoolExecutor(1, thread_name_prefix=f"engine-{servable.name}-{servable.version}")
        self._queue: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        #: Seconds that a row has taken of late: for how long a queue is.
        self.per_row = 0.0
        self.largest = self.layout.fixed or (max(1, self.how.largest) if self.layout.batched else 1)
        self._sizes = (self.layout.fixed,) if self.layout.fixed else tuple(sorted(self.how.sizes))
        self._observed = self.metrics.of(servable.name, servable.version)

    @property
    def rows_waiting(self) -> int:
        """In the queue, without those that are computed now."""
        return sum(one.rows for one in self._queue)

    async def submit(
        self, signature: Signature, inputs: Mapping[str, np.ndarray], deadline: float = float("inf")
    ) -> Arrays:
        """The answer to one request. deadline: by `time.monotonic()`.

        Raises `Refused`, DEADLINE_EXCEEDED among them, and `InputError`.
        """
        feed = await self._read(signature, inputs)
        outputs = await self.run(feed, deadline)
        return self.servable.finish(signature, outputs)

    async def run(self, feed: Arrays, deadline: float = float("inf")) -> Arrays:
        """The engine's outputs for the rows of one request, computed with those of others."""
        if self._closing:
            raise stopping()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())
        one = self._waiting(feed, deadline)
        self._queue.append(one)
        self._wake.set()
        left = deadline - one.since
        try:
            if left == float("inf"):
                return await one.done
            async with asyncio.timeout(left):
                return await one.done
        except TimeoutError:
            raise late(time.monotonic() - one.since) from None

    async def close(self) -> None:
        """End after what is being computed; whoever waits is told that the server stops."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._queue:
            one = self._queue.popleft()
            if not one.done.done():
                one.done.set_exception(stopping())
        await asyncio.to_thread(self._engine.shutdown)

    # --- a request ---

    async def _read(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Arrays:
        content = next((info.content for info in signature.inputs.values()), "tensor")
        small = content == "tensor" and sum(array.nbytes for array in inputs.values()) <= INLINE
        if small or self._readers is None:
            return self.servable.prepare(signature, inputs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self.servable.prepare, signature, inputs)

    def _waiting(self, feed: Arrays, deadline: float) -> Waiting:
        done: asyncio.Future[Arrays] = asyncio.get_running_loop().create_future()
        now = time.monotonic()
        if not self.layout.batched:
            return Waiting(feed, 1, (id(done),), 0, deadline, now, done)
        rows = {name: array.shape[0] for name, array in feed.items()}
        number = next(iter(rows.values()))
        if len(set(rows.values())) > 1:
            raise InputError(f"The inputs have different numbers of rows: {rows}.")
        if not number:
            raise InputError("The request has no row.")
        length = feed["attention_mask"].shape[1] if self.layout.length and self.how.pad else 0
        key = tuple(
            (name, array.dtype.str, array.shape[1:] if not length or name not in self.layout.fill else ())
            for name, array in feed.items()
        )
        # Of up to twice the length: so that no more than half of a batch is filling.
        return Waiting(feed, number, (key, length.bit_length()), length, deadline, now, done)

    # --- the engine's side ---

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            if self.how.wait:
                await self._gather()
            batch = self._next()
            if not batch:
                continue
            began = time.monotonic()
            found = await loop.run_in_executor(self._engine, self._compute, batch)
            took, rows = time.monotonic() - began, sum(one.rows for one in batch)
            self.per_row = 0.8 * self.per_row + 0.2 * took / rows if self.per_row else took / rows
            self._observed.batch(rows, took, [began - one.since for one in batch])
            for one, outcome in zip(batch, found, strict=True):
                if one.done.done():
                    continue
                if isinstance(outcome, BaseException):
                    one.done.set_exception(outcome)
                else:
                    one.done.set_result(outcome)

    async def _gather(self) -> None:
        """Until there are as many rows as the engine takes, or the first has waited for as long as it may."""
        if not self._queue:
            return
        until = self._queue[0].since + self.how.wait
        while not self._closing and self.rows_waiting < self.largest and (left := until - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _next(self) -> list[Waiting]:
        """The oldest request, and those behind it that go with it. Whoever waits no more is left out."""
        now = time.monotonic()
        batch: list[Waiting] = []
        rows, kept = 0, []
        while self._queue:
            one = self._queue.popleft()
            if one.done.done():
                continue
            if one.deadline <= now:
                one.done.set_exception(late(now - one.since))
                continue
            if not batch or (one.key == batch[0].key and rows + one.rows <= self.largest):
                batch.append(one)
                rows += one.rows
                if rows >= self.largest:
                    break
            else:
                kept.append(one)
        self._queue.extendleft(reversed(kept))
        return batch

    def _compute(self, batch: Sequence[Waiting]) -> list[Arrays | BaseException]:
        """In the engine's thread."""
        try:
            return list(self._together(batch))
        except Exception as error:  # noqa: BLE001 - it becomes the answer of whom it belongs to
            if len(batch) == 1:
                return [error]
        outcomes: list[Arrays | BaseException] = []
        for one in batch:
            try:
                outcomes.extend(self._together([one]))
            except Exception as error:  # noqa: BLE001 - as above
                outcomes.append(error)
        return outcomes

    def _together(self, batch: Sequence[Waiting]) -> Iterator[Arrays]:
        if not self.layout.batched:
            yield self.servable.compute(batch[0].feed)
            return
        length = max(one.length for one in batch)
        feeds = [layouts.padded(one.feed, self.layout, length) if one.length else one.feed for one in batch]
        whole = feeds[0] if len(feeds) == 1 else {n: np.concatenate([feed[n] for feed in feeds]) for n in feeds[0]}
        outputs = self._in_parts(whole, sum(one.rows for one in batch))
        start = 0
        for one in batch:
            mine = {name: array[start : start + one.rows] for name, array in outputs.items()}
            start += one.rows
            specs = self.servable.port.outputs
            yield layouts.trimmed(mine, specs, self.layout, one.length) if one.length < length else mine

    def _in_parts(self, feed: Arrays, rows: int) -> Arrays:
        """The engine gets no more rows at once than it is to: a request may have more."""
        if rows <= self.largest:
            return self._sized(feed, rows)
        parts = [
            self._sized({n: a[start : start + self.largest] for n, a in feed.items()}, min(self.largest, rows - start))
            for start in range(0, rows, self.largest)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _sized(self, feed: Arrays, rows: int) -> Arrays:
        """As many rows as an allowed size has, the last one repeated."""
        size = next((size for size in self._sizes if size >= rows), rows)
        if size == rows:
            return self.servable.compute(feed)
        full = {n: np.concatenate([a, np.repeat(a[-1:], size - rows, axis=0)]) for n, a in feed.items()}
        return {name: array[:rows] for name, array in self.servable.compute(full).items()}


def stopping() -> Refused:
    """What a request is told that came too late."""
    return Refused("UNAVAILABLE", "The server is stopping.", after=1.0)


def late(waited: float) -> Refused:
    """What a request is told whose time is over."""
    return Refused("DEADLINE_EXCEEDED", f"The request was not answered in its time; it has waited for {waited:.2f} s.")
