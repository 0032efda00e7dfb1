# SPDX-License-Identifier: Apache-2.0
"""Sizes that turn out to be known: what a captured graph says of its shapes, once some of its symbols are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

#: Operators that read the number out of a tensor of one element.
ITEM = frozenset({"aten.item.default", "aten._local_scalar_dense.default"})

#: symbol -> its value, a number or a formula of other sizes
Sizes = dict[sympy.Symbol, int | sympy.Expr]


def bind(symbolic: Any, value: Any, sizes: Sizes) -> None:
    """Note in `sizes` what the symbols of a node's value are, now that the value itself is known."""
    if isinstance(symbolic, tuple | list):
        for part, known in zip(symbolic, value, strict=False):
            bind(part, known, sizes)
    elif isinstance(symbolic, torch.Tensor):
        for size, known in zip(symbolic.shape, value.shape, strict=False):
            bind(size, known, sizes)
    elif isinstance(symbolic, torch.SymInt):
        expression = symbolic.node.expr
        if expression.is_Symbol:
            sizes[expression] = int(value)


def with_sizes(value: Any, sizes: Sizes) -> Any:
    """A node's value (tensors without data, sizes, sequences of them) with their values for the symbols of `sizes`."""
    if isinstance(value, torch.SymInt):
        return _size(value, sizes)
    if isinstance(value, torch.Tensor):
        if not any(isinstance(size, torch.SymInt) for size in value.shape):
            return value
        shape = [_size(size, sizes) if isinstance(size, torch.SymInt) else size for size in value.shape]
        if all(new is old for new, old in zip(shape, value.shape, strict=True)):
            return value
        return like(value, shape)
    if isinstance(value, tuple | list):
        return type(value)(with_sizes(part, sizes) for part in value)
    return value


def _size(size: torch.SymInt, sizes: Sizes) -> int | torch.SymInt:
    expression = size.node.expr
    settled = expression.xreplace({s: sympy.sympify(v) for s, v in sizes.items() if s in expression.free_symbols})
    if settled.is_Integer:
        return int(settled)
    if settled == expression:
        return size
    hint = size.node.hint
    made: torch.SymInt = size.node.shape_env.create_symintnode(settled, hint=hint)
    return made


def like(value: torch.Tensor, shape: Sequence[int | torch.SymInt], dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor without data in the place of `value`, of another shape."""
    mode = getattr(value, "fake_mode", None)
    if mode is None:
        return torch.empty(shape, dtype=dtype or value.dtype, device="meta")
    with mode, mode.shape_env.suppress_guards():
        return torch.empty(shape, dtype=dtype or value.dtype, device=value.device)
