# SPDX-License-Identifier: Apache-2.0
"""Operators that are written in others of torch, where torch itself has no decomposition, or one that is no good here.

Each function takes what the operator takes; `decompose` traces it. Keys are exact overloads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from paritas.lower.composed import SHARED
from paritas.lower.openvino.composed_windows import WINDOWS


def solve_triangular(
    a: torch.Tensor, b: torch.Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> torch.Tensor:
    """`linalg.solve_triangular` by the inverse: forward substitution by blocks of 1, 2, 4, .. rows.

    Where the number of rows is known at run time only, the solution of a system of more than 1024 is NaN.
    """
    rows = a.shape[-1]
    most = rows if isinstance(rows, int) else 1024
    if not left:
        return solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    if upper:
        turned = solve_triangular(a.flip(-2, -1), b.flip(-2), upper=False, unitriangular=unitriangular)
        return turned.flip(-2)
    if not unitriangular:
        diagonal = (a * torch.eye(rows, dtype=a.dtype)).sum(-1, keepdim=True)
        a, b = a / diagonal, b / diagonal
    inverse, size = torch.eye(rows, dtype=a.dtype), 1
    while size < most:
        block = torch.arange(rows) // size
        below = (block.unsqueeze(-1) - block == 1) & (block % 2 == 0)
        part = torch.where(below, a, torch.zeros_like(a))
        inverse, size = inverse - inverse @ part @ inverse, 2 * size
    if not isinstance(rows, int):
        block = torch.arange(rows) // most
        inverse = torch.where(block.unsqueeze(-1) == block, inverse, torch.full_like(inverse, math.nan))
    return inverse @ b


#: From how many rows on torch takes distances from the product of both, as `cdist` documents it.
MANY_ROWS = 25


def distances(x1: torch.Tensor, x2: torch.Tensor, p: float = 2.0, compute_mode: int | None = None) -> torch.Tensor:
    """`cdist`, as torch does it: by differences, or for Euclid and many rows by the product of both."""
    rows = (x1.shape[-2], x2.shape[-2])
    many = any(not isinstance(count, int) or count > MANY_ROWS for count in rows)
    if p == 2 and (compute_mode == 1 or (many and compute_mode in (None, 0))):
        # The squares are terms of the product, as torch has them: what cancels does so in one sum.
        squares = [x.square().sum(-1, keepdim=True) for x in (x1, x2)]
        ones = [torch.ones_like(square) for square in squares]
        left = torch.cat([-2 * x1, squares[0], ones[0]], -1)
        right = torch.cat([x2, ones[1], squares[1]], -1)
        return (left @ right.mT).clamp(min=0).sqrt()
    off = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).abs()
    if p == 0:
        return (off != 0).to(off.dtype).sum(-1)
    if p == math.inf:
        return off.amax(-1)
    if p == 1:
        return off.sum(-1)
    if p == 2:
        return off.square().sum(-1).sqrt()
    return off.pow(p).sum(-1).pow(1 / p)


def cosine_similarity(x1: torch.Tensor, x2: torch.Tensor, dim: int = 1, eps: float = 1e-8) -> torch.Tensor:
    dtype = torch.promote_types(x1.dtype, x2.dtype)
    a, b = torch.broadcast_tensors(x1.to(dtype), x2.to(dtype))
    long_a = a.square().sum(dim, keepdim=True).sqrt().clamp(min=eps)
    long_b = b.square().sum(dim, keepdim=True).sqrt().clamp(min=eps)
    return ((a / long_a) * (b / long_b)).sum(dim)


def index_reduce(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, include_self: bool = True
) -> torch.Tensor:
    """`index_reduce` as the scattering of whole slices."""
    if x.dim() == 0:
        found = index_reduce(x.reshape(1), 0, index.reshape(1), source.reshape(1), reduce, include_self)
        return found.reshape(())
    places = index.reshape([-1 if axis == dim % x.dim() else 1 for axis in range(x.dim())])
    return x.scatter_reduce(dim, places.expand(source.shape), source, reduce, include_self=include_self)


COMPOSED: dict[str, Callable[..., Any]] = {
    **SHARED,
    "aten.linalg_solve_triangular.default": solve_triangular,
    "aten.cdist.default": distances,
    "aten._cdist_forward.default": distances,
    "aten.cosine_similarity.default": cosine_similarity,
    "aten.index_reduce.default": index_reduce,
    **WINDOWS,
}
