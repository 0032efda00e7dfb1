# SPDX-License-Identifier: Apache-2.0
"""Ranges whose length is a size: their operators take a plain number, and would fix it."""

from __future__ import annotations

import itertools
from typing import Any, cast

import torch

from paritas.capture.patches import patch


@patch(
    "linspace",
    "torch.linspace",
    upstream="torch 2.13, aten/src/ATen/native/cpu/RangeFactoriesKernel.cpp, linspace_kernel",
)
def linspace(original: Any) -> Any:
    """As many numbers as a free size says, counted from both ends as the operator counts them: it takes a plain number
    of them alone."""

    def replacement(start: Any, end: Any, steps: Any = 100, *args: Any, **kwargs: Any) -> Any:
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        tensors = isinstance(start, torch.Tensor) or isinstance(end, torch.Tensor)
        if not isinstance(steps, torch.SymInt) or tensors or args or not dtype.is_floating_point or "out" in kwargs:
            return original(start, end, steps, *args, **kwargs)
        place: Any = torch.arange(cast(Any, steps), dtype=dtype, device=kwargs.get("device"))
        step = (end - start) / torch.sym_max(steps - 1, 1)
        from_start = place < torch.sym_max(steps // 2, 1)
        return torch.where(from_start, start + step * place, end - step * ((steps - 1) - place))

    return replacement


@patch("combinations", "torch.combinations", upstream="torch 2.13, aten/src/ATen/native/Itertools.cpp, combinations")
def combinations(original: Any) -> Any:
    """Which elements go together depends on their number alone: the operator selects them by a mask, as if it depended
    on their values."""

    def replacement(input: torch.Tensor, r: int = 2, with_replacement: bool = False) -> torch.Tensor:
        if input.dim() != 1 or r < 1:
            return original(input, r, with_replacement)  # which refuses the one and has an answer to the other
        kind: Any = itertools.combinations_with_replacement if with_replacement else itertools.combinations
        places = list(kind(range(int(input.shape[0])), r))
        return input[torch.tensor(places, dtype=torch.int64).reshape(-1, r)]

    return replacement


@patch(
    "affine_grid",
    "torch.affine_grid_generator",
    upstream="torch 2.13, torch/_decomp/decompositions.py, affine_grid_generator",
)
def affine_grid(original: Any) -> Any:
    """A grid is as large as free sizes say: the operator counts it out with plain numbers, torch's own decomposition
    of it does not."""

    def affine_grid_generator(theta: torch.Tensor, size: Any, align_corners: bool) -> Any:
        if not any(isinstance(one, torch.SymInt) for one in size):
            return original(theta, size, align_corners)
        decomposed = torch._decomp.decomposition_table[torch.ops.aten.affine_grid_generator.default]
        return decomposed(theta, size, align_corners)

    return affine_grid_generator
