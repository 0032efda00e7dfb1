# SPDX-License-Identifier: Apache-2.0
"""`paritas serve`: ports behind TensorFlow Serving's protocol and the Open Inference Protocol."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paritas.cli.options import Debug, Device, OvConfig
from paritas.cli.outcome import OK, say
from paritas.cli.properties import properties_of
from paritas.errors import InputError

if TYPE_CHECKING:
    from paritas.serve.manifests import Deployment
    from paritas.serve.registry import ModelConfig, Registry
    from paritas.serve.settings import Settings

MODELS, DOORS, TOGETHER, BOUNDS, THREADS, ELSEWHERE = (
    "Which models", "Where it listens, and to whom", "Computed together", "Bounds", "Threads", "Elsewhere",
)  # fmt: skip

Directory = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The directory of a port.", show_default=False)]
Name = Annotated[
    str,
    typer.Option(
        "--name", "--model_name", "--model-name", envvar="MODEL_NAME", rich_help_panel=MODELS,
        help="What clients call it; the directory's name if not given.",
    ),
]  # fmt: skip
Base = Annotated[
    Path | None,
    typer.Option(
        "--model-base-path", "--model_base_path", envvar="MODEL_BASE_PATH", rich_help_panel=MODELS, metavar="DIR",

        help="NAME/VERSION/ of ports, as models/vit/1; with --name, that model alone.",
    ),
]  # fmt: skip
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--model-config-file", "--model_config_file", rich_help_panel=MODELS, metavar="FILE",
        help="A ModelServerConfig of TensorFlow Serving's, in protobuf's text.",
    ),
]  # fmt: skip
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", rich_help_panel=MODELS, metavar="[MODEL:]NAME=VERSION",
        help="A name for a version, as stable=1; repeatable. Both versions have to be served: --versions 2.",
    ),
]  # fmt: skip
Versions = Annotated[
    int, typer.Option("--versions", min=0, rich_help_panel=MODELS, help="How many are served, the newest; 0: all.")
]
Poll = Annotated[
    float,
    typer.Option(
        "--poll", "--file_system_poll_wait_seconds", min=0, rich_help_panel=MODELS, metavar="SECONDS",
        help="Between looks for new versions; 0: none after the first.",
    ),
]  # fmt: skip
Host = Annotated[
    str, typer.Option("--host", rich_help_panel=DOORS, help="Where to listen; 0.0.0.0 for everybody in the network.")
]
RestPort = Annotated[
    int,
    typer.Option(
        "--rest-port", "--rest_api_port", min=-1, max=65535, rich_help_panel=DOORS, help="0: a free one; -1: none."
    ),
]
GrpcPort = Annotated[
    int,
    typer.Option("--grpc-port", "--port", min=-1, max=65535, rich_help_panel=DOORS, help="0: a free one; -1: none."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", rich_help_panel=DOORS, metavar="FILE",
        help="Bearer tokens, one a line, of which a client sends one. Or PARITAS_SERVE_TOKEN has one.",
    ),
]  # fmt: skip
Certificate = Annotated[
    Path | None, typer.Option("--certificate", rich_help_panel=DOORS, metavar="FILE.pem", help="TLS, with --key.")
]
Key = Annotated[Path | None, typer.Option("--key", rich_help_panel=DOORS, metavar="FILE.pem", help="Its private key.")]
AccessLog = Annotated[
    bool, typer.Option("--access-log/--no-access-log", rich_help_panel=DOORS, help="A line of JSON for each request.")
]
Largest = Annotated[
    int, typer.Option("--max-batch-size", "--max_batch_size", min=1, rich_help_panel=TOGETHER, help="Rows at once.")
]
Timeout = Annotated[
    float,
    typer.Option(
        "--batch-timeout", min=0, rich_help_panel=TOGETHER, metavar="MS",
        help="For how long a row waits for others while the model is idle.",
    ),
]  # fmt: skip
Sizes = Annotated[
    str,
    typer.Option(
        "--batch-sizes", rich_help_panel=TOGETHER, metavar="N,N,...",
        help="Only batches of these sizes, smaller ones filled up; any if not given.",
    ),
]  # fmt: skip
Pad = Annotated[
    bool,
    typer.Option(
        "--pad/--no-pad", rich_help_panel=TOGETHER,
        help="Texts of different lengths in one batch, of models whose answers do not change by it.",
    ),
]  # fmt: skip
Warm = Annotated[
    bool,
    typer.Option(
        "--warm-up/--no-warm-up", "--enable_model_warmup/--no-enable_model_warmup", rich_help_panel=TOGETHER,
        help="Compute a few rows when a version is loaded, which also measures whether rows may share a batch.",
    ),
]  # fmt: skip
Batch = Annotated[
    bool, typer.Option("--enable_batching/--no-batching", rich_help_panel=TOGETHER, help="Or each request by itself.")
]
Queue = Annotated[
    int,
    typer.Option("--max-queue", min=1, rich_help_panel=BOUNDS, help="Requests of a model; more are refused at once."),
]
Body = Annotated[
    int, typer.Option("--max-body", min=1, rich_help_panel=BOUNDS, metavar="MIB", help="Of a request's body.")
]
Pixels = Annotated[int, typer.Option("--max-pixels", min=1, rich_help_panel=BOUNDS, help="Of an image.")]
Tokens = Annotated[
    int, typer.Option("--max-tokens", min=0, rich_help_panel=BOUNDS, help="Of a text; 0: what the model takes.")
]
Deadline = Annotated[
    float,
    typer.Option("--timeout", min=0.001, rich_help_panel=BOUNDS, metavar="SECONDS", help="Of a request, at most."),
]
Drain = Annotated[
    float, typer.Option("--drain", min=0, rich_help_panel=BOUNDS, metavar="SECONDS", help="For requests to end in.")
]
Grace = Annotated[
    float,
    typer.Option(
        "--grace", min=0, rich_help_panel=BOUNDS, metavar="SECONDS",
        help="Between SIGTERM, when it says that it is not ready, and the last request that it takes.",
    ),
]  # fmt: skip
InterOp = Annotated[
    int | None,
    typer.Option(
        "--inter-op", "--tensorflow_inter_op_parallelism", min=1, rich_help_panel=THREADS,
        help="OpenVINO's streams.",
    ),
]  # fmt: skip
IntraOp = Annotated[
    int | None,
    typer.Option(
        "--intra-op", "--tensorflow_intra_op_parallelism", min=1, rich_help_panel=THREADS,
        help="OpenVINO's threads; all cores if not given.",
    ),
]  # fmt: skip
Manifests = Annotated[
    Path | None,
    typer.Option(
        "--manifests", rich_help_panel=ELSEWHERE, metavar="FOLDER",
        help="Serve nothing: write what Kubernetes is told of such a server. With --name and --image.",
    ),
]  # fmt: skip
Image = Annotated[
    str, typer.Option("--image", rich_help_panel=ELSEWHERE, help="Of docker/Dockerfile.serve, as it is called there.")
]
Cpu = Annotated[str, typer.Option("--cpu", rich_help_panel=ELSEWHERE, help="Of a server: cores, as 2 or 800m.")]
Memory = Annotated[str, typer.Option("--memory", rich_help_panel=ELSEWHERE, help="Of a server, as 2Gi.")]
Replicas = Annotated[
    str, typer.Option("--replicas", rich_help_panel=ELSEWHERE, metavar="LEAST:MOST", help="How many servers there are.")
]
TargetCpu = Annotated[
    int, typer.Option("--target-cpu", rich_help_panel=ELSEWHERE, metavar="PERCENT", help="Above it, there are more.")
]
ServiceType = Annotated[
    str, typer.Option("--service-type", rich_help_panel=ELSEWHERE, help="ClusterIP, NodePort or LoadBalancer.")
]
Claim = Annotated[
    str, typer.Option("--claim", rich_help_panel=ELSEWHERE, help="A PersistentVolumeClaim with the models, read only.")
]
TokenSecret = Annotated[
    str, typer.Option("--token-secret", rich_help_panel=ELSEWHERE, help="A Secret with the bearer tokens as `tokens`.")
]
TlsSecret = Annotated[
    str, typer.Option("--tls-secret", rich_help_panel=ELSEWHERE, help="A Secret of the type kubernetes.io/tls.")
]
Storage = Annotated[
    str,
    typer.Option("--storage-uri", rich_help_panel=ELSEWHERE, help="Write KServe's resources too: pvc://claim/vit."),
]
Ray = Annotated[
    str,
    typer.Option(
        "--ray", rich_help_panel=ELSEWHERE, metavar="ADDRESS",
        help="Serve on a Ray cluster, with --replicas: auto, HOST:PORT, ray://HOST:PORT, or local.",
    ),
]  # fmt: skip


def serve(
    context: typer.Context,
    directory: Directory = None,
    name: Name = "",
    model_base_path: Base = None,
    model_config_file: ConfigFile = None,
    label: Labels = None,
    versions: Versions = 1,
    poll: Poll = 1.0,
    host: Host = "127.0.0.1",
    rest_port: RestPort = 8501,
    grpc_port: GrpcPort = 8500,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    key: Key = None,
    access_log: AccessLog = True,
    max_batch_size: Largest = 32,
    batch_timeout: Timeout = 0.0,
    batch_sizes: Sizes = "",
    pad: Pad = True,
    warm_up: Warm = True,
    enable_batching: Batch = True,
    max_queue: Queue = 256,
    max_body: Body = 64,
    max_pixels: Pixels = 50_000_000,
    max_tokens: Tokens = 0,
    timeout: Deadline = 30.0,
    drain: Drain = 30.0,
    grace: Grace = 0.0,
    inter_op: InterOp = None,
    intra_op: IntraOp = None,
    device: Device = "",
    ov_config: OvConfig = None,
    manifests: Manifests = None,
    image: Image = "",
    cpu: Cpu = "1",
    memory: Memory = "2Gi",
    replicas: Replicas = "1:3",
    target_cpu: TargetCpu = 80,
    service_type: ServiceType = "ClusterIP",
    claim: Claim = "",
    token_secret: TokenSecret = "",
    tls_secret: TlsSecret = "",
    storage_uri: Storage = "",
    ray: Ray = "",
    debug: Debug = False,
) -> int:
    """Serve ports over HTTP and gRPC, as TensorFlow Serving and the Open Inference Protocol have it.

    Images, texts and sounds are read by what lies beside a port, and classes have their labels; raw tensors are always
    possible. Requests are computed together where that was measured to change no answer. Needs pip install
    'paritas[serve]'. Ctrl-C and SIGTERM end it, after what is being answered.

    **Examples**

      paritas serve vit-openvino --name hf-vit

      paritas serve --model-base-path models/ --host 0.0.0.0 --token-file tokens.txt

      paritas serve --name hf-vit --image registry.example/vit:1 --manifests k8s/
    """
    if manifests is not None:
        from paritas.serve.manifests import Deployment

        about = Deployment(
            name or (directory.resolve().name if directory else ""),
            image,
            arguments=_given(context),
            rest_port=rest_port,
            grpc_port=grpc_port,
            cpu=cpu,
            memory=memory,
            replicas=_range(replicas),
            target=target_cpu,
            service=service_type,
            claim=claim,
            secret=token_secret,
            certificate=tls_secret,
            storage=storage_uri,
            stop=int((grace or 5) + drain) + 15,
        )
        return _manifests(about, manifests)
    from paritas.serve.settings import Batching, Engine, Limits, Settings

    config = {**properties_of(ov_config)}
    if intra_op is not None:
        config.setdefault("INFERENCE_NUM_THREADS", str(intra_op))
    if inter_op is not None:
        config.setdefault("NUM_STREAMS", str(inter_op))
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key go together.")
    settings = Settings(
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        limits=Limits(body=max_body << 20, pixels=max_pixels, tokens=max_tokens, request=timeout),
        batching=Batching(
            largest=max_batch_size if enable_batching else 1,
            wait=batch_timeout / 1000,
            sizes=_sizes(batch_sizes),
            queue=max_queue,
            pad=pad,
        ),
        engine=Engine(device=device, config=config, warm=warm_up),
        tokens=_tokens(token_file),
        certificate=certificate,
        key=key,
        access_log=access_log,
        poll=poll,
        drain=drain,
        grace=grace,
    )
    models = _models(directory, name, model_base_path, model_config_file, versions, _labels(label or ()))
    if ray:
        return _on_ray(models, settings, ray, _range(replicas), cpu)
    return _run(models, settings)


#: What a server in a cluster is told by its manifest, or not at all.
_NOT_PASSED = {
    "directory", "name", "model_base_path", "model_config_file", "host", "rest_port", "grpc_port", "token_file",
    "certificate", "key", "debug", "manifests", "image", "cpu", "memory", "replicas", "target_cpu", "service_type",
    "claim", "token_secret", "tls_secret", "storage_uri", "ray",
}  # fmt: skip


def _given(context: typer.Context) -> list[str]:
    """The options that were given on the command line, as they are given again in a container."""
    found: list[str] = []
    for param in context.command.params:
        source, name = context.get_parameter_source(param.name or ""), param.name or ""
        if source is None or source.name != "COMMANDLINE" or name in _NOT_PASSED:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            found.append(param.opts[0] if value else param.secondary_opts[0])
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            found += [param.opts[0], str(one)]
    return found


def _range(text: str) -> tuple[int, int]:
    least, _, most = text.partition(":")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise InputError(f"--replicas {text!r} is no LEAST:MOST, as 1:3.")
    return int(least), int(most or least)


def _manifests(about: Deployment, folder: Path) -> int:
    from paritas.serve.manifests import write

    for place in write(about, folder):
        say(str(place))
    return OK


def _on_ray(
    models: Sequence[ModelConfig], settings: Settings, address: str, replicas: tuple[int, int], cpu: str
) -> int:
    from paritas.serve.on_ray import Scale, serve_on, stay

    cores = float(cpu.removesuffix("m")) / 1000 if cpu.endswith("m") else float(cpu)
    serve_on(models, settings, address, Scale(*replicas, cores=cores))
    say(f"Serving on Ray: http://{settings.host}:{settings.rest_port}", err=True)
    stay()
    return OK


def _run(models: Sequence[ModelConfig], settings: Settings) -> int:
    from collections.abc import Callable

    from paritas.serve.metrics import Metrics
    from paritas.serve.registry import Registry
    from paritas.serve.server import serve as run

    def registry_of(settings: Settings, tell: Callable[[str], None]) -> Registry:
        return Registry(models, settings, metrics=Metrics(on=True), say=tell)

    run(registry_of, settings, lambda line: say(line, err=True))
    return OK


def _models(
    directory: Path | None,
    name: str,
    base: Path | None,
    file: Path | None,
    versions: int,
    labels: dict[str, dict[str, int]],
) -> list[ModelConfig]:
    import dataclasses

    from paritas.serve.registry import ModelConfig, checked, folders, models_in

    given = [one for one in (directory, base, file) if one is not None]
    if len(given) != 1:
        raise InputError("Name one of: the directory of a port, --model-base-path, --model-config-file.")
    if file is not None:
        from paritas.serve.configs import of_file

        found = of_file(file)
    elif base is not None and name:
        inside = base / name
        found = [ModelConfig(name, inside if folders(ModelConfig(name, inside)) else base)]
    elif base is not None:
        found = models_in(base)
    else:
        assert directory is not None
        if not folders(ModelConfig("", directory)):
            raise InputError(f"{directory} is no port: it has no port.json. Make one:   paritas port MODEL --out DIR")
        found = [ModelConfig(name or directory.resolve().name, directory)]
    if unknown := [one for one in labels if one and one not in {config.name for config in found}]:
        raise InputError(f"--label names the model {unknown[0]!r}, which is not served.")
    if file is None:
        found = [dataclasses.replace(config, latest=versions) for config in found]
    return checked(
        dataclasses.replace(one, labels={**one.labels, **labels.get("", {}), **labels.get(one.name, {})})
        for one in found
    )


def _labels(given: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in given:
        label, _, number = one.partition("=")
        model, _, label = label.rpartition(":")
        if not label or not number.isdecimal():
            raise InputError(f"--label {one!r} is no NAME=VERSION, as stable=1.")
        found.setdefault(model, {})[label] = int(number)
    return found


def _sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if any(not part.isdecimal() or int(part) < 1 for part in parts):
        raise InputError(f"--batch-sizes {text!r} is no list of numbers, as 1,4,16.")
    return tuple(sorted({int(part) for part in parts}))


def _tokens(file: Path | None) -> tuple[str, ...]:
    found = [os.environ.get("PARITAS_SERVE_TOKEN", "")]
    if file is not None:
        found += file.read_text().splitlines()
        if not any(line.strip() for line in found[1:]):
            raise InputError(f"{file} holds no token.")
    return tuple(line.strip() for line in found if line.strip())
