# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST interface: its paths, bodies, errors and status codes."""

from __future__ import annotations

import re
from typing import Any

from paritas.serve import bodies
from paritas.serve.http import Receive, Scope, Send, answer, body_of, deadline_of, told
from paritas.serve.model import CLASSIFY, DEFAULT, REGRESS, Servable, Signature, TensorInfo
from paritas.serve.refusals import Refused
from paritas.serve.registry import Registry, Version

_WHICH = r"(?:(?:/versions/(?P<version>\d+))|(?:/labels/(?P<label>[^/:]+)))?"
_PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<about>metadata))?", re.IGNORECASE)

#: NumPy's name -> TensorFlow's number and name in protobuf.
DT = {
    "float32": (1, "DT_FLOAT"), "float64": (2, "DT_DOUBLE"), "int32": (3, "DT_INT32"), "uint8": (4, "DT_UINT8"),
    "int16": (5, "DT_INT16"), "int8": (6, "DT_INT8"), "bytes": (7, "DT_STRING"), "complex64": (8, "DT_COMPLEX64"),
    "int64": (9, "DT_INT64"), "bool": (10, "DT_BOOL"), "bfloat16": (14, "DT_BFLOAT16"), "uint16": (17, "DT_UINT16"),
    "complex128": (18, "DT_COMPLEX128"), "float16": (19, "DT_HALF"), "uint32": (22, "DT_UINT32"),
    "uint64": (23, "DT_UINT64"),
}  # fmt: skip


class Rest:
    """Everything below /v1/models, as an ASGI application. Raises `Refused` for what it does not answer."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if method == "POST" and (found := _PREDICT.fullmatch(path)):
            return await self._predict(scope, receive, send, found)
        if method in ("GET", "HEAD") and (found := _STATUS.fullmatch(path)):
            told(scope, model=found["name"])
            if not found["name"]:
                raise Refused("INVALID_ARGUMENT", "Missing model name in request.")
            version = _number(found["version"])
            if found["about"]:
                with self.registry.lease(found["name"], version, found["label"]) as one:
                    return await answer(scope, send, bodies.encoded(metadata(one)))
            versions = self.registry.statuses(found["name"], version, found["label"])
            return await answer(scope, send, bodies.encoded(status(versions)))
        raise Refused("INVALID_ARGUMENT", f"Malformed request: {method} {path}")

    async def _predict(self, scope: Scope, receive: Receive, send: Send, found: re.Match[str]) -> None:
        registry, name, method = self.registry, found["name"], found["method"].lower()
        told(scope, model=name)
        limits = registry.settings.limits
        deadline = deadline_of(scope, limits)
        registry.find(name, _number(found["version"]), found["label"])  # before its body is read
        with registry.admit(name):
            body = await body_of(scope, receive, limits)
            with registry.lease(name, _number(found["version"]), found["label"]) as version:
                told(scope, version=version.number)
                doc = bodies.parsed(body)
                del body
                assert version.batcher is not None
                if method == "predict":
                    signature = version.servable.signature(bodies.signature_name(doc))
                    inputs, rows = bodies.inputs_of(doc, signature, limits)
                    outputs = await version.batcher.submit(signature, inputs, deadline)
                    text = bodies.predictions(outputs, rows=rows)
                else:
                    signature = signature_of(version.servable, method, bodies.signature_name(doc))
                    inputs = bodies.examples_of(doc, signature, limits)
                    outputs = await version.batcher.submit(signature, inputs, deadline)
                    text = bodies.classified(outputs) if method == "classify" else bodies.regressed(outputs)
        await answer(scope, send, text)


def signature_of(servable: Servable, method: str, name: str) -> Signature:
    """The signature that `:classify` or `:regress` means. Raises `Refused` where a model has none."""
    own = CLASSIFY if method == "classify" else REGRESS
    found = servable.signatures.get(own) if name in ("", DEFAULT) else servable.signature(name)
    if found is None or found.method != method:
        was = (found or servable.signature()).method
        raise Refused(
            "INVALID_ARGUMENT",
            f"Expected {'classification' if method == 'classify' else 'regression'} signature method_name to be "
            f"tensorflow/serving/{method}. Was: tensorflow/serving/{was}",
        )
    return found


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > 19 or int(text) >= 1 << 63:
        raise Refused("INVALID_ARGUMENT", f"Failed to convert version: {text[:64]} to numeric.")
    return int(text)


# --- what is known of a model ------------------------------------------------------------------


def status(versions: list[Version]) -> dict[str, Any]:
    """`{"model_version_status": [...]}`."""
    return {
        "model_version_status": [
            {
                "version": str(one.number),
                "state": one.state,
                "status": {
                    "error_code": one.error.code if one.error else "OK",
                    "error_message": str(one.error) if one.error else "",
                },
            }
            for one in versions
        ]
    }


def metadata(version: Version) -> dict[str, Any]:
    """The signatures of a version, as protobuf's JSON has a SignatureDefMap."""
    signatures = {
        signature.name: {
            "inputs": {info.name: _about(info) for info in signature.inputs.values()},
            "outputs": {info.name: _about(info) for info in signature.outputs.values()},
            "method_name": f"tensorflow/serving/{signature.method}",
            "defaults": {},
        }
        for signature in version.servable.signatures.values()
    }
    return {
        "model_spec": {"name": version.name, "signature_name": "", "version": str(version.number)},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _about(info: TensorInfo) -> dict[str, Any]:
    dims = [{"size": str(-1 if dim is None else dim), "name": ""} for dim in info.shape]
    return {
        "dtype": DT[info.dtype][1],
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": f"{info.name}:0",
    }
