# SPDX-License-Identifier: Apache-2.0
"""Cases of statistics of order, running extremes, distinct values, signs and bits of whole numbers."""

import torch
from making import bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

from paritas.verify.tolerance import Tolerance

SUMS = Tolerance(4e-6, 1e-6, "logarithms of sums of exponentials, each a polynomial", scaled=4e-6)
_SPECIAL = [nan, inf, -inf, 0.0, -0.0, 1.0, -1.0, 2.5]
_LEFT = values([a for a in _SPECIAL for _ in _SPECIAL])
_RIGHT = values(_SPECIAL * len(_SPECIAL))
_LARGE = values([2**31 - 1, 1836311903, 0, -12, 0, 2**24 + 1], "int64")

RUNNING = [
    *(
        case(f"aten.{name}.default", x, dim)
        for name in ("cummax", "cummin")
        for x, dim in (
            (matrix(3, 7).dynamic(0, 1), 1), (tensor(2, 3, 4), -2), (ints(3, 5, low=0, high=3), 1),
            (values([[1.0, nan, 2.0, nan], [inf, 1, inf, -inf]]), 1), (bools(3, 4), 0),
            (values([2**24 + 1, 2**24, 2**31 - 1, -5], "int64"), 0),
        )
    ),
    case("aten.cumprod.default", matrix(3, 7).dynamic(1), 1),
    case("aten.cumprod.default", ints(3, 7, dtype="int32"), -1),
    case("aten.cumprod.default", bools(3, 4), 0),
    case("aten.logcumsumexp.default", matrix(3, 7).dynamic(0), 1, within=SUMS),
    case("aten.logcumsumexp.default", values([-inf, -inf, 1, inf, 2, nan]), 0),
    case("aten.logaddexp.default", matrix(3, 7), vector(7), within=SUMS),
    case("aten.logaddexp.default", values([inf, -inf, inf, nan, -inf]), values([inf, -inf, -inf, 1.0, 3.0])),
]  # fmt: skip

ORDER = [
    case("aten.kthvalue.default", matrix(3, 7).dynamic(1), 3, 1),
    case("aten.kthvalue.default", ints(3, 7), 2, 0, True),
    case("aten.kthvalue.default", values([2**24 + 1, 2**24, 2**24 + 3, -7], "int64"), 2),
    case("aten.msort.default", matrix(3, 7)),
    *(
        case(f"aten.{name}.dim", x, *rest)
        for name in ("median", "nanmedian")
        for x, *rest in (
            (matrix(3, 6).dynamic(1), 1), (matrix(3, 7).with_(nan), 1, True), (ints(3, 7), 0),
            (values([[nan, 1, 2, inf], [nan, nan, nan, nan], [1, 2, nan, 3]]), 1),
        )
    ),
    *(case(f"aten.{name}.default", x) for name in ("median", "nanmedian")
      for x in (tensor(3, 4), tensor(3, 4).with_(nan), ints(3, 3), scalar(1.0))),
    case("aten.mode.default", ints(4, 9, low=0, high=3), 1),
    case("aten.mode.default", matrix(3, 4), 0, True),
    case("aten.mode.default", bools(3, 4)),
    *(
        case(f"aten.{name}.default", x, values([0.0, 0.25, 0.77, 1.0]), *rest, interpolation=way)
        for name in ("quantile", "nanquantile")
        for way in ("linear", "lower", "higher", "midpoint", "nearest")
        for x, *rest in ((matrix(3, 7), 1, True), (matrix(3, 7).with_(nan), 0))
    ),
    case("aten.quantile.scalar", matrix(3, 7).dynamic(1), 0.3),
    case("aten.quantile.scalar", matrix(3, 7), 0.3, 1, True),
    case("aten.nanquantile.scalar", matrix(3, 7).with_(nan), 0.3),
]  # fmt: skip

DISTINCT = [
    case("aten._unique2.default", ints(3, 9, low=-3, high=3), True, True, True),
    case("aten._unique2.default", ints(3, 9, low=-3, high=3)),
    case("aten._unique2.default", values([2**24 + 1, 2**24, 2**24 + 1, -7], "int64"), True, True, True),
    case("aten._unique2.default", values([1.5, -0.0, 2.0, 0.0, 1.5]), True, True, True),
    case("aten.unique_dim.default", ints(5, 2, low=0, high=2), 0, True, True, True),
    case("aten.unique_consecutive.default", ints(9, low=0, high=2), True, True),
    case("aten.unique_consecutive.default", ints(9, 2, low=0, high=2), True, True, 0),
]

SIGNS = [
    *(case(f"aten.{name}.default", _LEFT, _RIGHT) for name in ("fmax", "fmin", "hypot", "heaviside")),
    *(case(f"aten.{name}.Tensor", _LEFT, _RIGHT) for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(case(f"aten.{name}.Scalar", values(_SPECIAL), nan) for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    case("aten.isfinite.default", values([*_SPECIAL, 1e-40])),
    case("aten.isclose.default", _LEFT, _RIGHT, equal_nan=True),
    case("aten.isclose.default", ints(5), ints(5)),
    case("aten.signbit.default", values(_SPECIAL[1:])),
    case("aten.signbit.default", ints(5)),
    case("aten.copysign.Scalar", values(_SPECIAL), -0.0),
    case("aten.heaviside.default", ints(5), ints(5)),
    case("aten.nansum.default", values(_SPECIAL)),
    case("aten.nanmean.default", tensor(3, 4).with_(nan), [1], True),
]

WHOLE = [
    case(
        "aten.pow.Tensor_Tensor",
        values([2, -1, -1, 1, 0, 0, 3, -2, 7], "int64"),
        values([-1, -3, 65, -2, 64, 0, 3, 5, -9], "int64"),
    ),
    case("aten.gcd.default", ints(20), ints(20)),
    *(
        case("aten.gcd.default", values([a for a in row for _ in row], kind), values(row * len(row), kind))
        for kind, row in (
            ("int8", [-128, -127, -96, -6, 0, 5, 89, 127]),
            ("int16", [-(2**15), -7, 0, 6, 28657]),
        )
    ),
    case("aten.gcd.default", _LARGE, values([7, 1134903170, 5, 18, 0, 2**24], "int64")),
    case("aten.gcd.default", ints(9, low=0, high=255, dtype="uint8"), ints(9, low=0, high=255, dtype="uint8")),
    case("aten.lcm.default", ints(20), ints(20)),
]

#: Overloads that decompositions are made of.
INNER = [
    *(case(f"aten.__{name}__.Tensor", ints(5), ints(5, low=0, high=8)) for name in ("lshift", "rshift")),
    *(case(f"aten.__{name}__.Scalar", ints(5), 3) for name in ("lshift", "rshift")),
    *(
        case(f"aten.bitwise_{name}_shift.Tensor", ints(9, dtype=dtype), ints(9, low=0, high=7, dtype=dtype))
        for name in ("left", "right")
        for dtype in ("int64", "int32", "int8")
    ),
    *(case(f"aten.bitwise_{name}.Scalar_Tensor", 5, ints(9)) for name in ("and", "or", "xor")),
    case("aten.remainder.Scalar_Tensor", 7, values([1, -2, 3, -7, 9], "int64")),
    case("aten.isin.Tensor_Scalar", ints(9), 3),
    case("aten._is_all_true.default", bools(5)),
    case("aten._unsafe_index.Tensor", matrix(4, 5), [None, values([0, -1, 2], "int64")]),
    case("aten._unsafe_index_put.default", matrix(4, 5), [values([0, 2], "int64")], matrix(2, 5)),
    case("aten.lift_fresh_copy.default", matrix(2, 3)),
    case("aten.native_group_norm.default", tensor(2, 6, 3), vector(6), vector(6), 2, 6, 3, 2, 0.5),
    case("aten.nonzero.default", scalar(0.0)),
    case("aten.nonzero.default", scalar(2.0)),
    *(
        case(f"aten.{way}_pad{rank}d.default", tensor(2, *[4] * rank), [1, 2] * rank)
        for way in ("reflection", "replication")
        for rank in (1, 2, 3)
    ),
    case("aten.split.sizes", matrix(5, 3), [2, 3]),
    case("aten.unsafe_split_with_sizes.default", matrix(5, 3), [2, 3]),
    case("aten.to.other", ints(3, 4), matrix(2, 2)),
    case("prims.convert_element_type.default", matrix(3, 4), torch.int64),
]

_PAIR = (matrix(3, 4), matrix(3, 4))
PRIMS = [
    *(
        case(f"prims.{name}.default", *_PAIR)
        for name in ("add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge")
    ),
    *(case(f"prims.{name}.default", ints(3, 4), ints(3, 4)) for name in ("add", "sub", "mul", "lt", "ge")),
    *(
        case(f"prims.{name}.default", matrix(3, 4))
        for name in ("abs", "neg", "exp", "sin", "cos", "tanh", "floor", "ceil", "round", "trunc")
    ),
    *(case(f"prims.{name}.default", matrix(3, 4).above_zero()) for name in ("sqrt", "rsqrt", "log")),
    case("prims.where.default", bools(3, 4), *_PAIR),
    case("prims.scalar_tensor.default", 2.5, dtype=torch.float32, device=torch.device("cpu")),
    case("prims.scalar_tensor.default", 7, dtype=torch.int64, device=torch.device("cpu")),
]

_SCORES, _LABELS = matrix(3, 4), values([[0, 1, -1, 2], [3, -1, 0, 1], [2, 0, 1, 3]], "int64")
MARGINS = [
    *(case("aten.multilabel_margin_loss.default", _SCORES, _LABELS, way) for way in (0, 1, 2)),
    case("aten.multilabel_margin_loss.default", vector(4), values([1, -1, 0, 2], "int64"), 1),
    *(case("aten.multilabel_margin_loss.default", scalar(0.5), scalar(0, "int64"), way) for way in (1, 2)),
    case("aten.multi_margin_loss.default", _SCORES, values([0, 3, 1], "int64")),
    case("aten.margin_ranking_loss.default", vector(4), vector(4), values([1.0, -1, 1, -1])),
    case("aten.hinge_embedding_loss.default", vector(4), values([1.0, -1, 1, -1])),
    case("aten.cosine_embedding_loss.default", _SCORES, matrix(3, 4), values([1.0, -1, 1])),
    case("aten.poisson_nll_loss.default", _SCORES, matrix(3, 4).above_zero(), False, True, 1e-8, 1),
]
