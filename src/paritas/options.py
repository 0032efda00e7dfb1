# SPDX-License-Identifier: Apache-2.0
"""For what a program is built: the value that travels from a call of `port()` to a lowering and to `port.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from paritas.errors import InputError


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What an engine is asked for. `paritas.making.build_options` makes one that the engine has.

    dtype: to compute in, "" for the program's own. mode: "" where the engine has one way of running.
    weight_format: "int8" for weights that are rounded, "" for those of the original, and more as `weight_format` writes
    it. device: as the engine calls it, "" for its own choice. config: properties of the engine's own, (name, value) in
    order of their names.
    """

    engine: str
    dtype: str = ""
    mode: str = ""
    target: str = "cpu"
    weight_format: str = ""
    device: str = ""
    config: tuple[tuple[str, str], ...] = ()


def weight_format(weights: str | Mapping[str, Any]) -> str:
    """What is asked for of weights, as text: "int4", or "int4,group_size=64,symmetric" of {"format": "int4", ...}.

    Raises `InputError` for a key that is none, and for a group size or symmetry that does not go with the format.
    """
    if isinstance(weights, str):
        return weights
    given = dict(weights)
    name, group, symmetric = given.pop("format", ""), given.pop("group_size", None), given.pop("symmetric", False)
    if given:
        raise InputError(
            f"weights has no {', '.join(map(repr, given))}; it has 'format', 'group_size' and 'symmetric'."
        )
    if (group is not None or symmetric) and not str(name).startswith("int"):
        raise InputError(f"group_size and symmetric are of whole numbers, int8 or int4, not of weights={name!r}.")
    if group is not None and (type(group) is not int or group < 1 or group % 2):
        raise InputError(f"group_size={group!r} is no even number of weights that share a scale.")
    size = "" if group is None else f",group_size={group}"
    return f"{name}{size}{',symmetric' if symmetric else ''}"


def parsed_weight_format(text: str) -> tuple[str, int | None, bool]:
    """Format, group size if one was given, and whether it is symmetric, of what `weight_format` has written."""
    name, *rest = text.split(",")
    sizes = [int(part.removeprefix("group_size=")) for part in rest if part.startswith("group_size=")]
    return name, sizes[0] if sizes else None, "symmetric" in rest
