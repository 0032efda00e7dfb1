# SPDX-License-Identifier: Apache-2.0
"""OpenAI's own client, which nobody here wrote, against our routes: `pip install openai` in any environment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paritas
from paritas import texts
from paritas.capture.source import minilm_directory

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install openai")
uvicorn = pytest.importorskip("uvicorn")
starlette = pytest.importorskip("starlette.applications")
routes = pytest.importorskip("paritas.serve.openai")
embeddings = pytest.importorskip("paritas.serve.embeddings")
generation = pytest.importorskip("paritas.serve.generation")

pytestmark = pytest.mark.slow

CHAT: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model(causal: tuple[Path, Any, Any]) -> Iterator[Any]:
    made = generation.open_generator(paritas.load(causal[0]), "llama", context=128, longest=100, queue=4)
    yield made
    made.close()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("embeddings") / "port"
    paritas.port(minilm_directory()).save(place)
    return embeddings.Embedder(paritas.load(place), "minilm")


@pytest.fixture(scope="module")
def client(model: Any, embedder: Any) -> Iterator[Any]:
    served = routes.Models(lambda: {"llama": model}, lambda: {"minilm": embedder})
    server = uvicorn.Server(
        uvicorn.Config(starlette.Starlette(routes=routes.routes(served)), port=0, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as found:
        yield found
    server.should_exit = True
    thread.join(10)


def test_texts_whole_and_in_pieces(client: Any, model: Any, causal: tuple[Path, Any, Any]) -> None:
    writer = texts.Writer(paritas.load(causal[0]))
    want = writer.write(writer.conversation(CHAT), {"max_new_tokens": 20, "do_sample": False}, whole=True)
    asked = {"model": "llama", "messages": CHAT, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == want and whole.usage.completion_tokens == 20
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == want
    assert pieces[-1].usage == whole.usage and pieces[-2].choices[0].finish_reason == "length"
    completed = client.completions.create(model="llama", prompt=["a", "b"], max_tokens=5, seed=1, n=2)
    assert [choice.index for choice in completed.choices] == [0, 1, 2, 3]
    with client.chat.completions.stream(model="llama", messages=CHAT, max_tokens=20, temperature=0) as stream:
        with pytest.raises(openai.LengthFinishReasonError) as ended:  # so its helper says that more was to come
            stream.get_final_completion()
        assert ended.value.completion.choices[0].message.content == want


def test_embeddings_are_those_of_sentence_transformers(client: Any) -> None:
    sentences = ["A cat sleeps.", "It is raining in London, and nobody minds.", "Hello"]
    found = client.embeddings.create(model="minilm", input=sentences)  # the client asks for base64
    rows = np.array([one.embedding for one in found.data], np.float32)
    plain = client.embeddings.create(model="minilm", input=sentences, encoding_format="float")
    np.testing.assert_array_equal(rows, np.array([one.embedding for one in plain.data], np.float32))
    library = pytest.importorskip("sentence_transformers")
    want = library.SentenceTransformer(str(minilm_directory())).encode(sentences)
    np.testing.assert_allclose(rows, want, atol=2e-6)
    assert np.abs(rows[0] - want[1]).max() > 0.01


def test_models_and_errors_are_its_own(client: Any) -> None:
    assert [one.id for one in client.models.list()] == ["llama", "minilm"]
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="nobody", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="llama", prompt="a " * 300)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as strange:
        client.completions.create(model="llama", prompt="a", extra_body={"temprature": 1})
    assert strange.value.param == "temprature"


def test_who_hangs_up_gives_the_place_back(client: Any, model: Any) -> None:
    asked = {"model": "llama", "prompt": "a", "max_tokens": 100, "extra_body": {"ignore_eos": True}}
    streams = [client.completions.create(**asked, stream=True) for _ in range(4)]
    for stream in streams:
        next(iter(stream))
    for stream in streams:
        stream.close()
    until = time.monotonic() + 30
    while model.room < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert model.room == 4
