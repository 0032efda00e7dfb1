# SPDX-License-Identifier: Apache-2.0
"""Requests that are computed together have the answers that they have alone, and fail alone."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paritas.errors import EngineError, InputError
from paritas.serve import layout as layouts
from paritas.serve.batcher import Batcher
from paritas.serve.model import Servable, open_servable
from paritas.serve.refusals import Refused
from paritas.serve.settings import Batching

TEXTS = ["good", "the film was good", "bad song", "the song is not a good song", "film", "a a a a a a a a"]


@pytest.fixture(scope="module")
def vit(vit_port: Path) -> Servable:
    return open_servable(vit_port, "vit")


@pytest.fixture(scope="module")
def bert(bert_port: Path) -> Servable:
    return open_servable(bert_port, "bert")


class Watched:
    """A servable whose batches are noted, and that waits until it is let go."""

    def __init__(self, servable: Servable, *, fails: Any = None) -> None:
        self._servable, self._fails = servable, fails
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servable, name)

    def compute(self, feed: Any) -> Any:
        assert self.go.wait(30)
        self.batches.append(len(next(iter(feed.values()))))
        if self._fails is not None and self._fails(feed):
            raise EngineError("This one cannot be computed.")
        return self._servable.compute(feed)


def together(
    servable: Servable, inputs: list[Any], how: Batching | None = None, **more: Any
) -> tuple[list[Any], list[int]]:
    """The outcomes of requests that all wait while the engine is busy with the first, and the batches."""
    watched = Watched(servable, **more)
    layout = layouts.measured(layouts.declared(servable.port, 0), servable.port, servable.compute)

    async def run() -> list[Any]:
        batcher = Batcher(watched, how, layout=layout)  # type: ignore[arg-type]
        watched.go.clear()
        signature = servable.signature()
        tasks = [asyncio.create_task(batcher.submit(signature, one)) for one in inputs]
        await asyncio.sleep(0.05)
        watched.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.close()
        return found

    return asyncio.run(run()), watched.batches


def texts(*values: str) -> dict[str, np.ndarray]:
    return {"text": np.array(values, dtype=object)}


def test_answers_are_those_of_each_alone(bert: Servable) -> None:
    found, batches = together(bert, [texts(one) for one in TEXTS])
    assert len(batches) < len(TEXTS)
    for one, text in zip(found, TEXTS, strict=True):
        alone = bert.predict("", texts(text))
        assert one["label"] == alone["label"]
        np.testing.assert_allclose(one["confidence"], alone["confidence"], atol=1e-6)


def test_the_engine_gets_no_more_rows_than_it_is_to(bert: Servable) -> None:
    _, batches = together(bert, [texts("good") for _ in range(9)], Batching(largest=4))
    assert batches == [4, 4, 1]
    found, batches = together(bert, [texts(*["good"] * 9)], Batching(largest=4))
    assert batches == [4, 4, 1]
    assert found[0]["confidence"].shape == (9,)


def test_batches_are_filled_up_to_the_allowed_sizes(bert: Servable) -> None:
    found, batches = together(bert, [texts("good")] * 3, Batching(sizes=(2, 4)))
    assert batches == [4]
    assert [one["confidence"].shape for one in found] == [(1,)] * 3


def test_one_that_fails_fails_alone(bert: Servable) -> None:
    token = 6  # "bad"
    inputs = [texts("good"), texts("film"), texts("bad"), texts("song")]
    found, _ = together(bert, inputs, fails=lambda feed: (feed["input_ids"] == token).any())
    assert [isinstance(one, EngineError) for one in found] == [False, False, True, False]


def test_what_cannot_be_read_is_no_part_of_a_batch(vit: Servable, png: bytes) -> None:
    given = [{"image": np.array([one], dtype=object)} for one in (png, b"nothing", png)]
    found, _ = together(vit, given)
    assert [isinstance(one, InputError) for one in found] == [False, True, False]


def test_a_wait_gathers_what_comes_later(bert: Servable) -> None:
    watched = Watched(bert)

    async def run() -> None:
        batcher = Batcher(watched, Batching(wait=5.0, largest=3))  # type: ignore[arg-type]
        signature = bert.signature()
        await asyncio.gather(*(batcher.submit(signature, texts("good")) for _ in range(3)))
        await batcher.close()

    asyncio.run(run())
    assert watched.batches == [3]


def test_deadlines(bert: Servable) -> None:
    watched = Watched(bert)

    async def run() -> None:
        batcher = Batcher(watched)  # type: ignore[arg-type]
        signature = bert.signature()
        watched.go.clear()
        first = asyncio.create_task(batcher.submit(signature, texts("good")))
        await asyncio.sleep(0.02)
        with pytest.raises(Refused, match="not answered in its time") as late:
            await batcher.submit(signature, texts("bad"), time.monotonic() + 0.02)
        assert late.value.code == "DEADLINE_EXCEEDED"
        watched.go.set()
        await first
        await batcher.close()

    asyncio.run(run())
    assert watched.batches == [1]  # nobody waited for the second


def test_whoever_waits_when_it_closes_is_told(bert: Servable) -> None:
    watched = Watched(bert)

    async def run() -> list[Any]:
        batcher = Batcher(watched, Batching(largest=1))  # type: ignore[arg-type]
        watched.go.clear()
        tasks = [asyncio.create_task(batcher.submit(bert.signature(), texts("good"))) for _ in range(3)]
        await asyncio.sleep(0.02)
        threading.Timer(0.05, watched.go.set).start()
        await batcher.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    codes = [one.code for one in asyncio.run(run()) if isinstance(one, Refused)]
    assert codes == ["UNAVAILABLE"] * len(codes)
    assert len(codes) >= 2


# --- what may be put together ------------------------------------------------------------------


def test_layouts_are_declared_and_measured(bert: Servable, vit: Servable) -> None:
    of_texts = layouts.measured(layouts.declared(bert.port, 0), bert.port, bert.compute)
    assert (of_texts.batched, bool(of_texts.length), of_texts.why) == (True, True, "")
    of_images = layouts.measured(layouts.declared(vit.port), vit.port, vit.compute)
    assert (of_images.batched, of_images.length) == (True, "")


def _mixing(feed: Any, compute: Any) -> Any:
    """A model whose answers are about the whole batch."""
    return {name: array - array.mean(axis=0, keepdims=True) for name, array in compute(feed).items()}


def _looking_at_padding(feed: Any, compute: Any) -> Any:
    return {name: array + feed["input_ids"].shape[1] for name, array in compute(feed).items()}


@pytest.mark.parametrize(
    ("changed", "batched", "why"),
    [(_mixing, False, "rows beside it"), (_looking_at_padding, True, "padding behind it")],
)
def test_what_changes_an_answer_is_not_used(bert: Servable, changed: Any, batched: bool, why: str) -> None:
    layout = layouts.measured(layouts.declared(bert.port, 0), bert.port, lambda feed: changed(feed, bert.compute))
    assert (layout.batched, layout.length) == (batched, "")
    assert why in layout.why


def test_texts_of_one_request_are_filled_up_only_where_that_changes_nothing(bert: Servable) -> None:
    reader: Any = bert.reader
    assert reader.read(["good", "a good film"])["input_ids"].shape == (2, 5)
    reader.pads = False
    try:
        assert reader.read(["good", "bad"])["input_ids"].shape == (2, 3)
        with pytest.raises(InputError, match="text 0 has 3 tokens, fewer than another one of the request"):
            reader.read(["good", "a good film"])
    finally:
        reader.pads = True


def test_a_port_of_one_size_gets_that_size(bert: Servable) -> None:
    layout = layouts.Layout(True, fixed=4)

    async def run(watched: Watched) -> Any:
        batcher = Batcher(watched, layout=layout)  # type: ignore[arg-type]
        found = await asyncio.gather(*(batcher.submit(bert.signature(), texts("good")) for _ in range(3)))
        await batcher.close()
        return found

    watched = Watched(bert)
    found = asyncio.run(run(watched))
    assert set(watched.batches) == {4}
    assert [one["confidence"].shape for one in found] == [(1,)] * 3


def test_settings_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Batching().largest = 2  # type: ignore[misc]
