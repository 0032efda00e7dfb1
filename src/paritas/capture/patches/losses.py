# SPDX-License-Identifier: Apache-2.0
"""Losses that look at values, or at the number of dimensions, where a graph has none."""

from __future__ import annotations

import math
from typing import Any

import torch

from paritas.capture.patches import patch


@patch(
    "losses", "torch.nn.functional.gaussian_nll_loss", upstream="torch 2.13, torch/nn/functional.py, gaussian_nll_loss"
)
def gaussian_nll_loss(original: Any) -> Any:
    """The original raises for a negative variance, which a graph cannot: its loss is NaN there."""

    def replacement(
        input: torch.Tensor,
        target: torch.Tensor,
        var: Any,
        full: bool = False,
        eps: float = 1e-6,
        reduction: str = "mean",
    ) -> torch.Tensor:
        reduced: Any = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}.get(reduction)
        if not isinstance(var, torch.Tensor) or reduced is None:
            return original(input, target, var, full, eps, reduction)
        if var.dim() == input.dim() - 1:
            var = var.unsqueeze(-1)
        var = torch.where(var < 0, torch.full_like(var, math.nan), var.clamp(min=eps))
        loss = 0.5 * (torch.log(var) + (input - target) ** 2 / var)
        return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss)

    return replacement


@patch(
    "losses",
    "torch.nn.functional.multilabel_margin_loss",
    upstream="torch 2.13, torch/_meta_registrations.py, multilabel_margin_loss_forward",
)
def multilabel_margin_loss(original: Any) -> Any:
    """Of a single row the operator returns one number, and as a graph a row of one: it gets a batch of one."""

    def replacement(input: torch.Tensor, target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if input.dim() != 1:
            return original(input, target, *args, **kwargs)
        return original(input.unsqueeze(0), target.unsqueeze(0), *args, **kwargs).reshape(())

    return replacement
