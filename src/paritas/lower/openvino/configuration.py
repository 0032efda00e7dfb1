# SPDX-License-Identifier: Apache-2.0
"""With which configuration OpenVINO computes a port, and where other programs find it.

Left to itself, the CPU plugin computes a float32 model in bfloat16 where the processor can, and keeps keys and values
as 8-bit integers. Of what a model's own file says, OpenVINO 2026.4's CPU plugin takes the precision of keys and values
and the groups of dynamic quantisation, but not the precision of the arithmetic. So that one is in `ov_config.json`
too, which whoever compiles the model hands on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openvino

FILE = "ov_config.json"

#: What sentence-transformers reads of a transformer.
_SENTENCE = "sentence_bert_config.json"

#: Our dtypes, and what OpenVINO calls them when it is asked to compute in one.
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

#: Properties that change what is computed -> what their value means.
NUMBERS = {
    "KV_CACHE_PRECISION": "keys and values are kept in {}",
    "KEY_CACHE_PRECISION": "keys are kept in {}",
    "VALUE_CACHE_PRECISION": "values are kept in {}",
    "KEY_CACHE_GROUP_SIZE": "{} keys have one scale",
    "VALUE_CACHE_GROUP_SIZE": "{} values have one scale",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "activations are rounded to 8 bits in groups of {}",
    "CPU_DENORMALS_OPTIMIZATION": "whether denormals become zeros: {}",
    "ACTIVATIONS_SCALE_FACTOR": "activations are divided by {}",
    "SNIPPETS_MODE": "whether the CPU compiles groups of operators to code of their own: {}",
}


def lasting(properties: Mapping[str, str]) -> dict[str, str]:
    """Of properties that were asked for, those that change what is computed: they are part of a port."""
    return {name: value for name, value in properties.items() if name in NUMBERS}


def of(dtype: str, *, remembers: bool = False, adopted: bool = False) -> dict[str, str]:
    """The properties with which the CPU plugin compiles a port that computes in `dtype`.

    remembers: for a model with its keys and values inside. adopted: for what another converter made, which runs as it
    would without us.
    """
    # The hint is always given: left to itself, OpenVINO takes bfloat16 where the CPU has it.
    found = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "PERFORMANCE_HINT": "LATENCY"}
    # OpenVINO 2026.4's snippets leave memory unwritten in grouped attention of dynamic shape whose output
    # goes into a matrix product (8 heads of 128 on 2); without them BERT and Llama are no slower.
    if not adopted:
        found["SNIPPETS_MODE"] = "DISABLE"
    if remembers:  # left to itself, the CPU keeps keys and values as 8-bit integers
        found["KV_CACHE_PRECISION"] = HINTS[dtype]
    return found


def store(model: openvino.Model, properties: Mapping[str, str]) -> None:
    """Say in the model itself in which precision it computes: as runtime options, which plugins read on compiling."""
    for name in ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION"):
        if name in properties:
            model.set_rt_info(properties[name], ["runtime_options", name])


def write(directory: Path, properties: Mapping[str, str]) -> None:
    (directory / FILE).write_text(json.dumps(dict(properties), indent=2) + "\n")


def read(directory: Path) -> dict[str, str]:
    """What `write` left there; {} where it did not."""
    path = directory / FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def for_sentence_transformers(directory: Path) -> None:
    """Let SentenceTransformer and CrossEncoder compile the model so: they read it from their own configuration."""
    path = directory / _SENTENCE
    if not (directory / "modules.json").is_file():
        return
    told: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    # Its older spelling of "model_kwargs", which all versions read.
    told["model_args"] = {**told.get("model_args", {}), "ov_config": read(directory)}
    path.write_text(json.dumps(told, indent=2) + "\n")
