# SPDX-License-Identifier: Apache-2.0
"""Resizing, one axis after the other: a matrix product for each axis, or a look-up for the nearest pixel.

For fixed sizes torch itself makes the matrix, by resizing a unit matrix; for dynamic ones the module does.
A pixel that is NaN or infinite spreads along its row and column, in torch over the neighbours only.
"""

from collections.abc import Sequence
from typing import Any

import torch

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value
from paritas.lower.registry import Arg

aten = torch.ops.aten


def _factors(
    input: Value, scale_factors: Sequence[float] | None, scales_h: float | None, scales_w: float | None
) -> list[float | None]:
    """Scale factors as torch reads them, one for each axis of the image: without, the sizes say."""
    if scale_factors is not None:
        return [float(factor) for factor in scale_factors]
    return [scales_h, scales_w] if input.rank == 4 else [None] * (input.rank - 2)


def _fixed(*sizes: Any) -> bool:
    return all(isinstance(size, int) for size in sizes)


@lowers("aten.upsample_linear1d.vec", "aten.upsample_trilinear3d.vec", kind="linear")
@lowers("aten.upsample_bilinear2d.vec", kind="linear")
@lowers("aten.upsample_bilinear2d.default", kind="linear", input=Arg("self"))
@lowers("aten.upsample_bicubic2d.vec", kind="cubic")
@lowers("aten.upsample_bicubic2d.default", kind="cubic", input=Arg("self"))
@lowers("aten._upsample_bilinear2d_aa.vec", kind="smooth_linear")
@lowers("aten._upsample_bicubic2d_aa.vec", kind="smooth_cubic")
def resized(
    emit: Emitter,
    input: Value,
    align_corners: bool,
    kind: str,
    scale_factors: Sequence[float] | None = None,
    scales_h: float | None = None,
    scales_w: float | None = None,
    **_: object,
) -> Value:
    """`input` with its last axes multiplied by the matrices of `kind`."""
    factors = _factors(input, scale_factors, scales_h, scales_w)
    if input.dtype not in ("float32", "float16", "float64"):
        raise emit.refuse(f"resizing of {input.dtype}")
    x = emit.cast(input, "float64" if input.dtype == "float64" else "float32")
    rank = len(factors)
    for place in reversed(range(rank)):
        axis = input.rank - rank + place
        before, after, factor = input.shape[axis], emit.out.shape[axis], factors[place]
        if before == after and (factor in (None, 1.0) or align_corners):
            continue
        if _fixed(before, after):
            matrix = emit.constant(_matrix(kind, before, after, align_corners, factor, _torch(x)), kind)
        else:
            sizes = emit.size(before), emit.size(after)
            name, extra = _IN_GRAPH[kind]
            matrix = emit.prelude(name, *sizes, 1 / factor if factor else 0.0, bool(align_corners), *extra)
            matrix = emit.cast(emit.typed(matrix, dtype="float32"), x.dtype)
        shape = (*x.shape[:axis], after, *x.shape[axis + 1 :])
        x = emit.typed(emit.prelude("resized", x, axis, matrix), dtype=x.dtype, shape=shape)
    return emit.cast(x, input.dtype)


def _torch(value: Value) -> torch.dtype:
    return getattr(torch, value.dtype)


#: kind -> the function of the prelude that makes the matrix, and its last argument
_IN_GRAPH = {
    "linear": ("linear_matrix", ()),
    "cubic": ("cubic_matrix", ()),
    "smooth_linear": ("smooth_matrix", (2,)),
    "smooth_cubic": ("smooth_matrix", (4,)),
}


def _matrix(
    kind: str, before: int, after: int, align_corners: bool, factor: float | None, dtype: torch.dtype
) -> torch.Tensor:
    """[after, before]: what torch makes of each of the unit vectors, in the dtype in which it weighs them."""
    # Rows, not columns: of images of width 1 torch 2.13 gets the antialiased kinds wrong.
    units = torch.eye(before, dtype=dtype).reshape(1, before, 1, before)
    resize = {
        "linear": aten.upsample_bilinear2d.default,
        "cubic": aten.upsample_bicubic2d.default,
        "smooth_linear": aten._upsample_bilinear2d_aa.default,
        "smooth_cubic": aten._upsample_bicubic2d_aa.default,
    }[kind]
    return resize(units, [1, after], align_corners, None, factor).reshape(before, after).T.contiguous()


@lowers("aten.upsample_nearest1d.vec", "aten.upsample_nearest3d.vec", exact=False)
@lowers("aten.upsample_nearest2d.vec", exact=False)
@lowers("aten.upsample_nearest2d.default", exact=False, input=Arg("self"))
@lowers("aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec", exact=True)
@lowers("aten._upsample_nearest_exact3d.vec", exact=True)
def nearest(
    emit: Emitter,
    input: Value,
    exact: bool,
    scale_factors: Sequence[float] | None = None,
    scales_h: float | None = None,
    scales_w: float | None = None,
    **_: object,
) -> Value:
    """`input` with a look-up along its last axes."""
    factors = _factors(input, scale_factors, scales_h, scales_w)
    x = input
    rank = len(factors)
    for place in reversed(range(rank)):
        axis = input.rank - rank + place
        before, after, factor = input.shape[axis], emit.out.shape[axis], factors[place]
        if before == after and factor in (None, 1.0):
            continue
        shape = (*x.shape[:axis], after, *x.shape[axis + 1 :])
        if _fixed(before, after):
            fixed = _nearest_places(before, after, factor, exact)
            times = after // before
            if torch.equal(fixed, torch.arange(before).repeat_interleave(max(times, 1))):
                x = _repeated(emit, x, axis, times)
                continue
            places = emit.constant(fixed, "places")
        else:
            offset = 0.5 if exact else 0.0
            sizes = emit.size(before), emit.size(after)
            places = emit.prelude("nearest_places", *sizes, 1 / factor if factor else 0.0, offset)
        x = emit.typed(emit.call("ops.gather", x, places, axis), dtype=x.dtype, shape=shape)
    return x


def _repeated(emit: Emitter, x: Value, axis: int, times: int) -> Value:
    shape = (*x.shape[:axis], x.shape[axis] * times, *x.shape[axis + 1 :])
    before, behind = emit.dims(x.shape[: axis + 1]), emit.dims(x.shape[axis + 1 :])
    spread = emit.call("ops.reshape", x, (*before, 1, *behind))
    spread = emit.call("ops.broadcast_to", spread, (*before, times, *behind))
    return emit.typed(emit.call("ops.reshape", spread, emit.dims(shape)), dtype=x.dtype, shape=shape)


def _nearest_places(before: int, after: int, factor: float | None, exact: bool) -> torch.Tensor:
    resize = aten._upsample_nearest_exact1d.default if exact else aten.upsample_nearest1d.default
    return resize(torch.arange(before).double().reshape(1, 1, -1), [after], factor).reshape(-1).long()
