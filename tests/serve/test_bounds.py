# SPDX-License-Identifier: Apache-2.0
"""What a server does not put up with: overload, slow and endless requests, strangers."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from served_here import Running

from paritas.serve.messages import message, serving
from paritas.serve.model import open_servable
from paritas.serve.registry import ModelConfig
from paritas.serve.settings import Batching, Engine, Limits, Settings

LIMITS = Limits(body=1 << 20, pixels=5000, header_read=0.15, body_read=0.2, request=5.0)
SETTINGS = Settings(
    rest_port=0, grpc_port=0, poll=0, drain=5.0, access_log=False, limits=LIMITS, batching=Batching(queue=2, largest=1),
    tokens=("first", "second"), engine=Engine(warm=False),
)  # fmt: skip
BEARER = {"authorization": "Bearer second"}
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer first\r\n"


class Gate:
    """Holds the engine."""

    go = threading.Event()


@pytest.fixture(scope="module")
def guarded(vit_port: Path) -> Iterator[Running]:
    """A server with two places, whose engine stands still while `Gate.go` is not set."""
    Gate.go.set()

    def opened(directory: Path, name: str, version: int) -> Any:
        servable = open_servable(directory, name, version, limits=LIMITS)
        compute = servable.compute

        def held(feed: Any) -> Any:
            assert Gate.go.wait(30)
            return compute(feed)

        servable.compute = held  # type: ignore[method-assign]
        return servable

    with Running([ModelConfig("m", vit_port)], SETTINGS, opened=opened) as running:
        yield running
    Gate.go.set()


def ask(server: Running, body: Any, **headers: str) -> requests.Response:
    url = f"{server.url}/v1/models/m:predict"
    return requests.post(url, data=body, headers={**BEARER, **headers}, timeout=30)


def connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server.rest_port), timeout=10)


def test_strangers(guarded: Running) -> None:
    url = f"{guarded.url}/v1/models/m"
    for given in (
        {},
        {"authorization": "Bearer third"},
        {"authorization": "Basic second"},
        {"authorization": "second"},
    ):
        answer = requests.get(url, headers=given, timeout=30)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert requests.get(url, headers=BEARER, timeout=30).status_code == 200
    assert requests.get(f"{guarded.url}/metrics", timeout=30).status_code == 401
    assert requests.get(f"{guarded.url}/readyz", timeout=30).status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{guarded.server.grpc_port}") as channel:
        ready = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
        request = message("inference.ModelReadyRequest")(name="m").SerializeToString()
        with pytest.raises(grpc.RpcError) as refused:
            ready(request, timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert ready(request, timeout=30, metadata=tuple(BEARER.items()))


def test_an_overload_is_refused_before_its_body_is_read(guarded: Running, png64: str) -> None:
    Gate.go.clear()
    body = json.dumps({"instances": [png64]})
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(ask(guarded, body).status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while guarded.registry.models["m"].open < 2:
        time.sleep(0.01)
    with connected(guarded) as client:  # its body is never sent
        client.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        answer = client.recv(65536).decode().lower()
    assert answer.startswith("http/1.1 503")
    assert "retry-after: 1" in answer
    with grpc.insecure_channel(f"127.0.0.1:{guarded.server.grpc_port}") as channel:
        request = serving("PredictRequest")()
        request.model_spec.name = "m"
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(
                request.SerializeToString(), timeout=30, metadata=tuple(BEARER.items())
            )
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.value.trailing_metadata())["retry-after"] == "1"
    Gate.go.set()
    for thread in threads:
        thread.join()
    assert found == [200, 200]
    assert ask(guarded, body).status_code == 200


def test_a_deadline(guarded: Running, png64: str) -> None:
    Gate.go.clear()
    late = ask(guarded, json.dumps({"instances": [png64]}), **{"x-request-timeout": "0.05"})
    Gate.go.set()
    assert (late.status_code, "not answered in its time" in late.json()["error"]) == (504, True)
    assert ask(guarded, b"{}", **{"x-request-timeout": "soon"}).status_code == 400


def test_what_is_too_large(guarded: Running, png64: str) -> None:
    assert ask(guarded, b" " * (LIMITS.body + 1)).status_code == 413
    assert ask(guarded, iter([b" " * (1 << 19)] * 3)).status_code == 413  # in pieces of which nobody said how many

    def large(width: int) -> str:
        import base64
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.new("RGB", (width, 100)).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    refused = ask(guarded, json.dumps({"instances": [large(100)]}))
    assert (refused.status_code, "100 x 100 pixels" in refused.json()["error"]) == (400, True)
    assert ask(guarded, json.dumps({"instances": [large(50)]})).status_code == 200


def test_who_is_slow(guarded: Running) -> None:
    with connected(guarded) as client:  # says nothing
        assert client.recv(100) == b""
    with connected(guarded) as client:  # ends in the middle of its head
        client.sendall(b"POST /v1/models/m:predict HTTP/1.1\r\nhost:")
        assert client.recv(100) == b""
    with connected(guarded) as client:  # ends in the middle of its body
        client.sendall(HEAD + b"content-length: 10\r\n\r\n{")
        assert client.recv(65536).startswith(b"HTTP/1.1 408")
    with connected(guarded) as client:  # is gone in the middle of its body
        client.sendall(HEAD + b"content-length: 10\r\n\r\n{")
    while guarded.registry.models["m"].open:
        time.sleep(0.01)
    assert requests.get(f"{guarded.url}/livez", timeout=30).status_code == 200


def test_what_is_no_http(guarded: Running) -> None:
    for given in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\x00" * 100):
        with connected(guarded) as client:
            client.sendall(given)
            answer = client.recv(65536)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert requests.get(f"{guarded.url}/livez", timeout=30).status_code == 200


def test_tls(vit_port: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    certificate, key = _certified(tmp_path)
    settings = Settings(
        rest_port=0, grpc_port=0, poll=0, drain=1.0, access_log=False, engine=Engine(warm=False),
        certificate=certificate, key=key,
    )  # fmt: skip
    with Running([ModelConfig("m", vit_port)], settings) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert requests.get(f"{url}/v1/models/m", verify=str(certificate), timeout=30).status_code == 200
        with pytest.raises((requests.exceptions.ConnectionError, ssl.SSLError)):
            requests.get(f"{server.url}/livez", timeout=30)
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{server.server.grpc_port}", credentials) as channel:
            raw = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=30)
            assert message("inference.ServerLiveResponse").FromString(raw).live


def _certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *more], check=True, capture_output=True)
    return certificate, key
