# SPDX-License-Identifier: Apache-2.0
"""`--device` and `--ov-config NAME=VALUE`, for every command that runs a port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paritas.errors import InputError


def properties_of(given: Sequence[str] | None) -> dict[str, str]:
    """By name. Raises `InputError`; whether OpenVINO has them is asked where they are used."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (equals and name and value):
            raise InputError(f"--ov-config {text!r} is not NAME=VALUE, as in NUM_STREAMS=2.")
        if name in found:
            raise InputError(f"--ov-config {name} is given twice.")
        found[name] = value
    return found


def where(engine: str | None, device: str, given: Sequence[str] | None) -> dict[str, Any]:
    """`device` and `ov_config` of what a command will make, after asking the engine for them: before any work.

    Raises `DeviceMissing` or `InputError`.
    """
    from paritas.making import build_options
    from paritas.run.engine import default_engine

    found: dict[str, Any] = {"device": device, "ov_config": properties_of(given)}
    build_options(engine or default_engine(), **found)
    return found
