# SPDX-License-Identifier: Apache-2.0
"""examples/serve_vit from end to end: "Deploying ViT on Kubernetes with TF Serving", with the article's own client."""

from __future__ import annotations

import ast
import csv
import importlib.util
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "serve_vit"

PORTS = ("--rest-port", "0", "--grpc-port", "-1")

pytestmark = pytest.mark.slow

#: The article's, but for spaces at ends of lines; `requests` it imports elsewhere.
LISTING = """
import tensorflow as tf
import json
import base64

image_path = tf.keras.utils.get_file(
    "image.jpg", "http://images.cocodataset.org/val2017/000000039769.jpg"
)
bytes_inputs = tf.io.read_file(image_path)
b64str = base64.urlsafe_b64encode(bytes_inputs.numpy()).decode("utf-8")
data = json.dumps(
    {"signature_name": "serving_default", "instances": [b64str]}
)

json_response = requests.post(
    "http://<ENDPOINT-IP>:8501/v1/models/hf-vit:predict",
    headers={"content-type": "application/json"},
    data=data
)
print(json.loads(json_response.text))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("serve_vit")
    command = [sys.executable, str(EXAMPLE / "port_vit.py"), "models/hf-vit/1", "--tiny", "--picture", "picture.jpg"]
    subprocess.run(command, cwd=found, check=True, capture_output=True)
    return found


@pytest.fixture(scope="module")
def endpoint(place: Path) -> Iterator[str]:
    pytest.importorskip("starlette")
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "paritas", "serve", "--model-base-path", "models", *PORTS], cwd=place, stderr=log
        )
        try:
            while not (said := re.search(r"REST API at: (\S+)", (place / "server.log").read_text())):
                assert server.poll() is None, (place / "server.log").read_text()
            yield said[1]
        finally:
            server.terminate()
            assert server.wait(30) == 0


def test_the_articles_listing_is_answered(
    place: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = pytest.importorskip("requests")
    tensorflow: Any = types.ModuleType("tensorflow")  # of which it takes a file alone
    tensorflow.keras = types.SimpleNamespace(
        utils=types.SimpleNamespace(get_file=lambda name, url: str(place / "picture.jpg"))
    )
    tensorflow.io = types.SimpleNamespace(
        read_file=lambda path: types.SimpleNamespace(numpy=lambda: Path(path).read_bytes())
    )
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    exec(compile(LISTING.replace("<ENDPOINT-IP>:8501", endpoint), "listing", "exec"), {"requests": requests})  # noqa: S102
    told = ast.literal_eval(capsys.readouterr().out)
    (answer,) = told["predictions"]
    assert set(answer) == {"label", "confidence"} and 0 < answer["confidence"] <= 1
    command = [sys.executable, str(EXAMPLE / "client.py"), str(place / "picture.jpg"), endpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == told


def test_the_class_is_the_originals(place: Path, endpoint: str) -> None:
    requests = pytest.importorskip("requests")
    image = pytest.importorskip("PIL.Image")
    import base64

    import torch
    import transformers

    import paritas

    port = paritas.load(place / "models" / "hf-vit" / "1")
    processor = transformers.AutoImageProcessor.from_pretrained(place / "models" / "hf-vit" / "1", use_fast=False)
    pixels = processor(image.open(place / "picture.jpg"), return_tensors="pt")["pixel_values"]
    scores = torch.softmax(torch.as_tensor(port(pixel_values=pixels).logits), -1)[0]
    text = base64.urlsafe_b64encode((place / "picture.jpg").read_bytes()).decode()
    url = f"http://{endpoint}/v1/models/hf-vit:predict"
    answer = requests.post(url, json={"instances": [text]}, timeout=60).json()["predictions"][0]
    assert answer["label"] == f"LABEL_{int(scores.argmax())}"
    assert answer["confidence"] == pytest.approx(float(scores.max()), abs=2e-3)


def test_the_load_is_measured_and_drawn(place: Path, endpoint: str) -> None:
    if importlib.util.find_spec("locust") is None:
        pytest.skip("Locust is not installed: pip install locust")
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(EXAMPLE / "load.py"), f"http://{endpoint}", "picture.jpg", "--users", "1,4"]
    done = subprocess.run([*command, "--seconds", "3"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with (place / "load" / "load.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["users"] for row in rows] == ["1", "4"]
    for row in rows:
        assert float(row["requests"]) > 3 and not float(row["failures"])
        assert 0 < float(row["p50"]) <= float(row["p95"]) <= float(row["p99"])
    assert (place / "load" / "load.png").stat().st_size > 5000
    assert "Locust" in (place / "load" / "users-4.html").read_text()
