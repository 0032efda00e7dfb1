# SPDX-License-Identifier: Apache-2.0
"""Objects that a pipeline hands to a network from one call to the next, as caches of keys and values.

To an engine such an object is the tensors in it: nested dictionaries with its class and its numbers as constants. The
graph returns what the object has after the call, and the caller's own object is filled with that.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from paritas.dropin.calls import Call, original_class
from paritas.dropin.methods import Method
from paritas.errors import CaptureError

#: What stands for an object, a tuple, a tensor that is still the one that was given, and one that was written into.
_CLASS, _TUPLE, _SAME, _INTO = "(class)", "(tuple)", "(same)", "(into)"

#: A tensor that was given: where, and its version then.
_Known = dict[int, tuple[str, torch.Tensor, int]]

#: Deeper than that, an object is not taken apart.
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class CacheCall(Call):
    """A call in which some arguments are such objects. objects: these by name, which are taken apart in the others."""

    objects: dict[str, Any]


class WithCaches(Method):
    """A module that is given its caller's objects taken apart, and returns what is in them beside its own output."""

    called = "forward"

    def of(self, owner: torch.nn.Module) -> WithCaches:
        return with_caches(owner)

    def forward(self, **given: Any) -> Any:
        known: _Known = {}
        arguments = {name: _built(value, name, known) for name, value in given.items()}
        out = self.owner(**arguments)
        held = {name: value for name, value in arguments.items() if is_cache(value) or type(value) in (dict, list)}
        return _returned(out), {name: _apart(value, name, known) for name, value in held.items()}


def with_caches(owner: torch.nn.Module) -> WithCaches:
    return _class_of(original_class(type(owner)))(owner)


@functools.cache
def _class_of(cls: Any) -> Any:
    return type(f"{cls.__name__}WithCaches", (WithCaches,), {"__module__": cls.__module__})


def is_cache(value: Any) -> bool:
    """Whether it is an object of diffusers that holds tensors and numbers, and nothing else."""
    return _is_object(value) and _is_whole(value, 0)


def taken_apart(value: Any) -> Any:
    """As an argument of `WithCaches`."""
    return _apart(value, "", {})


def put_together(out: Any) -> Any:
    """What a network returned, with its objects again."""
    return _each(out, lambda value: _built(value, "", {}) if type(value) is dict and _CLASS in value else None)


def _returned(out: Any) -> Any:
    return _each(out, lambda value: taken_apart(value) if is_cache(value) else None)


def _each(value: Any, other: Callable[[Any], Any]) -> Any:
    """The same outputs with another value in place of those for which there is one."""
    if (found := other(value)) is not None:
        return found
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if (found := _each(item, other)) is not item:
                value[key] = found
    if type(value) in (tuple, list):
        return type(value)(_each(item, other) for item in value)
    return value


def fill(value: Any, after: Any) -> None:
    """Make a caller's object what it is after a call: the same objects in it, with other things in them."""
    space = value if isinstance(value, (dict, list)) else vars(value)
    found = {key: _filled(had, new) for key, had, new in _pairs(space, after)}
    if isinstance(space, list):
        space[:] = [found[index] for index in range(len(after))]
        return
    for key in [key for key in space if key not in found]:
        del space[key]
    space.update(found)


def _pairs(space: Any, after: Any) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(space, list):
        yield from ((i, space[i] if i < len(space) else None, new) for i, new in enumerate(after))
    else:
        yield from ((key, space.get(key), new) for key, new in after.items() if key != _CLASS)


def _filled(had: Any, new: Any) -> Any:
    if isinstance(new, Mapping) and _SAME in new:
        return had
    if isinstance(new, Mapping) and _INTO in new:
        return had.copy_(new[_INTO])
    is_kept = _is_object(had) if isinstance(new, Mapping) and _CLASS in new else type(had) is type(new)
    if isinstance(new, (dict, list)) and is_kept and not (isinstance(new, dict) and _TUPLE in new):
        fill(had, new)
        return had
    return _built(new, "", {})


def _is_object(value: Any) -> bool:
    plain = not isinstance(value, (type, torch.nn.Module, dict, list, tuple)) and not callable(value)
    return plain and type(value).__module__.startswith("diffusers.") and hasattr(value, "__dict__")


def _is_whole(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str):
        return True
    if depth > _DEEPEST:
        return False
    if type(value) in (list, tuple):
        return all(_is_whole(item, depth + 1) for item in value)
    if type(value) is dict:
        return all(type(key) in (int, str) and _is_whole(item, depth + 1) for key, item in value.items())
    return _is_object(value) and all(_is_whole(item, depth + 1) for item in vars(value).values())


def _apart(value: Any, place: str, known: _Known) -> Any:
    if isinstance(value, torch.Tensor):
        given, _, version = known.get(id(value), (None, value, 0))
        if given != place:
            return value
        return {_SAME: True} if value._version == version else {_INTO: value}
    if type(value) in (list, tuple):
        items = [_apart(item, f"{place}.{index}", known) for index, item in enumerate(value)]
        return items if type(value) is list else {_TUPLE: items}
    is_object = _is_object(value)
    if type(value) is not dict and not is_object:
        return value
    space = vars(value) if is_object else value
    name = {_CLASS: f"{type(value).__module__}.{type(value).__qualname__}"} if is_object else {}
    return name | {key: _apart(item, f"{place}.{key}", known) for key, item in space.items()}


def _built(value: Any, place: str, known: _Known) -> Any:
    if isinstance(value, torch.Tensor):
        known[id(value)] = (place, value, value._version)
        return value
    if isinstance(value, list):
        return [_built(item, f"{place}.{index}", known) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if _TUPLE in value:
        return tuple(_built(item, f"{place}.{index}", known) for index, item in enumerate(value[_TUPLE]))
    parts = {key: _built(item, f"{place}.{key}", known) for key, item in value.items() if key != _CLASS}
    if _CLASS not in value:
        return parts
    module, _, name = value[_CLASS].rpartition(".")
    cls = getattr(importlib.import_module(module), name, None)
    if cls is None or not module.startswith("diffusers."):
        raise CaptureError(f"{place} is a {value[_CLASS]}, which is no class of diffusers.")
    made = cls.__new__(cls)
    vars(made).update(parts)
    return made
