# SPDX-License-Identifier: Apache-2.0
"""A matrix in fewer bits: for each row, or each group of a row, a scale and, where it is not symmetric, a zero point.

The same arithmetic as NNCF's `compress_weights` without data, to the bit, a few rows at a time: what is in float32 of a
matrix in half precision are those rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

#: Elements that are looked at in one go: as float32 they stay in a core's cache.
_ROWS = 1 << 18

_EPSILON = torch.finfo(torch.float32).eps


@dataclasses.dataclass(frozen=True)
class Scheme:
    """bits: 8 or 4. group: how many weights share a scale, 0 for all of a row. symmetric: without a zero point."""

    bits: int
    group: int = 0
    symmetric: bool = False

    def fits(self, size: int) -> bool:
        return not self.group or size % self.group == 0

    def __str__(self) -> str:
        shared = f"each {self.group} weights" if self.group else "each row of a matrix"
        return f"{self.bits} bits and a scale for {shared}{', symmetric' if self.symmetric else ''}"


@dataclasses.dataclass(frozen=True)
class Quantised:
    """numbers: whole ones, int8 where symmetric, else uint8, in the weight's own order of axes.

    Where there are groups, the reduced axis is two: [.., groups, group, ..]. scale: float32, zero: uint8 or None, both
    with 1 in place of what shares them.
    """

    numbers: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None


def quantised(weight: torch.Tensor, reduced: Sequence[int], scheme: Scheme) -> Quantised:
    """`weight`, of any float dtype, over the axes `reduced`, along which a product sums. Groups need one such axis."""
    reduced = sorted(axis % weight.dim() for axis in reduced)
    kept = [axis for axis in range(weight.dim()) if axis not in reduced]
    moved = weight.permute(*kept, *reduced)
    inner = [weight.shape[axis] for axis in reduced]
    size = 1
    for length in inner:
        size *= length
    group = scheme.group or size
    rows = moved.reshape(-1, group)
    numbers = torch.empty(rows.shape, dtype=torch.int8 if scheme.symmetric else torch.uint8)
    scale = torch.empty(len(rows), 1)
    zero = None if scheme.symmetric else torch.empty(len(rows), 1, dtype=torch.uint8)
    step = max(1, _ROWS // group)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        _round(
            rows[part].to(torch.float32, copy=True),
            scheme,
            numbers[part],
            scale[part],
            None if zero is None else zero[part],
        )

    outer = [weight.shape[axis] for axis in kept]

    def back(values: torch.Tensor, last: list[int]) -> torch.Tensor:
        """In the weight's own order of axes; a group's axis comes right behind the one that it is cut from."""
        values = values.reshape(*outer, *last)
        if len(last) == len(reduced):
            order = [*kept, *reduced]
        else:
            cut = reduced[0]
            order = [axis + (axis > cut) for axis in kept] + [cut, cut + 1]
        return values.permute(*[order.index(axis) for axis in range(values.dim())]).contiguous()

    if scheme.group:
        shape, ones = [size // group, group], [size // group, 1]
    else:
        shape, ones = inner, [1] * len(inner)
    return Quantised(back(numbers, shape), back(scale, ones), None if zero is None else back(zero, ones))


def _round(  # writes into all of them, rows too
    rows: torch.Tensor, scheme: Scheme, numbers: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None
) -> None:
    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    if zero is None:
        most = 2 ** (scheme.bits - 1)
        low = low.abs()
        found = torch.where(low >= high, low, -high) / most
        found = torch.where(found.abs() < _EPSILON, _EPSILON, found)
        rows.div_(found).round_().clamp_(-most, most - 1)
    else:
        most = 2**scheme.bits - 1
        low, high = low.clamp(max=0), high.clamp(min=0)
        found = (high - low) / most
        found = torch.where(found.abs() < _EPSILON, _EPSILON, found)
        offset = (-(low / found).round()).clamp_(0, most)
        rows.div_(found).add_(offset).round_().clamp_(0, most)
        zero.copy_(offset)
    numbers.copy_(rows)
    scale.copy_(found)


def packed(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers of 4 bits, two in a byte, the first one in its lower half: uint8 [elements / 2]."""
    flat = numbers.reshape(-1).view(torch.uint8)
    if flat.numel() % 2:
        flat = torch.nn.functional.pad(flat, (0, 1))
    pairs = flat.reshape(-1, 2)
    return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
