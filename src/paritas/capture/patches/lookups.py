# SPDX-License-Identifier: Apache-2.0
"""Look-ups in tables, written with the operators that every engine has."""

from __future__ import annotations

from typing import Any

import torch

from paritas.capture.patches import patch


@patch(
    "embedding_bag", "torch.nn.functional.embedding_bag", upstream="torch 2.13, torch/nn/functional.py, embedding_bag"
)
def embedding_bag(original: Any) -> Any:
    """Bags of equal length are rows of a table, weighted and summed; the operator returns bookkeeping besides."""

    def replacement(
        input: torch.Tensor,
        weight: torch.Tensor,
        offsets: torch.Tensor | None = None,
        max_norm: float | None = None,
        norm_type: float = 2,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        per_sample_weights: torch.Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Any:
        if input.dim() != 2 or mode not in ("sum", "mean") or max_norm is not None or padding_idx is not None:
            return original(
                input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights,
                include_last_offset, padding_idx,
            )  # fmt: skip
        rows = torch.nn.functional.embedding(input, weight)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights.unsqueeze(-1)
        return rows.sum(1) if mode == "sum" else rows.mean(1)

    return replacement
