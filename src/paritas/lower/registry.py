# SPDX-License-Identifier: Apache-2.0
"""One rule per exact ATen overload, found by its name; and what is missing, all of it at once.

    @lowers("aten.max_pool1d.default", count=1)
    @lowers("aten.max_pool2d.default", count=2)
    def max_pool(emit, self, count, kernel_size, stride, padding, dilation, **_): ...

One function lowers many overloads: it is called by the names that an overload's schema gives its arguments, with the
schema's defaults, and with what is said of the overload beside its name.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from paritas.capture.modules import is_size
from paritas.capture.normalise import name_of
from paritas.errors import UnsupportedOps
from paritas.program import Program

Lowering = Callable[..., Any]
Function = TypeVar("Function", bound=Lowering)

LOWERINGS: dict[str, dict[str, Lowering]] = {}

#: Arguments that change nothing but what the result is like, which a lowering asks the node.
OF_RESULT = frozenset(
    ("dtype", "half_to_float", "layout", "device", "pin_memory", "memory_format", "non_blocking", "copy", "implicit")
)


@dataclasses.dataclass(frozen=True)
class Arg:
    """The argument of this name in the schema, where the function calls it otherwise."""

    name: str


def lowers(engine: str, /, *targets: str, **given: object) -> Callable[[Function], Function]:
    """Register a lowering for `engine` under exact overload names, such as "aten.gelu.default".

    given: arguments of the function that the overloads do not have, or (`Arg`) call otherwise. Raises `TypeError` for
    an argument of an overload that the function does not take, unless it is one `OF_RESULT` or the function has `**_`,
    and for no overload at all.
    """
    if not targets:
        raise TypeError(
            f"lowers({engine!r}) names no operator: the `lowers` of an engine's `ops.registry` knows the engine."
        )

    def register(function: Function) -> Function:
        known = LOWERINGS.setdefault(engine, {})
        for target in targets:
            if target in known:
                raise ValueError(
                    f"{target} is already lowered to {engine} by {known[target].__qualname__}. "
                    "Delete one of the two: a lowering is never overridden by import order."
                )
            known[target] = _bound(target, function, given)
        return function

    return register


def _bound(target: str, function: Lowering, given: Mapping[str, object]) -> Lowering:
    """`function` as it is called by a node of `target`."""
    schema = _schema(target)
    if schema is None:  # an operator of a library that is not imported yet
        return function
    parameters = dict(list(inspect.signature(function).parameters.items())[1:])
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = [argument.name for argument in schema.arguments]
    defaults = {a.name: _plain(a.default_value) for a in schema.arguments if a.has_default_value()}
    constants = {name: value for name, value in given.items() if not isinstance(value, Arg)}
    sources = {name: name for name in parameters if name in names and name not in constants}
    sources |= {name: value.name for name, value in given.items() if isinstance(value, Arg)}
    left = [name for name in names if name not in sources.values()]
    missing = [
        name
        for name, parameter in parameters.items()
        if name not in {**sources, **constants}
        and parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
    ]
    unknown = [name for name in given if name not in parameters]
    unread = [] if takes_all else [name for name in left if name not in OF_RESULT]
    if missing or unknown or unread or not set(sources.values()) <= set(names):
        raise TypeError(
            f"{function.__qualname__} does not lower {schema}: "
            f"nothing gives it {missing}, it does not take {unknown or unread}, or names what is not there."
        )
    if takes_all:
        sources |= {name: name for name in left if name not in constants}

    @functools.wraps(function)
    def rule(emit: Any, *args: Any, **options: Any) -> Any:
        values = {**defaults, **dict(zip(names, args, strict=False)), **options}
        return function(emit, **{name: values[source] for name, source in sources.items()}, **constants)

    rule.__doc__ = schema_of(target)
    return rule


def _plain(default: Any) -> Any:
    return tuple(default) if isinstance(default, list) else default


def _schema(target: str) -> torch.FunctionSchema | None:
    space, name, overload = target.split(".")
    packet = getattr(getattr(torch.ops, space), name, None)
    return getattr(packet, overload)._schema if packet is not None else None


def schema_of(target: str) -> str:
    """The ATen schema of an overload, without its namespace."""
    return str(_schema(target)).split("::", 1)[1]


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
