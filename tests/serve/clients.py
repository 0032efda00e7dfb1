# SPDX-License-Identifier: Apache-2.0
"""What clients of others make of a server, in an environment of theirs: python clients.py KIND REST GRPC IMAGE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

kind, rest, rpc, image = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).read_bytes()
PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
found: dict[str, object] = {}


def triton(module: object, url: str, **how: object) -> None:
    client = module.InferenceServerClient(url=url, **how)  # type: ignore[attr-defined]
    found["live"], found["ready"] = client.is_server_live(), client.is_server_ready()
    found["model"] = client.is_model_ready("hf-vit")
    pixels = module.InferInput("pixel_values", list(PIXELS.shape), "FP32")  # type: ignore[attr-defined]
    pixels.set_data_from_numpy(PIXELS)
    answer = client.infer("hf-vit", [pixels], outputs=[module.InferRequestedOutput("logits")])  # type: ignore[attr-defined]
    found["logits"] = answer.as_numpy("logits").tolist()
    picture = module.InferInput("image", [1], "BYTES")  # type: ignore[attr-defined]
    picture.set_data_from_numpy(np.array([image], dtype=object))
    answer = client.infer("hf-vit", [picture])
    found["label"] = answer.as_numpy("label")[0].decode()
    found["confidence"] = float(answer.as_numpy("confidence")[0])
    try:
        client.infer("nobody", [pixels])
    except Exception as error:  # noqa: BLE001 - its class is the client's
        found["refused"] = str(error)


if kind == "triton-http":
    import tritonclient.http as of_http

    triton(of_http, f"127.0.0.1:{rest}")
elif kind == "triton-grpc":
    import tritonclient.grpc as of_grpc

    triton(of_grpc, f"127.0.0.1:{rpc}")
elif kind == "kserve":
    import asyncio

    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def ask() -> None:
        client = InferenceRESTClient(config=RESTConfig(protocol="v2"))
        base = f"http://127.0.0.1:{rest}"
        found["live"], found["ready"] = await client.is_server_live(base), await client.is_server_ready(base)
        found["model"] = await client.is_model_ready(base, "hf-vit")
        pixels = InferInput("pixel_values", list(PIXELS.shape), "FP32")
        pixels.set_data_from_numpy(PIXELS, binary_data=False)
        answer = await client.infer(base, InferRequest("hf-vit", [pixels]), model_name="hf-vit")
        found["logits"] = answer.outputs[0].as_numpy().tolist()

    asyncio.run(ask())
else:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    channel = grpc.insecure_channel(f"127.0.0.1:{rpc}")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "hf-vit", "tensors"
    request.inputs["pixel_values"].CopyFrom(tf.make_tensor_proto(PIXELS))
    found["logits"] = tf.make_ndarray(stub.Predict(request, timeout=30).outputs["logits"]).tolist()
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "hf-vit", "serving_default"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto([image]))
    answer = stub.Predict(request, timeout=30)
    found["label"] = answer.outputs["label"].string_val[0].decode()
    found["confidence"] = float(answer.outputs["confidence"].float_val[0])
    asked = classification_pb2.ClassificationRequest()
    asked.model_spec.name = "hf-vit"
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    asked.input.example_list.examples.append(tf.train.Example(features=tf.train.Features(feature={"image": feature})))
    found["classified"] = stub.Classify(asked, timeout=30).result.classifications[0].classes[0].label
    about = get_model_metadata_pb2.GetModelMetadataRequest()
    about.model_spec.name = "hf-vit"
    about.metadata_field.append("signature_def")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(about, timeout=30).metadata["signature_def"].Unpack(signatures)
    found["signatures"] = sorted(signatures.signature_def)
    state = get_model_status_pb2.GetModelStatusRequest()
    state.model_spec.name = "hf-vit"
    answered = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(state, timeout=30)
    found["state"] = answered.model_version_status[0].state

print(json.dumps(found))
