# SPDX-License-Identifier: Apache-2.0
"""Cases of the operators on images: convolutions, windows, pools, resizing, sampling."""

from cases_reduce import NORM, SUMS
from making import Size, case, inf, nan, tensor, values, vector

from paritas.verify.tolerance import Tolerance

SAMPLES = Tolerance(
    4e-5,
    4e-5,
    "places are 8 pixels times 1.2e-7 off, weights as much, cubic ones a few times that",
    scaled=1e-5,
)

CONVOLUTIONS = [
    case("aten.conv3d.default", tensor(2, 3, 5, 6, 7), tensor(4, 3, 3, 3, 3), vector(4), [1, 1, 1], [1, 1,
        1], within=SUMS),
    case("aten.conv3d.default", tensor(2, 4, 5, 6, 7), tensor(4, 2, 3, 2, 1), None, [2, 1, 2], [1, 0, 2],
        [1, 2, 1], 2, within=SUMS),
    case("aten.conv3d.default", tensor(3, 5, 6, 7), tensor(4, 3, 2, 3, 3), vector(4), within=SUMS),
    case("aten.conv3d.default", tensor(6, 3, 2, 4, 4), tensor(8, 3, 2, 4, 4), vector(8), [2, 4, 4],
        within=SUMS),
    case("aten.conv3d.default", tensor(2, 3, 4, 4, 4), tensor(8, 3, 2, 2, 2), None, [2, 2, 2], within=SUMS),
    case("aten.conv3d.default", tensor(2, 3, 5, 6, 7).dynamic(0, 2, 3), tensor(4, 3, 3, 3, 3), vector(4),
        [1, 1, 1], [1, 1, 1], within=SUMS),
    case("aten.conv3d.padding", tensor(1, 3, 5, 6, 7), tensor(4, 3, 2, 3, 4), vector(4), [1, 1, 1], "same",
        within=SUMS),
    case("aten.conv3d.padding", tensor(1, 3, 5, 6, 7), tensor(4, 3, 2, 3, 4), vector(4), [1, 2, 1], "valid",
        within=SUMS),
    case("aten.conv2d.default", tensor(2, 4, 9, 8).dynamic(0, 2, 3), tensor(6, 4, 3, 3), vector(6), [2, 2],
        [1, 1], within=SUMS),
    case("aten.conv2d.default", tensor(3, 9, 8), tensor(6, 3, 3, 3), vector(6), within=SUMS),
    case("aten.conv2d.default", tensor(2, 4, 9, 8), tensor(8, 1, 3, 5), vector(8), [2, 1], [1, 2], [1, 1],
        4, within=SUMS),
    case("aten.conv2d.default", tensor(2, 4, 9, 8), tensor(6, 2, 3, 3), vector(6), [1, 1], [2, 1], [2, 1],
        2, within=SUMS),
    case("aten.conv2d.default", tensor(0, 4, 9, 8), tensor(6, 4, 3, 3), vector(6), within=SUMS),
    case("aten.conv2d.default", tensor(2, 40, 12, 12), tensor(24, 40, 3, 3), vector(24), [1, 1], [1, 1],
        within=SUMS),
    case("aten.conv2d.default", tensor(2, 40, 7, 9).dynamic(2), tensor(24, 40, 1, 1), vector(24),
        within=SUMS),
    case("aten.conv2d.default", tensor(2, 40, 7, 9), tensor(24, 40, 1, 1), vector(24), [2, 2], within=SUMS),
    case("aten.conv1d.default", tensor(2, 4, 9), tensor(6, 2, 3), vector(6), [2], [1], [2], 2, within=SUMS),
    case("aten.conv1d.default", tensor(2, 4, 9).dynamic(0, 2), tensor(4, 1, 3), None, [1], [2], [2], 4,
        within=SUMS),
    case("aten.conv1d.default", tensor(4, 9), tensor(6, 4, 3), vector(6), within=SUMS),
    case("aten.conv1d.default", tensor(2, 4, 9).dynamic(0, 2), tensor(6, 4, 1), vector(6), within=SUMS),
    case("aten.conv1d.default", tensor(2, 4, 10), tensor(6, 4, 2), None, [4], within=SUMS),
    case("aten.conv3d.default", tensor(1, 4, 2, 3, 4), tensor(6, 4, 1, 1, 1), vector(6), within=SUMS),
    case("aten.convolution.default", tensor(2, 3, 9), tensor(4, 3, 3), None, [1], [1], [1], False, [0], 1,
        within=SUMS),
    case("aten.convolution.default", tensor(2, 4, 5, 6), tensor(4, 3, 3, 3), vector(3), [2, 2], [1, 1], [1,
        1], True, [1, 0], 1, within=SUMS),
    case("aten.conv_transpose1d.default", tensor(2, 4, 7), tensor(4, 3, 16), vector(3), [8], [4],
        within=SUMS),
    case("aten.conv_transpose1d.default", tensor(2, 4, 7).dynamic(0, 2), tensor(4, 3, 5), None, [3], [1],
        [2], within=SUMS),
    case("aten.conv_transpose1d.default", tensor(4, 7), tensor(4, 3, 3), vector(6), [2], [0], [1], 2, [2],
        within=SUMS),
    case("aten.conv_transpose1d.default", tensor(1, 4, 7), tensor(4, 1, 2), None, [5], [0], [4], 4,
        within=SUMS),
    case("aten.conv_transpose2d.input", tensor(2, 4, 5, 6), tensor(4, 3, 2, 2), vector(3), [2, 2],
        within=SUMS),
    case("aten.conv_transpose2d.input", tensor(2, 4, 5, 6).dynamic(0, 2, 3), tensor(4, 3, 4, 4), vector(3),
        [2, 2], [1, 1], within=SUMS),
    case("aten.conv_transpose2d.input", tensor(2, 4, 5, 6), tensor(4, 3, 3, 4), vector(6), [2, 3], [1, 2],
        [1, 0], 2, within=SUMS),
    case("aten.conv_transpose2d.input", tensor(4, 5, 6), tensor(4, 3, 3, 3), None, [1, 2], [0, 2], [0, 1],
        1, [2, 2], within=SUMS),
    case("aten.conv_transpose2d.input", tensor(1, 4, 1, 1), tensor(4, 3, 3, 3), None, [2, 2], [1, 1], [1,
        1], within=SUMS),
    case("aten.conv_transpose3d.input", tensor(2, 4, 3, 4, 5), tensor(4, 3, 3, 4, 2), vector(3), [2, 2, 1],
        [1, 1, 0], [1, 0, 0], within=SUMS),
    case("aten.conv_transpose3d.input", tensor(2, 4, 3, 4, 5), tensor(4, 1, 2, 2, 2), None, [2, 2, 2], [0,
        0, 0], [0, 0, 0], 2, within=SUMS),
    case("aten.conv_transpose3d.input", tensor(4, 3, 4, 5), tensor(4, 3, 1, 2, 2), vector(3), [1, 2, 2],
        within=SUMS),
]  # fmt: skip

_GRID = tensor(2, 3, 5, 6)

WINDOWS = [
    case("aten.im2col.default", tensor(2, 3, 7, 8), [3, 2], [1, 1], [1, 0], [1, 1]),
    case("aten.im2col.default", tensor(2, 3, 7, 8).dynamic(0, 2, 3), [3, 3], [2, 1], [2, 1], [1, 2]),
    case("aten.im2col.default", tensor(3, 4, 6).with_(nan, inf), [2, 2], [1, 1], [0, 0], [2, 2]),
    case("aten.col2im.default", tensor(2, 12, 12), [6, 8], [2, 2], [1, 1], [0, 0], [2, 2]),
    case("aten.col2im.default", tensor(12, 12), [6, 8], [2, 2], [1, 1], [0, 0], [2, 2]),
    case("aten.col2im.default", tensor(2, 18, 20).dynamic(0), [4, 5], [3, 3], [1, 1], [1, 1], [1, 1],
        within=SUMS),
    case("aten.col2im.default", tensor(2, 12, 9), [7, 7], [2, 2], [2, 1], [1, 0], [3, 2], within=SUMS),
]  # fmt: skip

RESIZED = [
    *(
        case(f"aten.{name}", _GRID, size, align, factors, within=SUMS)
        for name in (
            "upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "_upsample_bilinear2d_aa.vec",
            "_upsample_bicubic2d_aa.vec",
        )
        for size, align, factors in (([3, 12], False, None), ([10, 2], True, None), (None, False, [1.7, 0.6]))
    ),
    *(
        case(f"aten.{name}", _GRID.dynamic(2, 3), size, align, factors, within=SUMS)
        for name in ("upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "_upsample_bicubic2d_aa.vec")
        for size, align, factors in (([12, 3], False, None), ([10, 2], True, None), (None, False, [1.7, 0.6]))
    ),
    case("aten._upsample_bilinear2d_aa.vec", _GRID.dynamic(2, 3), [3, 12], False, None, within=SUMS),
    *(
        case(f"aten.{name}", _GRID.dynamic(*free), size, factors)
        for name in ("upsample_nearest2d.vec", "_upsample_nearest_exact2d.vec")
        for size, factors, free in (
            ([10, 18], None, ()), ([7, 4], None, ()), (None, [1.7, 0.6], ()), ([7, 4], None, (2, 3)),
            (None, [1.7, 0.6], (2, 3)), (None, [2.0, 2.0], (0, 2, 3)),
        )
    ),
    *(
        case(f"aten.{name}", tensor(2, 3, 7).dynamic(*free), size, *align, factors, within=SUMS)
        for name in ("upsample_linear1d.vec", "upsample_nearest1d.vec", "_upsample_nearest_exact1d.vec")
        for align in (([],) if "nearest" in name else ([False], [True]))
        for size, factors, free in (([14], None, ()), ([5], None, (0, 2)))
    ),
    *(
        case(f"aten.{name}", tensor(1, 2, 3, 4, 5).dynamic(*free), size, *align, factors, within=SUMS)
        for name in ("upsample_trilinear3d.vec", "upsample_nearest3d.vec", "_upsample_nearest_exact3d.vec")
        for align in (([],) if "nearest" in name else ([False], [True]))
        for size, factors, free in (([2, 8, 10], None, ()), (None, [2.0, 1.0, 1.6], (2, 4)))
    ),
    case("aten.upsample_bilinear2d.default", _GRID, [10, 9], False, 2.0, 1.5, within=SUMS),
    case("aten.upsample_bilinear2d.default", _GRID, [10, 9], True, within=SUMS),
    case("aten.upsample_bicubic2d.default", _GRID, [10, 9], False, 2.0, 1.5, within=SUMS),
    # Not antialiased to a width of 1, which torch 2.13 gets wrong.
    case("aten.upsample_bilinear2d.vec", _GRID, [10, 1], True, None, within=SUMS),
    case("aten.upsample_bicubic2d.vec", _GRID.dynamic(2, 3), [10, 1], True, None, within=SUMS),
    case("aten.upsample_nearest2d.default", _GRID, [10, 9], 2.0, 1.5),
    case("aten.upsample_nearest2d.vec", _GRID.with_(nan, inf), [8, 12], None),
    case("aten.upsample_nearest2d.vec", _GRID.dynamic(2, 3), [Size(0, 2) + 4, Size(0, 3)], None),
    case("aten.upsample_bilinear2d.vec", _GRID.dynamic(2, 3), [Size(0, 2) + 4, Size(0, 3) + 1], False, None,
        within=SUMS),
    case("aten.upsample_bilinear2d.vec", _GRID.as_("float16"), [10, 9], False, None),
    case("aten.upsample_bilinear2d.vec", tensor(0, 3, 5, 6), [10, 9], False, None),
]  # fmt: skip

_PLACES = [
    [
        [[-1.0, -1.0], [0.3, -0.2], [1.0, 1.0]],
        [[nan, 0.0], [inf, -inf], [1e20, -7.3]],
        [[-1.4, 0.99], [0.5, 1.05], [-2.9, 3.3]],
    ]
]

SAMPLED = [
    *(
        case("aten.grid_sampler.default", tensor(2, 3, 5, 7), tensor(2, 4, 6, 2), mode, border, align,
            within=SAMPLES)
        for mode, border, align in (
            (0, 0, False), (0, 1, True), (0, 2, False), (1, 0, True), (1, 1, False), (1, 2, True), (2, 0,
                False),
            (2, 0, True), (2, 1, False), (2, 2, False), (2, 2, True),
        )
    ),
    *(  # not reflected: torch casts infinity to an integer there
        case("aten.grid_sampler.default", tensor(1, 3, 5, 4), values(_PLACES), mode, border, align,
            within=SAMPLES)
        for mode, border, align in ((0, 0, False), (0, 1, False), (1, 0, True), (1, 1, True), (2, 0, False))
    ),
    case("aten.grid_sampler.default", tensor(2, 3, 5, 7).dynamic(0, 2, 3), tensor(2, 4, 6, 2).dynamic(0, 1),
        0, 0, False, within=SAMPLES),
    case("aten.grid_sampler.default", tensor(1, 3, 1, 1), tensor(1, 4, 6, 2), 0, 2, True, within=SAMPLES),
    *(
        case("aten.grid_sampler.default", tensor(2, 3, 4, 5, 6), tensor(2, 2, 3, 4, 3), mode, border, align,
            within=SAMPLES)
        for mode, border, align in ((0, 0, False), (0, 1, True), (0, 2, False), (1, 0, True), (1, 2, False))
    ),
    case("aten.grid_sampler_2d.default", tensor(2, 3, 5, 7), tensor(2, 4, 6, 2), 0, 0, False, within=SAMPLES),
    case("aten.grid_sampler_3d.default", tensor(2, 3, 4, 5, 6), tensor(2, 2, 3, 4, 3), 0, 0, False,
        within=SAMPLES),
]  # fmt: skip

POOLS = [
    case("aten.max_pool1d.default", tensor(2, 3, 9), [3], [2], [1], [2]),
    case("aten.max_pool1d.default", tensor(3, 8), [3], [2], [0], [1], True),
    case("aten.max_pool2d.default", tensor(2, 3, 8, 9).dynamic(0, 2), [3, 2], [2, 2], [1, 1], [1, 1], True),
    case("aten.max_pool2d.default", tensor(2, 3, 8, 9), [3, 3], [1, 2], [1, 0], [2, 3]),
    case("aten.max_pool2d.default", tensor(2, 3, 8, 9), [5, 5], [1, 1], [2, 2]),
    case("aten.max_pool2d.default", tensor(2, 3, 8, 9), [2, 2], [2, 2], [0, 0], [1, 1], True),
    case("aten.max_pool2d.default", tensor(1, 2, 6, 6).with_(inf, -inf), [2, 2]),
    case("aten.max_pool2d.default", tensor(1, 2, 6, 6).with_(nan), [2, 2]),
    case("aten.max_pool3d.default", tensor(2, 3, 5, 6, 7), [3, 2, 3], [2, 2, 1], [1, 1, 1]),
    case("aten.max_pool3d.default", tensor(3, 5, 6, 7), [2, 2, 2], [2, 2, 2], [0, 0, 0], [2, 1, 1], True),
    case("aten.max_pool3d.default", tensor(2, 3, 5, 6, 7).dynamic(0, 2, 4), [2, 2, 2]),
    case("aten.max_pool2d_with_indices.default", tensor(2, 3, 7, 8), [3, 3], [2, 2], [1, 1]),
    case("aten.max_pool2d_with_indices.default", tensor(3, 7, 8).with_(nan, -inf, inf), [2, 3], [2, 1], [0,
        1], [2, 1], True),
    case("aten.avg_pool1d.default", tensor(2, 3, 9), [3], [2], [1], True, False, within=SUMS),
    case("aten.avg_pool1d.default", tensor(3, 8), [3], [2], [0], True, within=SUMS),
    case("aten.avg_pool2d.default", tensor(2, 3, 8, 9), [3, 3], [2, 2], [1, 1], False, False, within=SUMS),
    case("aten.avg_pool2d.default", tensor(2, 3, 8, 9).dynamic(2), [3, 2], [2, 2], [1, 1], True, True,
        within=SUMS),
    case("aten.avg_pool2d.default", tensor(2, 3, 8, 9), [3, 3], [2, 2], [1, 1], True, False, 5, within=SUMS),
    case("aten.avg_pool2d.default", tensor(3, 8, 8), [2, 2], [], [0, 0], False, True, 1, within=SUMS),
    case("aten.avg_pool3d.default", tensor(2, 3, 5, 6, 7), [3, 2, 3], [2, 2, 1], [1, 1, 1], True, False,
        within=SUMS),
    case("aten.avg_pool3d.default", tensor(3, 5, 6, 7), [2, 2, 2], [], [0, 0, 0], within=SUMS),
    case("aten.adaptive_avg_pool1d.default", tensor(2, 3, 10), [4], within=SUMS),
    case("aten.adaptive_avg_pool1d.default", tensor(3, 3), [5], within=SUMS),
    case("aten.adaptive_avg_pool2d.default", tensor(2, 3, 7, 10), [3, 4], within=SUMS),
    case("aten.adaptive_avg_pool2d.default", tensor(2, 3, 7, 10).dynamic(2, 3), [3, 12], within=SUMS),
    case("aten.adaptive_avg_pool3d.default", tensor(2, 3, 4, 7, 10), [2, 3, 4], within=SUMS),
    case("aten.adaptive_avg_pool3d.default", tensor(2, 3, 4, 7, 10), [1, 1, 1], within=SUMS),
    case("aten.adaptive_max_pool1d.default", tensor(2, 3, 10), [4]),
    case("aten.adaptive_max_pool2d.default", tensor(2, 3, 7, 10).with_(nan, inf), [3, 4]),
    case("aten.adaptive_max_pool2d.default", tensor(3, 6, 8).filled(-inf), [3, 4]),
]  # fmt: skip

CHANNELS = [
    case("aten._native_batch_norm_legit.no_stats", tensor(2, 6, 5, 4), vector(6), vector(6), True, 0.1,
        1e-5, within=NORM),
    case("aten._native_batch_norm_legit.no_stats", tensor(1, 6, 30), None, None, True, 0.1, 1e-6,
        within=NORM),
    case("aten.native_batch_norm.default", tensor(2, 6, 5), None, vector(6), vector(6),
        vector(6).above_zero(), False, 0.1, 1e-5, within=NORM),
    case("aten.group_norm.default", tensor(2, 6, 3, 4, 5), 3, vector(6), None, 1e-6, within=NORM),
    case("aten.instance_norm.default", tensor(2, 6, 3, 4), None, None, None, None, True, 0.1, 1e-5, True,
        within=NORM),
]  # fmt: skip
