# SPDX-License-Identifier: Apache-2.0
"""Images in other sizes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Size, Sizes, Tensor, is_tensor, out, rank_of
from paritas.lower.openvino.integers import division_of_sizes
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", x=Arg("input"), mode="nearest")
@lowers("aten.upsample_nearest3d.vec", x=Arg("input"), mode="nearest")
@lowers("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec", x=Arg("input"), mode="linear_onnx")
@lowers("aten.upsample_trilinear3d.vec", x=Arg("input"), mode="linear_onnx")
@lowers("aten.upsample_bicubic2d.vec", x=Arg("input"), mode="cubic")
def resized(
    emit: Emitter,
    x: Tensor,
    output_size: Sizes | None,
    scale_factors: Sequence[float] | None,
    mode: str,
    align_corners: bool = False,
) -> Tensor:
    """The axes behind the channels in their new size.

    OpenVINO gets the sizes, and finds the places by their quotient. Where torch finds them by a factor that is another
    number, what it makes of each axis is a matrix, and nearest pixels are looked up.
    """
    rank = rank_of(x)
    own = emit.sizes(x)[2:]
    wanted, factors, exact = sizes_and_factors(emit, own, output_size, scale_factors)
    if mode == "nearest" and not exact:
        return looked_up(emit, x, own, wanted, factors, False)
    if not exact and not align_corners:
        return by_matrices(emit, x, own, wanted, factors, "linear" if "linear" in mode else "cubic", align_corners)
    if rank == 3:
        # Of a row as of a picture: OpenVINO 2026.4 cannot fold what it resizes along one axis.
        row = interpolated(emit, emit.unsqueeze(x, 2), [1, *wanted], mode, align_corners)
        return emit.squeeze(row, 2)
    return interpolated(emit, x, wanted, mode, align_corners)


def interpolated(emit: Emitter, x: Tensor, wanted: Sizes, mode: str, align_corners: bool) -> Tensor:
    rank = rank_of(x)
    where = "align_corners" if align_corners else "half_pixel" if mode != "nearest" else "asymmetric"
    return ops.interpolate(
        x,
        emit.dims(wanted),
        mode,
        "sizes",
        coordinate_transformation_mode=where,
        nearest_mode="floor",
        cube_coeff=-0.75,
        axes=emit.array(range(2, rank)),
    )


def sizes_and_factors(emit: Emitter, own: Sizes, output_size: Sizes | None, scale_factors: Any) -> tuple[Any, Any, Any]:
    """(new sizes, the factors that torch computes with or None, whether the sizes' quotients are the same numbers)."""
    if output_size is not None:
        return list(output_size), [None] * len(own), True
    wanted = [_scaled(emit, size, factor) for size, factor in zip(own, scale_factors, strict=True)]
    exact = all(
        not is_tensor(factor) and (float(factor).is_integer() or (isinstance(size, int) and size * factor == new))
        for size, factor, new in zip(own, scale_factors, wanted, strict=True)
    )
    return wanted, list(scale_factors), exact


def looked_up(
    emit: Emitter, x: Tensor, own: Sizes, wanted: Sizes, factors: Sequence[float | None], middle: bool
) -> Tensor:
    """The nearest pixel of each axis. middle: by the middles of the pixels, as `nearest-exact` has it."""
    half = np.float32(0.5 if middle else 0)
    for axis, (size, new, factor) in enumerate(zip(own, wanted, factors, strict=True), 2):
        if isinstance(size, int) and isinstance(new, int) and not is_tensor(factor):
            # In float32, as torch computes it.
            step = np.float32(1 / factor) if factor else np.float32(size) / np.float32(new)
            places = np.floor((np.arange(new, dtype=np.float32) + half) * step).astype(np.int64)
            places = np.minimum(places, size - 1)
        else:
            if factor and not is_tensor(factor):
                step = np.float32(1 / factor)
            elif factor:
                step = ops.divide(np.float32(1), emit.number(factor, torch.float32))
            else:
                step = ops.divide(emit.number(size, torch.float32), emit.number(new, torch.float32))
            counted = ops.add(ops.convert(emit.arange(0, new), "f32"), half)
            places = ops.convert(ops.floor(ops.multiply(counted, step)), "i64")
            places = ops.minimum(places, ops.subtract(emit.number(size), np.int64(1)))
        x = ops.gather(x, places, np.int64(axis))
    return out(x)


_MATRICES = {
    "linear": torch.ops.aten.upsample_bilinear2d.default,
    "cubic": torch.ops.aten.upsample_bicubic2d.default,
    "smooth linear": torch.ops.aten._upsample_bilinear2d_aa.default,
    "smooth cubic": torch.ops.aten._upsample_bicubic2d_aa.default,
}


def by_matrices(
    emit: Emitter, x: Tensor, own: Sizes, wanted: Sizes, factors: Sequence[float | None], kind: str, align: bool
) -> Tensor:
    """One axis after the other by a matrix, which torch itself makes by resizing a unit matrix."""
    rank = rank_of(x)
    for axis, (size, new, factor) in reversed(list(enumerate(zip(own, wanted, factors, strict=True), 2))):
        if isinstance(size, int) and isinstance(new, int) and not is_tensor(factor):
            if size == new and factor in (None, 1.0):
                continue
            # Rows, not columns: of images of width 1 torch 2.13 gets the antialiased kinds wrong.
            units = torch.eye(size).reshape(1, size, 1, size)
            made = _MATRICES[kind](units, [1, new], align, None, factor).reshape(size, new)
            matrix = emit.tensor(made.contiguous())
        else:
            matrix = free_matrix(emit, size, new, factor, kind, align)
        order = [a for a in range(rank) if a != axis] + [axis]
        moved = ops.matmul(emit.transpose(x, order), matrix, False, False)
        x = emit.transpose(moved, [order.index(a) for a in range(rank)])
    return out(x)


def free_matrix(emit: Emitter, size: Tensor, new: Size, factor: float | None, kind: str, align: bool) -> Tensor:
    """[size, new]: how much of each old pixel is in each new one, where a size is known at run time only."""
    f = np.float32
    before, after = (emit.number(value, torch.float32) for value in (size, new))
    if align:
        step = ops.divide(ops.subtract(before, f(1)), ops.maximum(ops.subtract(after, f(1)), f(1)))
    elif factor:
        step = ops.divide(f(1), factor) if is_tensor(factor) else ops.constant(f(1 / factor))
    else:
        step = ops.divide(before, after)
    old = emit.unsqueeze(ops.convert(emit.arange(0, size), "f32"), 1)
    place = emit.unsqueeze(ops.convert(emit.arange(0, new), "f32"), 0)
    if "smooth" in kind:
        reach = ops.maximum(step, f(1))
        middle = ops.multiply(ops.add(place, f(0.5)), step)
        off = ops.abs(ops.divide(ops.subtract(ops.add(old, f(0.5)), middle), reach))
        weight = _hat(off) if kind == "smooth linear" else _cubic(off, -0.5)
        return ops.divide(weight, ops.reduce_sum(weight, emit.array([0]), True))
    at = ops.multiply(place, step)
    if not align:
        at = ops.subtract(ops.multiply(ops.add(place, f(0.5)), step), f(0.5))
    last = ops.subtract(before, f(1))
    if kind == "linear":
        return _hat(ops.abs(ops.subtract(ops.minimum(ops.maximum(at, f(0)), last), old)))
    low = ops.floor(at)
    total = None
    for neighbour in range(-1, 3):
        which = ops.add(low, f(neighbour))
        held = ops.minimum(ops.maximum(which, f(0)), last)
        weight = ops.multiply(_cubic(ops.abs(ops.subtract(at, which)), -0.75), ops.convert(ops.equal(held, old), "f32"))
        total = weight if total is None else ops.add(total, weight)
    return total


def _hat(off: Tensor) -> Tensor:
    return ops.maximum(ops.subtract(np.float32(1), off), np.float32(0))


def _cubic(off: Tensor, a: float) -> Tensor:
    """Keys' kernel at a distance of `off`."""
    f = np.float32
    near = ops.multiply(ops.subtract(ops.multiply(off, f(a + 2)), f(a + 3)), ops.multiply(off, off))
    near = ops.add(near, f(1))
    far = ops.multiply(
        ops.subtract(ops.multiply(ops.add(ops.multiply(ops.subtract(off, f(5)), off), f(8)), off), f(4)), f(a)
    )
    return ops.select(ops.less(off, f(1)), near, ops.select(ops.less(off, f(2)), far, f(0)))


def _scaled(emit: Emitter, size: Size, factor: float) -> Size:
    if isinstance(size, int) and not is_tensor(factor):
        return math.floor(size * factor)
    if not is_tensor(factor) and float(factor).is_integer():
        return emit.times(size, int(factor))
    if not is_tensor(factor):
        # In double precision, as torch computes it: a float32 would round some products up to a whole number.
        table = np.floor(np.arange(LARGEST + 1) * float(factor)).astype(np.int64)
        place = ops.minimum(emit.number(size), np.int64(LARGEST))
        return ops.gather(table, place, np.int64(0)).output(0)
    product = ops.multiply(emit.number(size, torch.float32), emit.number(factor, torch.float32))
    return ops.convert(ops.floor(product), "i64").output(0)


#: The largest free size of a picture that is resized by a fraction.
LARGEST = 16384


@lowers("aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec")
@lowers("aten._upsample_nearest_exact3d.vec")
def nearest_exact(
    emit: Emitter, input: Tensor, output_size: Sizes | None, scale_factors: Sequence[float] | None
) -> Tensor:
    own = emit.sizes(input)[2:]
    wanted, factors, _ = sizes_and_factors(emit, own, output_size, scale_factors)
    return looked_up(emit, input, own, wanted, factors, True)


@lowers("aten._upsample_bilinear2d_aa.vec", kind="smooth linear")
@lowers("aten._upsample_bicubic2d_aa.vec", kind="smooth cubic")
def smooth(
    emit: Emitter,
    input: Tensor,
    output_size: Sizes | None,
    align_corners: bool,
    scale_factors: Sequence[float] | None,
    kind: str,
) -> Tensor:
    own = emit.sizes(input)[2:]
    wanted, factors, _ = sizes_and_factors(emit, own, output_size, scale_factors)
    return by_matrices(emit, input, own, wanted, factors, kind, align_corners)


@lowers("aten.pixel_shuffle.default")
def pixel_shuffle(emit: Emitter, self: Tensor, upscale_factor: int) -> Tensor:
    *lead, channels, height, width = emit.sizes(self)
    r, n = upscale_factor, len(lead)
    parts = emit.reshape(self, [*lead, divided(channels, r * r), r, r, height, width])
    moved = emit.transpose(parts, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    sizes = [divided(channels, r * r), emit.times(height, r), emit.times(width, r)]
    return emit.reshape(moved, [*lead, *sizes])


@lowers("aten.pixel_unshuffle.default")
def pixel_unshuffle(emit: Emitter, self: Tensor, downscale_factor: int) -> Tensor:
    *lead, channels, height, width = emit.sizes(self)
    r, n = downscale_factor, len(lead)
    down, across = (divided(size, r) for size in (height, width))
    parts = emit.reshape(self, [*lead, channels, down, r, across, r])
    moved = emit.transpose(parts, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return emit.reshape(moved, [*lead, emit.times(channels, r * r), down, across])


def divided(size: int, by: int) -> int:
    return size // by if isinstance(size, int) else division_of_sizes(size, np.int64(by))[0]
