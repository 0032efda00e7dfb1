# SPDX-License-Identifier: Apache-2.0
"""Cases of operators that few models have: pools of adaptive windows, short-time transforms, scalars without axes."""

from making import bools, case, ints, matrix, nan, scalar, tensor, values, vector

from paritas.verify.tolerance import Tolerance

_SUMS = Tolerance(2e-6, 0.0, "sums of products in another order", scaled=4e-6)
_ADDED_UP = Tolerance(0.0, 0.0, "frames are transformed, added up and divided", scaled=5e-6)
_CANCELLED = Tolerance(0.0, 0.0, "squares cancel in one sum of products", scaled=2e-6)
_HANN = values([0.0, 0.1464, 0.5, 0.8536, 1.0, 0.8536, 0.5, 0.1464])
_Z = "complex64"
_ONE = values([0], "int64")
_FREE = tensor(2, 3, 9).dynamic(0, 2)
_LARGE = values([[[2**24 + 1, 2**30, 2**30, 5]]], "int64")

RARE = [
    case("aten.adaptive_max_pool1d.default", tensor(3, 7).dynamic(1), [4]),
    case("aten.adaptive_max_pool1d.default", tensor(2, 3, 3), [7]),
    case("aten.adaptive_max_pool2d.default", tensor(2, 3, 7, 10).dynamic(2, 3), [3, 4]),
    case("aten.adaptive_max_pool2d.default", tensor(2, 3, 7, 8).filled(1.5), [1, 5]),
    *(
        case(f"aten.max_pool{rank}d_with_indices.default", x, [3], [2], [1], [1], ceil)
        for rank, x in (
            (1, tensor(2, 3, 8).dynamic(2)), (2, tensor(2, 3, 7, 8).dynamic(2, 3)), (2, tensor(2, 3, 7, 8)),
            (3, tensor(2, 2, 4, 5, 6)),
        )
        for ceil in (False, True)
    ),
    case("aten.max_pool2d.default", tensor(2, 3, 1, 1).dynamic(0), [2, 2], [3, 3], [0, 0], [1, 1], True),
    case("aten.conv1d.default", _FREE, tensor(6, 3, 3).dynamic(0, 2), None, [2], [1], [2], within=_SUMS),
    case("aten.conv2d.default", tensor(2, 4, 19, 18), tensor(6, 2, 3, 2).dynamic(2, 3), vector(6), [2, 1], [1, 0],
        [1, 2], 2, within=_SUMS),
    case("aten.conv2d.padding", tensor(2, 4, 9, 8).dynamic(2), tensor(6, 4, 3, 2).dynamic(2, 3), None, [1, 1], "same",
        [1, 2], within=_SUMS),
    case("aten.conv1d.default", ints(2, 3, 9), ints(6, 3, 3), ints(6), [2], [1], [1], 1),
    case("aten.conv1d.default", _LARGE, values([[[1, -1, 1]]], "int64")),
    case("aten.conv_transpose1d.default", _FREE, tensor(3, 4, 3).dynamic(1, 2), None, [2], [1], [1], 1, [2],
        within=_SUMS),
    case("aten.conv_transpose2d.input", tensor(2, 4, 5, 6).dynamic(3), tensor(4, 3, 3, 2).dynamic(1, 2, 3), None,
        [3, 2], [1, 0], [2, 1], 2, [1, 2], within=_SUMS),
    case("aten.conv_transpose1d.default", ints(2, 3, 7), ints(3, 4, 3), None, [2], [1], [1]),
    case("aten.cdist.default", matrix(30, 3), matrix(40, 3), within=_CANCELLED),
    case("aten.histc.default", vector(40).dynamic(0), 10),
    case("aten.histc.default", values([float(i) for i in range(11)]), 10),
    case("aten.adaptive_max_pool3d.default", tensor(2, 3, 4, 7, 5), [2, 3, 4]),
    case("aten.argwhere.default", ints(3, 4, low=0, high=2)),
    case("aten.nonzero_numpy.default", ints(3, 4, low=0, high=2)),
    case("aten.addbmm.default", matrix(3, 5), tensor(2, 3, 4), tensor(2, 4, 5), beta=0.5, alpha=2, within=_SUMS),
    case("aten.addbmm.default", matrix(3, 5).with_(nan), tensor(2, 3, 4), tensor(2, 4, 5), beta=0, within=_SUMS),
    case("aten.bilinear.default", tensor(2, 3, 4), tensor(2, 3, 5), tensor(6, 4, 5), vector(6), within=_SUMS),
    case("aten.bilinear.default", matrix(3, 4).dynamic(0), matrix(3, 5).dynamic(0), tensor(6, 4, 5), within=_SUMS),
    case("aten.put.default", matrix(3, 4), values([0, -1, 5], "int64"), vector(3)),
    case("aten.put.default", ints(3, 4), values([0, 5, 5], "int64"), ints(3), True),
    case("aten.index_reduce.default", scalar(2.0), 0, _ONE, scalar(3.0), "prod"),
    case("aten.index_copy.default", scalar(2.0), 0, _ONE, scalar(3.0)),
    case("aten.index_copy.default", scalar(2, "int64"), 0, scalar(0, "int64"), scalar(3, "int64")),
    case("aten.index_add.default", bools(), 0, _ONE, bools()),
    case("aten.index_add.default", bools(3), 0, values([2], "int64"), bools(1), alpha=False),
    case("aten.index_fill.int_Scalar", scalar(2.0), 0, _ONE, 7),
    case("aten.index_fill.int_Scalar", matrix(3, 4), 0, scalar(1, "int64"), 7),
    case("aten.gather.default", scalar(2.0), 0, values([0, 0], "int64")),
    case("aten.outer.default", bools(3), bools(4)),
    case("aten.scatter.reduce", ints(3, 4), 0, ints(2, 4, low=0, high=3), ints(2, 4), reduce="add"),
    case("aten.linspace.Tensor_Tensor", scalar(-2.0), scalar(5.0), 9),
    case("aten.linspace.Tensor_Scalar", scalar(-2.0), 5.0, 9),
    case("aten.linspace.Scalar_Tensor", -2.0, scalar(5.0), 9),
    case("aten.mode.default", ints(300, low=0, high=5)),
    case("aten.rrelu.default", matrix(3, 4)),
    *(
        case("aten.floor_divide.default", number, values([1, -2, 3, -7, 2**31 - 1], kind))
        for number in (7, -7)
        for kind in ("int64", "int32")
    ),
    case("aten.floor_divide.default", 7.5, values([1.0, -2.0, 0.3])),
    *(case("aten.div.Tensor_mode", -7, values([1, -2, 3], "int64"), rounding_mode=mode) for mode in ("trunc", "floor")),
    case("aten.rrelu.default", matrix(3, 4).dynamic(0), 0.25, 0.5),
    *(
        case("aten.remainder.Scalar_Tensor", number, row)
        for number in (1.5, -7)
        for row in (values([2.0, -0.75, 3.5, -4.0]), values([2, -3, 5], "int64"))
    ),
    case("aten.digamma.default", values([0.1, 0.5, 1.0, 2.5, 30.0, -0.5, -2.25, 1e5])),
    case("aten.logcumsumexp.default", matrix(3, 5).dynamic(0, 1), 1, within=_SUMS),
    case("aten.fft_ihfft2.default", tensor(2, 5, 12), [3, 8], [0, 2], "ortho", within=_SUMS),
    case("aten.fft_ihfftn.default", tensor(2, 5, 12), within=_SUMS),
    case("aten.fft_ihfftn.default", tensor(2, 5, 12), None, [1], within=_SUMS),
    case("aten.stft.center", matrix(2, 40), 8, 2, 8, _HANN, return_complex=True, within=_SUMS),
    case("aten.stft.center", vector(40).dynamic(0), 8, 4, onesided=False, return_complex=True, within=_SUMS),
    case("aten.istft.default", tensor(2, 5, 9, dtype=_Z), 8, 2, 8, _HANN, within=_ADDED_UP),
    case("aten.istft.default", matrix(5, 9, dtype=_Z).dynamic(1), 8, 2, 8, _HANN, normalized=True, within=_ADDED_UP),
    case("aten.istft.default", tensor(2, 8, 9, dtype=_Z), 8, 2, onesided=False, length=20, within=_ADDED_UP),
    case("aten.erf.default", values([1e-9, -1e-7, 3e-6, -1e-5])),
    case("aten.erf.default", values([-0.51, -0.5, -0.49, 0.2, 0.499, 0.5, 3.0, nan])),
    case("aten.repeat_interleave.self_Tensor", matrix(3, 2), values([2, 0, 1], "int64"), 0),
    *(
        case(f"aten.{name}.default", values([-40.0, -9.5, -8.0, -3.0, -0.6, -0.5, 0.0, 0.4, 0.5, 2.0, 9.0, 30.0]))
        for name in ("erfc", "special_i0e", "special_i1e")
    ),
    *(
        case(f"aten.{name}.default", values([-30.0, -9.5, -8.0, -3.0, -0.5, 0.0, 0.4, 7.9, 8.1]))
        for name in ("special_i0", "special_i1")
    ),
]  # fmt: skip
