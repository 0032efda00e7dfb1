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
    from paritas.serve.registry import ModelConfig, Registry
    from paritas.serve.settings import Settings

MODELS, DOORS, TOGETHER, BOUNDS, THREADS = (
    "Which models", "Where it listens, and to whom", "Computed together", "Bounds", "Threads",
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


def serve(
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
    debug: Debug = False,
) -> int:
    """Serve ports over HTTP and gRPC, as TensorFlow Serving and the Open Inference Protocol have it.

    Images, texts and sounds are read by what lies beside a port, and classes have their labels; raw tensors are always
    possible. Requests are computed together where that was measured to change no answer. Needs pip install
    'paritas[serve]'. Ctrl-C and SIGTERM end it, after what is being answered.

    **Examples**

      paritas serve vit-openvino --name hf-vit

      paritas serve --model-base-path models/ --host 0.0.0.0 --token-file tokens.txt
    """
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
    return _run(models, settings)


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
