# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's file of models, in protobuf's text, as what `Registry` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paritas.errors import InputError
from paritas.serve.messages import serving
from paritas.serve.registry import ModelConfig, checked


def of_file(place: Path) -> list[ModelConfig]:
    """The models of a file such as

        model_config_list { config { name: "vit" base_path: "/models/vit" } }

    Raises `InputError` for what it does not hold.
    """
    from google.protobuf import text_format

    try:
        text = place.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place} cannot be read: {error}") from None
    try:
        found = text_format.Parse(text, serving("ModelServerConfig")())
    except text_format.ParseError as error:
        raise InputError(f"{place} is no ModelServerConfig in protobuf's text: {error}") from None
    return of_message(found)


def of_message(config: Any) -> list[ModelConfig]:
    """The models of a ModelServerConfig. Raises `InputError`."""
    if config.WhichOneof("config") != "model_config_list":
        raise InputError("Only a model_config_list is served.")
    return checked(map(_of_model, config.model_config_list.config))


def _of_model(one: Any) -> ModelConfig:
    if not one.base_path:
        raise InputError(f"The model {one.name!r} has no base_path.")
    policy = one.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    latest, versions = 1, ()
    if kind == "all":
        latest = 0
    elif kind == "latest":
        latest = max(1, policy.latest.num_versions)
    elif kind == "specific":
        versions = tuple(policy.specific.versions)
        if not versions:
            raise InputError(f"The model {one.name!r} asks for specific versions, and names none.")
    return ModelConfig(one.name, Path(one.base_path), latest, versions, dict(one.version_labels))
