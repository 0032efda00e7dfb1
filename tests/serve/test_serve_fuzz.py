# SPDX-License-Identifier: Apache-2.0
"""Malformed requests of every kind: each is answered with a reason, and the server is afterwards what it was."""

from __future__ import annotations

import base64
import json
import random
import socket
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from served_here import Running

from paritas.serve.messages import message, serving
from paritas.serve.tensors import into_proto

#: Statuses of a request that is told what is wrong with it. 200: what was changed did no harm.
TOLD = {200, 400, 404, 408, 413, 415}
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # larger than gRPC itself takes
}  # fmt: skip


def broken(given: bytes, chance: random.Random) -> bytes:
    """Bytes with a few of them changed, gone, doubled or moved."""
    found = bytearray(given)
    for _ in range(chance.randint(1, 6)):
        if not found:
            break
        at = chance.randrange(len(found))
        kind = chance.randrange(5)
        if kind == 0:
            found[at] = chance.randrange(256)
        elif kind == 1:
            del found[at : at + chance.randint(1, 40)]
        elif kind == 2:
            found[at:at] = chance.randbytes(chance.randint(1, 20))
        elif kind == 3:
            found[at:at] = found[at : at + chance.randint(1, 60)]
        else:
            del found[at:]
    return bytes(found)


def anything(chance: random.Random, depth: int = 0) -> Any:
    """A value of JSON's."""
    kind = chance.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [anything(chance, depth + 1) for _ in range(chance.randint(0, 4))]
    if kind == 8:
        words = ["instances", "inputs", "signature_name", "b64", "image", "name", "shape", "data", "datatype", "x"]
        return {chance.choice(words): anything(chance, depth + 1) for _ in range(chance.randint(0, 4))}
    plain = [
        None,
        True,
        chance.choice([0, -1, 2**31, 2**63, 2**64, 10**400]),
        chance.random(),
        1e308,
        "tensors",
        "é\ud800",
    ]
    return plain[kind]


class Fuzz:
    """Makes requests, one kind after the other."""

    def __init__(self, served: Running, png: bytes, seed: int) -> None:
        self.served, self.png, self.chance = served, png, random.Random(seed)
        self.session = requests.Session()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{served.server.grpc_port}")
        self.kinds: list[Callable[[], None]] = [
            self.json_bytes, self.json_values, self.images, self.binary, self.predict_message, self.infer_message,
            self.heads,
        ]  # fmt: skip

    def post(self, path: str, body: bytes, **headers: str) -> None:
        answer = self.session.post(self.served.url + path, data=body, headers=headers, timeout=30)
        assert answer.status_code in TOLD, (answer.status_code, answer.text, body[:300])
        if answer.status_code != 200:
            assert answer.json()["error"], body[:300]

    def json_bytes(self) -> None:
        good = {"signature_name": "tensors", "inputs": {"input_ids": [[2, 5, 3]], "attention_mask": [[1, 1, 1]]}}
        self.post("/v1/models/bert:predict", broken(json.dumps(good).encode(), self.chance))

    def json_values(self) -> None:
        path = self.chance.choice(["/v1/models/hf-vit:predict", "/v1/models/bert:classify", "/v2/models/bert/infer"])
        signature = self.chance.choice(["tensors", "image", ""])
        key = self.chance.choice(["instances", "inputs", "examples"])
        body = (
            {"signature_name": signature, key: anything(self.chance)}
            if self.chance.random() < 0.8
            else anything(self.chance)
        )
        self.post(path, json.dumps(body).encode())

    def images(self) -> None:
        spoilt = base64.b64encode(broken(self.png, self.chance)).decode()
        self.post("/v1/models/hf-vit:predict", json.dumps({"instances": [spoilt]}).encode())

    def binary(self) -> None:
        shape, size = (
            self.chance.choice([[1, 3, 32, 32], [2, 3], [1 << 33], []]),
            self.chance.choice([12288, 4, -1, 1 << 40]),
        )
        tensor = {
            "name": "pixel_values",
            "datatype": self.chance.choice(["FP32", "BYTES", "INT64", "BOOL"]),
            "shape": shape,
        }
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]}).encode()
        said = str(self.chance.choice([len(head), 3, len(head) + 99999]))
        body = head + self.chance.randbytes(self.chance.choice([12288, 4, 100]))
        self.post("/v2/models/hf-vit/infer", body, **{"inference-header-content-length": said})

    def _call(self, method: str, raw: bytes) -> None:
        done = self.channel.unary_unary(method).future(raw, timeout=30)
        error = done.exception()
        if error is not None:
            assert error.code() in CODES, (error.code(), error.details(), raw[:300])
            assert error.details()

    def predict_message(self) -> None:
        request = serving("PredictRequest")()
        request.model_spec.name, request.model_spec.signature_name = "hf-vit", "tensors"
        into_proto(np.zeros((1, 3, 4, 4), np.float32), request.inputs["pixel_values"])
        if self.chance.random() < 0.5:
            request.inputs["pixel_values"].dtype = self.chance.choice([1, 7, 9, 10, 19, 21])
            request.inputs["pixel_values"].tensor_shape.dim.add(size=self.chance.choice([-1, 0, 7, 1 << 60]))
            self._call("/tensorflow.serving.PredictionService/Predict", request.SerializeToString())
            return
        self._call("/tensorflow.serving.PredictionService/Predict", broken(request.SerializeToString(), self.chance))

    def infer_message(self) -> None:
        request = message("inference.ModelInferRequest")(model_name="bert")
        for name in ("input_ids", "attention_mask"):
            request.inputs.add(name=name, datatype=self.chance.choice(["INT64", "FP16", "BYTES"]), shape=[1, 3])
            request.raw_input_contents.append(self.chance.randbytes(24))
        self._call("/inference.GRPCInferenceService/ModelInfer", broken(request.SerializeToString(), self.chance))

    def heads(self) -> None:
        good = b"POST /v1/models/hf-vit:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
        with socket.create_connection(("127.0.0.1", self.served.server.rest_port), timeout=30) as client:
            client.sendall(broken(good, self.chance))
            client.shutdown(socket.SHUT_WR)  # half open: no more will come
            answer = client.recv(65536)
        assert not answer or answer[9:10] == b"4", answer


def fuzz(served: Running, png: bytes, count: int, seed: int) -> None:
    good = json.dumps({"instances": [base64.b64encode(png).decode()]})

    def answer() -> Any:
        return requests.post(f"{served.url}/v1/models/hf-vit:predict", data=good, timeout=30).json()

    before, made = answer(), Fuzz(served, png, seed)
    for number in range(count):
        made.kinds[number % len(made.kinds)]()
    made.channel.close()
    assert answer() == before
    assert not any(model.open for model in served.registry.models.values())
    assert served.registry.ready


def test_malformed_requests(served: Running, png: bytes) -> None:
    fuzz(served, png, 42, seed=0)


@pytest.mark.slow
def test_two_thousand_malformed_requests(served: Running, png: bytes) -> None:
    fuzz(served, png, 2000, seed=1)
