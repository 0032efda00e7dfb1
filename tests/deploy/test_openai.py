# SPDX-License-Identifier: Apache-2.0
"""A port behind OpenAI's routes: its texts are those of `paritas generate`, whole, in pieces, and of many at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paritas
from paritas import texts
from paritas.errors import EngineError

pytest.importorskip("msgspec")
pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from paritas.serve import openai
from paritas.serve.generation import Generator, InPages, InTurn, Wanted, context_of, open_generator
from paritas.serve.openai_requests import Chat, Wrong, read
from paritas.serve.pieces import Pieces
from paritas.serve.refusals import Refused

PROMPT = "the quick brown"
CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def writer(causal: tuple[Path, Any, Any]) -> texts.Writer:
    return texts.Writer(paritas.load(causal[0]))


@pytest.fixture(scope="module")
def model(causal: tuple[Path, Any, Any]) -> Iterator[Generator]:
    port = paritas.load(causal[0])
    made = Generator(
        causal[0], "llama", InTurn(texts.Writer(port)), context=context_of(port, 4096), longest=64, queue=40
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(model: Generator) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=openai.routes(openai.Models(lambda: {"llama": model}), body=4096))) as found:
        yield found


def _events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def _greedy(writer: texts.Writer, most: int = 9, prompt: str = PROMPT) -> str:
    return writer.write(prompt, {"max_new_tokens": most, "do_sample": False})


# --- texts ---------------------------------------------------------------------------------------------------


def test_a_completion_is_what_the_port_writes(client: TestClient, writer: texts.Writer) -> None:
    asked = {"model": "llama", "prompt": [PROMPT, "hello"], "max_tokens": 9, "temperature": 0}
    found = client.post("/v1/completions", json=asked).json()
    assert [choice["text"] for choice in found["choices"]] == [_greedy(writer), _greedy(writer, prompt="hello")]
    assert [choice["finish_reason"] for choice in found["choices"]] == ["length", "length"]
    count = sum(len(writer.tokenizer.encode(text).ids) for text in asked["prompt"])
    assert found["usage"] == {"prompt_tokens": count, "completion_tokens": 18, "total_tokens": count + 18}
    ids = writer.tokenizer.encode(PROMPT).ids
    assert client.post("/v1/completions", json={**asked, "prompt": ids}).json()["choices"] == found["choices"][:1]
    echoed = client.post("/v1/completions", json={**asked, "prompt": PROMPT, "echo": True}).json()["choices"][0]
    assert echoed["text"] == PROMPT + _greedy(writer)


@pytest.mark.parametrize("route", ["completions", "chat/completions"])
def test_pieces_are_the_whole(client: TestClient, route: str) -> None:
    what = {"messages": CHAT} if route.startswith("chat") else {"prompt": [PROMPT, "hello"], "echo": True}
    asked = {"model": "llama", "max_tokens": 12, "temperature": 1.0, "seed": 3, "n": 2, **what}
    whole = client.post(f"/v1/{route}", json=asked).json()
    streamed = client.post(f"/v1/{route}", json={**asked, "stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *events, last = _events(streamed.text)
    assert last["usage"] == whole["usage"] and last["choices"] == [] and all(e["usage"] is None for e in events)
    joined, ends = {}, {}
    for event in events:
        (choice,) = event["choices"]
        piece = choice["delta"].get("content", "") if route.startswith("chat") else choice["text"]
        joined[choice["index"]] = joined.get(choice["index"], "") + piece
        ends |= {choice["index"]: choice["finish_reason"]} if choice["finish_reason"] else {}
    for choice in whole["choices"]:
        text = choice["message"]["content"] if route.startswith("chat") else choice["text"]
        assert (joined[choice["index"]], ends[choice["index"]]) == (text, choice["finish_reason"])
    assert len({*joined.values()}) == len(whole["choices"])  # each copy has a seed of its own


def test_a_conversation_is_written_as_the_template_has_it(client: TestClient, writer: texts.Writer) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    want = writer.write(writer.conversation(CHAT), {"max_new_tokens": 7, "do_sample": False}, whole=True)
    for messages in (CHAT, parts):
        asked = {"model": "llama", "messages": messages, "temperature": 0, "max_completion_tokens": 7}
        found = client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]
        assert found == {"role": "assistant", "content": want, "refusal": None}


def test_seeds(client: TestClient) -> None:
    def text(seed: int | None) -> str:
        asked = {"model": "llama", "prompt": PROMPT, "max_tokens": 12, "seed": seed}
        return str(client.post("/v1/completions", json=asked).json()["choices"][0]["text"])

    assert text(5) == text(5) != text(6)
    assert text(None) != text(None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_ends_where_it_is_to_stop(client: TestClient, writer: texts.Writer, stream: bool) -> None:
    whole = _greedy(writer, 16)
    place = next(i for i in range(3, len(whole) - 1) if whole[i : i + 2] not in whole[:i])
    asked = {
        "model": "llama",
        "prompt": PROMPT,
        "max_tokens": 16,
        "temperature": 0,
        "stop": ["never", whole[place:][:2]],
    }
    found = client.post("/v1/completions", json={**asked, "stream": stream})
    if stream:
        choices = [event["choices"][0] for event in _events(found.text)]
        assert ("".join(c["text"] for c in choices), choices[-1]["finish_reason"]) == (whole[:place], "stop")
    else:
        assert found.json()["choices"][0]["text"] == whole[:place]
        assert found.json()["choices"][0]["finish_reason"] == "stop"


def test_penalties_are_taken_off_what_was_written() -> None:
    options = texts.Options(presence_penalty=0.5, frequency_penalty=0.25)
    draw = np.random.default_rng(0)
    scores = np.array([1.0, 0.9, 0.6, 0.0], np.float32)
    assert texts.chosen(scores.copy(), [0, 0, 1], 1, options, draw) == 0  # token 0 was in the prompt, 1 was written
    assert texts.chosen(scores.copy(), [3, 0, 1, 0], 3, options, draw) == 2


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"model": "nobody"}, 404, "model", "does not exist. There is: llama"),
        ({"messages": []}, 400, "messages", "holds no message"),
        ({"messages": None}, 400, "messages", "Expected `array`"),
        ({"temperature": 3}, 400, "temperature", "<= 2.0"),
        ({"top_p": "much"}, 400, "top_p", "Expected `float | null`, got `str`"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "up to four"),
        ({"max_tokens": 65}, 400, "max_tokens", "at most 64 tokens"),
        ({"temprature": 1}, 400, "temprature", "Unrecognized request argument"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "not done here"),
        ({"logprobs": True}, 400, "logprobs", "not done here"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "not done here"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0]", "takes text"),
        ({"messages": [{"role": "user", "content": "a " * 200}]}, 400, None, "maximum context length is 128"),
        ({"messages": [{"role": "user", "content": "a" * 5000}]}, 413, None, "at most 4096 are read"),
    ],
)
def test_what_is_wrong_is_said(
    client: TestClient, change: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    answer = client.post("/v1/chat/completions", json={"model": "llama", "messages": CHAT, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert words in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "llama"}', b"\xff", b"[" * 4000])
@pytest.mark.parametrize("route", ["completions", "chat/completions", "embeddings"])
def test_what_is_no_request_is_one_clear_error(client: TestClient, route: str, body: bytes) -> None:
    answer = client.post(f"/v1/{route}", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_models_are_listed_and_embed_nothing(client: TestClient) -> None:
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["llama"]
    answer = client.post("/v1/embeddings", json={"model": "llama", "input": "a"})
    assert answer.status_code == 400 and "embeds no texts" in answer.json()["error"]["message"]


def test_more_than_is_asked_for_is_no_conversation() -> None:
    with pytest.raises(Wrong, match="calls tools"):
        read(b'{"model": "a", "messages": [{"role": "assistant", "tool_calls": [{}]}]}', Chat).plain()


# --- many, and those who hang up -----------------------------------------------------------------------------


class Held:
    """Writes a token when it is told to."""

    how = "by hand"

    def __init__(self) -> None:
        self.told: dict[int, Any] = {}
        self.cancelled: list[int] = []

    def begin(self, number: int, wanted: Wanted, tell: Any) -> None:
        self.told[number] = tell

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def close(self) -> None:
        pass


def _held(causal: tuple[Path, Any, Any], queue: int) -> tuple[Held, Generator, Any]:
    held = Held()
    model = Generator(causal[0], "llama", held, context=128, longest=64, queue=queue)
    return held, model, Starlette(routes=openai.routes(openai.Models(lambda: {"llama": model})))


async def _asked(app: Any, body: dict[str, Any], gone: asyncio.Event, *, read: list[str] | None = None) -> list[Any]:
    """One request by hand: what was sent, with a client that hangs up when `gone` is set."""
    waiting = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if waiting:
            if read is not None:
                read.append("body")
            return waiting.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/completions", "raw_path": b"/v1/completions", "root_path": "",
        "headers": [], "query_string": b"", "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 20)
    return sent


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_not_written_for(causal: tuple[Path, Any, Any], stream: bool) -> None:
    held, model, app = _held(causal, 4)

    async def hang_up() -> None:
        gone = asyncio.Event()
        body = {"model": "llama", "prompt": PROMPT, "n": 2, "stream": stream}
        task = asyncio.ensure_future(_asked(app, body, gone))
        while len(held.told) < 2:
            await asyncio.sleep(0.001)
        held.told[1]([5], "")
        gone.set()
        with contextlib.suppress(Exception):
            await task

    asyncio.run(hang_up())
    assert sorted(held.cancelled) == [1, 2] and model.room == 4


def test_too_many_are_refused_before_they_are_read(causal: tuple[Path, Any, Any]) -> None:
    held, model, app = _held(causal, 2)
    body = {"model": "llama", "prompt": PROMPT}

    async def crowd() -> None:
        gone, read = asyncio.Event(), list[str]()
        tasks = [asyncio.ensure_future(_asked(app, body, gone)) for _ in range(2)]
        while len(held.told) < 2:
            await asyncio.sleep(0.001)
        start, answer = await _asked(app, body, gone, read=read)
        assert start["status"] == 503 and (b"retry-after", b"1") in start["headers"] and not read
        assert json.loads(answer["body"])["error"]["code"] == "overloaded"
        for tell in held.told.values():
            tell([5], "length")
        assert [sent[0]["status"] for sent in await asyncio.gather(*tasks)] == [200, 200]
        assert model.room == 2

    asyncio.run(crowd())


def test_a_text_that_fails_is_said_and_no_other_is_touched(causal: tuple[Path, Any, Any]) -> None:
    held, _, app = _held(causal, 4)

    async def fail() -> None:
        gone = asyncio.Event()
        tasks = [
            asyncio.ensure_future(_asked(app, {"model": "llama", "prompt": PROMPT, "stream": stream}, gone))
            for stream in (False, True, False)
        ]
        while len(held.told) < 3:
            await asyncio.sleep(0.001)
        for number in (1, 2):
            held.told[number]([], "error: it is gone")
        held.told[3]([5], "length")
        failed, streamed, well = await asyncio.gather(*tasks)
        assert failed[0]["status"] == 500 and well[0]["status"] == 200
        assert json.loads(failed[1]["body"])["error"]["message"] == "it is gone"
        events = b"".join(message.get("body", b"") for message in streamed).decode()
        assert "it is gone" in events and "[DONE]" not in events

    asyncio.run(fail())


def test_a_process_that_cannot_be_started_again_takes_no_texts(causal: tuple[Path, Any, Any]) -> None:
    class Pages:
        opened = 0

        def __init__(self) -> None:
            Pages.opened += 1
            if Pages.opened > 1:
                raise EngineError("no memory")

        def add(self, number: int, ids: Any, options: Any) -> None:
            pass

        def next(self) -> dict[str, Any]:
            began.wait(20)
            return {"failed": "crashed"}

        def close(self) -> None:
            pass

        stop = close

    began, ended = threading.Event(), threading.Event()
    model = Generator(causal[0], "llama", InPages(Pages), context=128, longest=64, queue=2)
    told: list[str] = []

    def tell(tokens: list[int], end: str) -> None:
        told.append(end)
        ended.set()

    model.begin(Wanted((5, 6), 3), tell)
    began.set()
    assert ended.wait(20) and "send it again" in told[0]
    with pytest.raises(Refused, match="could not be started again"):
        model.begin(Wanted((5, 6), 3), tell)
    assert model.room == 2
    model.close()


# --- in a server ---------------------------------------------------------------------------------------------


def test_a_server_has_them_beside_its_own(
    causal: tuple[Path, Any, Any], writer: texts.Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    from paritas.serve import generation
    from paritas.serve.app import Application
    from paritas.serve.openai_models import models_of
    from paritas.serve.registry import ModelConfig, Registry
    from paritas.serve.settings import Settings

    def opened(port: Any, name: str, **_: Any) -> Generator:
        turns = InTurn(texts.Writer(port))
        return Generator(port.artifact.directory, name, turns, context=128, longest=64, queue=4)

    monkeypatch.setattr(generation, "open_generator", opened)
    lines: list[bytes] = []

    async def ask() -> None:
        registry = Registry([ModelConfig("llama", causal[0])], Settings(tokens=("secret",)))
        await registry.start()
        app = Application(registry, more=openai.routes(models_of(registry)), log=lines.append)
        door = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=door, base_url="http://test") as client:
            assert (await client.get("/v1/models")).status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            assert [card["id"] for card in (await client.get("/v1/models")).json()["data"]] == ["llama"]
            status = (await client.get("/v1/models/llama")).json()["model_version_status"]
            assert [one["state"] for one in status] == ["AVAILABLE"]
            asked = {"model": "llama", "prompt": PROMPT, "max_tokens": 9, "temperature": 0}
            found = await client.post("/v1/completions", json=asked)
            assert found.json()["choices"][0]["text"] == _greedy(writer)
            streamed = await client.post("/v1/completions", json={**asked, "stream": True})
            assert streamed.text.endswith("data: [DONE]\n\n")
            plain = await client.post("/v1/models/llama:predict", json={"instances": [PROMPT]})
            (answer,) = plain.json()["predictions"]
            text = answer if isinstance(answer, str) else answer["text"]
            assert text.startswith(_greedy(writer)[:-1])
        (model,) = registry.models.values()
        assert not model.open and not model.versions[1].open
        await registry.stop()

    asyncio.run(ask())
    told = [json.loads(line) for line in lines]
    assert [(line["path"], line["model"]) for line in told if line["path"] == "/v1/completions"] == [
        ("/v1/completions", "llama")
    ] * 2


# --- tokens to text ------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of bytes."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "stops", "want"),
    [
        ("hello world", (), "hello world"),
        ("hello world", ("wor",), "hello "),
        ("hello world", ("world!", "xyz"), "hello world"),
        ("aaab", ("aab",), "a"),
        ("naïve – ∑ 😀!", (), "naïve – ∑ 😀!"),
        ("naïve – ∑ 😀!", ("😀",), "naïve – ∑ "),
        ("one two", ("two", "one"), ""),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_pieces(text: str, stops: tuple[str, ...], want: str, step: int) -> None:
    pieces, ids = Pieces(Letters(), stops), list(text.encode())
    found = [pieces.add(ids[place : place + step]) for place in range(0, len(ids), step)]
    assert "".join(found) + pieces.end() == want and pieces.stopped == (want != text)
    for part in found:
        assert "\ufffd" not in part


# --- several at once -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paged(causal: tuple[Path, Any, Any]) -> Iterator[Generator]:
    pytest.importorskip("openvino_genai")
    made = open_generator(paritas.load(causal[0]), "llama", context=128, longest=100, queue=200, together=8)
    assert made.writes.how.startswith("several texts at once")
    yield made
    made.close()


@pytest.mark.slow
def test_texts_at_once_are_those_of_the_port(paged: Generator, writer: texts.Writer) -> None:
    def wanted(place: int) -> Wanted:
        ids = writer.tokenizer.encode(f"{PROMPT} fox {place} " * (1 + place % 5)).ids
        sampled = {"temperature": 0.9, "seed": place} if place % 3 == 0 else {"temperature": 0.0}
        return Wanted(tuple(ids), 9 + place % 17, ends=paged.ends, **sampled)

    alone = [paged.write(wanted(place))[0] for place in range(48)]
    with ThreadPoolExecutor(48) as crowd:
        together = list(crowd.map(lambda place: paged.write(wanted(place))[0], range(48)))
    assert together == alone
    for place in (one for one in range(48) if one % 3):
        options = {"max_new_tokens": wanted(place).most, "do_sample": False}
        ids = list(wanted(place).ids)
        assert alone[place] == list(writer.tokens(ids, writer.options(options))), place


@pytest.mark.slow
def test_texts_wait_where_there_are_no_pages(causal: tuple[Path, Any, Any], paged: Generator) -> None:
    """openvino-genai itself takes them, computes some again, and then writes other tokens."""
    from paritas.run.openvino.paged import Paged, said_in

    def open_pages() -> Paged:
        return Paged(causal[0], said_in(causal[0]), context=128, together=16, whole=1)

    tight = Generator(causal[0], "tight", InPages(open_pages), context=128, longest=128, queue=100)
    try:
        wanted = [
            Wanted(tuple(paged.tokens(f"{PROMPT} " * (1 + n % 4))), 70, temperature=(n % 2) * 0.8, seed=n)
            for n in range(12)
        ]
        with ThreadPoolExecutor(12) as crowd:
            found = list(crowd.map(lambda one: tight.write(one)[0], wanted))
        assert found == [paged.write(one)[0] for one in wanted]
    finally:
        tight.close()


@pytest.mark.slow
def test_a_process_that_dies_is_started_again(paged: Generator) -> None:
    ids = tuple(paged.tokens(PROMPT))
    before = paged.write(Wanted(ids, 5, temperature=0))
    writes: Any = paged.writes
    lost: list[str] = []
    ended = threading.Event()

    def tell(tokens: list[int], end: str) -> None:
        if end:
            lost.append(end)
            ended.set()

    paged.begin(Wanted(ids, 100, temperature=0), tell)
    os.kill(writes._pages._worker.pid, signal.SIGKILL)
    assert ended.wait(60) and (lost[0] == "length" or "send it again" in lost[0])
    for _ in range(200):  # until the lock shows that the next one is there
        with contextlib.suppress(EngineError):
            assert paged.write(Wanted(ids, 5, temperature=0)) == before
            return
        time.sleep(0.05)
    raise AssertionError("no text is written any more")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "why"), [("gemma3", "does not see all before it"), ("falcon with alibi", "")])
def test_other_masks_take_turns(name: str, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("openvino_genai")
    from tests.deploy.causal import saved, tokenizer_of_bytes

    saved(name, tokenizer_of_bytes(), tmp_path / "original")
    paritas.port(tmp_path / "original").save(tmp_path / "port")
    made = open_generator(paritas.load(tmp_path / "port"), name, context=64)
    try:
        assert isinstance(made.writes, InTurn) and why in caplog.text
        assert "one text after the other" in caplog.text
        assert len(made.write(Wanted(tuple(made.tokens(PROMPT)), 5))[0]) == 5
    finally:
        made.close()


@pytest.mark.slow
def test_an_engine_without_pages_takes_turns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mindspore")
    from tests.deploy.causal import saved, tokenizer_of_bytes

    tokenizer = tokenizer_of_bytes()
    original = saved("llama", tokenizer, tmp_path / "original")
    paritas.port(tmp_path / "original", engine="mindspore").save(tmp_path / "port")
    made = open_generator(paritas.load(tmp_path / "port"), "llama", context=64)
    try:
        assert isinstance(made.writes, InTurn) and "MindSpore computes one text at a time" in caplog.text
        for text in (PROMPT, "hello"):
            ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
            want = original.generate(**ids, max_new_tokens=7, min_new_tokens=7, do_sample=False, pad_token_id=2)
            found, end = made.write(Wanted(tuple(made.tokens(text)), 7, temperature=0.0))
            assert (found, end) == (want[0, ids.input_ids.shape[1] :].tolist(), "length")
    finally:
        made.close()
