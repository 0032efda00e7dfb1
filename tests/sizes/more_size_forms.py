# SPDX-License-Identifier: Apache-2.0
"""More of what programs do with sizes, of kinds that fewer programs have: see `size_forms`."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import torch
import torch.nn.functional as F
from size_forms import Form

Tensor = torch.Tensor
SIX = 6


def B(x: Tensor) -> int:
    return x.shape[0]


def L(x: Tensor) -> int:
    return x.shape[1]


def _divmod(x: Tensor) -> Tensor:
    q, r = divmod(L(x), 4)
    return x[:, : q * 4].reshape(B(x), q, 4, 6).sum(2) * (r + 1)


def _told(x: Tensor) -> Tensor:
    torch._check(L(x) > 0, f"{L(x)} is no length")  # type: ignore[arg-type]
    assert x.dim() == 3, f"{x.shape} of {L(x)}"
    return x * 2


def _while(x: Tensor) -> Tensor:
    n = L(x)
    while n > 1:
        n //= 2
        x = x * 2
    return x


def _try(x: Tensor) -> Tensor:
    try:
        return x.reshape(B(x), 2, 3, 6).sum(2)
    except RuntimeError:
        return x.sum(1)


def _pow2(x: Tensor) -> Tensor:
    n = 2 ** math.ceil(math.log2(L(x)))
    return F.pad(x, (0, 0, 0, n - L(x)))


def _triu(x: Tensor) -> Tensor:
    s = x @ x.mT
    i, j = torch.triu_indices(L(x), L(x), 1)
    return s[:, i, j]


def _scan(x: Tensor) -> Tensor:
    out, h = [], torch.zeros_like(x[:, 0])
    for t in x.unbind(1):
        h = h * 0.5 + t
        out.append(h)
    return torch.stack(out, 1)


def _masked_size(x: Tensor) -> Tensor:
    mask = torch.arange(L(x)) % 3 == 0
    return x[:, mask]


def _nonzero(x: Tensor) -> Tensor:
    return x[:, (torch.arange(L(x)) % 2).nonzero()[:, 0]]


def _overlap(x: Tensor) -> Tensor:
    y = x[:, None]
    return F.fold(F.unfold(y, (2, 2)), (L(x), 6), (2, 2))


def _tiles(x: Tensor) -> Tensor:
    y = F.unfold(x[:, None], (2, 2), stride=2) * 2
    return F.fold(y, (L(x), 6), (2, 2), stride=2)


def _write(x: Tensor) -> Tensor:
    out = x.new_zeros(B(x), L(x) + 2, 6)
    out[:, 1 : 1 + L(x)] = x
    return out


def _write_half(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, L(x) // 2 :] = 0
    return out


def _windows_list(x: Tensor) -> Tensor:
    return torch.stack([x[:, i : i + 2] for i in range(0, L(x) - 1, 2)], 1)


def _generator(x: Tensor) -> Tensor:
    return sum(x[:, i] * w for i, w in zip(range(L(x)), (1.0, 2.0, 3.0), strict=False))


def _cond_nested(x: Tensor) -> Tensor:
    if L(x) > 4:
        if L(x) % 2:
            return x * 3
        return x * 2
    return x


TABLE = torch.randn(12, 6, generator=torch.Generator().manual_seed(5))


def _grid(x: Tensor) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(B(x)), torch.arange(L(x)), indexing="ij")
    return rows + columns


def _causal(x: Tensor, y: Tensor) -> Tensor:
    hidden = torch.ones(x.shape[1], y.shape[1], dtype=torch.bool).triu(y.shape[1] - x.shape[1] + 1)
    return (x @ y.mT).masked_fill(hidden, -1e4).softmax(-1)


#: Those that were wrong once.
ONCE_WRONG = (
    "rounded to tens", "rounded to tens by 6", "text of a size", "format of a size", "isinstance", "type", "is",
    "and 3",
    "or 1", "two to the length", "mean of a slice", "adaptive max",
)  # fmt: skip

MORE: dict[str, Form] = {
    "length by batch": Form(lambda x: x[:, : L(x) // B(x)]),
    "remainder as a length": Form(lambda x: x[:, : L(x) % 4 + 1]),
    "negative remainder": Form(lambda x: x[:, : -L(x) % 4 + 1]),
    "negative floor": Form(lambda x: x[:, : -(-L(x) // 4)]),
    "divmod": Form(_divmod),
    "rounded to tens": Form(lambda x: x[:, : round(L(x), -1)], 11),
    "rounded to tens by 6": Form(lambda x: x * round(L(x), -1), 6),
    "rounded quarter": Form(lambda x: x[:, : round(L(x) / 4)]),
    "round to one digit": Form(lambda x: x * round(L(x) / 3, 1)),
    "int of a quotient": Form(lambda x: x[:, : int(L(x) / 3)]),
    "int of a product": Form(lambda x: x[:, : int(L(x) * 0.75)]),
    "squared": Form(lambda x: x * L(x) ** 2),
    "two to the length": Form(lambda x: x * 2 ** L(x)),
    "two to the minus length": Form(lambda x: x * 2.0 ** -L(x)),
    "shift right": Form(lambda x: x[:, : L(x) >> 1]),
    "shift left": Form(lambda x: x * (L(x) << 1)),
    "and 3": Form(lambda x: x[:, : (L(x) & 3) + 1]),
    "or 1": Form(lambda x: x * (L(x) | 1)),
    "xor 1": Form(lambda x: x * (L(x) ^ 1)),
    "invert": Form(lambda x: x * ~L(x)),
    "isqrt": Form(lambda x: x[:, : math.isqrt(L(x))]),
    "gcd": Form(lambda x: x * math.gcd(L(x), 4)),
    "gcd of both": Form(lambda x: x * math.gcd(L(x), B(x))),
    "next power of two": Form(_pow2),
    "bit_length": Form(lambda x: x * L(x).bit_length()),
    "batch is the other's length": Form(lambda x, y: x * 2 if x.shape[0] == y.shape[1] else x, 6, 2),
    "lengths ordered": Form(lambda x, y: x.sum(1) if x.shape[1] <= y.shape[1] else y.sum(1), 6, 2),
    "longer by one": Form(lambda x, y: x * 2 if x.shape[1] + 1 == y.shape[1] else x * 3, 6, 2),
    "chain": Form(lambda x: x * 2 if B(x) < L(x) < 4 * B(x) else x),
    "sorted sizes": Form(lambda x: x * sorted([B(x), L(x)])[0]),
    "max of a list": Form(lambda x: x * max([B(x), 3, L(x)])),
    "sum of the shape": Form(lambda x: x * sum(x.shape)),
    "any of the shape": Form(lambda x: x * 2 if any(s % 2 for s in x.shape) else x),
    "all of the shape": Form(lambda x: x * 2 if all(s > 1 for s in x.shape) else x),
    "dict of sizes": Form(lambda x: x * {4: 1.0, 6: 3.0}.get(L(x), 2.0)),
    "list by remainder": Form(lambda x: x * [1.0, 2.0, 3.0][L(x) % 3]),
    "list of ones": Form(lambda x: x * torch.tensor([1.0] * L(x))[:, None]),
    "range as tensor": Form(lambda x: x * torch.tensor(list(range(L(x))))[:, None]),
    "range by two": Form(lambda x: sum(x[:, i] for i in range(0, L(x), 2))),
    "range down": Form(lambda x: torch.stack([x[:, i - 1] for i in range(L(x), 0, -1)], 1)),
    "while halving": Form(_while),
    "len": Form(lambda x: x * len(x)),
    "float of a comparison": Form(lambda x: x * float(L(x) > 5)),
    "int of a comparison": Form(lambda x: x * (1 + int(L(x) > 5))),
    "comparison added": Form(lambda x: x * (1 + (L(x) > 5))),
    "text of a size": Form(lambda x: x * len(str(L(x)))),
    "format of a size": Form(lambda x: x * len(f"{L(x)}")),
    "shape equal": Form(lambda x: x * 2 if x.shape == torch.Size([2, 6, 6]) else x),
    "part of the shape equal": Form(lambda x: x * 2 if x.shape[:2] == (2, 6) else x),
    "shape in a set": Form(lambda x: x * 2 if tuple(x.shape) in {(2, 6, 6), (2, 4, 6)} else x),
    "shape ordered": Form(lambda x: x * 2 if tuple(x.shape) < (2, 7, 6) else x),
    "prod of the shape": Form(lambda x: x * math.prod(x.shape)),
    "reduce mul": Form(lambda x: x * functools.reduce(operator.mul, x.shape[:2])),
    "numel reshape": Form(lambda x: x.reshape(x.numel() // 6, 6)),
    "numel flat": Form(lambda x: x.reshape(x.numel())),
    "numel third": Form(lambda x: x.reshape(3, x.numel() // 3)),
    "split by halves": Form(lambda x: torch.cat(x.split([L(x) // 2, L(x) - L(x) // 2], 1)[::-1], 1)),
    "split in three": Form(lambda x: torch.cat(x.split([1, L(x) - 2, 1], 1)[::-1], 1)),
    "split by a half": Form(lambda x: torch.cat(x.split(L(x) // 2, 1)[::-1], 1)),
    "split by a third": Form(lambda x: torch.cat(x.split(max(L(x) // 3, 1), 1)[::-1], 1)),
    "split with one size": Form(lambda x: torch.cat(x.split([L(x)], 1), 1)),
    "tensor_split at places": Form(lambda x: torch.cat(x.tensor_split((2, L(x) - 1), 1)[::-1], 1)),
    "tensor_split at constants": Form(lambda x: torch.cat(x.tensor_split((2, 4), 1)[::-1], 1)),
    "chunks as many": Form(lambda x: torch.cat(x.chunk(L(x), 1)[::-1], 1)),
    "chunks half as many": Form(lambda x: torch.cat(x.chunk(max(L(x) // 2, 1), 1)[::-1], 1)),
    "unfold a half": Form(lambda x: x.unfold(1, L(x) // 2, 1)),
    "unfold step a third": Form(lambda x: x.unfold(1, 2, L(x) // 3)),
    "view by a half": Form(lambda x: x.reshape(-1, L(x) // 2)),
    "view pairs of features": Form(lambda x: x.view(*x.shape[:-1], -1, 2).sum(-1)),
    "shape joined": Form(lambda x: x.reshape((*x.shape[:-1], 3, 2)).sum(-1)),
    "view both": Form(lambda x: x.reshape(L(x), B(x), 6)),
    "transposed view": Form(lambda x: x.transpose(0, 1).reshape(L(x), -1)),
    "pad by halves": Form(lambda x: F.pad(x, (0, 0, L(x) // 2, L(x) - L(x) // 2))),
    "pad to eight": Form(lambda x: F.pad(x, (0, 0, 0, 8 - L(x)))),
    "pad to eight if short": Form(lambda x: F.pad(x, (0, 0, 0, max(0, 8 - L(x))))),
    "crop by pad": Form(lambda x: F.pad(x, (0, 0, -1, -1))),
    "circular pad": Form(lambda x: F.pad(x.mT, (2, 2), mode="circular")),
    "replicate pad by size": Form(lambda x: F.pad(x.mT, (0, L(x) // 2), mode="replicate")),
    "interpolate 1.5": Form(lambda x: F.interpolate(x.mT, scale_factor=1.5, mode="nearest")),
    "interpolate linear 1.5": Form(lambda x: F.interpolate(x.mT, scale_factor=1.5, mode="linear", align_corners=False)),
    "interpolate recompute": Form(
    lambda x: F.interpolate(x.mT, scale_factor=0.7, mode="linear", recompute_scale_factor=True)
    ),
    "interpolate corners": Form(lambda x: F.interpolate(x.mT, size=2 * L(x) - 1, mode="linear", align_corners=True)),
    "interpolate to a half": Form(lambda x: F.interpolate(x.mT, size=L(x) // 2, mode="nearest")),
    "avg_pool ceil": Form(lambda x: F.avg_pool1d(x.mT, 3, 2, ceil_mode=True)),
    "avg_pool padded": Form(lambda x: F.avg_pool1d(x.mT, 3, 2, padding=1, count_include_pad=False)),
    "pool of a half": Form(lambda x: F.max_pool1d(x.mT, L(x) // 2)),
    "pool of all": Form(lambda x: F.avg_pool1d(x.mT, L(x))),
    "lp_pool": Form(lambda x: F.lp_pool1d(x.mT, 2.0, 3, ceil_mode=True)),
    "adaptive of a half": Form(lambda x: F.adaptive_avg_pool1d(x.mT, L(x) // 2)),
    "adaptive max": Form(lambda x: F.adaptive_max_pool1d(x.mT, 2)),
    "fold": Form(_overlap),
    "fold tiles": Form(_tiles),
    "repeat by batch": Form(lambda x: x.repeat(1, 1, B(x))),
    "tile": Form(lambda x: x.tile(1, B(x), 1)),
    "meshgrid": Form(lambda x: _grid(x)[..., None] * x),
    "stack of windows": Form(_windows_list),
    "masked by places": Form(_masked_size),
    "nonzero": Form(_nonzero),
    "size through a tensor": Form(lambda x: x[:, : int(torch.tensor(L(x) // 2))]),
    "item of a size": Form(lambda x: x[:, : torch.tensor(L(x)).item() // 2]),
    "arange by two": Form(lambda x: x[:, torch.arange(0, L(x), 2)]),
    "arange of a half": Form(lambda x: torch.arange(L(x) / 2)),
    "arange of halves": Form(lambda x: torch.arange(0, L(x), 0.5)),
    "linspace by size": Form(lambda x: torch.linspace(0, L(x), L(x) + 1)),
    "as_strided": Form(lambda x: x.contiguous().as_strided((B(x), L(x) // 2, 6), (L(x) * 6, 12, 1))),
    "diag_embed": Form(lambda x: torch.diag_embed(x.mT)),
    "triu_indices": Form(_triu),
    "tril_indices": Form(lambda x: torch.tril_indices(L(x), L(x))),
    "kthvalue": Form(lambda x: x.kthvalue(L(x) // 2 + 1, dim=1).values),
    "median": Form(lambda x: x.median(1).values),
    "quantile": Form(lambda x: x.quantile(0.3, dim=1)),
    "topk of min": Form(lambda x: x.topk(min(5, L(x)), dim=1).values),
    "last by size": Form(lambda x: x[:, L(x) - 1]),
    "one place each": Form(lambda x: x[torch.arange(B(x)), L(x) // 2]),
    "rfft": Form(lambda x: torch.fft.rfft(x, dim=1).abs()),
    "irfft": Form(lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=1), n=L(x), dim=1)),
    "tenth": Form(lambda x: x * 2 if L(x) * 0.1 > 0.65 else x),
    "even by floats": Form(lambda x: x * 2 if L(x) / 2 == L(x) // 2 else x),
    "exp": Form(lambda x: x * math.exp(-L(x))),
    "cos": Form(lambda x: x * math.cos(L(x))),
    "log": Form(lambda x: x * math.log(L(x))),
    "math.pow": Form(lambda x: x * math.pow(L(x), 0.5)),
    "floor and trunc": Form(lambda x: x[:, : math.floor(L(x) / 2) + math.trunc(L(x) / 4)]),
    "np.sqrt": Form(lambda x: x * float(np.sqrt(L(x)))),
    "np.ceil": Form(lambda x: x[:, : int(np.ceil(L(x) / 4))]),
    "np.arange": Form(lambda x: x * torch.from_numpy(np.arange(L(x)))[:, None]),
    "isinstance": Form(lambda x: x * 2 if isinstance(L(x), int) else x),
    "type": Form(lambda x: x * 2 if type(L(x)) is int else x),
    "index": Form(lambda x: x[:, : operator.index(L(x)) - 1]),
    "is": Form(lambda x: x * 2 if L(x) is SIX else x),
    "hash": Form(lambda x: x * (hash(L(x)) % 5 + 1)),
    "broadcast_shapes": Form(lambda x: x.expand(torch.broadcast_shapes(x.shape, (1, L(x), 6)))),
    "zip of ranges": Form(_generator),
    "table by arange": Form(lambda x: x + F.embedding(torch.arange(L(x)), TABLE)),
    "table indexed": Form(lambda x: x + TABLE[torch.arange(L(x))]),
    "table cut": Form(lambda x: x + TABLE[:L(x)]),
    "table cut to a mask": Form(lambda x: x * 1 + TABLE[:L(x)].sum()),
    "table from the end": Form(lambda x: x + TABLE[-L(x):]),
    "table indexed with an offset": Form(lambda x: x + TABLE[torch.arange(2, L(x) + 2)]),
    "table by relative places": Form(lambda x: x + TABLE[(torch.arange(L(x)) - L(x) + 6)]),
    "features by length": Form(lambda x: x[:, :, : L(x)]),
    "a feature by length": Form(lambda x: x[:, :, L(x) - 1]),
    "empty": Form(lambda x: torch.cat([x[:, L(x):], x], 1)),
    "minus the length": Form(lambda x: x[:, -L(x):]),
    "minus a half": Form(lambda x: x[:, -(L(x) // 2):]),
    "minus a quarter": Form(lambda x: x[:, : -(L(x) // 4)]),
    "from the middle three": Form(lambda x: x[:, L(x) // 2 : L(x) // 2 + 3]),
    "step by size": Form(lambda x: x[:, :: max(L(x) // 3, 1)]),
    "reshape in try": Form(_try),
    "reshape in two": Form(lambda x: x.reshape(B(x), 2, L(x) // 2, 6).sum(1)),
    "unflatten": Form(lambda x: x.unflatten(1, (2, -1)).sum(1)),
    "unflatten by three": Form(lambda x: x.unflatten(1, (-1, 3)).sum(1)),
    "group_norm": Form(lambda x: F.group_norm(x, 2)),
    "glu": Form(lambda x: F.glu(x, 1)),
    "pixel_shuffle": Form(lambda x: F.pixel_shuffle(x[..., None], 2), 8),
    "channel_shuffle": Form(lambda x: F.channel_shuffle(x[..., None], 2)),
    "where by size": Form(lambda x: torch.where(torch.tensor(L(x) > 5), x, -x)),
    "new_full": Form(lambda x: x + x.new_full((L(x), 1), L(x))),
    "empty filled": Form(lambda x: x + torch.empty(L(x), 1).fill_(B(x))),
    "one_hot of a remainder": Form(lambda x: F.one_hot(torch.arange(L(x)) % 3, 3).float().mT @ x),
    "scatter": Form(lambda x: torch.zeros(L(x), 6).index_add(0, torch.arange(L(x) - 1, -1, -1), x[0])),
    "written": Form(_write),
    "written half": Form(_write_half),
    "scan": Form(_scan),
    "nested branches": Form(_cond_nested),
    "bincount": Form(lambda x: torch.bincount(torch.arange(L(x)) % 3, minlength=3)),
    "cumsum of sizes": Form(lambda x: x * torch.tensor([B(x), L(x)]).cumsum(0)[1]),
    "tensor of the shape": Form(lambda x: x / torch.tensor(x.shape).float().mean()),
    "as_tensor of a ratio": Form(lambda x: x * torch.as_tensor(L(x) / B(x))),
    "bilinear by ratio": Form(lambda x: F.interpolate(x[:, None], scale_factor=(L(x) / 3, 1.0)), 6),
    "interpolate to another": Form(lambda x, y: F.interpolate(x.mT, size=y.shape[1], mode="linear"), 6, 2),
    "cat and split": Form(lambda x, y: torch.cat([x, y], 1).split([x.shape[1], y.shape[1]], 1)[1], 6, 2),
    "cross lengths": Form(lambda x, y: (x @ y.mT).softmax(-1) @ y / (x.shape[1] - y.shape[1] + 20), 6, 2),
    "min of both": Form(
    lambda x, y: x[:, : min(x.shape[1], y.shape[1])] + y[:, : min(x.shape[1], y.shape[1])], 6, 2
    ),
    "offset of both": Form(lambda x, y: torch.cat([x, y], 1)[:, y.shape[1]:], 6, 2),
    "difference sliced": Form(lambda x, y: x[:, max(0, x.shape[1] - y.shape[1]):], 6, 2),
    "causal offset": Form(lambda x, y: _causal(x, y), 6, 2),
    "batch wise": Form(lambda x: torch.stack([x[i] * (i + 1) for i in range(B(x))])),
    "batch flattened": Form(lambda x: x.reshape(1, B(x) * L(x), 6).cumsum(1).reshape(x.shape)),
    "every other row": Form(lambda x: x[::2] + 1),
    "halves of the batch": Form(lambda x: x[: B(x) // 2] * 2, 6, 1, 4),
    "chunk the batch": Form(lambda x: torch.cat(x.chunk(2, 0)[::-1])),
    "std over the batch": Form(lambda x: x.std(0)),
    "var unbiased false": Form(lambda x: x.var(1, unbiased=False)),
    "mean of a slice": Form(lambda x: x[:, 1:].mean(1)),
    "max of a slice": Form(lambda x: x[:, 2:].amax(1)),
    "logical of sizes": Form(lambda x: x * 2 if L(x) > 3 and (B(x) > 2 or L(x) % 2 == 0) else x),
    "not of sizes": Form(lambda x: x * 2 if not L(x) % 4 else x),
    "ternary of sizes": Form(lambda x: x[:, : 3 if L(x) > 3 else L(x)]),
    "clamped index": Form(lambda x: x[:, min(3, L(x) - 1)]),
    "modular index": Form(lambda x: x[:, 7 % L(x)]),
    "size as exponent": Form(lambda x: x.abs() ** (L(x) / 6)),
    "size as bound": Form(lambda x: (x * 10).clamp(-L(x), L(x))),
    "size as dropout": Form(lambda x: F.dropout(x, L(x) / 100, training=False)),
    "size as eps": Form(lambda x: F.layer_norm(x, (6,), eps=1.0 / L(x))),
    "size as alpha": Form(lambda x: torch.add(x, x * x, alpha=L(x))),
    "size as beta": Form(lambda x: torch.addcmul(x, x, x, value=L(x) / 2)),
    "size as lambd": Form(lambda x: F.softshrink(x, L(x) / 10)),
    "size as slope": Form(lambda x: F.leaky_relu(x, 1.0 / L(x))),
    "size as threshold": Form(lambda x: F.threshold(x, L(x) / 10, 0.0)),
    "size as fill": Form(lambda x: x.masked_fill(x > 0, L(x))),
    "size as temperature": Form(lambda x: (x / L(x) ** 0.5).softmax(1)),
    "size as scale of attention": Form(lambda x: F.scaled_dot_product_attention(x, x, x, scale=1 / L(x))),
    "size as diagonal": Form(lambda x: (x @ x.mT).tril(L(x) // 2)),
    "size as roll": Form(lambda x: x.roll(-(L(x) // 2), 1)),
    "size as dim": Form(lambda x: x.sum(L(x) % 2)),
    "size as p of norm": Form(lambda x: x.norm(L(x), dim=2)),
    "size as classes": Form(lambda x: F.one_hot(torch.zeros(3, dtype=torch.long), L(x))),
    "size as groups": Form(lambda x: F.conv1d(x, torch.ones(6, 6 // 2, 1), groups=2)),
    "size as dilation": Form(lambda x: F.conv1d(x.mT, torch.ones(2, 6, 2), dilation=max(L(x) // 3, 1))),
    "size as stride": Form(lambda x: F.conv1d(x.mT, torch.ones(2, 6, 2), stride=max(L(x) // 3, 1))),
    "size as kernel": Form(lambda x: F.conv1d(x.mT, torch.ones(2, 6, L(x) // 2))),
    "conv_transpose": Form(lambda x: F.conv_transpose1d(x.mT, torch.ones(6, 2, 3), stride=2, padding=1)),
    "the last two at most": Form(lambda x: x[:, -2:8]),
    "the first two at most, of many free sizes": Form(lambda x, y: (~(x[0:2] > 0)).to(y.dtype) * 5, inputs=2),
    "a check with a message": Form(_told),
    "running logsumexp": Form(lambda x: x.logcumsumexp(1), length=3),
    "sum of a slice": Form(lambda x: x[:, 1:].sum(1)),
    "sum of all of a slice": Form(lambda x: x[:, 1:].sum()),
    "mean of all of a slice": Form(lambda x: x[:, 2:].mean()),
    "prod of a slice": Form(lambda x: x[:, 2:].prod(1)),
    "kept sum of a slice": Form(lambda x: x[:, 2:].sum((0, 1), keepdim=True)),
    "whole sum of a slice": Form(lambda x: (x[:, 2:] > 0).sum(1)),
    "any of a slice": Form(lambda x: (x[:, 1:] > 0).any(1)),
    "all of a slice": Form(lambda x: (x[:, 1:] > 0).all(1)),
    "norm of a slice": Form(lambda x: x[:, 1:].norm(dim=1)),
    "logsumexp of a slice": Form(lambda x: x[:, 1:].logsumexp(1)),
    "matmul over a slice": Form(lambda x: x[:, 1:].mT @ x[:, 1:]),
    "einsum over a slice": Form(lambda x: torch.einsum("bij,bik->bjk", x[:, 1:], x[:, 1:])),
    "softmax of a slice": Form(lambda x: x[:, 1:].softmax(1)),
    "cumsum of a slice": Form(lambda x: x[:, 1:].cumsum(1)),
    "var of a slice": Form(lambda x: x[:, 1:].var(1)),
    "linear of a slice": Form(lambda x: F.linear(x[:, 1:], torch.ones(2, 6))),
    "count_nonzero of a slice": Form(lambda x: x[:, 1:].count_nonzero(1)),
}  # fmt: skip
