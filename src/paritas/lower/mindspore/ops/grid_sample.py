# SPDX-License-Identifier: Apache-2.0
"""Sampling of images at given places: every corner or tap is one look-up of whole pixels."""

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value

_MODES = ("bilinear", "nearest", "bicubic")
_BORDERS = ("zeros", "border", "reflection")


@lowers("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sampler(
    emit: Emitter, input: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    mode, border = _MODES[interpolation_mode], _BORDERS[padding_mode]
    if input.rank == 5 and mode == "bicubic":
        raise emit.refuse("bicubic sampling of volumes")
    helper = "sampled_2d" if input.rank == 4 else "sampled_3d"
    kind = "float32" if input.dtype == "float16" else input.dtype  # places have no digits to lose
    x, places = (emit.cast(v, kind) for v in (input, grid))
    found = emit.prelude(helper, x, places, mode, border, bool(align_corners))
    return emit.cast(emit.typed(found, dtype=kind), input.dtype)
