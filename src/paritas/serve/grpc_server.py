# SPDX-License-Identifier: Apache-2.0
"""The doors for gRPC: TensorFlow Serving's PredictionService and ModelService, and the Open Inference Protocol's.

Requests come as bytes and are read only once they have a place: see `Registry.admit`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from paritas.serve import configs, inference, messages, oip, tensors
from paritas.serve.app import allowed
from paritas.serve.bodies import as_bytes, refuse
from paritas.serve.messages import serving
from paritas.serve.model import CLASSIFY, REGRESS, Signature
from paritas.serve.refusals import STATUS, Refused, refusal
from paritas.serve.registry import STATES, Registry, Version
from paritas.serve.rest import DT, signature_of
from paritas.serve.settings import Settings

PREDICTION, MODEL, INFERENCE = (
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "inference.GRPCInferenceService",
)
Handler = Callable[[Any, float], Awaitable[Any]]
Arrays = dict[str, np.ndarray]

#: gRPC's code by name -> as TensorFlow's StatusProto has it.
CODES = {code.name: code.value[0] for code in grpc.StatusCode}


class Services:
    """What the three services answer. A handler gets a message and the time by which it has to be done."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.limits = registry, registry.settings.limits
        self._open = oip.OpenInference(registry)

    def handlers(self) -> dict[str, dict[str, tuple[Any, Handler]]]:
        """Service -> method -> the class of its request, and what answers it."""
        of = messages.message
        return {
            PREDICTION: {
                "Predict": (serving("PredictRequest"), self.predict),
                "Classify": (serving("ClassificationRequest"), self.classify),
                "Regress": (serving("RegressionRequest"), self.regress),
                "MultiInference": (serving("MultiInferenceRequest"), self.several),
                "GetModelMetadata": (serving("GetModelMetadataRequest"), self.metadata),
            },
            MODEL: {
                "GetModelStatus": (serving("GetModelStatusRequest"), self.status),
                "HandleReloadConfigRequest": (serving("ReloadConfigRequest"), self.reload),
            },
            INFERENCE: {
                "ServerLive": (of("inference.ServerLiveRequest"), self.live),
                "ServerReady": (of("inference.ServerReadyRequest"), self.ready),
                "ModelReady": (of("inference.ModelReadyRequest"), self.model_ready),
                "ServerMetadata": (of("inference.ServerMetadataRequest"), self.server),
                "ModelMetadata": (of("inference.ModelMetadataRequest"), self.model),
                "ModelInfer": (of("inference.ModelInferRequest"), self.infer),
            },
        }

    # --- TensorFlow Serving ---

    async def predict(self, request: Any, deadline: float) -> Any:
        with self.registry.lease(*_spec(request.model_spec)) as version:
            signature = version.servable.signature(request.model_spec.signature_name)
            inputs = {name: tensors.from_proto(name, tensor, self.limits) for name, tensor in request.inputs.items()}
            if missing := [i.name for i in signature.inputs.values() if not i.optional and i.name not in inputs]:
                refuse(f"Missing named input: {', '.join(missing)} of the signature {signature.name}.")
            arrays = {name: _cast(array, name, signature) for name, array in inputs.items()}
            outputs = await _batcher(version).submit(signature, arrays, deadline)
            answer = serving("PredictResponse")()
            _told(answer.model_spec, version, signature)
            for name in request.output_filter or outputs:
                if name not in outputs:
                    refuse(
                        f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                        f"{{{','.join(outputs)}}}."
                    )
                tensors.into_proto(outputs[name], answer.outputs[name])
            return answer

    async def classify(self, request: Any, deadline: float) -> Any:
        answer = serving("ClassificationResponse")()
        await self._of_examples(
            request.model_spec, request.input, "classify", answer.model_spec, answer.result, deadline
        )
        return answer

    async def regress(self, request: Any, deadline: float) -> Any:
        answer = serving("RegressionResponse")()
        await self._of_examples(
            request.model_spec, request.input, "regress", answer.model_spec, answer.result, deadline
        )
        return answer

    async def several(self, request: Any, deadline: float) -> Any:
        answer = serving("MultiInferenceResponse")()
        if not request.tasks:
            refuse("Inference request has no tasks.")
        for task in request.tasks:
            method = task.method_name.removeprefix("tensorflow/serving/")
            if method not in (CLASSIFY, REGRESS):
                raise Refused("UNIMPLEMENTED", f"Unsupported signature method_name: {task.method_name}")
            result = answer.results.add()
            into = result.classification_result if method == CLASSIFY else result.regression_result
            await self._of_examples(task.model_spec, request.input, method, result.model_spec, into, deadline)
        return answer

    async def _of_examples(self, spec: Any, given: Any, method: str, told: Any, into: Any, deadline: float) -> None:
        with self.registry.lease(*_spec(spec)) as version:
            signature = signature_of(version.servable, method, spec.signature_name)
            arrays = tensors.of_examples(given, signature, self.limits)
            outputs = await _batcher(version).submit(signature, arrays, deadline)
            _told(told, version, signature)
            if method == REGRESS:
                for value in next(iter(outputs.values())).tolist():
                    into.regressions.add(value=value)
                return
            for labels, scores in zip(outputs["classes"].tolist(), outputs["scores"].tolist(), strict=True):
                row = into.classifications.add()
                for label, score in zip(labels, scores, strict=True):
                    row.classes.add(label=label, score=score)

    async def metadata(self, request: Any, deadline: float) -> Any:
        if not request.metadata_field:
            refuse("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                refuse(f"Metadata field {field} is not supported")
        with self.registry.lease(*_spec(request.model_spec)) as version:
            found = serving("SignatureDefMap")()
            for signature in version.servable.signatures.values():
                one = found.signature_def[signature.name]
                one.method_name = f"tensorflow/serving/{signature.method}"
                for infos, into in ((signature.inputs, one.inputs), (signature.outputs, one.outputs)):
                    for info in infos.values():
                        into[info.name].name, into[info.name].dtype = f"{info.name}:0", DT[info.dtype][0]
                        for dim in info.shape:
                            into[info.name].tensor_shape.dim.add(size=-1 if dim is None else dim)
            answer = serving("GetModelMetadataResponse")()
            answer.model_spec.name, answer.model_spec.version.value = version.name, version.number
            answer.metadata["signature_def"].Pack(found)
            return answer

    async def status(self, request: Any, deadline: float) -> Any:
        if not request.HasField("model_spec"):
            refuse("Missing ModelSpec")
        answer = serving("GetModelStatusResponse")()
        for version in self.registry.statuses(*_spec(request.model_spec)):
            one = answer.model_version_status.add(version=version.number, state=STATES[version.state])
            one.status.error_code = CODES[version.error.code] if version.error else 0
            one.status.error_message = str(version.error) if version.error else ""
        return answer

    async def reload(self, request: Any, deadline: float) -> Any:
        answer = serving("ReloadConfigResponse")()
        await self.registry.configure(configs.of_message(request.config))
        answer.status.error_code = 0
        return answer

    # --- the Open Inference Protocol ---

    async def live(self, request: Any, deadline: float) -> Any:
        return messages.message("inference.ServerLiveResponse")(live=True)

    async def ready(self, request: Any, deadline: float) -> Any:
        return messages.message("inference.ServerReadyResponse")(ready=self.registry.ready)

    async def model_ready(self, request: Any, deadline: float) -> Any:
        ready = self._open.is_ready(request.name, _version(request.version))
        return messages.message("inference.ModelReadyResponse")(ready=ready)

    async def server(self, request: Any, deadline: float) -> Any:
        return messages.message("inference.ServerMetadataResponse")(**oip.server())

    async def model(self, request: Any, deadline: float) -> Any:
        with self.registry.lease(request.name, _version(request.version)) as version:
            return messages.message("inference.ModelMetadataResponse")(**oip.model(self.registry, version))

    async def infer(self, request: Any, deadline: float) -> Any:
        with self.registry.lease(request.model_name, _version(request.model_version)) as version:
            inputs = _inputs(request, self.registry)
            named = request.parameters["signature_name"].string_param if "signature_name" in request.parameters else ""
            wanted = [one.name for one in request.outputs]
            signature = inference.meant(version.servable, named, list(inputs), wanted)
            arrays = {name: inference.fitting(array, signature.inputs[name]) for name, array in inputs.items()}
            outputs = await _batcher(version).submit(signature, arrays, deadline)
            answer = messages.message("inference.ModelInferResponse")(
                model_name=version.name, model_version=str(version.number), id=request.id
            )
            for name in wanted or outputs:
                if name not in outputs:
                    refuse(f"{version.name} has no output {name!r}; it has: {', '.join(outputs)}.")
                array = outputs[name]
                answer.outputs.add(name=name, datatype=inference.datatype_of(array), shape=array.shape)
                answer.raw_output_contents.append(inference.to_raw(array))
            return answer


#: Datatype -> the field of InferTensorContents.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def _inputs(request: Any, registry: Registry) -> Arrays:
    raw, found = list(request.raw_input_contents), {}
    if raw and len(raw) != len(request.inputs):
        refuse(f"There are {len(request.inputs)} inputs, and {len(raw)} raw_input_contents.")
    for number, one in enumerate(request.inputs):
        if one.name in found:
            refuse(f"The input {one.name!r} is there twice.")
        shape = inference.checked_shape(one.name, list(one.shape), registry.settings.limits)
        if raw:
            found[one.name] = inference.from_raw(one.name, raw[number], one.datatype, shape)
            continue
        if one.datatype not in _CONTENTS:
            refuse(f"The input {one.name!r} of {one.datatype[:32]!r} is to come in raw_input_contents.")
        values = list(getattr(one.contents, _CONTENTS[one.datatype]))
        found[one.name] = inference.from_values(one.name, values, one.datatype, shape)
    if not found:
        refuse("The request has no input.")
    return found


def _spec(spec: Any) -> tuple[str, int | None, str | None]:
    which = spec.WhichOneof("version_choice")
    if not spec.name:
        refuse("Missing model name in request.")
    return (
        spec.name,
        spec.version.value if which == "version" else None,
        spec.version_label if which == "version_label" else None,
    )


def _version(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise Refused("NOT_FOUND", f"There is no version {text[:64]!r}.")
    return int(text)


def _batcher(version: Version) -> Any:
    assert version.batcher is not None
    return version.batcher


def _told(spec: Any, version: Version, signature: Signature) -> None:
    spec.name, spec.signature_name = version.name, signature.name
    spec.version.value = version.number


def _cast(array: np.ndarray, name: str, signature: Signature) -> np.ndarray:
    info = signature.inputs.get(name)
    if info is not None and info.dtype == "bytes" and array.dtype.kind != "O":
        refuse(f"The input {name!r} is to be DT_STRING.")
    return array


# --- the server --------------------------------------------------------------------------------


class Calls(grpc.GenericRpcHandler):
    """All methods of some services: each call is let in, timed, read, answered, counted and logged."""

    def __init__(
        self, services: Mapping[str, Mapping[str, tuple[Any, Handler]]], registry: Registry, log: Callable[..., None]
    ) -> None:
        self._methods = {
            f"/{service}/{method}": (kind, handler)
            for service, methods in services.items()
            for method, (kind, handler) in methods.items()
        }
        self._registry, self._log = registry, log
        self._tokens = [token.encode() for token in registry.settings.tokens]

    def service(self, details: Any) -> Any:
        found = self._methods.get(details.method)
        if found is None:
            return None
        kind, handler = found
        path = details.method

        async def call(raw: bytes, context: Any) -> Any:
            return await self._call(path, kind, handler, raw, context)

        # Bytes in and bytes out: what has no place is refused before it is read.
        return grpc.unary_unary_rpc_method_handler(call)

    async def _call(self, path: str, kind: Any, handler: Handler, raw: bytes, context: Any) -> bytes:
        began, registry = time.monotonic(), self._registry
        given = dict(context.invocation_metadata() or ())
        facts: dict[str, Any] = {"model": "", "received": len(raw)}
        code, message, after = "OK", "", 0.0
        answer = b""
        try:
            health_check = path.startswith(f"/{INFERENCE}/Server")
            if self._tokens and not health_check:
                value = given.get("authorization", "")
                if not allowed(value if isinstance(value, bytes) else value.encode(), self._tokens):
                    raise Refused("UNAUTHENTICATED", "A bearer token is needed: authorization: Bearer TOKEN")
            left = context.time_remaining()
            seconds = registry.settings.limits.request if left is None else min(left, registry.settings.limits.request)
            facts["model"] = name = named(path, raw)
            if path.rpartition("/")[2] in COMPUTES:
                with registry.admit(name):
                    answer = (await handler(_read(kind, raw), began + seconds)).SerializeToString()
            else:
                answer = (await handler(_read(kind, raw), began + seconds)).SerializeToString()
        except Exception as error:  # noqa: BLE001 - it becomes an answer
            refused = refusal(error)
            code, message, after = refused.code, str(refused), refused.after
        seconds = time.monotonic() - began
        request_id = str(given.get("x-request-id", ""))[:128] or secrets.token_hex(8)
        model = facts["model"] if facts["model"] in registry.models else ""
        registry.metrics.answered(model, "grpc", code, seconds)
        if registry.settings.access_log:
            self._log(
                id=request_id, protocol="grpc", client=context.peer(), method=path, status=code,
                seconds=round(seconds, 6), sent=len(answer), **facts, **({"error": message[:500]} if message else {}),
            )  # fmt: skip
        if code != "OK":
            more = (("retry-after", str(max(1, round(after)))),) if after else ()
            await context.abort(grpc.StatusCode[code], message, trailing_metadata=more)
        return answer


#: Methods that compute, and so need a place.
COMPUTES = frozenset({"Predict", "Classify", "Regress", "MultiInference", "ModelInfer"})


def _read(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except (DecodeError, UnicodeDecodeError) as error:
        raise Refused("INVALID_ARGUMENT", f"The request is no {kind.DESCRIPTOR.full_name}: {error}") from None


def named(path: str, raw: bytes) -> str:
    """The model that a request names, read out of its first fields alone: of a tensor of megabytes nothing is copied.

    Both protocols have it in field 1: a string, or a ModelSpec whose field 1 it is. "" where it is not first.
    """
    if path.endswith("MultiInference"):  # tasks, each with a ModelSpec
        return (_first(_first(_first(raw))) or b"").decode(errors="replace")
    found = _first(raw)
    if found is None:
        return ""
    if path.startswith(f"/{INFERENCE}/"):
        return found.decode(errors="replace")
    return (_first(found) or b"").decode(errors="replace")


def _first(raw: bytes | None) -> bytes | None:
    """The bytes of field 1, where a message begins with it."""
    if not raw or raw[0] != 0x0A:
        return None
    size, at, shift = 0, 1, 0
    while at < len(raw) and at < 6:
        size |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not raw[at - 1] & 0x80:
            return raw[at : at + size]
    return None


class GrpcServer:
    """A server for all services, with health and reflection. Its port is `port` once it was started."""

    def __init__(self, registry: Registry, log: Callable[..., None], more: Iterable[Any] = ()) -> None:
        settings = registry.settings
        self.registry, self.settings = registry, settings
        services = Services(registry).handlers()
        self.server: Any = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.limits.body),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.max_concurrent_streams", settings.limits.connections),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
            maximum_concurrent_rpcs=settings.limits.connections,
        )
        self.server.add_generic_rpc_handlers((Calls(services, registry, log), *more))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._services = ["", *services]
        reflection.enable_server_reflection(names, self.server, pool=_whole_pool())
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises `InputError` where the port is taken."""
        from paritas.errors import InputError

        where = f"{self.settings.host}:{self.settings.grpc_port}"
        try:
            credentials = credentials_of(self.settings)
            if credentials is None:
                self.port = self.server.add_insecure_port(where)
            else:
                self.port = self.server.add_secure_port(where, credentials)
        except RuntimeError as error:
            raise InputError(f"gRPC cannot listen on {where}: {error}") from None
        await self.server.start()
        await self.tell()

    async def tell(self) -> None:
        """Let the health service say what the registry says."""
        state = (
            health_pb2.HealthCheckResponse.SERVING
            if self.registry.ready
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in self._services:
            await self._health.set(name, state)

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and end those that run within so many seconds."""
        await self.server.stop(seconds)


def credentials_of(settings: Settings) -> Any:
    """TLS, where there is a certificate; None for none."""
    if settings.certificate is None or settings.key is None:
        return None
    return grpc.ssl_server_credentials([(Path(settings.key).read_bytes(), Path(settings.certificate).read_bytes())])


def _whole_pool() -> Any:
    """Our messages and those of health and reflection, so that a client can ask for all of them."""
    pool = messages.pool()
    for known in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    return pool


__all__ = ["CODES", "STATUS", "GrpcServer", "Services", "as_bytes"]
