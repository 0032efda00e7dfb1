# SPDX-License-Identifier: Apache-2.0
"""Operators that are written in others of torch, for any engine that has no rule of its own for them.

Each function takes what the operator takes; `decompose` traces it. Keys are exact overloads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch


def embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """`embedding_bag` with offsets: which position belongs to which bag is a matrix."""
    if include_last_offset:
        offsets = offsets[:-1]
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    places = torch.arange(indices.shape[0])
    following = torch.cat([offsets[1:], torch.full_like(offsets[:1], indices.shape[0])])
    belongs = (places >= offsets.unsqueeze(1)) & (places < following.unsqueeze(1))  # [bags, positions]
    if padding_idx is not None:
        belongs = belongs & (indices != padding_idx)
    rows = torch.nn.functional.embedding(indices, weight)
    if mode == 2:
        masked = torch.where(belongs.unsqueeze(-1), rows, torch.full_like(rows, -math.inf))
        filled = belongs.any(1, keepdim=True)
        return torch.where(filled, masked.amax(1), torch.zeros_like(weight[:1])), None, None, None
    taken = belongs.to(weight.dtype)
    if per_sample_weights is not None:
        taken = taken * per_sample_weights
    found = taken @ rows
    if mode == 1:
        found = found / belongs.to(weight.dtype).sum(1, keepdim=True).clamp(min=1)
    return found, None, None, None


def bilinear(
    input1: torch.Tensor, input2: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`input1 @ weight[o] @ input2` for each output o, as one product and a sum."""
    outputs, first, second = weight.shape
    rows, columns = input1.reshape(-1, first), input2.reshape(-1, second)
    half = (rows @ weight.permute(1, 0, 2).reshape(first, outputs * second)).reshape(-1, outputs, second)
    found = (half * columns.unsqueeze(1)).sum(-1)
    found = found if bias is None else found + bias
    return found.reshape([*input1.shape[:-1], outputs])


def pairwise_distances(self: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    """`pdist`: the distance of each row to those after it. The number of rows is known."""
    first, second = torch.triu_indices(len(self), len(self), 1).unbind(0)
    return torch.linalg.vector_norm(self.index_select(0, first) - self.index_select(0, second), p, -1)


def diagonal_scatter(
    self: torch.Tensor, src: torch.Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> torch.Tensor:
    """`self` with `src` on a diagonal: each row takes its element of `src`, and keeps it where the diagonal is."""
    if src.shape[-1] == 0:
        return self.clone()
    x = self.movedim((dim1, dim2), (-2, -1))
    rows, columns = torch.arange(x.shape[-2]), torch.arange(x.shape[-1])
    place = (rows - max(-offset, 0)).clamp(min=0)
    place = torch.minimum(place, torch.full_like(place, src.shape[-1] - 1))
    on = columns - rows.unsqueeze(-1) == offset
    spread = src.to(self.dtype).index_select(-1, place).unsqueeze(-1).expand(x.shape)
    return torch.where(on, spread, x).movedim((-2, -1), (dim1, dim2))


def put(self: torch.Tensor, index: torch.Tensor, source: torch.Tensor, accumulate: bool = False) -> torch.Tensor:
    """`self` with elements written at places of the flat tensor."""
    flat = torch.ops.aten.index_put(self.reshape(-1), [index.reshape(-1)], source.reshape(-1), accumulate)
    return flat.reshape(self.shape)


def mode(self: torch.Tensor, dim: int = -1, keepdim: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest of the most frequent elements, and where it stands last: all pairs are compared."""
    if self.dim() == 0:
        return self.clone(), torch.zeros((), dtype=torch.int64)
    x = self.movedim(dim, -1)
    count = (x.unsqueeze(-1) == x.unsqueeze(-2)).to(torch.int64).sum(-1)
    often = count == count.amax(-1, keepdim=True)
    if x.dtype == torch.bool:
        value = (x | ~often).all(-1, keepdim=True)
    else:
        top = math.inf if x.is_floating_point() else torch.iinfo(x.dtype).max
        value = torch.where(often, x, torch.full_like(x, top)).amin(-1, keepdim=True)
    places = torch.where(x == value, torch.arange(x.shape[-1]), -1).amax(-1, keepdim=True)
    value, places = value.movedim(-1, dim), places.movedim(-1, dim)
    return (value, places) if keepdim else (value.squeeze(dim), places.squeeze(dim))


def native_group_norm(
    input: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    kind = torch.float64 if input.dtype == torch.float64 else torch.float32
    if input.numel() == 0:
        nothing = torch.zeros([N, group], dtype=input.dtype)
        return torch.zeros_like(input), nothing, nothing
    x = input.to(kind).reshape(N, group, -1)
    spread, mean = torch.var_mean(x, -1, unbiased=False, keepdim=True)
    scale = (spread + eps).rsqrt()
    found = ((x - mean) * scale).reshape(input.shape)
    per_channel = [1, C, *[1] * (input.dim() - 2)]
    if weight is not None:
        found = found * weight.to(kind).reshape(per_channel)
    if bias is not None:
        found = found + bias.to(kind).reshape(per_channel)
    return tuple(part.to(input.dtype) for part in (found, mean.squeeze(-1), scale.squeeze(-1)))  # type: ignore[return-value]


def logcumsumexp(self: torch.Tensor, dim: int) -> torch.Tensor:
    """Sums of 1, 2, 4, .. neighbours, in as many steps as the logarithm of a size that is known."""
    if self.dim() == 0:
        return self.clone()
    x = self.movedim(dim, -1)
    step = 1
    while step < x.shape[-1]:
        before = torch.cat([torch.full_like(x[..., :step], -math.inf), x[..., :-step]], -1)
        x, step = torch.logaddexp(x, before), 2 * step
    return x.movedim(-1, dim)


def multilabel_margin(
    self: torch.Tensor, target: torch.Tensor, reduction: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and which classes are among the labels. Labels end at the first -1."""
    classes = self.shape[-1] if self.dim() else 1
    x, labels = self.reshape(-1, classes), target.reshape(-1, classes)
    meant = (labels >= 0).to(torch.int64).cumprod(-1) > 0
    named = (labels.unsqueeze(-1) == torch.arange(classes)) & meant.unsqueeze(-1)  # [row, label, class]
    among = named.any(1)
    own = torch.gather(x, 1, labels.clamp(min=0))
    apart = (1 - own.unsqueeze(-1) + x.unsqueeze(1)).clamp(min=0)
    counted = meant.unsqueeze(-1) & ~among.unsqueeze(1)
    loss = torch.where(counted, apart, torch.zeros_like(apart)).sum((1, 2)) / classes
    if reduction or self.dim() < 2:
        loss = loss.mean() if reduction == 1 else loss.sum()
    return loss, among.to(self.dtype).reshape(target.shape)


def multilabel_margin_loss(self: torch.Tensor, target: torch.Tensor, reduction: int = 1) -> torch.Tensor:
    return multilabel_margin(self, target, reduction)[0]


def addbmm(
    self: torch.Tensor, batch1: torch.Tensor, batch2: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    if not self.is_floating_point():
        beta, alpha = int(beta), int(alpha)
    product = (batch1 @ batch2).sum(0, dtype=self.dtype)
    product = product if alpha == 1 else product * alpha
    return product.expand(self.shape) if beta == 0 else self * beta + product


def digamma(self: torch.Tensor) -> torch.Tensor:
    """By the reflection, ten steps of the recurrence and the asymptotic series, in float64."""
    dtype = self.dtype if self.is_floating_point() else torch.float32
    x = self.to(torch.float64)
    mirrored = x <= 0
    y = torch.where(mirrored, 1 - x, x)
    less = sum((1 / (y + step) for step in range(1, 10)), 1 / y)
    z = y + 10
    square = 1 / (z * z)
    series = torch.full_like(z, 1 / 12)
    for number in (691 / 32760, 1 / 132, 1 / 240, 1 / 252, 1 / 120, 1 / 12):
        series = number - square * series
    found = torch.log(z) - 0.5 / z - square * series - less
    turned = math.pi * (x - torch.round(x))
    found = torch.where(mirrored, found - math.pi / torch.tan(turned), found)
    whole = mirrored & (x == torch.floor(x))
    found = torch.where(whole, torch.full_like(x, math.nan), found)
    at_zero = torch.where(torch.signbit(x), torch.full_like(x, math.inf), torch.full_like(x, -math.inf))
    return torch.where(x == 0, at_zero, found).to(dtype)


def rrelu(
    self: torch.Tensor, lower: Any = 0.125, upper: Any = 1 / 3, training: bool = False, generator: Any = None
) -> torch.Tensor:
    """As no training leaves it: the slope is the middle of where it would be drawn."""
    if training:
        raise NotImplementedError("random slopes")
    return torch.nn.functional.leaky_relu(self, (lower + upper) / 2)


def remainder_of_number(self: Any, other: torch.Tensor) -> torch.Tensor:
    return torch.remainder(torch.full_like(other, self, dtype=torch.result_type(other, self)), other)


def frexp(self: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mantissa and exponent: by the logarithm, put right where it was rounded across a power of two."""
    x = self.to(torch.float64)
    usual = (x != 0) & torch.isfinite(x)
    size = torch.where(usual, x.abs(), torch.ones_like(x))
    exponent = torch.floor(torch.log2(size)) + 1
    half = torch.floor(exponent / 2)
    mantissa = size * torch.exp2(-half) * torch.exp2(half - exponent)
    over, under = mantissa >= 1, mantissa < 0.5
    mantissa = torch.where(over, mantissa / 2, torch.where(under, mantissa * 2, mantissa))
    exponent = exponent + over.to(x.dtype) - under.to(x.dtype)
    mantissa = torch.where(usual, torch.where(x < 0, -mantissa, mantissa), x)
    exponent = torch.where(usual, exponent, torch.zeros_like(exponent))
    return mantissa.to(self.dtype), exponent.to(torch.int32)


def as_strided(
    self: torch.Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> torch.Tensor:
    """Of a tensor that lies in its memory element by element: places of the flat tensor."""
    whole = self.untyped_storage().nbytes() == self.numel() * self.element_size()
    if not self.is_contiguous() or self.storage_offset() or not whole:
        raise NotImplementedError("the memory of a tensor that is a view is not known to an engine")
    place = torch.full([1] * len(size), storage_offset or 0)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        shape = [count if other == axis else 1 for other in range(len(size))]
        place = place + (torch.arange(count) * step).reshape(shape)
    return self.reshape(-1)[place]


def linspace(start: Any, end: Any, steps: int, *, dtype: torch.dtype | None = None, **where: Any) -> torch.Tensor:
    """From either end to the middle, as torch does it. torch's own decomposition rounds whole numbers otherwise."""
    kind = dtype or torch.float32
    if not kind.is_floating_point:
        raise NotImplementedError("whole numbers between two that are known at run time only")
    first, last = (v.to(kind) if isinstance(v, torch.Tensor) else torch.full((), v, dtype=kind) for v in (start, end))
    if steps < 2:
        return first.reshape(1)[:steps]
    place = torch.arange(steps).to(kind)
    step = (last - first) / (steps - 1)
    return torch.where(place < steps // 2, first + step * place, last - step * (steps - 1 - place))


SHARED: dict[str, Callable[..., Any]] = {
    "aten._embedding_bag.default": embedding_bag,
    "aten._embedding_bag_forward_only.default": embedding_bag,
    "aten.addbmm.default": addbmm,
    "aten.as_strided.default": as_strided,
    "aten.bilinear.default": bilinear,
    "aten.diagonal_scatter.default": diagonal_scatter,
    "aten.digamma.default": digamma,
    "aten.embedding_bag.default": embedding_bag,
    "aten.embedding_bag.padding_idx": embedding_bag,
    "aten.frexp.Tensor": frexp,
    "aten.linspace.Scalar_Tensor": linspace,
    "aten.linspace.Tensor_Scalar": linspace,
    "aten.linspace.Tensor_Tensor": linspace,
    "aten.logcumsumexp.default": logcumsumexp,
    "aten.mode.default": mode,
    "aten.multilabel_margin_loss.default": multilabel_margin_loss,
    "aten.multilabel_margin_loss_forward.default": multilabel_margin,
    "aten.native_group_norm.default": native_group_norm,
    "aten.pdist.default": pairwise_distances,
    "aten._pdist_forward.default": pairwise_distances,
    "aten.put.default": put,
    "aten.remainder.Scalar_Tensor": remainder_of_number,
    "aten.rrelu.default": rrelu,
    "aten.special_digamma.default": digamma,
}
