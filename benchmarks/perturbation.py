# SPDX-License-Identifier: Apache-2.0
"""Does a pipeline on an engine compute with all of its networks? Weights of one after another are changed, in PyTorch
and in the port, and the picture has to move as PyTorch's does: of a network that was bypassed it would not.

Changes stay, and each picture is compared with that before, so that a network is ported once more and no other is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

#: What a weight is multiplied by, or divided, less 1. The next one is tried where a picture shows too little of it.
FACTORS = (0.01, 0.1, 0.5)

#: How far the port's picture may be from PyTorch's after a change, of what the change moved PyTorch's by.
MOST = 0.25

#: Moves of PyTorch's picture that this small are rounding.
ROUNDING = 1e-6

Outputs = Mapping[str, Any]


def perturbed(
    theirs: Mapping[str, torch.nn.Module],
    ours: Mapping[str, torch.nn.Module],
    run_theirs: Callable[[], Outputs],
    run_ours: Callable[[], Outputs],
    want: Outputs,
) -> dict[str, dict[str, Any]]:
    """Of each network of a pipeline: what changing its weights does to the outputs.

    theirs, ours: the networks by name, in PyTorch and ported. want: PyTorch's outputs before.
    state: "followed", and by: the change that showed it, moved: what it did to PyTorch's outputs, off: how far the
    port's are then from these; "missed" with the same figures, where they did not move as PyTorch's; "not asked" where
    no module of the network was called, and "no part" where PyTorch's outputs stayed, whatever its weights.
    """
    found = {}
    for name, network in theirs.items():
        found[name], want = _one(network, ours[name], run_theirs, run_ours, want)
    return found


def _one(
    network: torch.nn.Module,
    ported: torch.nn.Module,
    run_theirs: Callable[[], Outputs],
    run_ours: Callable[[], Outputs],
    before: Outputs,
) -> tuple[dict[str, Any], Outputs]:
    row: dict[str, Any] = {"state": "no part"}
    for by in FACTORS:
        _change(network, by)
        after, was_asked = _asked(network, run_theirs)
        if not was_asked:
            return {"state": "not asked"}, after
        _change(ported, by)
        moved = distance(before, after)
        before = after
        if moved <= ROUNDING:
            continue
        off = distance(after, run_ours())
        row = {"state": "followed" if off < MOST * moved else "missed", "by": by, "moved": moved, "off": off}
        if row["state"] == "followed":
            break
    return row, before


def _asked(network: torch.nn.Module, run: Callable[[], Outputs]) -> tuple[Outputs, bool]:
    """What it returns, and whether a module of the network was called for it: methods as `encode` call those inside."""
    inside, called = set(network.modules()), set()
    handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: called.add(module))
    try:
        return run(), not inside.isdisjoint(called)
    finally:
        handle.remove()


def _change(network: torch.nn.Module, by: float) -> None:
    """Each weight times 1 + by or 1 / (1 + by), by chance, the same one in PyTorch and in a port."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.is_floating_point():
                weight.mul_((1 + by) ** (torch.rand(weight.shape, generator=generator).round() * 2 - 1))


# --- how far outputs are apart -------------------------------------------------------------------------------


def distance(want: Outputs, got: Outputs) -> float:
    """The larger of both differences of `apart`, a level being 1/255; infinite where texts, shapes or NaN differ."""
    error, levels, other = apart(want, got)
    return float("inf") if other else max(error, levels / 255)


def apart(want: Outputs, got: Outputs) -> tuple[float, float, str]:
    """The largest difference of numbers relative to values over 1, that of pictures in levels, what else differs."""
    error, levels, other = 0.0, 0.0, ""
    for name, one in want.items():
        for index, (a, b) in enumerate(_pairs(one, got.get(name))):
            where = f"{name}[{index}]"
            if not isinstance(a, np.ndarray) or a.dtype.kind not in "fiub":
                other = other or ("" if np.array_equal(a, b) else f"{where} is another")
            elif not isinstance(b, np.ndarray) or a.shape != b.shape or a.dtype != b.dtype:
                other = other or f"{where} is {getattr(b, 'shape', type(b))}, not {a.shape}"
            else:
                finite = np.isfinite(a) & np.isfinite(b)
                if not np.array_equal(np.isfinite(a), np.isfinite(b)):
                    other = other or f"{where} is not finite in other places"
                off = np.abs(a.astype("float64") - b.astype("float64"))[finite]
                size = max(1.0, float(np.abs(a[finite].astype("float64")).max(initial=0)))
                if a.dtype.kind == "f":
                    error = max(error, float(off.max(initial=0)) / size)
                else:
                    levels = max(levels, float(off.max(initial=0)))
    return error, levels, other


def _pairs(a: Any, b: Any) -> list[tuple[Any, Any]]:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [pair for x, y in zip(a, b, strict=True) for pair in _pairs(x, y)]
    return [(a, b)]
