# SPDX-License-Identifier: Apache-2.0
"""Attention over images or sounds of several lengths packed into one sequence: one mask instead of a loop."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from paritas.capture.patches import patch


@patch(
    "packed attention",
    "transformers.exporters.exporter_dynamo._reshaped_vision_attention_forward",
    upstream="transformers 5.23, exporters/exporter_dynamo.py, _reshaped_vision_attention_forward",
)
def masked_packed_attention(original: Any) -> Any:
    """transformers' exporter takes all segments to be equally long and skips q_norm where qkv is one projection; a mask
    that keeps the segments apart serves every length."""

    def forward(
        self: Any,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        rotary_pos_emb: torch.Tensor | None = None,
        position_embeddings: Any = None,
        returns_tuple: bool = False,
        **kwargs: Any,
    ) -> Any:
        batched = hidden_states.ndim == 3  # always of one: the images are packed along the sequence
        if batched:
            hidden_states = hidden_states.squeeze(0)
        query, key, value = _projected(self, hidden_states)
        if position_embeddings is not None:
            query, key = _rotated(self, query, key, position_embeddings)
        places = torch.arange(hidden_states.shape[0], device=hidden_states.device)
        segment = (places[:, None] >= cu_seqlens[None, 1:]).sum(-1)
        together = (segment[:, None] == segment[None, :])[None, None]
        out = nn.functional.scaled_dot_product_attention(
            query.transpose(0, 1).unsqueeze(0),
            key.transpose(0, 1).unsqueeze(0),
            value.transpose(0, 1).unsqueeze(0),
            attn_mask=together,
            scale=self.scaling,
            enable_gqa=getattr(self, "num_key_value_heads", self.num_heads) != self.num_heads,
        )
        out = out.squeeze(0).transpose(0, 1).flatten(1)
        out = (self.proj if hasattr(self, "proj") else self.out_proj)(out)
        if batched:
            out = out.unsqueeze(0)
        return (out, None) if returns_tuple else out

    return forward


def _projected(self: Any, hidden_states: torch.Tensor) -> list[torch.Tensor]:
    """Query, key and value as [place, head, channel], normalised where the model does that."""
    fewer = getattr(self, "num_key_value_heads", self.num_heads)
    if not hasattr(self, "qkv"):
        query, key, value = (
            getattr(self, f"{name}_proj" if hasattr(self, f"{name}_proj") else name)(hidden_states) for name in "qkv"
        )
    elif getattr(self, "q_dim", None) != getattr(self, "kv_dim", None):
        query, key, value = self.qkv(hidden_states).split([self.q_dim, self.kv_dim, self.kv_dim], dim=-1)
    else:
        query, key, value = self.qkv(hidden_states).chunk(3, dim=-1)
    parts = [part.unflatten(-1, (heads, -1)) for part, heads in ((query, self.num_heads), (key, fewer), (value, fewer))]
    if hasattr(self, "q_norm"):
        parts[:2] = self.q_norm(parts[0]), self.k_norm(parts[1])
    return parts


def _rotated(
    self: Any, query: torch.Tensor, key: torch.Tensor, position_embeddings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    rotate = sys.modules[type(self).__module__].apply_rotary_pos_emb_vision
    if isinstance(position_embeddings, (tuple, list)):
        query, key = rotate(query, key, *position_embeddings)
        return query, key
    query, key = (rotate(part.unsqueeze(0), position_embeddings).squeeze(0) for part in (query, key))
    return query, key
