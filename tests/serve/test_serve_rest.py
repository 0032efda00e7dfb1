# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST interface, asked by a client that knows nothing of Paritas."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest
import requests
from served_here import Running

VIT = "/v1/models/hf-vit"
PIXELS = np.zeros((1, 3, 32, 32), np.float32).tolist()


def post(served: Running, path: str, body: Any, **headers: str) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return requests.post(
        served.url + path, data=data, headers={"content-type": "application/json", **headers}, timeout=30
    )


def test_the_listing_of_the_article(served: Running, png64: str) -> None:
    data = json.dumps({"signature_name": "serving_default", "instances": [png64]})
    json_response = requests.post(
        f"{served.url}/v1/models/hf-vit:predict", headers={"content-type": "application/json"}, data=data, timeout=30
    )
    (answer,) = json.loads(json_response.text)["predictions"]
    assert answer.keys() == {"label", "confidence"}
    assert answer["label"] in ("Egyptian cat", "tabby", "lynx")
    assert 1 / 3 < answer["confidence"] < 1


def test_all_ways_to_send_an_image_have_one_answer(served: Running, png: bytes, png64: str) -> None:
    whole = {"b64": base64.b64encode(png).decode()}
    ways = [
        (VIT, {"instances": [png64]}),
        (VIT, {"instances": [whole]}),
        (VIT, {"instances": [{"image": whole}]}),
        (f"{VIT}/versions/1", {"instances": [{"image": png64}]}),
        (f"{VIT}/labels/stable", {"instances": [png64.rstrip("=")]}),
    ]
    rows = [post(served, f"{path}:predict", body).json()["predictions"][0] for path, body in ways]
    columns = [
        post(served, f"{VIT}:predict", {"inputs": inputs}).json()["outputs"] for inputs in ([whole], {"image": [png64]})
    ]
    assert all(row == rows[0] for row in rows)
    assert all({name: [value] for name, value in rows[0].items()} == column for column in columns)


def test_it_is_what_transformers_makes_of_the_image(served: Running, png: bytes, png64: str, vit_port: Any) -> None:
    import io

    import torch
    import transformers
    from PIL import Image

    checkpoint = vit_port.parent / "vit-checkpoint"
    model = transformers.ViTForImageClassification.from_pretrained(checkpoint).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
    pixels = processor(images=Image.open(io.BytesIO(png)), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        want = model(pixels).logits.softmax(-1)[0]
    got = post(served, f"{VIT}:classify", {"examples": [{"image": png64}]}).json()["results"][0]
    assert [label for label, _ in got] == [model.config.id2label[int(n)] for n in want.argsort(descending=True)]
    np.testing.assert_allclose([score for _, score in got], want.sort(descending=True).values, atol=2e-6)


def test_texts_have_labels(served: Running) -> None:
    found = post(served, "/v1/models/bert:predict", {"instances": ["the film was good", "bad"]}).json()["predictions"]
    assert [one["label"] in ("POSITIVE", "NEGATIVE") for one in found] == [True, True]
    alone = post(served, "/v1/models/bert:predict", {"instances": ["bad"]}).json()["predictions"]
    assert found[1]["label"] == alone[0]["label"]
    assert found[1]["confidence"] == pytest.approx(alone[0]["confidence"], abs=1e-6)


def test_raw_tensors(served: Running) -> None:
    asked = {"signature_name": "tensors"}
    columns = post(served, f"{VIT}:predict", {**asked, "inputs": PIXELS}).json()["outputs"]
    rows = post(served, f"{VIT}:predict", {**asked, "instances": PIXELS}).json()["predictions"]
    assert columns == rows
    assert np.shape(rows) == (1, 3)
    ids = {"input_ids": [[2, 5, 3]], "attention_mask": [[1, 1, 1]], "token_type_ids": [[0, 0, 0]]}
    several = post(served, "/v1/models/bert:predict", {**asked, "inputs": ids}).json()["outputs"]
    assert np.shape(several) == (1, 2)


#: path, body, status and what the error says.
WRONG: list[tuple[str, Any, int, str]] = [
    (f"{VIT}:predict", b"", 400, "JSON Parse error: The document is empty"),
    (f"{VIT}:predict", b"{", 400, "JSON Parse error: "),
    (f"{VIT}:predict", b"[" * 100_000, 400, "JSON Parse error: "),
    (f"{VIT}:predict", b"\xff\xfe", 400, "JSON Parse error: "),
    (f"{VIT}:predict", b"[1]", 400, "JSON Value: [1] Is not object"),
    (f"{VIT}:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    (
        f"{VIT}:predict",
        {"inputs": 1, "instances": [1]},
        400,
        "expecting only one of 'inputs' or 'instances'",
    ),
    (f"{VIT}:predict", {"instances": 1}, 400, "Expecting 'instances' to be an list/array"),
    (f"{VIT}:predict", {"instances": []}, 400, "No values in 'instances' array"),
    (f"{VIT}:predict", {"instances": [1]}, 400, "JSON Value: 1 Type: Number is not of expected type: string"),
    (f"{VIT}:predict", {"instances": [None]}, 400, "Type: Null is not of expected type: string"),
    (f"{VIT}:predict", {"instances": [{"b64": "%"}]}, 400, "Unable to base64 decode"),
    (f"{VIT}:predict", {"instances": ["abc"]}, 400, "cannot be read"),
    (f"{VIT}:predict", {"instances": [[["abc"]]]}, 400, "one image a row"),
    (
        f"{VIT}:predict",
        {"instances": [{"image": "a"}, "b"]},
        400,
        "Expecting object but got list at item 1",
    ),
    (f"{VIT}:predict", {"instances": ["a", {"image": "b"}]}, 400, "Expecting value/list but got object at item 1"),
    (f"{VIT}:predict", {"instances": [{"foo": "a"}]}, 400, "JSON object: does not have named input: foo"),
    (f"{VIT}:predict", {"instances": ["a"] * 2000}, 400, "more than the 1024"),
    (f"{VIT}:predict", {"signature_name": 1, "instances": ["a"]}, 400, "'signature_name' key must be a string value."),
    (f"{VIT}:predict", {"signature_name": "x", "instances": ["a"]}, 400, 'Serving signature name: "x" not found'),
    (f"{VIT}:predict", {"signature_name": "tensors", "inputs": [[1, 2], [3]]}, 400, "unexpected size: 1 at level: 1"),
    (f"{VIT}:predict", {"signature_name": "tensors", "inputs": [["a"]]}, 400, "not of expected type: float"),
    (
        f"{VIT}:predict",
        {"signature_name": "tensors", "inputs": [[True]]},
        400,
        "Type: True is not of expected",
    ),
    (f"{VIT}:predict", {"signature_name": "tensors", "inputs": [[1.0]]}, 400, "pixel_values"),
    (
        "/v1/models/bert:predict",
        {
            "signature_name": "tensors",
            "inputs": {"input_ids": [[99]], "attention_mask": [[1]], "token_type_ids": [[0]]},
        },
        400,
        "input_ids",
    ),
    ("/v1/models/bert:predict", {"instances": ["film " * 40]}, 400, "42 tokens, more than the 24"),
    (f"{VIT}:classify", {"instances": ["a"]}, 400, "key 'examples' is expected and was not found"),
    (f"{VIT}:classify", {"examples": []}, 400, "'examples' value is an empty array"),
    (f"{VIT}:classify", {"examples": [1]}, 400, "Example must be JSON object but got JSON Number"),
    (f"{VIT}:regress", {"examples": [{"image": "a"}]}, 400, "Expected regression signature"),
    ("/v1/models/nobody:predict", {"instances": ["a"]}, 404, "Servable not found for request: Latest(nobody)"),
    (f"{VIT}/versions/7:predict", {"instances": ["a"]}, 404, "Servable not found for request: Specific(hf-vit, 7)"),
    (f"{VIT}/labels/x:predict", {"instances": ["a"]}, 400, "Unrecognized servable version label: x"),
    (f"{VIT}:run", {"instances": ["a"]}, 400, f"Malformed request: POST {VIT}:run"),
]


@pytest.mark.parametrize(("path", "body", "status", "says"), WRONG)
def test_wrong_requests(served: Running, path: str, body: Any, status: int, says: str) -> None:
    answer = post(served, path, body)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]


def test_what_is_known_of_a_model(served: Running) -> None:
    state = requests.get(f"{served.url}{VIT}", timeout=30).json()
    good = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert state == {"model_version_status": [good]}
    about = requests.get(f"{served.url}{VIT}/metadata", timeout=30).json()
    assert about["model_spec"] == {"name": "hf-vit", "signature_name": "", "version": "1"}
    signatures = about["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "tensors", "image", "classify"}
    pixels = signatures["tensors"]["inputs"]["pixel_values"]
    assert pixels["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in pixels["tensor_shape"]["dim"]] == ["-1", "3", "32", "32"]
    assert requests.get(f"{served.url}/v1/models", timeout=30).json() == {"error": "Missing model name in request."}
    gone = requests.get(f"{served.url}/v1/models/nobody", timeout=30)
    assert (gone.status_code, gone.json()["error"]) == (404, "Could not find any versions of model nobody")


def test_packed_bodies(served: Running, png64: str) -> None:
    body = json.dumps({"instances": [png64]}).encode()
    plain = post(served, f"{VIT}:predict", body).json()
    assert post(served, f"{VIT}:predict", gzip.compress(body), **{"content-encoding": "gzip"}).json() == plain
    broken = post(served, f"{VIT}:predict", gzip.compress(body)[:-9], **{"content-encoding": "gzip"})
    assert (broken.status_code, "gzip" in broken.json()["error"]) == (400, True)
    bomb = post(served, f"{VIT}:predict", gzip.compress(bytes(70 << 20), 1), **{"content-encoding": "gzip"})
    assert bomb.status_code == 413
    assert post(served, f"{VIT}:predict", body, **{"content-encoding": "br"}).status_code == 415


def test_health_and_metrics(served: Running, png64: str) -> None:
    assert post(served, f"{VIT}:predict", {"instances": [png64]}).status_code == 200
    for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert requests.get(served.url + path, timeout=30).status_code == 200
    text = requests.get(f"{served.url}/metrics", timeout=30).text
    assert 'paritas_requests_total{code="OK",model="hf-vit",protocol="rest"}' in text
    assert 'paritas_model_ready{model="bert",version="1"} 1.0' in text
    assert requests.get(f"{served.url}/nothing", timeout=30).status_code == 404


def test_a_request_has_an_id(served: Running) -> None:
    given = requests.get(f"{served.url}/livez", headers={"x-request-id": "mine"}, timeout=30)
    assert given.headers["x-request-id"] == "mine"
    made = requests.get(f"{served.url}/livez", headers={"x-request-id": "two words"}, timeout=30)
    assert len(made.headers["x-request-id"]) == 16
