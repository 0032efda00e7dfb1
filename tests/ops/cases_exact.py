# SPDX-License-Identifier: Apache-2.0
"""Cases of whole numbers at the ends of their range, of order with NaN and ties, and of complex numbers.

`ONE_EACH` are tried on every engine as all others; `PACKED` are many, and share modules of MindSpore's in
`test_exact.py`.
"""

import torch
from making import Case, bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.float32)

#: Whole numbers that float64 does not hold, the ends of the range, and small ones of either sign.
_LARGE = [2**53 + 1, -(2**53) - 1, 2**62 + 1, -(2**62) - 3, 2**63 - 1, -(2**63) + 1, 7, -7, 0, 1]
_BY = [3, -3, 2**31 + 1, 7, 2**62 + 3, -10, -2, 2, -5, 2**53 + 1]
_ENDS = {
    "int32": [2**31 - 1, -(2**31), 7, -7, 0, 100],
    "int16": [2**15 - 1, -(2**15), 7, -7, 0, 100],
    "int8": [127, -128, 7, -7, 0, 100],
    "uint8": [255, 0, 7, 128, 1, 100],
}
LARGE, BY = values(_LARGE, "int64"), values(_BY, "int64")
TIED = values([[2, 0, 2, 1, 0, 2, 1, 1, 0, 2, 2, 0, 1, 0, 2, 1, 0, 2, 1, 1]] * 2, "int64")
ORDER = values([1.0, nan, inf, -3.0, nan, -inf, 3.4028234663852886e38, -0.0, 0.0, inf, -2.0])
ROWS = values([[1.0, nan, 3.0, nan, 2.0], [5.0, 4.0, inf, -inf, 3.0], [nan] * 5])
#: Without two that are alike: which of them is found first, torch does not say.
APART = values([[1.0, nan, 3.0, 7.0, 2.0], [5.0, 4.0, inf, -inf, 3.0]])
DISTINCT = values([1.0, nan, inf, -3.0, -inf, 3.4028234663852886e38, 0.5, -2.0])

ONE_EACH = [
    *(case(f"aten.bitwise_{way}_shift.Tensor_Scalar", ints(9), 3) for way in ("left", "right")),
    *(case(f"aten.bitwise_{way}_shift.Scalar_Tensor", -9, values([0, 1, 5, 20], "int64")) for way in ("left", "right")),
    case("aten.round.decimals", vector(12), decimals=2),
]

_MORE = [
    *(
        case(f"aten.{name}.Tensor", LARGE, values([2, 0, 5, 62, 63, 64, -1, 1, 3, 70], "int64"))
        for name in ("__lshift__", "__rshift__", "bitwise_left_shift", "bitwise_right_shift")
    ),
    *(
        case(f"aten.{name}", LARGE, 3)
        for name in (
            "__lshift__.Scalar",
            "__rshift__.Scalar",
            "bitwise_left_shift.Tensor_Scalar",
            "bitwise_right_shift.Tensor_Scalar",
        )
    ),
    *(
        case(f"aten.bitwise_{name}_shift.Scalar_Tensor", -9, values([0, 1, 5, 63], "int64"))
        for name in ("left", "right")
    ),
    case("aten.msort.default", matrix(4, 3)),
    case("aten.kthvalue.default", APART, 4),
    case("aten.median.default", matrix(3, 4)),
    case("aten.median.dim", ROWS, 1),
    case("aten.nanmedian.default", ROWS),
    case("aten.nanmedian.dim", APART, 1, True),
    case("aten.round.decimals", vector(12), decimals=2),
]


_TOP = [5.5, -5.5, 3e4, inf, 5.0, -5.0, nan, -0.0, 6.0, 1.0, 0.3, 0.0, 3.0, -inf, 1234.567, -0.001]
_UNDER = [2.0, -2.0, 7.0, 3.0, inf, inf, 1.0, 3.0, 0.1, 0.1, 0.1, 2.0, 0.0, 2.0, -0.37, 0.7]


def _packed() -> list[Case]:
    found: list[Case] = [*_MORE]
    for dtype, x in [("int64", LARGE), *((d, values(v, d)) for d, v in _ENDS.items())]:
        by = BY if dtype == "int64" else values([3, 2, 5, 100, 7, 4], dtype)
        small = ints(6, low=1, high=5, dtype=dtype)
        found += [
            case("aten.floor_divide.default", x, by),
            case("aten.floor_divide.default", x, 7),
            case("aten.floor_divide.default", x, 8),
            case("aten.remainder.Tensor", x, by),
            case("aten.remainder.Scalar", x, 7),
            case("aten.remainder.Scalar", x, 8),
            case("aten.fmod.Tensor", x, by),
            case("aten.div.Tensor_mode", x, by, rounding_mode="trunc"),
            case("aten.div.Tensor_mode", x, 8, rounding_mode="trunc"),
            case("aten.sum.default", x),
            case("aten.sum.dim_IntList", x, [0], True),
            case("aten.prod.default", x),
            case("aten.cumsum.default", x, 0),
            case("aten.mul.Tensor", x, x),
            case("aten.add.Tensor", x, x),
            case("aten.add.Tensor", x, 100),
            case("aten.sub.Tensor", x, 1),
            case("aten.rsub.Scalar", x, 5),
            case("aten.mul.Tensor", x, 3),
            case("aten.neg.default", x),
            case("aten.abs.default", x),
            case("aten.sign.default", x),
            case("aten.bitwise_not.default", x),
            case("aten.bitwise_and.Tensor", x, by),
            case("aten.bitwise_xor.Scalar", x, 5),
            case("aten.__lshift__.Scalar", x, 3),
            case("aten.__rshift__.Scalar", x, 3),
            case("aten.__rshift__.Scalar", x, 80),
            case("aten.__lshift__.Tensor", small, small),
            case("aten.clamp.default", x, 3, 50),
            case("aten.clamp.default", x, -1.5, 50.5),
            case("aten.maximum.default", x, by),
            case("aten.argmax.default", x),
            case("aten.amax.default", x),
            case("aten.sort.default", x),
            case("aten.any.default", x),
            case("aten.all.default", x),
            case("aten.eq.Tensor", x, by),
            case("aten.lt.Tensor", x, by),
            case("aten.gt.Scalar", x, 100),
            case("aten.pow.Tensor_Scalar", x, 3),
            case("aten.where.self", bools(len(x.data)), x, by),
            *(case("aten._to_copy.default", x, dtype=other) for other in _DTYPES),
        ]
    odd = values([1.7, -1.7, -0.5, 300.0, -300.0, 1e10, -1e10, 255.9, -128.9, nan, inf, -inf, 1e20])
    found += [case("aten._to_copy.default", odd, dtype=dtype) for dtype in _DTYPES]
    found += [
        case("aten.cumsum.default", bools(3, 4), 1),
        case("aten.add.Tensor", bools(4), bools(4)),
        case("aten.mul.Tensor", bools(4), ints(4)),
        case("aten.add.Tensor", ints(4, dtype="uint8", low=0), ints(4, dtype="int8")),
        case("aten.add.Tensor", ints(4, dtype="int16"), vector(4).as_("float16")),
        case("aten.eq.Scalar", values([2**53, 2**53 + 1], "int64"), 2**53 + 1),
        case("aten.lt.Scalar", values([2**53, 2**53 + 1], "int64"), 2**53 + 1),
        case("aten.clamp.default", values([2**53, 2**53 + 1, 2**53 + 3], "int64"), 2**53 + 1, 2**53 + 2),
        case(
            "aten.matmul.default",
            values([[2**53 + 1, 2**61], [3, -(2**62)]], "int64"),
            values([[1, 3], [5, 2]], "int64"),
        ),
        case("aten.add.Tensor", LARGE, 2**62 + 1),
        case("aten.sum.dim_IntList", values([_LARGE, _BY], "int64"), [0, 1]),
        case("aten.floor_divide.default", LARGE, scalar(-(2**62) - 1, "int64")),
    ]
    for x in (
        ORDER,
        ORDER.as_("float16"),
        ORDER.as_("float64"),
        ROWS,
        TIED,
        TIED.as_("float32"),
        bools(3, 40),
    ):
        for options in ({}, {"descending": True}, {"dim": 0}):
            found += [
                case("aten.sort.stable", x, stable=True, **options),
                case("aten.sort.default", x, **options),
                case("aten.argsort.default", x, **options),
            ]
    found += [
        case("aten.topk.default", DISTINCT, 6),
        case("aten.topk.default", DISTINCT, 6, -1, False),
        case("aten.topk.default", values([1.0, nan, inf, 65504.0, -inf, 0.5], "float16"), 5),
        case("aten.topk.default", DISTINCT.as_("float64"), 8),
        case("aten.topk.default", APART, 1, 0),
        case("aten.kthvalue.default", DISTINCT, 8),
        case("aten.kthvalue.default", APART, 2, 0, True),
        case("aten.kthvalue.default", tensor(3, 7).dynamic(1), 3),
        case("aten.median.default", ROWS),
        case("aten.median.default", values([3, 1, 2, 4], "int64")),
        case("aten.median.dim", ROWS, 0, True),
        case("aten.median.dim", matrix(3, 6).dynamic(1), 1),
        case("aten.nanmedian.dim", APART, 0),
        case("aten.max.dim", ROWS, 1),
        case("aten.min.dim", ROWS, 0),
        case("aten.argmax.default", ROWS),
        case("aten.argmin.default", ROWS, 1),
        case("aten.argmax.default", TIED, 1),
        case("aten.argmin.default", TIED, 1),
        case("aten.amax.default", ROWS, [1]),
        case("aten.cummax.default", ROWS, 1),
        case("aten.cummin.default", ROWS, 1),
        case("aten.round.decimals", vector(12), decimals=-1),
        case("aten.roll.default", matrix(3, 5).dynamic(0, 1), [1, -4], [0, 1]),
    ]
    return list({str(one): one for one in found}.values())


PACKED = _packed()
