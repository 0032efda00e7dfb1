# SPDX-License-Identifier: Apache-2.0
"""Attention that gathers positions by their values, as dense attention with a mask: Longformer, LED."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from paritas.capture.patches import patch

_LONGFORMER = "transformers.models.longformer.modeling_longformer"
_LED = "transformers.models.led.modeling_led"


@patch(
    "longformer",
    f"{_LONGFORMER}.LongformerSelfAttention.forward",
    f"{_LED}.LEDEncoderSelfAttention.forward",
    upstream="transformers 5.23, modeling_longformer.py, LongformerSelfAttention._get_global_attn_indices (nonzero)",
)
def dense_window_attention(original: Any) -> Any:
    """Tokens with global attention are gathered with nonzero, whose count no graph knows; masks select them instead."""

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        is_index_masked: torch.Tensor,
        is_index_global_attn: torch.Tensor,
        is_global_attn: Any = None,
        output_attentions: bool = False,
    ) -> Any:
        if output_attentions or self.training:
            return original(
                self,
                hidden_states,
                attention_mask,
                is_index_masked,
                is_index_global_attn,
                is_global_attn,
                output_attentions,
            )

        def heads(projection: nn.Module) -> torch.Tensor:
            return projection(hidden_states).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

        scale = math.sqrt(self.head_dim)
        least = torch.finfo(hidden_states.dtype).min
        # Everybody sees the window around itself, without padding, and every token with global attention.
        places = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        near = (places[:, None] - places[None, :]).abs() <= self.one_sided_attn_window_size
        plain = (attention_mask == 0)[:, None, None, :]
        seen = (near[None, None] & plain) | is_index_global_attn[:, None, None, :]
        scores = (heads(self.query) / scale) @ heads(self.key).transpose(-1, -2)
        scores = scores.masked_fill(~seen, least)
        probabilities = nn.functional.softmax(scores, dim=-1, dtype=torch.float32)
        probabilities = probabilities.masked_fill(is_index_masked[:, None, :, None], 0.0).type_as(scores)
        local = (probabilities @ heads(self.value)).transpose(1, 2).flatten(2)
        # A token with global attention sees every token that is no padding, through projections of its own.
        scores = (heads(self.query_global) / scale) @ heads(self.key_global).transpose(-1, -2)
        scores = scores.masked_fill(is_index_masked[:, None, None, :], least)
        probabilities = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).type_as(scores)
        everywhere = (probabilities @ heads(self.value_global)).transpose(1, 2).flatten(2)
        return (torch.where(is_index_global_attn[:, :, None], everywhere, local),)

    return forward


@patch(
    "longformer",
    f"{_LONGFORMER}.LongformerModel._pad_to_window_size",
    f"{_LED}.LEDEncoder._pad_to_window_size",
    upstream="transformers 5.23, modeling_longformer.py, LongformerModel._pad_to_window_size",
)
def no_padding_to_the_window(original: Any) -> Any:
    """Padding to whole windows depends on the length's remainder; dense attention needs none, and it is cut off."""

    def unpadded(self: Any, pad_token_id: int, **inputs: Any) -> Any:
        return (0, *inputs.values())

    return unpadded
