# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes is told of a server: valid by its own schemas, and by what clusters require of pods."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paritas.errors import InputError
from paritas.serve.manifests import Deployment, base, kserve, write, yaml

parser = pytest.importorskip("yaml")

FULL = Deployment(
    "hf-vit",
    "registry.example:5000/team/paritas-vit:1.2",
    arguments=("--max-batch-size", "16"),
    cpu="800m",
    memory="1Gi",
    replicas=(2, 5),
    service="LoadBalancer",
    claim="models",
    secret="tokens",
    certificate="cert",
    storage="pvc://models/vit",
)
PLAIN = Deployment("vit", "paritas")


@pytest.mark.parametrize("about", [FULL, PLAIN], ids=["full", "plain"])
def test_every_file_is_a_resource_and_every_resource_is_listed(about: Deployment, tmp_path: Path) -> None:
    written = write(about, tmp_path)
    folders = {tmp_path, tmp_path / "kserve"} if about.storage else {tmp_path}
    assert {place.parent for place in written} == folders
    for folder in folders:
        listed = parser.safe_load((folder / "kustomization.yaml").read_text())["resources"]
        assert sorted([*listed, "kustomization.yaml"]) == sorted(p.name for p in folder.glob("*.yaml"))
    made = {**base(about), **({f"kserve/{n}": r for n, r in kserve(about).items()} if about.storage else {})}
    for name, resource in made.items():
        assert parser.safe_load((tmp_path / f"{name}.yaml").read_text()) == resource
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_selected_is_what_is_labelled() -> None:
    found = base(FULL)
    labels = found["deployment"]["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        found["deployment"]["spec"]["selector"]["matchLabels"],
        found["service"]["spec"]["selector"],
        found["pdb"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    assert found["hpa"]["spec"]["scaleTargetRef"]["name"] == found["deployment"]["metadata"]["name"]
    (container,) = found["deployment"]["spec"]["template"]["spec"]["containers"]
    named = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in found["service"]["spec"]["ports"]} == named
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")} <= named
    pod = found["deployment"]["spec"]["template"]["spec"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("container", [
    base(FULL)["deployment"]["spec"]["template"]["spec"]["containers"][0],
    base(PLAIN)["deployment"]["spec"]["template"]["spec"]["containers"][0],
    kserve(FULL)["servingruntime"]["spec"]["containers"][0],
])  # fmt: skip
def test_a_pod_is_one_that_restricted_namespaces_take(container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and security["runAsNonRoot"] and security["runAsUser"] > 0
    assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["livenessProbe"]["httpGet"]["path"] != container["readinessProbe"]["httpGet"]["path"]
    assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("about", [FULL, PLAIN], ids=["full", "plain"])
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_kubernetes_schemas_take_them(about: Deployment, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for name, resource in base(about).items():
        if name != "kustomization":
            validate.validate(resource, version, strict=True)
    broken = base(about)["deployment"]
    broken["spec"]["template"]["spec"]["containers"][0]["liveness"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, version, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "file"), [("servingruntime", "servingruntimes"), ("inferenceservice", "inferenceservices")]
)
def test_kserves_own_definitions_take_them(kind: str, file: str) -> None:
    checkout = os.environ.get("PARITAS_KSERVE")
    if not checkout:
        pytest.skip("PARITAS_KSERVE names a checkout of KServe's repository, which has its resources' schemas")
    jsonschema = pytest.importorskip("jsonschema")
    text = (Path(checkout) / "config" / "crd" / "full" / f"serving.kserve.io_{file}.yaml").read_text()
    resource = kserve(FULL)[kind]
    (schema,) = (
        version["schema"]["openAPIV3Schema"]
        for version in parser.safe_load(text)["spec"]["versions"]
        if version["name"] == resource["apiVersion"].partition("/")[2]
    )
    _closed(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    checker = jsonschema.Draft7Validator(schema)
    assert [error.message for error in checker.iter_errors(resource)] == []
    assert list(checker.iter_errors({**resource, "spec": {**resource["spec"], "nonsense": 1}}))


def _closed(schema: Any) -> None:
    """Fields that a schema does not name are errors, as with `kubectl apply --validate=strict`."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            _closed(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _closed(inner)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "HF_ViT"}, r"--name: 'HF_ViT' is no name for Kubernetes \(RFC 1123\).*; 'hf-vit' is one"),
        ({"name": "1vit"}, "'vit' is one"),
        ({"name": "a" * 64}, "up to 63"),
        ({"name": "vit-"}, "the last no hyphen"),
        ({"name": "vit\n"}, "RFC 1123"),
        ({"name": ""}, "RFC 1123"),
        ({"claim": "My Claim"}, "--claim"),
        ({"secret": "a/b"}, "--token-secret"),
        ({"image": "Registry/Paritas"}, "--image"),
        ({"image": "paritas:1 --privileged"}, "--image"),
        ({"image": ""}, "--image"),
        ({"cpu": "two"}, "--cpu"),
        ({"cpu": "0"}, "--cpu"),
        ({"memory": "2 GB"}, "--memory"),
        ({"replicas": (3, 2)}, "--replicas"),
        ({"target": 0}, "--target-cpu"),
        ({"service": "Ingress"}, "--service-type"),
        ({"rest_port": 0}, "--rest-port"),
        ({"storage": "models/vit"}, "--storage-uri"),
    ],
)
def test_what_kubernetes_would_refuse_is_one_clear_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Deployment(**{"name": "vit", "image": "paritas", **change})


def test_latest_is_pulled_always() -> None:
    def policy(image: str) -> str:
        containers = base(Deployment("vit", image))["deployment"]["spec"]["template"]["spec"]["containers"]
        return str(containers[0]["imagePullPolicy"])

    always = ["paritas", "paritas:latest", "host:5000/paritas"]
    never = ["paritas:1", "host:5000/paritas:1", f"paritas@sha256:{'0' * 64}"]
    assert [policy(image) for image in always] == ["Always"] * 3
    assert [policy(image) for image in never] == ["IfNotPresent"] * 3


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [{"c": 1, "d": [True, None, "x"]}, {"e": {}}, [], [["f"]]], "g": "on"}, "h": "1"},
        {"t": ["yes", "null", "1.5", "a: b", "- c", "# d", "", " e", "f\ng", "'", '"', "é", "/a", "0x1f", "~", "1e3"]},
    ],
)  # fmt: skip
def test_what_is_written_is_what_is_read(value: Any) -> None:
    assert parser.safe_load(yaml(value)) == value


def test_options_are_handed_on_to_the_container(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from paritas.cli import app

    words = ["serve", "--name", "vit", "--image", "host/vit:1", "--manifests", str(tmp_path), "--max_batch_size", "16"]
    words += ["--no-pad", "--label", "stable=1", "--label", "canary=2", "--grpc-port", "-1", "--token-secret", "tokens"]
    done = CliRunner().invoke(
        app, [*words, "--tensorflow_intra_op_parallelism", "8", "--drain", "20", "--replicas", "2"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / f"{name}.yaml") for name in base(PLAIN)]
    pod = parser.safe_load((tmp_path / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    told = pod["containers"][0]["args"]
    assert told[:5] == ["serve", "--model-base-path", "/models", "--host", "0.0.0.0"]
    assert told[5:9] == ["--rest-port", "8501", "--grpc-port", "-1"]
    handed = ["--max-batch-size", "16", "--no-pad", "--label", "stable=1", "--label", "canary=2", "--intra-op", "8"]
    handed += ["--drain", "20.0", "--grace", "5", "--token-file", "/run/secrets/paritas/tokens"]
    assert sorted(told[9:]) == sorted(handed)
    assert pod["terminationGracePeriodSeconds"] == 40
    assert parser.safe_load((tmp_path / "hpa.yaml").read_text())["spec"]["minReplicas"] == 2
    wrong = CliRunner().invoke(app, ["serve", "--name", "ViT", "--image", "vit:1", "--manifests", str(tmp_path)])
    assert wrong.exit_code == 2 and "RFC 1123" in wrong.output
