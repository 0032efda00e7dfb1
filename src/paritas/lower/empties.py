# SPDX-License-Identifier: Apache-2.0
"""Whether a size may be 0 or less, where no input is empty: x[:, 1:] of a length of 1 is."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy


def may_be_empty(size: Any) -> bool:
    """Of a number, a symbolic size of torch or its expression: an input's sizes are at least 1, others may be 0."""
    return _may_be_less(size, 1)


def may_be_negative(size: Any) -> bool:
    """Of what is computed of sizes, as a slice's bound is."""
    return _may_be_less(size, 0)


def _may_be_less(size: Any, least: int) -> bool:
    known = size.node.expr if isinstance(size, torch.SymInt) else size
    if isinstance(known, int) or not getattr(known, "free_symbols", ()):
        return bool(known < least)
    ranges = {symbol: ValueRanges(0 if str(symbol).startswith("u") else 1, int_oo) for symbol in known.free_symbols}
    try:
        return not bound_sympy(known, ranges).lower >= least
    except Exception:  # noqa: BLE001 - what torch cannot bound
        return True
