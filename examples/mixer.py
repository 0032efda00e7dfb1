# SPDX-License-Identifier: Apache-2.0
"""A research module that is in no library: causal linear attention beside a causal convolution, behind a gate.

    paritas port examples/mixer.py:build --input x=2x12x32 --input mask=2x12:bool --out mixer

docs/porting.md ports it step by step.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class LinearAttention(nn.Module):
    """Attention without a softmax: running sums of keys and values, so that a step costs the same at any length."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        query, key = F.elu(query) + 1, (F.elu(key) + 1) * mask[:, None, :, None]
        memory = torch.cumsum(key.unsqueeze(-1) * value.unsqueeze(-2), dim=2)
        weight = (query * torch.cumsum(key, dim=2)).sum(-1, keepdim=True)
        mixed = (query.unsqueeze(-2) @ memory).squeeze(-2) / weight.clamp(min=1e-6)
        return mixed.transpose(1, 2).flatten(2)


class MixerBlock(nn.Module):
    def __init__(self, width: int, heads: int, kernel: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = LinearAttention(width, heads)
        self.conv = nn.Conv1d(width, width, kernel, groups=width, padding=kernel - 1)
        self.gate, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        near = self.conv(h.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        far = self.attention(h, mask)
        return x + self.out(F.gelu(self.gate(h)) * (near + far))


class Mixer(nn.Module):
    """x: float [batch, length, width], mask: bool [batch, length], False where x is padding. Returns x's shape."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2):
        super().__init__()
        self.blocks = nn.ModuleList(MixerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)


def build() -> Mixer:
    """The module with its weights: here random ones, yours would load a checkpoint."""
    torch.manual_seed(0)
    return Mixer().eval()
