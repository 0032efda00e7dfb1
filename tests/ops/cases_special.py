# SPDX-License-Identifier: Apache-2.0
"""Cases of special functions, losses, norms, distances, reductions by index, and searches."""

from making import bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

from paritas.verify.tolerance import Tolerance

_EDGES = (nan, inf, -inf, 0.0, 1.0, -1.0, 2.0)
_PART = values([-0.9999, -0.95, -0.71, -0.7, -0.3, -1e-6, 0.0, 1e-4, 0.5, 0.7, 0.8, 0.99999, 1.0, -1.0, 1.1, nan])
_RATIO = values([1e-7, 1e-3, 0.25, 0.5, 0.75, 0.999, 0.9999999, 0.0, 1.0, -0.1, 1.1, nan])

NEAR_POLE = Tolerance(4e-6, 2e-6, "torch's own float32 polynomial is 1e-6 off near the zeros of lgamma")
BESSEL = Tolerance(3e-6, 0.0, "torch's own float32 series is 1e-6 off")

SPECIAL = [
    *(
        case(f"aten.{name}.default", x)
        for name in ("acos", "acosh", "asin", "asinh", "atanh", "cosh", "sinh", "erfc", "exp2", "erfinv")
        for x in (vector(40).with_(*_EDGES), _PART, _PART.as_("float16"), scalar(0.7), tensor(0, 3), ints(4))
    ),
    *(
        case(f"aten.{name}.default", x, within=within)
        for name, within in (
            ("lgamma", NEAR_POLE), ("i0", BESSEL), ("special_i0e", BESSEL), ("special_i1", BESSEL),
            ("special_i1e", BESSEL),
        )
        for x in (vector(40).with_(nan, inf), ints(4, low=1), scalar(0.7), tensor(0, 3))
    ),
    case("aten.erfinv.default", vector(6).dynamic(0)),
    *(
        case(f"aten.{name}.default", _RATIO, *rest)
        for name in ("logit", "special_logit")
        for rest in ((), (1e-5,), (1e-7,), (0.0,))
    ),
    case("aten.logit.default", _RATIO.as_("float16"), 1e-3),
    case("aten.logit.default", bools(4)),
]  # fmt: skip

LOSSES = [
    *(
        case("aten.mse_loss.default", a, b, *rest)
        for a, b in (
            (matrix(3, 4), matrix(3, 4)), (matrix(3, 4), vector(4)), (tensor(0, 4), tensor(0, 4)),
            (scalar(2.0), scalar(0.5)), (matrix(3, 4).as_("float16"), matrix(3, 4)),
            (matrix(2, 3).dynamic(0), matrix(2, 3).dynamic(0)),
        )
        for rest in ((), (0,), (2,))
    ),
]  # fmt: skip

DISTANCES = [
    *(
        case("aten.linalg_vector_norm.default", tensor(2, 3, 4), order, dim, keepdim)
        for order in (0, 1, 2, 3, -1, 2.5, inf, -inf)
        for dim, keepdim in ((None, False), ([-1], True), ([0, 2], False))
    ),
    case("aten.linalg_norm.default", tensor(2, 3, 4)),
    case("aten.linalg_norm.default", matrix(2, 3).with_(nan)),
    case("aten.linalg_norm.default", tensor(2, 3, 4), None, [-1], True),
    case("aten.linalg_norm.default", tensor(2, 3, 4).dynamic(0, 1), None, [-1], True),
    case("aten.linalg_norm.default", tensor(2, 3, 4), None, [0, -1]),
    case("aten.linalg_norm.default", vector(5), 1),
    case("aten.linalg_norm.default", scalar(-2.0)),
    case("aten.linalg_norm.ord_str", matrix(3, 4), "fro"),
    case("aten.linalg_norm.ord_str", tensor(2, 3, 4), "fro", [0, -1], True),
    *(
        case("aten.linalg_norm.default", matrix(3, 4), order, None, keepdim)
        for order in (1, -1, inf, -inf)
        for keepdim in (False, True)
    ),
    *(case("aten.linalg_matrix_norm.default", tensor(2, 3, 4), o, [-1, 0]) for o in (1, -1, inf, -inf)),
    case("aten.linalg_matrix_norm.default", matrix(3, 4).as_("float16"), 1),
    case("aten.linalg_matrix_norm.str_ord", tensor(2, 3, 4)),
    *(case("aten.cdist.default", matrix(5, 4), matrix(3, 4), p) for p in (0.0, 1.0, 2.0, 3.0, inf)),
    case("aten.cdist.default", tensor(2, 1, 5, 4), tensor(3, 3, 4)),
    case("aten.cdist.default", tensor(2, 0, 4), tensor(2, 3, 4)),
    case("aten.cdist.default", matrix(2, 0), matrix(3, 0)),
    case("aten.cdist.default", matrix(5, 4).dynamic(0), matrix(3, 4)),
    case("aten.cdist.default", matrix(5, 4).dynamic(0), matrix(3, 4), 1.0),
    # Many rows: by a product, as torch.
    case("aten.cdist.default", matrix(300, 64), matrix(300, 64)),
]  # fmt: skip

_PLACES = values([[0, 2, 2, 0], [1, 1, 2, 2]], "int64")

SCATTERED = [
    *(
        case("aten.scatter_reduce.two", x, dim, _PLACES, src, how, include_self=whole)
        for how in ("sum", "prod", "mean", "amax", "amin")
        for whole in (True, False)
        for x, dim, src in (
            (matrix(3, 5), 0, matrix(3, 4)),
            (matrix(3, 5).with_(nan), -1, matrix(2, 4).with_(nan)),
            (ints(3, 5), 1, ints(2, 4)),
        )
    ),
    case("aten.scatter_reduce.two", matrix(3, 5).as_("float16"), 0, _PLACES, matrix(2, 4).as_("float16"), "mean"),
    case("aten.scatter_reduce.two", matrix(3, 5), 0, ints(0, 4, low=0, high=1), matrix(2, 4), "sum"),
    case("aten.scatter_reduce.two", scalar(1.0), 0, scalar(0, "int64"), scalar(2.0), "amax"),
    case(
        "aten.scatter_reduce.two", matrix(3, 5).dynamic(0), 1, ints(3, 4, low=0, high=5).dynamic(0),
        matrix(3, 4).dynamic(0), "amax",
    ),
    *(
        case(f"aten.{name}.default", x, dim)
        for name in ("cummax", "cummin")
        for x, dim in (
            (matrix(3, 4), 0), (matrix(3, 40).with_(nan, inf, -inf), -1), (ints(3, 9, low=0, high=3), 1),
            (scalar(2.0), 0), (tensor(0, 3), 0), (ints(9, low=0, high=3, dtype="int32"), 0), (bools(3, 6), 1),
            (matrix(3, 6).as_("float16"), 1), (matrix(3, 6).dynamic(0), 1),
        )
    ),
]  # fmt: skip

_EDGE_ROWS = values([[-3.0, -1.0, 0.0, 0.0, 2.0], [-1.0, 0.5, 0.5, 0.5, 0.75]])

SEARCHED = [
    *(
        case("aten.searchsorted.Tensor", _EDGE_ROWS, x, right=right)
        for x in (matrix(2, 7).with_(0.0, 0.5, nan, inf, -inf), values([[0, 1], [-1, 2]], "int64"))
        for right in (False, True)
    ),
    case("aten.searchsorted.Tensor", values([1.0, 2.0, 2.0, 3.0]), values([[2.0, 0.0], [5.0, 1.0]]), side="right"),
    case("aten.searchsorted.Tensor", values([1, 2, 2, 3], "int64"), scalar(2, "int64"), out_int32=True),
    case("aten.searchsorted.Tensor", values([3.0, 1.0, 2.0]), vector(6), sorter=values([1, 2, 0], "int64")),
    case("aten.searchsorted.Tensor", tensor(0), vector(3)),
    case("aten.searchsorted.Tensor", values([1.0, 2.0]), tensor(0, 2)),
    case("aten.searchsorted.Tensor", values([1.0, 2.0]), vector(5).dynamic(0)),
    case("aten.searchsorted.Scalar", values([1.0, 2.0, 2.0, 3.0]), 2.0, right=True),
    case("aten.searchsorted.Scalar", values([1, 2, 2, 3], "int64"), 2),
]  # fmt: skip
