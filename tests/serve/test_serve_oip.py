# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over HTTP, and all services over gRPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from served_here import Running

from paritas.serve.messages import message, serving

PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)


def infer(served: Running, body: Any, model: str = "hf-vit", **headers: str) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body)
    return requests.post(f"{served.url}/v2/models/{model}/infer", data=data, headers=headers, timeout=30)


def pixels(**more: Any) -> dict[str, Any]:
    return {"name": "pixel_values", "datatype": "FP32", "shape": [2, 3, 32, 32], **more}


def test_numbers_as_json_and_as_bytes_are_the_same(served: Running) -> None:
    as_json = infer(served, {"id": "7", "inputs": [pixels(data=PIXELS.ravel().tolist())]}).json()
    assert as_json["id"] == "7"
    (output,) = as_json["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [2, 3])
    head = json.dumps(
        {
            "inputs": [pixels(parameters={"binary_data_size": PIXELS.nbytes})],
            "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
        }
    ).encode()
    answer = infer(served, head + PIXELS.tobytes(), **{"inference-header-content-length": str(len(head))})
    size = int(answer.headers["inference-header-content-length"])
    (about,) = json.loads(answer.content[:size])["outputs"]
    assert about["parameters"] == {"binary_data_size": 24}
    np.testing.assert_array_equal(np.frombuffer(answer.content[size:], "<f4"), np.float32(output["data"]))


def test_the_inputs_and_outputs_say_which_signature(served: Running, png64: str) -> None:
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": [png64]}
    best = infer(served, {"inputs": [image]}).json()["outputs"]
    assert [one["name"] for one in best] == ["label", "confidence"]
    logits = infer(served, {"inputs": [image], "outputs": [{"name": "logits"}]}).json()["outputs"]
    assert [one["shape"] for one in logits] == [[1, 3]]
    every = infer(served, {"inputs": [image], "parameters": {"signature_name": "classify"}}).json()["outputs"]
    assert [one["shape"] for one in every] == [[1, 3], [1, 3]]


#: What is sent, and what the error says.
WRONG: list[tuple[Any, str]] = [
    ({}, "'inputs' is to be a list of tensors"),
    ({"inputs": [1]}, "object with a name"),
    ({"inputs": [{"name": "pixel_values", "data": [1]}]}, "has no shape"),
    ({"inputs": [pixels()]}, "has no data"),
    ({"inputs": [pixels(data=[1.0])]}, "has 1 values, and its shape [2, 3, 32, 32] has 6144"),
    ({"inputs": [pixels(data=["a"] * 6144)]}, "holds what is no FP32"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [-1]}]}, "which is none"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1 << 40]}]}, "more than the"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1], "datatype": "FP7"}]}, "known are"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1], "name": "foo"}]}, "takes [pixel_values] or [image]"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1]}] * 2}, "is there twice"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1]}]}, "pixel_values"),
    ({"inputs": [pixels(parameters={"binary_data_size": 4})]}, "0 bytes are left"),
    ({"inputs": [{**pixels(data=[1.0]), "shape": [1]}], "outputs": [{"name": "x"}]}, "has no output x"),
    ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [1]}]}, "which is no string"),
]


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_wrong_requests(served: Running, body: Any, says: str) -> None:
    answer = infer(served, body)
    assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text


def test_what_is_known(served: Running) -> None:
    assert requests.get(f"{served.url}/v2", timeout=30).json()["extensions"] == ["binary_tensor_data"]
    assert requests.get(f"{served.url}/v2/health/live", timeout=30).json() == {"live": True}
    assert requests.get(f"{served.url}/v2/health/ready", timeout=30).json() == {"ready": True}
    about = requests.get(f"{served.url}/v2/models/hf-vit", timeout=30).json()
    assert about["versions"] == ["1"]
    assert about["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    for path, status in (("hf-vit/ready", 200), ("hf-vit/versions/1/ready", 200), ("hf-vit/versions/2/ready", 503)):
        assert requests.get(f"{served.url}/v2/models/{path}", timeout=30).status_code == status
    assert requests.get(f"{served.url}/v2/models/nobody/ready", timeout=30).status_code == 404
    assert infer(served, {}, "nobody").status_code == 404


# --- gRPC --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def channel(served: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{served.server.grpc_port}") as opened:
        yield opened


def call(channel: grpc.Channel, method: str, request: Any, answer: str, **how: Any) -> Any:
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    return message(answer).FromString(channel.unary_unary(method)(raw, timeout=30, **how))


def predict(channel: grpc.Channel, name: str = "hf-vit", **inputs: np.ndarray | list[bytes]) -> Any:
    from paritas.serve.tensors import into_proto

    request = serving("PredictRequest")()
    request.model_spec.name = name
    for one, array in inputs.items():
        into_proto(np.array(array, object) if isinstance(array, list) else array, request.inputs[one])
        if not isinstance(array, list):
            request.model_spec.signature_name = "tensors"
    return call(channel, "/tensorflow.serving.PredictionService/Predict", request, "tensorflow.serving.PredictResponse")


def test_predict(served: Running, channel: grpc.Channel, png: bytes) -> None:
    answer = predict(channel, image=[png])
    assert answer.model_spec.version.value == 1
    assert answer.outputs["label"].string_val[0].decode() in ("Egyptian cat", "tabby", "lynx")
    logits = predict(channel, pixel_values=PIXELS).outputs["logits"]
    assert [dim.size for dim in logits.tensor_shape.dim] == [2, 3]
    want = infer(served, {"inputs": [pixels(data=PIXELS.ravel().tolist())]}).json()["outputs"][0]["data"]
    np.testing.assert_array_equal(np.float32(logits.float_val), np.float32(want))


def test_classify_by_examples(channel: grpc.Channel, png: bytes) -> None:
    request = serving("ClassificationRequest")()
    request.model_spec.name = "hf-vit"
    request.input.example_list.examples.add().features.feature["image"].bytes_list.value.append(png)
    found = call(
        channel, "/tensorflow.serving.PredictionService/Classify", request, "tensorflow.serving.ClassificationResponse"
    )
    (row,) = found.result.classifications
    assert sum(one.score for one in row.classes) == pytest.approx(1)
    assert row.classes[0].label == predict(channel, image=[png]).outputs["label"].string_val[0].decode()


def test_metadata_and_state(channel: grpc.Channel) -> None:
    request = serving("GetModelMetadataRequest")()
    request.model_spec.name = "hf-vit"
    request.metadata_field.append("signature_def")
    found = call(
        channel,
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        request,
        "tensorflow.serving.GetModelMetadataResponse",
    )
    signatures = serving("SignatureDefMap")()
    assert found.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["tensors"].inputs["pixel_values"].dtype == 1
    asked = serving("GetModelStatusRequest")()
    asked.model_spec.name = "hf-vit"
    state = call(
        channel, "/tensorflow.serving.ModelService/GetModelStatus", asked, "tensorflow.serving.GetModelStatusResponse"
    )
    assert [(one.version, one.state) for one in state.model_version_status] == [(1, 30)]


def test_open_inference(channel: grpc.Channel) -> None:
    of = "/inference.GRPCInferenceService"
    request = message("inference.ModelInferRequest")(model_name="hf-vit", id="9")
    request.inputs.add(name="pixel_values", datatype="FP32", shape=PIXELS.shape)
    typed = type(request).FromString(request.SerializeToString())
    request.raw_input_contents.append(PIXELS.tobytes())
    typed.inputs[0].contents.fp32_contents.extend(PIXELS.ravel().tolist())
    raw, values = (call(channel, f"{of}/ModelInfer", one, "inference.ModelInferResponse") for one in (request, typed))
    assert (raw.id, list(raw.outputs[0].shape)) == ("9", [2, 3])
    assert raw.raw_output_contents == values.raw_output_contents
    live = call(channel, f"{of}/ServerLive", b"", "inference.ServerLiveResponse")
    ready = message("inference.ModelReadyRequest")(name="hf-vit")
    assert live.live
    assert call(channel, f"{of}/ModelReady", ready, "inference.ModelReadyResponse").ready
    about = message("inference.ModelMetadataRequest")(name="bert")
    assert call(channel, f"{of}/ModelMetadata", about, "inference.ModelMetadataResponse").inputs[0].name == "text"


#: The request, and the code and words of its refusal.
REFUSED: list[tuple[str, bytes, grpc.StatusCode, str]] = [
    ("tensorflow.serving.PredictionService/Predict", b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "is no tensorflow"),
    ("tensorflow.serving.PredictionService/Predict", b"", grpc.StatusCode.INVALID_ARGUMENT, "Missing model name"),
    ("tensorflow.serving.PredictionService/Predict", b"\n\x03\n\x01x", grpc.StatusCode.NOT_FOUND, "Latest(x)"),
    ("inference.GRPCInferenceService/ModelInfer", b"\n\x01x", grpc.StatusCode.NOT_FOUND, "Latest(x)"),
    ("inference.GRPCInferenceService/ModelInfer", b"\n\x06hf-vit", grpc.StatusCode.INVALID_ARGUMENT, "has no input"),
    ("tensorflow.serving.ModelService/GetModelStatus", b"", grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
    ("inference.GRPCInferenceService/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED, ""),
]


@pytest.mark.parametrize(("method", "raw", "code", "says"), REFUSED)
def test_refusals(channel: grpc.Channel, method: str, raw: bytes, code: grpc.StatusCode, says: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(f"/{method}")(raw, timeout=30)
    assert (error.value.code(), says in error.value.details()) == (code, True), error.value.details()


def test_health_and_reflection(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService", "inference.GRPCInferenceService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == 1
    known = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in known.get_services()
    file = known.FindFileContainingSymbol("tensorflow.serving.PredictRequest")
    assert "ModelSpec" in {one.name for one in file.message_type}
