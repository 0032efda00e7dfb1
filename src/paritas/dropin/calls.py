# SPDX-License-Identifier: Apache-2.0
"""What a call of a model's forward is to an engine: tensors, and arguments that are constants of a graph."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from paritas.errors import InputError

#: Arguments that are constants of a graph.
_CONSTANTS = (bool, int, float, str)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call taken apart. tensors: by name, nested ones as they came. fixed: numbers, strings and switches."""

    tensors: dict[str, Any]
    fixed: dict[str, Any]

    @functools.cached_property
    def signature(self) -> tuple[Any, ...]:
        """Calls of one signature are served by one port, as long as their shapes fit it."""
        tensors = tuple(sorted((name, *_kind(value)) for name, value in self.tensors.items()))
        return tensors, tuple(sorted((name, repr(value)) for name, value in self.fixed.items()))


def _kind(value: Any) -> tuple[Any, ...]:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.dim()
    if isinstance(value, Mapping):
        return tuple((key, *_kind(item)) for key, item in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(_kind(item) for item in value)
    return (repr(value),)


def given_to(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `forward(*args, **kwargs)` of a module of class `cls`, by name. Raises `InputError`."""
    names, defaults, _ = parameters(cls)
    if len(args) > len(names):
        raise InputError(
            f"{cls.__name__} takes {len(names)} arguments by position, {len(args)} were given: "
            f"{', '.join(names or defaults)}"
        )
    return {**dict(zip(names, args, strict=False)), **kwargs}


def sorted_out(cls: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors, fixed) of these arguments, without forward's defaults. Raises `InputError` for unknown ones."""
    _, defaults, open_ended = parameters(cls)
    tensors: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            if defaults.get(name) is inspect.Parameter.empty:  # which has to be given, and may be nothing
                fixed[name] = None
            continue
        if not open_ended and name not in defaults:
            raise InputError(f"{cls.__name__}.forward has no argument {name!r}; it has {', '.join(defaults)}.")
        if _holds_tensor(value):
            tensors[name] = value
        elif value != defaults.get(name, inspect.Parameter.empty):
            fixed[name] = value
    return tensors, fixed


def take(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """The call `forward(*args, **kwargs)` of a module of class `cls`. Raises `InputError` for unknown arguments."""
    return Call(*sorted_out(cls, given_to(cls, args, kwargs)))


def takes(cls: type, name: str) -> bool:
    """Whether forward of `cls` has that argument by name."""
    return name in parameters(cls)[1]


def original_class(cls: type) -> Any:
    """The library's class that a ported one was made of; any other class itself."""
    return getattr(cls, "_paritas_original", cls)


@functools.cache
def parameters(cls: type) -> tuple[tuple[str, ...], dict[str, Any], bool]:
    """Of forward: what it takes by position, what by name with its default, and whether it takes any other name."""
    found = list(inspect.signature(original_class(cls).forward).parameters.values())[1:]
    named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    keyed = [p for p in found if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in found)
    return tuple(p.name for p in named), {p.name: p.default for p in keyed}, open_ended


def is_object(value: Any, taken: tuple[type, ...] = ()) -> bool:
    """Whether an argument is, or holds, what is neither a tensor nor a number nor made of them.

    taken: classes that somebody else looks after.
    """
    if value is None or isinstance(value, (torch.Tensor, torch.nn.Module, *_CONSTANTS, *taken)):
        return False
    if isinstance(value, Mapping):
        return any(is_object(item, taken) for item in value.values())
    if isinstance(value, (tuple, list)):
        return any(is_object(item, taken) for item in value)
    return not dataclasses.is_dataclass(value)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, (tuple, list)) and any(map(_holds_tensor, value))
