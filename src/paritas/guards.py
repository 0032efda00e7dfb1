# SPDX-License-Identifier: Apache-2.0
"""What a port asks of the sizes of a call: the ways that the model's code took while it was captured.

A guard is a formula over the names of the dynamic dimensions (`paritas.formulas`) that is true or false.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from paritas.formulas import Sizes, parsed
from paritas.program import Guard, TensorSpec

#: More than a model's code asks.
MOST_GUARDS = 512


def names_in(guard: Guard) -> set[str]:
    """The dynamic dimensions that a guard is about."""
    return set(parsed(guard.holds)[0])


def holds(guard: Guard, sizes: Sizes) -> bool:
    """Whether a guard holds of these sizes; not where one of them is unknown, or where it has no value."""
    try:
        return bool(parsed(guard.holds)[1](sizes))
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return False


def broken(guards: Sequence[Guard], sizes: Sizes) -> list[Guard]:
    """The guards that do not hold of these sizes."""
    return [guard for guard in guards if not holds(guard, sizes)]


def complaint(guard: Guard, specs: Sequence[TensorSpec], sizes: Sizes) -> str:
    """What a caller is told: what was asked of which size, which size came, where the model asks, what to do."""
    names = parsed(guard.holds)[0]
    places = {name: place_of(name, specs) for name in names}
    came = ", ".join(f"{places[name]} is {sizes[name]}" for name in names if name in sizes)
    asked = f", which the model's code asks at {guard.where}" if guard.where else ""
    return (
        f"{came or 'sizes'}: this port was made for {in_words(guard.holds, places)}{asked}. "
        "Make another port with an example of such sizes"
    )


def place_of(name: str, specs: Sequence[TensorSpec]) -> str:
    """Where a caller finds a dynamic dimension: "x.shape[1]"."""
    for spec in specs:
        if name in spec.dims:
            return f"{spec.name}.shape[{spec.dims.index(name)}]"
    return name


def in_words(text: str, places: Mapping[str, str]) -> str:
    """An expression with the places of its sizes instead of their names."""
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in places:
            node.id = places[node.id]
    return ast.unparse(tree)


def remaining(guards: Sequence[Guard], before: Sequence[TensorSpec], after: Sequence[TensorSpec]) -> tuple[Guard, ...]:
    """The guards where some dimensions of the inputs have become constants since: those that still ask something."""
    known: dict[str, int] = {}
    for one, other in zip(before, after, strict=True):
        known |= {
            str(dim): now
            for dim, now in zip(one.dims, other.dims, strict=True)
            if isinstance(now, int) and not isinstance(dim, int)
        }
    found = []
    for guard in guards:
        names, _ = parsed(guard.holds)
        if set(names) <= known.keys() and holds(guard, known):
            continue
        found.append(Guard(_with_numbers(guard.holds, known), guard.where))
    return tuple(found)


def _with_numbers(text: str, known: Sizes) -> str:
    if not known:
        return text
    return in_words(text, {name: str(size) for name, size in known.items()})
