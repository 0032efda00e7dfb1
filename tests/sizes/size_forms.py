# SPDX-License-Identifier: Apache-2.0
"""What ordinary programs do with sizes: each form is captured with one length and called with all from 1 to 16."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

Tensor = torch.Tensor


class Form(NamedTuple):
    """A function of x [batch, length, 6], or of x and y of the same shape, captured with `length`."""

    compute: Callable[..., Any]
    length: int = 6
    inputs: int = 1
    batch: int = 2


class Model(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.scale = nn.Parameter(torch.tensor(1.5))


class One(Model):
    def forward(self, x: Tensor) -> Any:
        return self.form.compute(x * self.scale)


class Two(Model):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.form.compute(x * self.scale, y)


def model(form: Form) -> nn.Module:
    return (One if form.inputs == 1 else Two)(form).eval()


def inputs(form: Form, batch: int, length: int, other: int | None = None) -> dict[str, Tensor]:
    """Seeded; y has a length of its own where `other` says so."""
    generator = torch.Generator().manual_seed(length * 100 + batch)
    found = {"x": torch.randn(batch, length, 6, generator=generator)}
    if form.inputs == 2:
        found["y"] = torch.randn(batch, other or length, 6, generator=generator)
    return found


def _pad_to(x: Tensor, multiple: int) -> Tensor:
    return F.pad(x, (0, 0, 0, (multiple - x.shape[1] % multiple) % multiple))


def _windows(x: Tensor, width: int) -> Tensor:
    x = _pad_to(x, width)
    return x.reshape(x.shape[0], x.shape[1] // width, width, 6).mean(2)


def _loop(x: Tensor) -> Tensor:
    total = torch.zeros_like(x[:, 0])
    for i in range(x.shape[1]):
        total = total + x[:, i] * (i + 1)
    return total


def _halves(x: Tensor) -> Tensor:
    half = x.shape[1] // 2
    return torch.cat([x[:, half:], x[:, :half]], 1)


def _causal(x: Tensor) -> Tensor:
    length = x.shape[1]
    scores = x @ x.transpose(1, 2)
    return scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -1e4).softmax(-1) @ x


def _bucket(x: Tensor) -> Tensor:
    length = x.shape[1]
    places = torch.arange(length)[None] - torch.arange(length)[:, None]
    return x + places.clamp(-3, 3).float().mean(1)[:, None]


FORMS: dict[str, Form] = {
    # branches
    "odd lengths are padded": Form(lambda x: (F.pad(x, (0, 0, 0, 1)) if x.shape[1] % 2 else x).cumsum(1)),
    "odd lengths are padded, captured odd": Form(
        lambda x: (F.pad(x, (0, 0, 0, 1)) if x.shape[1] % 2 else x).cumsum(1), 7
    ),
    "batch below length": Form(lambda x: x * 2 if x.shape[0] < x.shape[1] else x),
    "length is not 7": Form(lambda x: x * 2 if x.shape[1] != 7 else x),
    "length is 7": Form(lambda x: x * 2 if x.shape[1] == 7 else x, 7),
    "at most 4": Form(lambda x: x * 2 if x.shape[1] <= 4 else x),
    "at most 4, captured below": Form(lambda x: x * 2 if x.shape[1] <= 4 else x, 3),
    "more than 8": Form(lambda x: x[:, :8] if x.shape[1] > 8 else x),
    "between": Form(lambda x: x * 2 if 3 < x.shape[1] < 9 else x),
    "batch of one": Form(lambda x: x * 3 if x.shape[0] == 1 else x),
    "more than one": Form(lambda x: x - x.mean(1, keepdim=True) if x.shape[1] > 1 else x),
    "number of elements": Form(lambda x: x * 2 if x.numel() > 60 else x),
    "product of sizes": Form(lambda x: x * 2 if x.shape[0] * x.shape[1] == 12 else x),
    "ratio of sizes": Form(lambda x: x * 2 if x.shape[1] / x.shape[0] >= 2 else x),
    "divisible by three": Form(lambda x: x * 2 if x.shape[1] % 3 == 0 else x),
    "divisible by the batch": Form(lambda x: x * 2 if x.shape[1] % x.shape[0] == 0 else x),
    "power of two": Form(lambda x: x * 2 if x.shape[1] & (x.shape[1] - 1) == 0 else x, 8),
    "logarithm": Form(lambda x: x * int(math.log2(x.shape[1])), 6),
    "length in a set": Form(lambda x: x * 2 if x.shape[1] in (4, 6, 8) else x),
    "two lengths alike": Form(lambda x, y: x + y if x.shape[1] == y.shape[1] else x, 6, 2),
    "shapes alike": Form(lambda x, y: x * y if x.shape == y.shape else x, 6, 2),
    "assertion": Form(lambda x: _asserted(x)),
    "truth of a size": Form(lambda x: x * 2 if x.shape[1] - 6 else x, 7),
    "rounded": Form(lambda x: x[:, : round(x.shape[1] * 0.5)], 6),
    "ceiling": Form(lambda x: x[:, : math.ceil(x.shape[1] / 4)], 6),
    # whole-number arithmetic
    "larger of two": Form(lambda x: x * max(x.shape[0], x.shape[1])),
    "smaller of two": Form(lambda x: x[:, : min(x.shape[1], 8)]),
    "a third": Form(lambda x: x[:, : x.shape[1] // 3]),
    "a half twice": Form(lambda x: x[:, : x.shape[1] // 2 // 2], 8),
    "halves exchanged": Form(_halves),
    "padded to a multiple": Form(lambda x: _pad_to(x, 4)),
    "windows": Form(lambda x: _windows(x, 4)),
    "all but six": Form(lambda x: x[..., : x.shape[1] - 6, :], 9),
    "all but the last": Form(lambda x: x[:, :-1] - x[:, 1:]),
    "from the fifth on": Form(lambda x: x[:, 5:], 8),
    "the last three": Form(lambda x: x[:, -3:]),
    "the last three, captured with two": Form(lambda x: x[:, -3:], 2),
    "every second": Form(lambda x: x[:, ::2]),
    "every third from the second": Form(lambda x: x[:, 1::3]),
    "the middle": Form(lambda x: x[:, x.shape[1] // 2]),
    "the fourth": Form(lambda x: x[:, 3]),
    "narrow": Form(lambda x: x.narrow(1, 2, x.shape[1] - 2)),
    "narrow by a constant": Form(lambda x: x.narrow(1, 1, 3)),
    "reversed": Form(lambda x: x.flip(1)),
    "indices counted down": Form(lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)]),
    "every second index": Form(lambda x: x[:, torch.arange(x.shape[1])[::2]]),
    # parts
    "tensor_split": Form(lambda x: torch.cat(x.tensor_split(3, dim=1)[::-1], 1)),
    "chunk": Form(lambda x: torch.cat(x.chunk(3, dim=1)[::-1], 1)),
    "chunk in two": Form(lambda x: torch.cat(x.chunk(2, dim=1)[::-1], 1), 7),
    "split in twos": Form(lambda x: torch.cat(x.split(2, dim=1)[::-1], 1)),
    "split with a rest": Form(lambda x: torch.cat(x.split(4, dim=1)[::-1], 1)),
    "split by sizes": Form(lambda x: torch.cat(x.split([2, x.shape[1] - 2], dim=1)[::-1], 1)),
    "unbind": Form(lambda x: torch.stack(x.unbind(1)[::-1], 1)),
    "loop": Form(_loop),
    "loop over a half": Form(lambda x: sum(x[:, i] for i in range(x.shape[1] // 2))),
    # shapes
    "view in pairs": Form(lambda x: x.reshape(x.shape[0], -1, 12)),
    "view with -1": Form(lambda x: x.reshape(-1, 4)),
    "view of the half": Form(lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, 6).sum(2)),
    "flattened": Form(lambda x: x.flatten(1).cumsum(1)),
    "flattened all": Form(lambda x: x.reshape(x.shape[0] * x.shape[1], 6)),
    "squeeze": Form(lambda x: x.squeeze()),
    "squeeze the batch": Form(lambda x: x.squeeze(0)),
    "squeeze the length": Form(lambda x: x.squeeze(1) * 2),
    "repeat": Form(lambda x: x.repeat(1, 2, 1)),
    "repeat by a size": Form(lambda x: x[:, :1].repeat(1, x.shape[1], 1)),
    "expand": Form(lambda x: x[:, :1].expand(-1, x.shape[1], -1) + x),
    "repeat_interleave": Form(lambda x: x.repeat_interleave(2, dim=1)),
    "unfold": Form(lambda x: x.unfold(1, 3, 2)),
    "broadcast two lengths": Form(lambda x, y: x + y, 6, 2),
    "outer": Form(lambda x, y: torch.einsum("bid,bjd->bij", x, y), 6, 2),
    "joined": Form(lambda x, y: torch.cat([x, y], 1)[:, : x.shape[1] + 1], 6, 2),
    "padded to the other": Form(lambda x, y: _to_the_other(x, y), 6, 2),
    # values made of sizes
    "one by length": Form(lambda x: x.sum(1) * (1 / x.shape[1])),
    "root of the length": Form(lambda x: x * x.shape[1] ** -0.5),
    "half of the length": Form(lambda x: x + x.shape[1] / 2),
    "length of the mean": Form(lambda x: x.sum(1) / x.shape[1]),
    "square root": Form(lambda x: x / math.sqrt(x.shape[1])),
    "a size returned": Form(lambda x: x * 1.0 + torch.tensor(x.shape[1])),
    "full": Form(lambda x: torch.full((x.shape[1], 6), float(x.shape[0])) + x),
    "arange": Form(lambda x: x * torch.arange(x.shape[1])[:, None]),
    "linspace": Form(lambda x: x * torch.linspace(0, 1, x.shape[1])[:, None]),
    "eye": Form(lambda x: torch.eye(x.shape[1]) @ x),
    "lower triangle": Form(lambda x: torch.ones(x.shape[1], x.shape[1]).tril() @ x),
    "triangle of scores": Form(lambda x: (x @ x.transpose(1, 2)).triu(1)),
    "causal attention": Form(_causal),
    "distances": Form(_bucket),
    "mask by arange": Form(lambda x: x * (torch.arange(x.shape[1]) < x.shape[1] - 2)[:, None]),
    "one_hot": Form(lambda x: F.one_hot(torch.arange(x.shape[1]), x.shape[1]).float() @ x),
    "diagonal": Form(lambda x: (x @ x.transpose(1, 2)).diagonal(dim1=1, dim2=2)),
    "roll by a half": Form(lambda x: x.roll(x.shape[1] // 2, 1)),
    "roll by one": Form(lambda x: x.roll(1, 1)),
    "cumulative mean": Form(lambda x: x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]),
    # layers
    "average pooling": Form(lambda x: F.avg_pool1d(x.transpose(1, 2), 2)),
    "pooling, rounded up": Form(lambda x: F.max_pool1d(x.transpose(1, 2), 3, 2, ceil_mode=True)),
    "adaptive pooling": Form(lambda x: F.adaptive_avg_pool1d(x.transpose(1, 2), 1)),
    "adaptive pooling to three": Form(lambda x: F.adaptive_avg_pool1d(x.transpose(1, 2), 3)),
    "interpolated": Form(lambda x: F.interpolate(x.transpose(1, 2), scale_factor=2.0, mode="nearest")),
    "interpolated to a size": Form(lambda x: F.interpolate(x.transpose(1, 2), size=x.shape[1] * 2, mode="linear")),
    "interpolated by a half": Form(lambda x: F.interpolate(x.transpose(1, 2), scale_factor=0.5, mode="linear")),
    "convolution": Form(lambda x: F.conv1d(x.transpose(1, 2), torch.ones(2, 6, 3), stride=2)),
    "convolution padded": Form(lambda x: F.conv1d(x.transpose(1, 2), torch.ones(2, 6, 3), padding=x.shape[1] // 6)),
    "layer norm over the length": Form(lambda x: F.layer_norm(x.transpose(1, 2), (x.shape[1],))),
    "variance": Form(lambda x: x.var(1)),
    "standard deviation": Form(lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1)),
    "topk of a half": Form(lambda x: x.topk(x.shape[1] // 2, dim=1).values),
    "sorted": Form(lambda x: x.sort(dim=1).values[:, -2:]),
    "instance norm": Form(lambda x: F.instance_norm(x.transpose(1, 2))),
    "reflected": Form(lambda x: F.pad(x.transpose(1, 2), (2, 2), mode="reflect")),
    "attention": Form(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=x.shape[1] > 1)),
}  # fmt: skip


def _asserted(x: Tensor) -> Tensor:
    assert x.shape[1] % 2 == 0, "even lengths only"
    return x[:, ::2] + x[:, 1::2]


def _to_the_other(x: Tensor, y: Tensor) -> Tensor:
    missing = y.shape[1] - x.shape[1]
    return y + (F.pad(x, (0, 0, 0, missing)) if missing > 0 else x[:, : y.shape[1]])
