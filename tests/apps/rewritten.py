# SPDX-License-Identifier: Apache-2.0
"""Models of transformers written again, in other words and with other names, as somebody would by hand.

Every fault that the tests plant is a keyword here.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """GPT-2's, with queries, keys and values in one product, and Linear for Conv1D."""

    def __init__(self, width: int, heads: int, *, fault: str = ""):
        super().__init__()
        self.heads, self.fault = heads, fault
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.fault == "swapped":
            query, key = key, query
        scores = query @ key.transpose(-1, -2)
        if self.fault != "scale":
            scores = scores / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~mask, -1e9).softmax(-1)
        joined = (weights @ value).transpose(1, 2)
        if self.fault == "heads":
            joined = joined.flip(2)
        return self.out(joined.flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int, *, fault: str = ""):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.act = nn.GELU(approximate="none" if fault == "gelu" else "tanh")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, *, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.norm1 = nn.LayerNorm(width, eps=1e-6 if fault == "eps" else 1e-5)
        self.attention = Attention(width, heads, fault=fault)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, inner, fault=fault)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.fault == "post-norm":
            x = self.norm1(x + self.attention(x, mask))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x), mask)
        if self.fault == "residual":
            return self.mlp(self.norm2(x))
        return x + self.mlp(self.norm2(x))


class Gpt2(nn.Module):
    """`transformers.GPT2Model`. fault: planted in the second block ("position" and "mask" in the model itself)."""

    def __init__(self, vocabulary=99, positions=32, width=32, heads=4, layers=3, *, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, 4 * width, fault=fault if number == 1 else "") for number in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        places = torch.arange(length, device=ids.device)
        x = self.tokens(ids) + self.positions(places + (self.fault == "position"))
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        causal = causal[None, None] if self.fault == "mask" else causal & mask[:, None, None, :].bool()
        for block in self.blocks:
            x = block(x, causal)
        return self.norm(x)


GPT2_RULES = """
[[weight]]
from = 'wte\\.weight'
to = 'tokens.weight'
[[weight]]
from = 'wpe\\.weight'
to = 'positions.weight'
[[weight]]
from = 'h\\.(\\d+)\\.ln_(\\d)\\.(weight|bias)'
to = 'blocks.\\1.norm\\2.\\3'
[[weight]]
from = 'h\\.(\\d+)\\.attn\\.c_attn\\.(weight|bias)'
to = 'blocks.\\1.attention.qkv.\\2'
transpose = true
[[weight]]
from = 'h\\.(\\d+)\\.attn\\.c_proj\\.(weight|bias)'
to = 'blocks.\\1.attention.out.\\2'
transpose = true
[[weight]]
from = 'h\\.(\\d+)\\.mlp\\.c_fc\\.(weight|bias)'
to = 'blocks.\\1.mlp.up.\\2'
transpose = true
[[weight]]
from = 'h\\.(\\d+)\\.mlp\\.c_proj\\.(weight|bias)'
to = 'blocks.\\1.mlp.down.\\2'
transpose = true
[[weight]]
from = 'ln_f\\.(weight|bias)'
to = 'norm.\\1'

[inputs]
input_ids = 'ids'
attention_mask = 'mask'

[outputs]
last_hidden_state = 'output'
"""


class FusedEncoderLayer(nn.Module):
    """`transformers.BertLayer` with one matrix for queries, keys and values, head by head as Megatron has it."""

    def __init__(self, width: int, heads: int, inner: int, eps: float, *, fault: str = ""):
        super().__init__()
        self.heads, self.fault = heads, fault
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).unflatten(-1, (self.heads, 3, -1)).transpose(1, 2)
        query, key, value = parts.unbind(3)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm1(x + self.out(attended.transpose(1, 2).flatten(2)))
        act = torch.relu if self.fault == "act" else F.gelu
        return self.norm2(x + self.down(act(self.up(x))))


class Bert(nn.Module):
    def __init__(self, vocabulary=99, positions=40, width=32, heads=4, inner=48, layers=2, *, fault: str = ""):
        super().__init__()
        self.words, self.places, self.kinds = (nn.Embedding(n, width) for n in (vocabulary, positions, 2))
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(FusedEncoderLayer(width, heads, inner, 1e-12, fault=fault) for _ in range(layers))
        self.pooler = nn.Linear(width, width)

    def forward(self, input_ids, attention_mask, token_type_ids):
        places = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(places) + self.kinds(token_type_ids))
        for layer in self.layers:
            x = layer(x, attention_mask[:, None, None].bool())
        return x, self.pooler(x[:, 0]).tanh()


BERT_RULES = """
[[weight]]
from = 'embeddings\\.word_embeddings\\.weight'
to = 'words.weight'
[[weight]]
from = 'embeddings\\.position_embeddings\\.weight'
to = 'places.weight'
[[weight]]
from = 'embeddings\\.token_type_embeddings\\.weight'
to = 'kinds.weight'
[[weight]]
from = 'embeddings\\.LayerNorm\\.(weight|bias)'
to = 'norm.\\1'
[[weight]]
from = [
    'encoder\\.layer\\.(\\d+)\\.attention\\.self\\.query\\.(weight|bias)',
    'encoder\\.layer\\.(\\d+)\\.attention\\.self\\.key\\.(weight|bias)',
    'encoder\\.layer\\.(\\d+)\\.attention\\.self\\.value\\.(weight|bias)',
]
to = 'layers.\\1.qkv.\\2'
concat = 0
heads = 4
[[weight]]
from = 'encoder\\.layer\\.(\\d+)\\.attention\\.output\\.dense\\.(weight|bias)'
to = 'layers.\\1.out.\\2'
[[weight]]
from = 'encoder\\.layer\\.(\\d+)\\.attention\\.output\\.LayerNorm\\.(weight|bias)'
to = 'layers.\\1.norm1.\\2'
[[weight]]
from = 'encoder\\.layer\\.(\\d+)\\.intermediate\\.dense\\.(weight|bias)'
to = 'layers.\\1.up.\\2'
[[weight]]
from = 'encoder\\.layer\\.(\\d+)\\.output\\.dense\\.(weight|bias)'
to = 'layers.\\1.down.\\2'
[[weight]]
from = 'encoder\\.layer\\.(\\d+)\\.output\\.LayerNorm\\.(weight|bias)'
to = 'layers.\\1.norm2.\\2'
[[weight]]
from = 'pooler\\.dense\\.(weight|bias)'
to = 'pooler.\\1'
"""
