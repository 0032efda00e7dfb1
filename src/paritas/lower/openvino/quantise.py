# SPDX-License-Identifier: Apache-2.0
"""A matrix in fewer bits: for each row, or each group of a row, a scale and, where it is not symmetric, a zero point.

The same arithmetic as NNCF's `compress_weights` without data, to the bit, a few rows at a time: what is in float32 of a
matrix in half precision are those rows. OpenVINO computes it, which makes one loop of what are ten in PyTorch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import torch

#: Elements that are looked at in one go: as float32 they stay in a core's cache.
_ROWS = 1 << 19

_KINDS = {torch.float32: openvino.Type.f32, torch.bfloat16: openvino.Type.bf16, torch.float16: openvino.Type.f16}

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
    request = _rounding(scheme, _KINDS[weight.dtype])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        given = rows[part].contiguous()
        request.set_input_tensor(openvino.Tensor(_bytes(given), list(given.shape), _KINDS[weight.dtype]))
        for index, found in enumerate((numbers, scale) if zero is None else (numbers, scale, zero)):
            request.set_output_tensor(index, openvino.Tensor(found[part].numpy(), shared_memory=True))
        request.infer()

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


@functools.cache
def _rounding(scheme: Scheme, kind: openvino.Type) -> Any:
    """What makes of rows of `kind` their numbers, scales and zero points."""
    given = ops.parameter([-1, -1], kind)
    rows: Any = given if kind == openvino.Type.f32 else ops.convert(given, "f32")
    last = np.int64(1)
    low, high = ops.reduce_min(rows, last, True), ops.reduce_max(rows, last, True)
    if scheme.symmetric:
        most = 2 ** (scheme.bits - 1)
        low = ops.absolute(low)
        scale = _not_zero(_over(ops.select(ops.greater_equal(low, high), low, ops.negative(high)), _float(most)))
        numbers = ops.clamp(ops.round(_over(rows, scale), "half_to_even"), -most, most - 1)
        results = [ops.convert(numbers, "i8"), scale]
    else:
        most = 2**scheme.bits - 1
        low, high = ops.minimum(low, _float(0)), ops.maximum(high, _float(0))
        scale = _not_zero(_over(ops.subtract(high, low), _float(most)))
        zero = ops.clamp(ops.negative(ops.round(_over(low, scale), "half_to_even")), 0, most)
        numbers = ops.clamp(ops.round(ops.add(_over(rows, scale), zero), "half_to_even"), 0, most)
        results = [ops.convert(numbers, "u8"), scale, ops.convert(zero, "u8")]
    model = openvino.Model(results, [given], "rounding")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(model, "CPU", exact).create_infer_request()


def _float(value: float) -> Any:
    return ops.constant(np.float32(value))


def _over(values: Any, scale: Any) -> Any:
    """A true division: OpenVINO would multiply by the inverse, which rounds twice."""
    found = ops.divide(values, scale)
    found.get_rt_info()["nonconvertable_divide_0"] = True
    return found


def _not_zero(scale: Any) -> Any:
    least = _float(_EPSILON)
    return ops.select(ops.less(ops.absolute(scale), least), least, scale)


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    raw: np.ndarray = tensor.view(torch.uint8).numpy().reshape(-1)
    return raw


def packed(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers of 4 bits, two in a byte, the first one in its lower half: uint8 [elements / 2]."""
    flat = numbers.reshape(-1).view(torch.uint8)
    if flat.numel() % 2:
        flat = torch.nn.functional.pad(flat, (0, 1))
    pairs = flat.reshape(-1, 2)
    return (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
