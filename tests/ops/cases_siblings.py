# SPDX-License-Identifier: Apache-2.0
"""Cases of the operators beside the common ones, and of their second names. `test_conformance.py` has many more."""

import dataclasses

import torch
from cases_numbers import BY_EXP, FROM_EXP, HALF_WITH_EXP
from making import Case, bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

_BAD = (nan, inf, -inf, 0.0, -0.0)
_ANY = vector(40).with_(*_BAD)

TWO = [
    *(
        case(f"aten.{name}", a, b)
        for name in (
            "copysign.Tensor", "hypot.default", "logaddexp.default", "logaddexp2.default", "heaviside.default",
            "xlogy.Tensor", "special_xlogy.default", "fmax.default", "fmin.default", "isclose.default",
        )
        for a, b in (
            (_ANY, matrix(3, 40)), (matrix(3, 40), _ANY),
            (values([nan, inf, inf, 0.0, -inf]), values([inf, nan, inf, 0.0, -inf])), (matrix(0, 3), vector(3)),
            (vector(5).dynamic(0), vector(5).dynamic(0)),
        )
    ),
    case("aten.copysign.Scalar", _ANY, -2.0),
    case("aten.copysign.Tensor", ints(4), vector(4)),
    case("aten.xlogy.Tensor", ints(4, low=0), ints(4, low=0)),
    case("aten.heaviside.default", ints(9, low=-1, high=2), ints(9)),
    case("aten.fmax.default", ints(9), ints(9)),
    case("aten.hypot.default", values([1e30, 3e-30]), values([1e30, 4e-30])),
    case("aten.isclose.default", ints(9, low=0, high=3), ints(9, low=0, high=3)),
    case("aten.isclose.default", _ANY, _ANY, equal_nan=True),
    case("aten.isclose.default", values([1.0, 1.0, 1e-9]), values([1.000009, 1.00002, 0.0])),
    case("aten.float_power.Tensor_Tensor", vector(4).above_zero(), ints(4)),
    case("aten.float_power.Tensor_Scalar", vector(4).above_zero(), 2.5),
    case("aten.threshold.default", vector(9).with_(nan), 0.5, -3.0),
    case("aten.lerp.Tensor", vector(9), vector(9), vector(9)),
]  # fmt: skip

ONE = [
    *(
        case(f"aten.{name}.default", x)
        for name in (
            "sgn", "positive", "signbit", "isneginf", "isposinf", "frac", "deg2rad", "rad2deg", "sinc",
            "special_sinc", "special_ndtr", "special_entr", "hardshrink", "softshrink", "celu", "selu",
        )
        for x in (_ANY, vector(9).as_("float16"), tensor(0, 3), scalar(0.7))
    ),
    *(case(f"aten.{name}.default", ints(4)) for name in ("signbit", "isneginf", "sgn", "deg2rad", "sinc")),
    case("aten.celu.default", vector(9), 0.5),
]  # fmt: skip

_PAIRS = ((matrix(3, 4), matrix(3, 4)), (matrix(0, 4), matrix(0, 4)), (scalar(0.5), scalar(2.0)))
_CHANCES = values([[0.0, 0.25], [1.0, 0.99]])

ERRORS = [
    *(
        case(f"aten.{name}.default", a, b, reduction, within=within)
        for name, within in (
            ("l1_loss", None), ("smooth_l1_loss", None), ("huber_loss", None), ("soft_margin_loss", FROM_EXP),
        )
        for a, b in _PAIRS
        for reduction in (0, 1, 2)
    ),
    case("aten.smooth_l1_loss.default", vector(9), vector(9), 1, 0.0),
    case("aten.smooth_l1_loss.default", vector(9), vector(9), 1, 0.3),
    case("aten.huber_loss.default", vector(9), vector(9), 2, 0.3),
    *(
        case("aten.binary_cross_entropy.default", _CHANCES, values([[0.0, 1.0], [0.0, 0.5]]), weight, how)
        for weight in (None, vector(2))
        for how in (0, 1, 2)
    ),
    *(
        case(
            "aten.binary_cross_entropy_with_logits.default", matrix(3, 4), matrix(3, 4), weight, positive, how,
            within=FROM_EXP,
        )
        for weight, positive in ((None, None), (vector(4), None), (None, vector(4).above_zero()))
        for how in (0, 1, 2)
    ),
    *(
        case("aten.kl_div.default", matrix(3, 4), matrix(3, 4).above_zero(), how, log_target=log)
        for how in (0, 1, 2)
        for log in (False, True)
    ),
    case("aten.kl_div.default", vector(2), values([0.0, 1.0])),
    *(
        case(f"aten.{name}.default", scores, target, weight, how, ignored, within=FROM_EXP)
        for name in ("nll_loss_nd", "nll_loss", "cross_entropy_loss")
        for scores, target in (
            (matrix(3, 5), values([0, 4, 2], "int64")), (matrix(3, 5), values([2, -100, 2], "int64")),
            (vector(5), scalar(3, "int64")),
        )
        for weight in (None, vector(5).above_zero())
        for how, ignored in ((0, -100), (1, -100), (2, -100))
    ),
    case("aten.nll_loss_nd.default", matrix(3, 5), values([0, 4, 2], "int64"), None, 1, 2),
    case("aten.nll_loss_nd.default", tensor(2, 5, 3), ints(2, 3, low=0, high=5)),
    case("aten.cross_entropy_loss.default", tensor(2, 5, 3, 2), ints(2, 3, 2, low=0, high=5), within=FROM_EXP),
    case("aten.cross_entropy_loss.default", matrix(3, 5), matrix(3, 5).above_zero(), within=FROM_EXP),
    *(
        case(
            "aten.cross_entropy_loss.default", matrix(3, 5), values([2, -100, 2], "int64"), weight, how, -100, 0.2,
            within=FROM_EXP,
        )
        for weight in (None, vector(5).above_zero())
        for how in (0, 1, 2)
    ),
    case("aten.cross_entropy_loss.default", matrix(3, 5).as_("float16"), ints(3, low=0, high=5), within=HALF_WITH_EXP),
    case("aten.cross_entropy_loss.default", matrix(3, 5), matrix(3, 5), vector(5), 1, -100, 0.1, within=FROM_EXP),
]  # fmt: skip

COUNTED = [
    *(
        case(f"aten.{name}.default", x, *rest)
        for name in ("nansum", "nanmean")
        for x, rest in (
            (matrix(3, 4).with_(nan), ()), (matrix(3, 4).with_(nan, nan), ([0],)), (matrix(3, 4), ([-1], True)),
            (matrix(0, 4), ([0],)), (scalar(nan), ()), (matrix(3, 4).as_("float16").with_(nan), ([1],)),
        )
    ),
    *(case("aten.count_nonzero.default", x, 0) for x in (ints(6, 3, low=0, high=2), matrix(3, 2).with_(nan, 0.0))),
    case("aten.count_nonzero.default", tensor(0)),
    case("aten.count_nonzero.dim_IntList", ints(3, 4, 2, low=0, high=2), [0, -1]),
    case("aten.aminmax.default", matrix(3, 4).with_(nan), dim=1, keepdim=True),
    case("aten.aminmax.default", ints(3, 4)),
    *(
        case(f"aten.{name}", tensor(2, 3, 4), *rest)
        for name, rest in (
            ("var.default", (False,)), ("std.default", ()), ("var_mean.default", ()), ("var_mean.dim", ([0, 2],)),
            ("std_mean.default", (False,)), ("std_mean.dim", ([-1], False, True)), ("std_mean.correction", ([1],)),
        )
    ),
    case("aten.var_mean.correction", tensor(0, 3), [0]),
    case("aten.std_mean.correction", matrix(3, 4).as_("float16"), [0], correction=2, keepdim=True),
    case("aten.norm.Scalar", matrix(3, 4), 2),
    case("aten.norm.ScalarOpt_dim", matrix(3, 4), None, [-1], True),
    case("aten.trace.default", ints(3, 5)),
    *(
        case("aten.diagonal.default", tensor(2, 3, 4), *rest)
        for rest in ((), (1, 1, 2), (-1, -1, 0), (9, 0, 1))
    ),
    case("aten.linalg_diagonal.default", tensor(2, 3, 4), offset=-1),
    *(case("aten.diag.default", x, d) for x in (vector(3), matrix(3, 4)) for d in (0, 1, -2)),
    *(case("aten.diag_embed.default", matrix(2, 3), *rest) for rest in ((), (1,), (-2, 0, 1), (0, -1, 0))),
    case("aten.diag_embed.default", bools(3)),
]  # fmt: skip

_ROWS = values([2, 0, 2], "int64")

PUT_TOGETHER = [
    *(
        case(f"aten.{name}.default", [a, b])
        for name in ("hstack", "vstack", "row_stack", "dstack", "column_stack")
        for a, b in ((vector(3), vector(3)), (scalar(1.0), scalar(2.0)), (tensor(2, 3, 2), ints(2, 3, 2)))
    ),
    *(
        case(f"aten.atleast_{n}d.default", x)
        for n in (1, 2, 3)
        for x in (scalar(1.0), vector(3), tensor(2, 3, 4, 5))
    ),
    *(case(f"aten.atleast_{n}d.Sequence", [scalar(1.0), vector(3)]) for n in (1, 2, 3)),
    case("aten.fliplr.default", matrix(2, 3)),
    case("aten.flipud.default", matrix(2, 3)),
    *(case("aten.rot90.default", tensor(2, 3, 4), k, [0, -1]) for k in (0, 1, 2, 3, -1)),
    case("aten.numpy_T.default", tensor(2, 3, 4)),
    *(case(f"aten.{name}.default", matrix(2, 3)) for name in ("mH", "matrix_H", "adjoint")),
    case("aten.tensor_split.indices", matrix(6, 2), [1, 4]),
    case("aten.tensor_split.indices", matrix(2, 6), [0, 4, 9, -1], -1),
    case("aten.hsplit.int", matrix(2, 6), 3),
    case("aten.vsplit.int", matrix(6, 2), 2),
    case("aten.dsplit.int", tensor(2, 3, 4), 2),
    case("aten.unsafe_split.Tensor", matrix(5, 2), 2),
    case("aten.unsafe_chunk.default", matrix(5, 2), 2, -2),
    case("aten.sum_to_size.default", tensor(2, 3, 4), [3, 1]),
    *(
        case("aten.pad.default", matrix(5, 4), [low, high], mode)
        for mode in ("replicate", "reflect")
        for low, high in ((3, -2), (-2, 3), (3, -4))
    ),
    case("aten.pad.default", ints(3, 4), [5, -4], "replicate"),
    case("aten.take.default", matrix(3, 4), values([[0, -1], [5, 11]], "int64")),
    case("aten.take_along_dim.default", matrix(3, 4), ints(1, 2, low=0, high=4), 1),
    case("aten.take_along_dim.default", matrix(3, 4), ints(5, low=0, high=12)),
    *(
        case("aten.index_fill.int_Scalar", x, dim, values([0, -1], "int64"), 7)
        for x, dim in ((matrix(3, 4), 0), (ints(3, 4), -1), (bools(4), 0))
    ),
    case("aten.index_fill.int_Tensor", matrix(3, 4), 1, values([2], "int64"), scalar(nan)),
    *(
        case("aten.index_reduce.default", matrix(3, 4), 0, _ROWS, matrix(3, 4), how, include_self=w)
        for how in ("prod", "mean", "amax", "amin")
        for w in (True, False)
    ),
    case("aten.scatter.reduce", matrix(3, 4), 0, ints(2, 4, low=0, high=3), matrix(2, 4), reduce="multiply"),
    case("aten.scatter.value_reduce", matrix(3, 4), 0, ints(2, 4, low=0, high=3), 2.5, reduce="add"),
]  # fmt: skip

MULTIPLIED = [
    case("aten.addmv.default", vector(3), matrix(3, 4), vector(4), beta=0.5, alpha=2),
    case("aten.addmv.default", vector(3).with_(nan), matrix(3, 4), vector(4), beta=0),
    case("aten.addmv.default", ints(3), ints(3, 4), ints(4), beta=0.5, alpha=2),
    case("aten.addr.default", matrix(3, 4), vector(3), vector(4), beta=0.5, alpha=2),
    case("aten.inner.default", tensor(2, 3, 4), matrix(5, 4)),
    case("aten.inner.default", scalar(2.0), matrix(5, 4)),
    case("aten.vdot.default", vector(5), vector(5)),
    case("aten.tensordot.default", tensor(2, 3, 4), tensor(4, 3, 5), [2, 1], [0, 1]),
    case("aten.tensordot.default", tensor(1, 3, 4), tensor(4, 2, 5), [2, 0], [0, 1]),
    case("aten.linalg_vecdot.default", tensor(2, 3, 4), matrix(3, 4)),
    case("aten.kron.default", matrix(2, 3), tensor(2, 1, 4)),
    case("aten.kron.default", bools(2), bools(3)),
    case("aten.linalg_cross.default", matrix(5, 3), matrix(1, 3)),
    case("aten.cross.default", matrix(3, 5), matrix(3, 5)),
    case("aten.einsum.default", "...ij,jk", [tensor(2, 3, 4), matrix(4, 5)]),
    case("aten.einsum.default", "ij,jk,kl->il", [matrix(2, 3), matrix(3, 4), matrix(4, 5)]),
    case("aten.einsum.default", "b...c->c...", [tensor(2, 3, 4, 5)]),
    case(
        "aten.scaled_dot_product_attention.default", tensor(4, 4, 3, 8), tensor(4, 4, 6, 8), tensor(4, 4, 6, 8),
        within=BY_EXP,
    ),
    case(
        "aten.scaled_dot_product_attention.default", tensor(4, 3, 8), tensor(2, 4, 6, 8), tensor(2, 4, 6, 8),
        None, 0.0, True, within=BY_EXP,
    ),
    case("aten.rms_norm.default", tensor(2, 3, 4), [3, 4], matrix(3, 4), 1e-6),
    case("aten.slice_scatter.default", matrix(3, 9), matrix(3, 3), 1, 2, 8, 2),
    *(case("aten.diff.default", matrix(3, 5), n, 1, matrix(3, 2)) for n in (0, 2, 9)),
    case("aten.softplus.default", vector(9), 3.0, 0.2),
    case("aten.full_like.default", vector(3), 0.1, dtype=torch.float64),
]  # fmt: skip

SIBLINGS = [*TWO, *ONE, *ERRORS, *COUNTED, *PUT_TOGETHER, *MULTIPLIED]


#: Another name of an operator -> the name under which it has cases. Their schemas differ in nothing but the name.
ALIASES = {
    "absolute.default": "abs.default",
    "negative.default": "neg.default",
    "fix.default": "trunc.default",
    "arccos.default": "acos.default",
    "arccosh.default": "acosh.default",
    "arcsin.default": "asin.default",
    "arcsinh.default": "asinh.default",
    "arctan.default": "atan.default",
    "arctanh.default": "atanh.default",
    "arctan2.default": "atan2.default",
    "special_expit.default": "sigmoid.default",
    "special_erf.default": "erf.default",
    "special_erfc.default": "erfc.default",
    "special_erfinv.default": "erfinv.default",
    "special_exp2.default": "exp2.default",
    "special_expm1.default": "expm1.default",
    "special_log1p.default": "log1p.default",
    "special_i0.default": "i0.default",
    "special_gammaln.default": "lgamma.default",
    "special_softmax.default": "softmax.int",
    "special_logsumexp.default": "logsumexp.default",
    "subtract.Tensor": "sub.Tensor",
    "subtract.Scalar": "sub.Scalar",
    "divide.Tensor": "div.Tensor",
    "divide.Scalar": "div.Scalar",
    "divide.Tensor_mode": "div.Tensor_mode",
    "divide.Scalar_mode": "div.Scalar_mode",
    "true_divide.Scalar": "div.Scalar",
    "multiply.Scalar": "mul.Scalar",
    "greater.Tensor": "gt.Tensor",
    "greater.Scalar": "gt.Scalar",
    "greater_equal.Tensor": "ge.Tensor",
    "greater_equal.Scalar": "ge.Scalar",
    "less.Tensor": "lt.Tensor",
    "less.Scalar": "lt.Scalar",
    "less_equal.Tensor": "le.Tensor",
    "less_equal.Scalar": "le.Scalar",
    "not_equal.Tensor": "ne.Tensor",
    "not_equal.Scalar": "ne.Scalar",
    "clip.Tensor": "clamp.Tensor",
    "moveaxis.int": "movedim.int",
    "moveaxis.intlist": "movedim.intlist",
    "linalg_matmul.default": "matmul.default",
    "ger.default": "outer.default",
}


def aliased(cases: list[Case]) -> list[Case]:
    """Two of the original's cases for each second name."""
    found = []
    for alias, original in ALIASES.items():
        own = [one for one in cases if one.target == f"aten.{original}"]
        found += [dataclasses.replace(one, target=f"aten.{alias}") for one in own[:2]]
    return found
