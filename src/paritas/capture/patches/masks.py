# SPDX-License-Identifier: Apache-2.0
"""Masks that transformers leaves out where they hide nothing, and then attends otherwise than with them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from paritas.capture.patches import patch


@patch(
    "aimv2",
    "transformers.models.aimv2.modeling_aimv2.create_causal_mask",
    upstream="transformers 5.23, modeling_aimv2.py, Aimv2Attention (is_causal is False, and a mask of ones is dropped)",
)
def everything_without_padding(original: Any) -> Any:
    """Without padding the original drops its causal mask and sees every token, with padding it is causal; traced, the
    mask would always stay."""

    def create_causal_mask(*args: Any, **kwargs: Any) -> Any:
        mask, given = original(*args, **kwargs), kwargs.get("attention_mask")
        if mask is None or given is None:
            return mask
        return mask | given.bool().all() if mask.dtype == torch.bool else mask * (~given.bool().all())

    return create_causal_mask


@patch(
    "phi4_multimodal",
    "transformers.models.phi4_multimodal.modeling_phi4_multimodal.create_bidirectional_mask",
    upstream="transformers 5.23, modeling_phi4_multimodal.py, Phi4MultimodalVisionAttention (is_causal is True)",
)
def causal_without_padding(original: Any) -> Any:
    """Without padding the original drops the mask of an image's patches and attends causally, with padding in both
    directions; traced, the mask would always stay."""

    def create_bidirectional_mask(*args: Any, **kwargs: Any) -> Any:
        mask, given = original(*args, **kwargs), kwargs.get("attention_mask")
        if mask is None or given is None or mask.dtype != torch.bool:
            return mask
        length = given.shape[-1]
        places = torch.arange(length, device=given.device)
        causal = (places[:, None] >= places[None, :])[None, None]
        return torch.where(given.bool().all(), causal, mask)

    return create_bidirectional_mask


@patch(
    "transformer layers",
    "torch.nn.modules.transformer._detect_is_causal_mask",
    upstream="torch 2.13, torch/nn/modules/transformer.py, _detect_is_causal_mask",
)
def the_mask_that_is_given(original: Any) -> Any:
    """The original looks whether a mask is the causal one, to attend faster and to the same numbers; traced, a mask
    has no values yet."""

    def _detect_is_causal_mask(
        mask: torch.Tensor | None, is_causal: bool | None = None, size: int | None = None
    ) -> bool:
        return is_causal is True

    return _detect_is_causal_mask


@patch(
    "mask of a function",
    "transformers.masking_utils._vmap_expansion_sdpa",
    upstream="transformers 5.23, exporters/utils.py, _patch_broadcast_mask_expansion",
)
def by_broadcasting(original: Any) -> Any:
    """Which token sees which is asked of all at once, as most masks of transformers are made; mapped over one by one,
    the batch would be a constant. A graph that answers otherwise than the model is noticed."""

    def _vmap_expansion_sdpa(mask_function: Any) -> Any:
        def expanded(rows: torch.Tensor, heads: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor) -> Any:
            places = rows[:, None, None, None], heads[:, None, None], queries[:, None], keys
            sizes = (every.shape[0] for every in (rows, heads, queries, keys))  # len() would make numbers of them
            return mask_function(*places).expand(*sizes)

        return expanded

    return _vmap_expansion_sdpa


@patch(
    "mask of a function",
    "transformers.masking_utils.TransformGetItemToIndex",
    upstream="transformers 5.23, masking_utils.py, sdpa_mask (needed by vmap alone)",
)
def plain_indices(original: Any) -> Any:
    """Places are looked up as anywhere else, since nothing is mapped over."""
    return contextlib.nullcontext
