# SPDX-License-Identifier: Apache-2.0
"""What was found to keep something from one call to the next: objects in modules, attributes, a script's variables.

As processors of attention that store maps, count steps, or are told another strength in each step. Nothing that has one
is ever in a port, so what it holds is no part of what a port depends on: else each of its changes would make other
ports of all that is around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from paritas.capture.around import Behind, Variable

#: So many times an object may change between calls before it counts as one that does so in each.
_PATIENCE = 3

_objects: set[type] = set()
_attributes: dict[type, frozenset[str]] = {}
_variables: dict[tuple[int, str], Any] = {}  # and what holds them, so that no other gets its address
_changes: Counter[Any] = Counter()


def note(found: Iterable[Behind]) -> None:
    """From now on these are known to keep something."""
    for one in found:
        if isinstance(one.owner, type) and one.attribute:
            _attributes[one.owner] = attributes(one.owner) | {one.attribute}
        elif isinstance(one.owner, type):
            _objects.add(one.owner)
        elif isinstance(one.owner, Variable):
            _variables[key_of(one.owner)] = one.owner.holder


#: An object, or a variable by where it is -> it, and what was in it.
Held = dict[Any, tuple[Any, tuple[Any, ...]]]


def compared(had: Held, has: Held) -> None:
    """Count what has changed."""
    for key, (value, inside) in has.items():
        before = had.get(key)
        if before is None or _alike(before[1], inside):
            continue
        variable = isinstance(value, Variable)
        if variable or before[0] is value:
            kind = key if variable else type(value)
            _changes[kind] += 1
            if _changes[kind] > _PATIENCE:
                note([Behind("", value if variable else kind)])


def content_of(variable: Variable) -> tuple[Any, ...]:
    """What it holds, or what is in that."""
    value = variable.value
    if isinstance(value, dict):
        return tuple(value.values())
    return tuple(value) if isinstance(value, (list, tuple, set)) else (value,)


def key_of(variable: Variable) -> tuple[int, str]:
    return id(variable.holder), variable.name


def _alike(had: tuple[Any, ...], has: tuple[Any, ...]) -> bool:
    return len(had) == len(has) and all(a is b for a, b in zip(had, has, strict=True))


def is_keeper(cls: type) -> bool:
    """Whether objects of that class keep something."""
    return cls in _objects


def attributes(cls: type) -> frozenset[str]:
    """The attributes in which modules of that class do."""
    return _attributes.get(getattr(cls, "_paritas_original", cls), frozenset())


def is_kept(variable: Variable) -> bool:
    """Whether somebody writes into that variable while a model runs."""
    return key_of(variable) in _variables
