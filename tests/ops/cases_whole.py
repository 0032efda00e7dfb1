# SPDX-License-Identifier: Apache-2.0
"""Whole numbers that float32 does not tell from their neighbours: compared, chosen, bounded, divided, averaged."""

from making import case, ints, values

_NEAR = [2**24, 2**24 + 1, 2**24 + 2, -(2**24), -(2**24) - 1, 2**31 - 1, 2**31 - 2, -(2**31) + 1, 0, -7]
_OTHER = [2**24 + 1, 2**24, 2**24 + 2, -(2**24) - 1, -(2**24), 2**31 - 2, 2**31 - 1, -(2**31) + 2, 7, -7]
_SQUARE = [[2**31 - 1, 2**24 + 1, 5], [-(2**31) + 1, 2**25 + 1, 7], [1, 2, 2**24 + 1]]
_NARROW = ("int32", "int64")

CASES = [
    one
    for kind in _NARROW
    for near, other, square in [(values(_NEAR, kind), values(_OTHER, kind), values(_SQUARE, kind))]
    for one in (
        *(case(f"aten.{name}.Tensor", near, other) for name in ("lt", "le", "gt", "ge", "eq", "ne")),
        case("aten.lt.Scalar", near, 2**24 + 1),
        case("aten.eq.Scalar", near, 2**31 - 1),
        case("aten.where.self", values([[True], [False]], "bool"), near, other),
        case("aten.masked_fill.Scalar", square, values([[True], [False], [True]], "bool"), 2**24 + 1),
        case("aten.tril.default", square),
        case("aten.triu.default", square, 1),
        case("aten.diagonal_scatter.default", square, values([2**24 + 1, 3, -(2**31) + 5], kind)),
        case("aten.constant_pad_nd.default", square, [1, 1], 2**24 + 1),
        case("aten.floor_divide.default", near, values([-(2**24) - 1] * 5 + [3, -(2**31) + 1, 7, -2, 2], kind)),
        case("aten.div.Tensor_mode", near, values([1, -(2**24) - 1] * 5, kind), rounding_mode="trunc"),
        case("aten.remainder.Tensor", values([1] * 3, kind), values([-(2**31) + 1, 2**31 - 1, -2], kind)),
        case("aten.fmod.Tensor", values([1, -1], kind), values([-(2**24) - 1, 2**31 - 1], kind)),
        case("aten.clamp.default", near, -5, 2**24 + 1),
        case("aten.clamp_min.default", near, 2**24 + 1),
        case("aten.pow.Tensor_Tensor", values([[9], [-9], [7]], kind), values([9, 2, 0], kind)),
        case("aten.searchsorted.Tensor", values(sorted(_NEAR), kind), other),
        case("aten.cummax.default", near, 0),
        case("aten.unique_consecutive.default", near),
    )
] + [
    *(case(f"aten.{name}.Scalar", values(_NEAR, "int64"), 2**40) for name in ("lt", "gt", "eq", "ne")),
    case("aten.clamp.default", values(_NEAR, "int64"), -(2**40), 2**40),
    case("aten.clamp.default", values([[0, 200, 5, 255]], "uint8"), -1, 2),
    case("aten.eq.Scalar", values([0, 200, 5, 255], "uint8"), -1),
    case("aten.bitwise_left_shift.Tensor", values([-7, 1, 3], "int32"), values([32, 31, 40], "int32")),
    case("aten.isin.Tensor_Scalar", values([0, 200, 5, 255], "uint8"), -1),
    case("aten.lt.Scalar", values([0, 200, 5, 255], "uint8"), -7),
    case("aten.remainder.Scalar", values([0, 200, 5, 255], "uint8"), -7),
    case("aten.remainder.Scalar", values([0, -(2**15), 5, 2**15 - 1], "int16"), 2**24 + 1),
    case("aten.pow.Scalar", 3, values([5, 2**31 - 1, 2**24 + 1, -2], "int32")),
    case("aten.pow.Tensor_Tensor", values([-7, 3, 1, -1], "int16"), values([2**15 - 1, 70, -3, -3], "int16")),
    case("aten.add.Tensor", values([True, False], "bool"), values([True, True], "bool"), alpha=False),
    case("aten.floor_divide.default", values([5.0, -1e-3, -5.0, 0.0]), values([-1e20, 1e20, -1e20, -2.0])),
    *(
        case("aten.avg_pool2d.default", ints(1, 2, 7, 7, low=-9, high=9), *options)
        for options in ([3], [3, 2, 1, True], [3, 2, 1, True, False], [[3, 2], 2, 1, False, True, 7])
    ),
    case("aten.avg_pool1d.default", values([[-(2**31) + 1, 2**31 - 1, 2**24 + 1, 5, -9]], "int64"), [2]),
]
