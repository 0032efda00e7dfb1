# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes is told of a server: a kustomize base, and KServe's two resources. Plain values, written as YAML."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.errors import InputError

#: The user of docker/Dockerfile.
USER = 1000

#: Where the models are in a container, and where KServe puts them.
MODELS, MOUNTED = "/models", "/mnt/models"

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_IMAGE = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)"
    r"[a-z0-9]+)*)*(?::[A-Za-z0-9_][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_CPU = re.compile(r"\d+m|\d+(?:\.\d{1,3})?")
_MEMORY = re.compile(r"\d+(?:[KMGT]i|[kMGT])?")
SERVICES = ("ClusterIP", "NodePort", "LoadBalancer")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A server in a cluster.

    name: of all resources. image: that runs it, with the models in /models, or with `claim` mounted there. arguments:
    of `paritas serve` beside the models and the ports. replicas: least and most. target: percent of `cpu` at which
    there are more. secret: of bearer tokens, by the key `tokens`. certificate: of TLS, a secret of the type
    kubernetes.io/tls. storage: where KServe finds the model ("pvc://claim/vit", "s3://..."). stop: seconds that a
    server has to end.
    """

    name: str
    image: str
    arguments: Sequence[str] = ()
    rest_port: int = 8501
    grpc_port: int = 8500
    cpu: str = "1"
    memory: str = "2Gi"
    replicas: tuple[int, int] = (1, 3)
    target: int = 80
    service: str = "ClusterIP"
    claim: str = ""
    secret: str = ""
    certificate: str = ""
    storage: str = ""
    stop: int = 50

    def __post_init__(self) -> None:
        """Raises `InputError` for the first value that Kubernetes would refuse."""
        for what, name in (
            ("--name", self.name),
            ("--claim", self.claim),
            ("--token-secret", self.secret),
            ("--tls-secret", self.certificate),
        ):
            if (name or what == "--name") and not _LABEL.fullmatch(name):
                raise InputError(
                    f"{what}: {name!r} is no name for Kubernetes (RFC 1123): up to 63 small letters, digits and "
                    f"hyphens, of which the first is a letter and the last no hyphen{_like(name)}."
                )
        if len(self.image) > 512 or not _IMAGE.fullmatch(self.image):
            raise InputError(
                f"--image: {self.image!r} is no image: as registry.example/team/paritas-vit:1, in small letters."
            )
        for what, value, form, like in (
            ("--cpu", self.cpu, _CPU, "2 or 800m"),
            ("--memory", self.memory, _MEMORY, "2Gi"),
        ):
            if not form.fullmatch(value) or not re.search("[1-9]", value):
                raise InputError(f"{what}: {value!r} is no quantity for Kubernetes: as {like}.")
        if not 1 <= self.replicas[0] <= self.replicas[1]:
            raise InputError(f"--replicas: {self.replicas[0]} to {self.replicas[1]} is no range of 1 and more.")
        if not 1 <= self.target <= 100:
            raise InputError(f"--target-cpu: {self.target} is no percentage.")
        if self.service not in SERVICES:
            raise InputError(f"--service-type: {self.service!r} is none of {', '.join(SERVICES)}.")
        if self.rest_port < 1:
            raise InputError(
                f"--rest-port {self.rest_port}: Kubernetes asks over HTTP whether a server lives and is ready."
            )
        if self.storage and not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", self.storage):
            raise InputError(f"--storage-uri: {self.storage!r} is none: as pvc://claim/vit or s3://bucket/vit.")


def _like(name: str) -> str:
    meant = re.sub(r"^[^a-z]+|[^a-z0-9]+$", "", re.sub(r"[^a-z0-9]+", "-", name.lower()))[:63].rstrip("-")
    return f"; {meant!r} is one" if meant and meant != name else ""


def write(about: Deployment, out: Path) -> list[Path]:
    """Write the files, each with one resource, and return them. What else is in `out` stays."""
    found = {f"{name}.yaml": resource for name, resource in base(about).items()}
    if about.storage:
        found |= {f"kserve/{name}.yaml": resource for name, resource in kserve(about).items()}
    written = []
    for name, resource in found.items():
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = place.with_name(f".{place.name}.tmp")
        staging.write_text(f"# Written by paritas serve --manifests.\n{yaml(resource)}", encoding="utf-8")
        staging.replace(place)
        written.append(place)
    return written


def base(about: Deployment) -> dict[str, dict[str, Any]]:
    """The resources of the kustomize base by the names of their files, `kustomization` the last."""
    labels = {"app.kubernetes.io/name": about.name, "app.kubernetes.io/component": "server"}

    def resource(version: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": about.name, "labels": dict(labels)},
            "spec": dict(spec),
        }

    selector = {"app.kubernetes.io/name": about.name}
    found = {
        "deployment": resource(
            "apps/v1",
            "Deployment",
            {
                # How many there are says the autoscaler: a number here would undo it with every `kubectl apply`.
                "selector": {"matchLabels": selector},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(about)},
            },
        ),
        "service": resource(
            "v1",
            "Service",
            {
                "type": about.service,
                "selector": selector,
                "ports": [
                    {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                    for name, port in _ports(about).items()
                ],
            },
        ),
        "hpa": resource(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": about.name},
                "minReplicas": about.replicas[0],
                "maxReplicas": about.replicas[1],
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": about.target},
                        },
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
            },
        ),
        "pdb": resource(
            "policy/v1", "PodDisruptionBudget", {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
        ),
    }
    resources = [f"{name}.yaml" for name in found]
    return {
        **found,
        "kustomization": {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": resources,
        },
    }


def kserve(about: Deployment) -> dict[str, dict[str, Any]]:
    """KServe's ServingRuntime and InferenceService, which takes the place of the base: KServe makes the rest."""
    runtime = f"{about.name}-runtime"[:63].rstrip("-")
    arguments = ["serve", MOUNTED, "--name", about.name, "--host", "0.0.0.0", "--rest-port", "8080"]
    container = {
        **_container(about, [*arguments, "--grpc-port", "9000", *about.arguments], {"http1": 8080}),
        "name": "kserve-container",
    }
    container.pop("volumeMounts")
    metadata = {"labels": {"app.kubernetes.io/name": about.name}}
    return {
        "servingruntime": {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": runtime, **metadata},
            "spec": {
                "supportedModelFormats": [{"name": "paritas", "version": "1", "autoSelect": True}],
                "protocolVersions": ["v1", "v2"],
                "containers": [container],
            },
        },
        "inferenceservice": {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": about.name, **metadata},
            "spec": {
                "predictor": {
                    "minReplicas": about.replicas[0],
                    "maxReplicas": about.replicas[1],
                    "scaleMetric": "cpu",
                    "scaleTarget": about.target,
                    "automountServiceAccountToken": False,
                    "model": {
                        "modelFormat": {"name": "paritas"},
                        "protocolVersion": "v2",
                        "runtime": runtime,
                        "storageUri": about.storage,
                    },
                }
            },
        },
        "kustomization": {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["servingruntime.yaml", "inferenceservice.yaml"],
        },
    }


def _ports(about: Deployment) -> dict[str, int]:
    return {"restapi": about.rest_port, **({"grpc": about.grpc_port} if about.grpc_port > 0 else {})}


def _pod(about: Deployment) -> dict[str, Any]:
    arguments = ["serve", "--model-base-path", MODELS, "--host", "0.0.0.0"]
    arguments += ["--rest-port", str(about.rest_port), "--grpc-port", str(about.grpc_port), *about.arguments]
    if "--grace" not in about.arguments:
        arguments += ["--grace", "5"]  # a Service's endpoints hear of it later than the server does
    if about.secret:
        arguments += ["--token-file", "/run/secrets/paritas/tokens"]
    if about.certificate:
        arguments += ["--certificate", "/run/secrets/tls/tls.crt", "--key", "/run/secrets/tls/tls.key"]
    container = _container(about, arguments, _ports(about))
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]
    for name, where, volume in (
        ("models", MODELS, about.claim and {"persistentVolumeClaim": {"claimName": about.claim, "readOnly": True}}),
        ("tokens", "/run/secrets/paritas", about.secret and {"secret": {"secretName": about.secret}}),
        ("tls", "/run/secrets/tls", about.certificate and {"secret": {"secretName": about.certificate}}),
    ):
        if volume:
            container["volumeMounts"].append({"name": name, "mountPath": where, "readOnly": True})
            volumes.append({"name": name, **volume})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": about.stop,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": about.name}},
            }
        ],
        "containers": [container],
        "volumes": volumes,
    }


def _container(about: Deployment, arguments: Sequence[str], ports: Mapping[str, int]) -> dict[str, Any]:
    first = next(iter(ports))
    scheme = "HTTPS" if about.certificate else "HTTP"

    def asks(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": first, "scheme": scheme}, **times}

    tag = about.image.rpartition("/")[2].partition(":")[2]
    size = {"cpu": about.cpu, "memory": about.memory}
    return {
        "name": "paritas",
        "image": about.image,
        "imagePullPolicy": "Always" if tag in ("", "latest") and "@" not in about.image else "IfNotPresent",
        "args": list(arguments),
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PARITAS_CACHE", "value": "/tmp/paritas"}],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        # A server that loads is alive and not ready: for as long as this one fails, the other two are not asked.
        "startupProbe": asks("/readyz", periodSeconds=2, timeoutSeconds=2, failureThreshold=150),
        "livenessProbe": asks("/livez", periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        "readinessProbe": asks("/readyz", periodSeconds=5, timeoutSeconds=2, failureThreshold=2),
        "resources": {"requests": size, "limits": dict(size)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


_PLAIN = re.compile(r"[A-Za-z/][\w./-]*")
#: What YAML takes for something else than a text.
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def yaml(value: Any, indent: int = 0) -> str:
    """A resource as YAML of blocks. Texts that could be taken for something else are in quotes, as JSON has them."""
    pad = "  " * indent
    if isinstance(value, Mapping) and value:
        lines = []
        for key, inner in value.items():
            nested = isinstance(inner, Mapping | list) and bool(inner)
            deeper = indent if isinstance(inner, list) else indent + 1
            lines.append(f"{pad}{key}:\n{yaml(inner, deeper)}" if nested else f"{pad}{key}: {_scalar(inner)}\n")
        return "".join(lines)
    if isinstance(value, list) and value:
        items = []
        for inner in value:
            nested = isinstance(inner, Mapping | list) and bool(inner)
            text = yaml(inner, indent + 1) if nested else f"{_scalar(inner)}\n"
            items.append(f"{pad}- {text.lstrip() if nested else text}")
        return "".join(items)
    return f"{pad}{_scalar(value)}\n"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)
