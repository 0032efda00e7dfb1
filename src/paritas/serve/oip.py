# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol's REST interface, version 2, with the extension for binary tensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from paritas.serve import bodies, inference
from paritas.serve.bodies import refuse
from paritas.serve.http import Receive, Scope, Send, answer, body_of, deadline_of, header, told
from paritas.serve.model import Signature
from paritas.serve.refusals import Refused
from paritas.serve.registry import Registry, Version

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "paritas"

_MODEL = re.compile(r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+))?(?:/(?P<what>ready|infer))?")
#: Where the JSON of a body ends and its tensors begin.
HEAD = b"inference-header-content-length"


class OpenInference:
    """Everything below /v2, as an ASGI application. Raises `Refused` for what it does not answer."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"].rstrip("/"), scope["method"]
        found = _MODEL.fullmatch(path)
        if method in ("GET", "HEAD") and path == "/v2":
            return await answer(scope, send, bodies.encoded(server()))
        if method in ("GET", "HEAD") and found and found["what"] != "infer":
            name, version = found["name"], _number(found["version"])
            told(scope, model=name)
            if found["what"] == "ready":
                ready = self.is_ready(name, version)
                return await answer(
                    scope, send, bodies.encoded({"name": name, "ready": ready}), status=200 if ready else 503
                )
            with self.registry.lease(name, version) as one:
                return await answer(scope, send, bodies.encoded(model(self.registry, one)))
        if method == "POST" and found and found["what"] == "infer":
            return await self._infer(scope, receive, send, found["name"], _number(found["version"]))
        raise Refused("NOT_FOUND", f"There is no {method} {path}")

    def is_ready(self, name: str, version: int | None) -> bool:
        """Whether it answers. Raises `Refused`, NOT_FOUND, for a model that is not served at all."""
        if name not in self.registry.models:
            raise Refused("NOT_FOUND", f"There is no model {name}.")
        try:
            self.registry.find(name, version)
        except Refused:
            return False
        return not self.registry.stopping

    async def _infer(self, scope: Scope, receive: Receive, send: Send, name: str, number: int | None) -> None:
        registry = self.registry
        told(scope, model=name)
        limits = registry.settings.limits
        deadline = deadline_of(scope, limits)
        registry.find(name, number)  # before its body is read
        with registry.admit(name):
            body = await body_of(scope, receive, limits)
            with registry.lease(name, number) as version:
                told(scope, version=version.number)
                head, tensors = _cut(body, header(scope, HEAD))
                doc = bodies.parsed(head)
                inputs, wanted, binary = _read(doc, tensors, registry)
                names = parameters(doc).get("signature_name", "")
                signature = inference.meant(version.servable, str(names), list(inputs), wanted)
                arrays = {one: inference.fitting(array, signature.inputs[one]) for one, array in inputs.items()}
                assert version.batcher is not None
                outputs = await version.batcher.submit(signature, arrays, deadline)
                text, raw = _written(version, doc, signature, outputs, wanted, binary)
        if not raw:
            return await answer(scope, send, text)
        size = [(HEAD, str(len(text)).encode())]
        return await answer(scope, send, b"".join([text, *raw]), kind=b"application/octet-stream", headers=size)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if len(text) > 18:
        raise Refused("NOT_FOUND", f"There is no version {text[:64]}.")
    return int(text)


def server() -> dict[str, Any]:
    """What this server is."""
    from paritas import __version__

    return {"name": "paritas", "version": __version__, "extensions": EXTENSIONS}


def model(registry: Registry, version: Version) -> dict[str, Any]:
    """What a model takes and answers, in its default signature; the others are among its properties."""
    servable = version.servable
    signature = servable.signature()
    return {
        "name": version.name,
        "versions": [str(number) for number in registry.models[version.name].live],
        "platform": PLATFORM,
        "inputs": [inference.about(info) for info in signature.inputs.values()],
        "outputs": [inference.about(info) for info in signature.outputs.values()],
        "properties": inference.signatures_said(servable),
    }


def parameters(part: Any) -> dict[str, Any]:
    """The `parameters` of a request or a tensor. Raises `Refused` for what is no object."""
    found = part.get("parameters", {})
    if not isinstance(found, dict):
        refuse("'parameters' is no object.")
    return found


def _cut(body: bytes, size: bytes) -> tuple[bytes, memoryview]:
    if not size:
        return body, memoryview(b"")
    if not size.isdigit() or int(size) > len(body):
        refuse(f"Inference-Header-Content-Length is {size[:32]!r}, and the body has {len(body)} bytes.")
    return body[: int(size)], memoryview(body)[int(size) :]


def _read(doc: dict[str, Any], tensors: memoryview, registry: Registry) -> tuple[dict[str, np.ndarray], list[str], Any]:
    """The inputs by name, the names of the outputs that are wanted (none: all), and which of them as bytes."""
    limits, inputs, found, at = registry.settings.limits, doc.get("inputs"), {}, 0
    if not isinstance(inputs, list) or not inputs:
        refuse("'inputs' is to be a list of tensors.")
    for one in inputs:
        if not isinstance(one, dict) or not isinstance(name := one.get("name"), str):
            refuse("An input is to be an object with a name.")
        if name in found:
            refuse(f"The input {name!r} is there twice.")
        shape = inference.checked_shape(name, one.get("shape"), limits)
        size = parameters(one).get("binary_data_size")
        if size is None:
            if "data" not in one:
                refuse(f"The input {name!r} has no data.")
            found[name] = inference.from_values(name, one["data"], str(one.get("datatype")), shape)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or at + size > len(tensors):
            left = len(tensors) - at
            refuse(f"The input {name!r} has a binary_data_size of {str(size)[:32]}, and {left} bytes are left.")
        found[name] = inference.from_raw(name, tensors[at : at + size], str(one.get("datatype")), shape)
        at += size
    if at != len(tensors):
        refuse(f"There are {len(tensors) - at} bytes behind the last input.")
    asked = doc.get("outputs", [])
    if not isinstance(asked, list) or any(not isinstance(o, dict) or not isinstance(o.get("name"), str) for o in asked):
        refuse("'outputs' is to be a list of objects with a name.")
    if any("classification" in parameters(one) for one in asked):
        refuse("The extension 'classification' is not known here; the signature 'classify' has all classes.")
    every = bool(parameters(doc).get("binary_data_output", False))
    binary = {one["name"]: bool(parameters(one).get("binary_data", every)) for one in asked}
    return found, list(binary), binary or every


def _written(
    version: Version,
    doc: dict[str, Any],
    signature: Signature,
    outputs: dict[str, np.ndarray],
    wanted: list[str],
    binary: Any,
) -> tuple[bytes, list[bytes]]:
    """The answer's JSON, and the tensors behind it."""
    raw, listed = [], []
    for name in wanted or outputs:
        if name not in outputs:
            refuse(f"{version.name} has no output {name!r}; it has: {', '.join(outputs)}.")
        array = outputs[name]
        one: dict[str, Any] = {"name": name, "datatype": inference.datatype_of(array), "shape": list(array.shape)}
        if binary is True or (binary and binary[name]):
            raw.append(inference.to_raw(array))
            one["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            one["data"] = [o.decode(errors="replace") if isinstance(o, bytes) else o for o in array.ravel().tolist()]
        listed.append(one)
    told = {"model_name": version.name, "model_version": str(version.number), "outputs": listed}
    if isinstance(doc.get("id"), str):
        told["id"] = doc["id"]
    return bodies.encoded(told), raw
