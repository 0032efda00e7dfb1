# SPDX-License-Identifier: Apache-2.0
"""Images in other sizes."""

import math

import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import is_tensor, rank_of
from paritas.lower.registry import lowers, schema_of


def resized(emit, x, output_size, scale_factors, mode, align_corners=False):
    """The axes behind the channels in their new size. OpenVINO gets sizes; torch's scales give the positions."""
    rank = rank_of(x)
    own = emit.sizes(x)[2:]
    if output_size is not None:
        wanted = list(output_size)
        exact = True
    else:
        wanted = [_scaled(emit, size, factor) for size, factor in zip(own, scale_factors, strict=True)]
        exact = all(
            float(factor).is_integer() or (isinstance(size, int) and size * factor == new)
            for size, factor, new in zip(own, scale_factors, wanted, strict=True)
        )
    if not exact and not align_corners:
        raise emit.refuse(f"the scales {scale_factors}, which do not give whole sizes")
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


def _scaled(emit, size, factor):
    if isinstance(size, int) and not is_tensor(factor):
        return math.floor(size * factor)
    if not is_tensor(factor) and float(factor).is_integer():
        return emit.times(size, int(factor))
    product = ops.multiply(emit.number(size, torch.float32), emit.number(factor, torch.float32))
    return ops.convert(ops.floor(product), "i64").output(0)


def _register(name, mode, aligned):
    def lowering(emit, input, output_size=None, align_corners=None, scale_factors=None):
        if not aligned:  # upsample_nearest has no such argument: its third one is the scale
            align_corners, scale_factors = False, align_corners if scale_factors is None else scale_factors
        return resized(emit, input, output_size, scale_factors, mode, bool(align_corners))

    lowering.__doc__ = schema_of(f"aten.{name}.vec")
    lowering.__name__ = lowering.__qualname__ = name
    lowers("openvino", f"aten.{name}.vec")(lowering)


for _dim in (1, 2, 3):
    _register(f"upsample_nearest{_dim}d", "nearest", False)
_register("upsample_linear1d", "linear_onnx", True)
_register("upsample_bilinear2d", "linear_onnx", True)
_register("upsample_trilinear3d", "linear_onnx", True)
_register("upsample_bicubic2d", "cubic", True)


@lowers("openvino", "aten.pixel_shuffle.default")
def pixel_shuffle(emit, self, upscale_factor):
    """pixel_shuffle(Tensor self, int upscale_factor) -> Tensor"""
    *lead, channels, height, width = emit.sizes(self)
    r, n = upscale_factor, len(lead)
    parts = emit.reshape(self, [*lead, channels // (r * r), r, r, height, width])
    moved = emit.transpose(parts, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    sizes = [channels // (r * r), emit.times(height, r), emit.times(width, r)]
    return emit.reshape(moved, [*lead, *sizes])


@lowers("openvino", "aten.pixel_unshuffle.default")
def pixel_unshuffle(emit, self, downscale_factor):
    """pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor"""
    *lead, channels, height, width = emit.sizes(self)
    r, n = downscale_factor, len(lead)
    if not isinstance(height, int) or not isinstance(width, int):
        raise emit.refuse("a picture of free size")
    parts = emit.reshape(self, [*lead, channels, height // r, r, width // r, r])
    moved = emit.transpose(parts, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return emit.reshape(moved, [*lead, channels * r * r, height // r, width // r])
