# SPDX-License-Identifier: Apache-2.0
"""One module of a re-implementation on the inputs that its twin got, so that no earlier error is in them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from paritas.apps.reimplementation.hooks import (
    WatchedCall,
    arguments_of,
    copied,
    tensors_of,
    watching,
    with_arguments,
)
from paritas.apps.reimplementation.report import Difference
from paritas.errors import reason_of
from paritas.run.torch.float64 import InFloat64
from paritas.verify.compare import compare, distance
from paritas.verify.tolerance import Tolerance


def alone(
    original: tuple[torch.nn.Module, WatchedCall],
    other: tuple[torch.nn.Module, WatchedCall],
    inner: Mapping[str, WatchedCall],
    tolerance: Tolerance,
) -> tuple[Difference, tuple[str, ...], str]:
    """Call the other module with the tensors of the original's call, and compare what the two return.

    inner: module inside the other, by its path from there -> the first call of its twin in the original. Returns what
    was found, the inputs that stayed the other's own, and where inside it begins to differ ("" if it does not).
    """
    (_, call), (module, twin) = original, other
    given, own = fitted(original, other)
    if tensors_of(twin) and len(own) == len(tensors_of(twin)):
        return Difference(unseen="its twin takes no tensor of the shapes that it takes"), (), ""
    args, kwargs = copied(with_arguments(twin, given))
    try:
        with InFloat64(), torch.no_grad(), watching(module, ["", *inner]) as calls:
            module(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - in whichever way a module refuses another model's tensors
        return Difference(unseen=f"its twin does not take its inputs: {reason_of(error)}"), own, ""
    found = found_of(call.tensors, calls[-1].tensors, tolerance, inside=bool(call.path))
    return found, own, _first_difference(module, calls[:-1], inner, tolerance) if found.diverges else ""


def fitted(
    original: tuple[torch.nn.Module, WatchedCall], other: tuple[torch.nn.Module, WatchedCall]
) -> tuple[list[torch.Tensor], tuple[str, ...]]:
    """For each tensor that the other module was called with, the one of the original's call that it stands for.

    The same shape and kind, by name first, then the nearest in value. Where the original has none (a mask of another
    shape), the other's own stays, and is named. A tensor that was given twice is replaced twice.
    """
    theirs = tensors_of(other[1])
    names = {id(value): name for name, value in arguments_of(*other).items()}
    ours = arguments_of(*original)
    chosen: dict[int, torch.Tensor] = {}
    candidates = []
    for position, mine in enumerate(theirs):
        for name, value in ours.items():
            if value.shape == mine.shape and value.is_floating_point() == mine.is_floating_point():
                named = names.get(id(mine), "").split(".")[0] == name.split(".")[0]
                candidates.append((not named, _distance(value, mine), position, name))
    used: set[str] = set()
    for _, _, position, name in sorted(candidates):
        if position not in chosen and name not in used:
            chosen[position] = ours[name]
            used.add(name)
    for position, mine in enumerate(theirs):
        same = [p for p in chosen if theirs[p].shape == mine.shape and torch.equal(theirs[p], mine)]
        if position not in chosen and same:
            chosen[position] = chosen[same[0]]
    own = [
        f"{names.get(id(mine), 'input')}{list(mine.shape)}"
        for position, mine in enumerate(theirs)
        if position not in chosen
    ]
    return [chosen.get(position, mine) for position, mine in enumerate(theirs)], tuple(own)


def _distance(one: torch.Tensor, two: torch.Tensor) -> float:
    return 0.0 if torch.equal(one, two) else distance(one.numpy(), two.to(one.dtype).numpy())


def _first_difference(
    module: torch.nn.Module, calls: list[WatchedCall], inner: Mapping[str, WatchedCall], tolerance: Tolerance
) -> str:
    """The first part that is called with something else than its twin in the original, in words."""
    for call in sorted(calls, key=lambda c: c.order):
        twin = inner[call.path]
        if call.number:
            continue
        part = module.get_submodule(call.path)
        names = list(arguments_of(part, call))
        want, own = fitted((part, twin), (part, call))
        for name, mine, theirs in zip(names, tensors_of(call), want, strict=False):
            found = found_of([theirs], [mine], tolerance)
            if found.diverges and not any(kept.startswith(name + "[") for kept in own):
                return f"{call.path} gets another {name} ({found}): look before {call.site}"
    return f"its parts get what the original's get: look after {calls[-1].site}" if calls else ""


def found_of(
    want: list[torch.Tensor], got: list[torch.Tensor], tolerance: Tolerance, *, inside: bool = True
) -> Difference:
    """The worst of what two modules returned, in order, as far as both returned something.

    inside: they are parts of the models, which may divide the same work in other ways: another shape is no fault.
    """
    if not want or not got:
        return Difference(unseen="it returns no tensor" if not want else "its twin returns no tensor")
    worst = Difference(0.0, 0.0)
    for one, two in zip(want, got, strict=False):  # a twin may leave out what only its original returns besides
        if one.shape != two.shape and _plain(one) == _plain(two):
            two = two.reshape(one.shape)  # a batch of 1 that one of them leaves away
        result = compare(one.numpy(), two.numpy(), tolerance)
        if inside and result.fault.startswith("shape"):
            return Difference(unseen=f"its twin returns another shape: {list(two.shape)}, not {list(one.shape)}")
        found = Difference(result.excess, result.error, result.fault)
        if found.fault or found.excess > worst.excess:
            worst = found
        if found.fault:
            break
    return worst


def _plain(value: torch.Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]
