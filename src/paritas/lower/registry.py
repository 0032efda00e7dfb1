# SPDX-License-Identifier: Apache-2.0
"""One function per exact ATen overload, found by its name; and what is missing, all of it at once.

A lowering's first docstring line is the operator's ATen schema (tests/ops keeps that true).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from paritas.capture.modules import is_size
from paritas.capture.normalise import name_of
from paritas.errors import UnsupportedOps
from paritas.program import Program

Lowering = Callable[..., Any]

LOWERINGS: dict[str, dict[str, Lowering]] = {}


def lowers(engine: str, *targets: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering for `engine` under exact overload names, such as "aten.gelu.default"."""

    def register(function: Lowering) -> Lowering:
        known = LOWERINGS.setdefault(engine, {})
        for target in targets:
            if target in known:
                raise ValueError(
                    f"{target} is already lowered to {engine} by {known[target].__qualname__}. "
                    "Delete one of the two: a lowering is never overridden by import order."
                )
            known[target] = function
        return function

    return register


def schema_of(target: str) -> str:
    """The ATen schema of an overload, as the first docstring line of its lowering states it."""
    import torch

    space, name, overload = target.split(".")
    found = getattr(getattr(getattr(torch.ops, space), name), overload)
    return str(found._schema).split("::", 1)[1]


def lowerings(engine: str) -> Mapping[str, Lowering]:
    """Every lowering of an engine. Imports its `ops` package, whose modules register themselves."""
    package = importlib.import_module(f"paritas.lower.{engine}.ops")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return LOWERINGS[engine]


def preflight(program: Program, engine: str) -> Mapping[str, Lowering]:
    """The engine's lowerings, if they cover the program; else `UnsupportedOps` with all that are missing."""
    known = lowerings(engine)
    missing = [
        (name, program.origin(node.meta.get("paritas_of", node.name)))
        for node in program.graph.nodes
        if (name := name_of(node)) and not is_size(node) and name not in known and name != "getitem"
    ]
    if missing:
        raise UnsupportedOps(engine, missing)
    return known
