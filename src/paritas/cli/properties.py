# SPDX-License-Identifier: Apache-2.0
"""`--ov-config NAME=VALUE`, for every command that runs a port."""

from __future__ import annotations

from collections.abc import Sequence

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
