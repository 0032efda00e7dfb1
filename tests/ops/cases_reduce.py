# SPDX-License-Identifier: Apache-2.0
"""Cases of reductions, products, normalisation, convolution and attention."""

import torch
from making import bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

import paritas.capture.training  # noqa: F401 - registers attention_weights
from paritas.verify.tolerance import Tolerance

SUMS = Tolerance(4e-6, 1e-6, "sums of a few hundred products of size 4, added in another order", scaled=2e-6)
HALF_SUMS = Tolerance(5e-3, 1e-2, "products of float16, of which each engine adds some in float16", scaled=5e-3)
NORM = Tolerance(5e-6, 5e-6, "mean and variance in another order, divided by their root")
ATTEND = Tolerance(1e-5, 5e-6, "exp is 3e-6 off in MindSpore's softmax")

_ROWS = values([[nan, 1.0, 3.0, 3.0], [2.0, 5.0, nan, 5.0], [1.0, -inf, 7.0, 7.0], [inf, 0.0, inf, -1.0]])

REDUCED = [
    *(
        case(f"aten.{name}", x, *rest, within=SUMS)
        for name in ("sum.dim_IntList", "mean.dim")
        for x, *rest in (
            (tensor(3, 4, 5), [1]), (tensor(3, 4, 5), [-1], True), (tensor(3, 4, 5), [0, 2]),
            (tensor(3, 4, 5), [0, -1], True),
            (tensor(3, 4, 5), []), (tensor(3, 4, 5), None), (scalar(2.0), []), (matrix(3, 0), [1]),
            (matrix(0, 3), [1]),
            (_ROWS, [1]), (tensor(3, 4, 5).dynamic(0, 1), [1]),
        )
    ),
    case("aten.sum.dim_IntList", bools(3, 4), [1]),
    case("aten.sum.dim_IntList", ints(3, 4, dtype="int32"), [0], True),
    case("aten.sum.dim_IntList", ints(3, 4), [1], dtype=torch.float32),
    case("aten.sum.dim_IntList", tensor(3, 400).as_("float16"), [1]),
    case("aten.mean.dim", tensor(3, 400).as_("float16"), [1]),
    case("aten.mean.dim", ints(3, 4), [1], dtype=torch.float32),
    case("aten.sum.default", bools(3, 4)),
    case("aten.sum.default", tensor(3, 4), within=SUMS),
    case("aten.sum.default", scalar(2, "int64")),
    case("aten.sum.default", tensor(0, 4)),
    *(case(f"aten.{name}.dim", ints(3, 4, low=0, high=2, dtype="uint8"), 1) for name in ("any", "all")),
    case("aten.all.default", ints(3, 4, low=0, high=2, dtype="uint8")),
    case("aten.sum.default", values([2**53 + 1, 2**53 + 3, 5], "int64")),
    case("aten.sum.dim_IntList", values([[2**62, 2**62 + 1, -3], [-(2**53) - 1, -7, 9]], "int64"), [1], True),
    case("aten.sum.dim_IntList", values([[2**62, 2**62 + 1, -3], [-(2**53) - 1, -7, 9]], "int64"), [0, 1]),
    case("aten.mean.default", tensor(3, 4), within=SUMS),
    case("aten.mean.default", tensor(0, 4)),
    case("aten.prod.default", tensor(2, 4)),
    case("aten.prod.dim_int", ints(3, 4), 1),
    case("aten.prod.dim_int", tensor(3, 0), 1),
    case("aten.prod.dim_int", bools(3, 4), -1, True),
    *(
        case(f"aten.{name}", x, *rest, within=NORM)
        for name in ("var.dim", "std.dim")
        for x, *rest in ((matrix(3, 9), [1]), (tensor(3, 4, 5), [0, 2], False, True), (matrix(3, 1), [1]))
    ),
    *(
        case(f"aten.{name}.correction", x, d, correction=c, keepdim=k, within=NORM)
        for name in ("var", "std", "var_mean")
        for x, d, c, k in ((matrix(3, 9), [1], 0, True), (tensor(3, 4, 5), None, 1, False),
            (matrix(3, 9).dynamic(1), [1], 1, False))
    ),
    case("aten.std.correction", matrix(3, 9).as_("float16"), [1]),
    *(
        case("aten.linalg_vector_norm.default", x, *rest, within=SUMS)
        for x, *rest in (
            (matrix(3, 9), 2, [-1], True), (matrix(3, 9), 1, [0]), (matrix(3, 9), inf, None),
            (matrix(3, 9).with_(nan), -inf, [1]),
            (tensor(3, 0), 2, [1]), (scalar(-2.0),),
        )
    ),
    case("aten.linalg_vector_norm.default", vector(9).as_("float16"), 2),
    *(
        case(f"aten.{name}.default", x, *rest)
        for name in ("amax", "amin")
        for x, *rest in ((tensor(3, 4, 5), [1]), (tensor(3, 4, 5), [0, -1], True), (_ROWS, [1]), (_ROWS,),
            (ints(3, 4), [0]), (bools(3, 4), [1]))
    ),
    *(
        case(f"aten.{name}.default", x)
        for name in ("max", "min", "argmax", "argmin")
        for x in (tensor(3, 4), _ROWS, ints(3, 4), scalar(2.0), tensor(3, 4).as_("float16"))
    ),
    case("aten.max.default", bools(3, 4)),
    *(
        case(f"aten.{name}", x, *rest)
        for name in ("argmax.default", "argmin.default", "max.dim", "min.dim")
        for x, *rest in (
            (tensor(3, 4, 5), 1), (tensor(3, 4, 5), -1, True), (_ROWS, 1), (_ROWS, 0), (ints(3, 4), 0),
            (ints(3, 40, low=0, high=3), 1),
            (scalar(1.0), 0), (tensor(3, 4).dynamic(0), 1), (values([[1, 2**40, 2**33]], "int64"), 1),
        )
    ),
    case("aten.argmax.default", tensor(3, 4), None, True),
    case("aten.argmax.default", ints(3, 4, dtype="int32"), 1),
    *(
        case(f"aten.{name}.default", x)
        for name in ("any", "all")
        for x in (bools(3, 4), ints(3, 4, low=0, high=2), vector(4).with_(nan), tensor(0, 2), values([False,
            False], "bool"))
    ),
    *(
        case(f"aten.{name}.{overload}", x, d, k)
        for name in ("any", "all")
        for overload, d in (("dim", 1), ("dim", -2), ("dims", [0, 1]))
        for x, k in ((bools(3, 4), False), (ints(3, 4, low=0, high=2), True))
    ),
    case("aten.cumsum.default", matrix(3, 9), 1, within=SUMS),
    case("aten.cumsum.default", bools(3, 9), -1),
    case("aten.cumsum.default", ints(3, 9, dtype="int32"), 0),
    case("aten.cumsum.default", matrix(3, 9).with_(nan, inf), 0, within=SUMS),
    case("aten.cumsum.default", scalar(2.0), 0),
    case("aten.cumsum.default", bools(3, 9), 1, dtype=torch.float32),
    case("aten.cumsum.default", ints(3, 9).dynamic(0, 1), 1),
    case("aten.cumsum.default", matrix(3, 90).as_("float16"), 1, within=HALF_SUMS),
    case("aten.cumprod.default", matrix(3, 5), 1),
    case("aten.diff.default", ints(3, 9)),
    case("aten.diff.default", ints(3, 9), 1, 0, ints(1, 9)),
    case("aten.logsumexp.default", matrix(3, 9), [1], within=ATTEND),
    case("aten.logsumexp.default", values([[0.0, -inf], [-inf, -inf], [inf, 0.0]]), [-1], True, within=ATTEND),
]  # fmt: skip

PRODUCTS = [
    case("aten.linear.default", matrix(3, 5), matrix(4, 5), vector(4), within=SUMS),
    case("aten.linear.default", tensor(2, 3, 5), matrix(4, 5), within=SUMS),
    case("aten.linear.default", vector(5), matrix(4, 5), vector(4), within=SUMS),
    case("aten.linear.default", tensor(2, 0, 5), matrix(4, 5), vector(4), within=SUMS),
    case("aten.linear.default", tensor(2, 3, 5).dynamic(0, 1), matrix(4, 5), vector(4), within=SUMS),
    case("aten.linear.default", matrix(3, 5).as_("float16"), matrix(4, 5).as_("float16"),
        vector(4).as_("float16"), within=HALF_SUMS),
    case("aten.linear.default", matrix(3, 5).with_(nan, inf), matrix(4, 5), within=SUMS),
    case("aten.linear.default", matrix(3, 5), vector(5), within=SUMS),
    case("aten.addmm.default", vector(4), matrix(3, 5), matrix(5, 4), beta=0.5, alpha=2, within=SUMS),
    case("aten.addmm.default", vector(4).filled(nan), matrix(3, 5), matrix(5, 4), beta=0, within=SUMS),
    case("aten.addmm.default", vector(4), matrix(3, 5).strided(), matrix(5, 4), within=SUMS),
    case("aten.addmm.default", matrix(3, 1), matrix(3, 5), matrix(5, 4), within=SUMS),
    case("aten.addmm.default", vector(1), matrix(3, 5), matrix(5, 4), within=SUMS),
    case("aten.addmm.default", vector(4), matrix(3, 0), matrix(0, 4), beta=2),
    case("aten.mm.default", matrix(3, 5), matrix(5, 4).strided(), within=SUMS),
    case("aten.mm.default", matrix(3, 0), matrix(0, 4)),
    case("aten.bmm.default", tensor(2, 3, 5), tensor(2, 5, 4), within=SUMS),
    case("aten.bmm.default", tensor(2, 3, 5).dynamic(0, 1), tensor(2, 5, 4).dynamic(0), within=SUMS),
    case("aten.baddbmm.default", tensor(2, 3, 4), tensor(2, 3, 5), tensor(2, 5, 4), beta=0.5, alpha=0.1, within=SUMS),
    case("aten.baddbmm.default", vector(1).filled(inf), tensor(2, 3, 5), tensor(2, 5, 4), beta=0, within=SUMS),
    *(
        case("aten.matmul.default", tensor(*a), tensor(*b), within=SUMS)
        for a, b in (
            ((3, 5), (5, 4)), ((5,), (5,)), ((5,), (5, 4)), ((3, 5), (5,)), ((2, 3, 5), (5, 4)), ((2, 1, 3, 5),
            (4, 5, 2)),
            ((2, 3, 5), (5,)), ((5,), (2, 5, 4)), ((1, 3, 5), (2, 5, 4)), ((2, 0, 5), (5, 4)), ((3, 5), (2, 5, 4)),
        )
    ),
    case("aten.matmul.default", tensor(2, 3, 4, 5).dynamic(0, 2), tensor(2, 3, 5, 4).dynamic(0, 3), within=SUMS),
    case("aten.matmul.default", ints(3, 5), ints(5, 2)),
    case("aten.matmul.default", tensor(2, 3, 5).as_("float16"), matrix(5, 2).as_("float16"), within=HALF_SUMS),
    case("aten.mv.default", matrix(3, 5), vector(5), within=SUMS),
    case("aten.dot.default", vector(5), vector(5), within=SUMS),
    case("aten.outer.default", vector(5), vector(3)),
    *(
        case("aten.einsum.default", text, [tensor(*s) for s in shapes], within=SUMS)
        for text, *shapes in (
            ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)), ("ij,jk->ik", (3, 4), (4, 5)), ("i,j->ij", (3,), (4,)),
            ("bhw,hkc->bhwkc", (2, 3, 4), (3, 5, 2)), ("ijk->kj", (2, 3, 4)), ("bi,bi->b", (2, 3), (2, 3)),
        )
    ),
]  # fmt: skip

NORMS = [
    case("aten.layer_norm.default", tensor(2, 3, 8), [8], vector(8), vector(8), within=NORM),
    case("aten.layer_norm.default", tensor(2, 3, 8), [8], None, None, 1e-3, within=NORM),
    case("aten.layer_norm.default", tensor(2, 3, 8), [3, 8], matrix(3, 8), matrix(3, 8), within=NORM),
    case("aten.layer_norm.default", tensor(2, 3, 8), [8], vector(8), None, within=NORM),
    case("aten.layer_norm.default", tensor(2, 3, 8).dynamic(0, 1), [8], vector(8), vector(8), within=NORM),
    case("aten.layer_norm.default", tensor(0, 8), [8], vector(8), vector(8)),
    case("aten.rms_norm.default", tensor(2, 3, 8), [8], vector(8), within=NORM),
    case("aten.rms_norm.default", tensor(2, 3, 8).dynamic(0, 1), [8], vector(8), 1e-6, within=NORM),
    case("aten.rms_norm.default", tensor(2, 3, 8), [8], within=NORM),
    *(
        case(
            "aten.batch_norm.default",
            x,
            *[vector(4)] * 2,
            vector(4),
            vector(4).above_zero(),
            False,
            0.1,
            1e-5,
            True,
            within=NORM,
        )
        for x in (tensor(2, 4, 3, 3), tensor(2, 4))
    ),
    case(
        "aten.batch_norm.default",
        tensor(2, 4, 3),
        None,
        None,
        vector(4),
        vector(4).above_zero(),
        False,
        0.1,
        1e-5,
        True,
        within=NORM,
    ),
    case(
        "aten._native_batch_norm_legit_no_training.default",
        tensor(2, 4, 3),
        vector(4),
        vector(4),
        vector(4),
        vector(4).above_zero(),
        0.1,
        1e-5,
        within=NORM,
    ),
    case("aten._weight_norm.default", tensor(4, 3, 5), tensor(4, 1, 1), within=NORM),
    case("aten._weight_norm.default", tensor(4, 3, 5), tensor(1, 1, 5), 2, within=NORM),
    case("aten.group_norm.default", tensor(2, 6, 3, 4), 2, vector(6), vector(6), within=NORM),
    case("aten.group_norm.default", tensor(2, 6, 5).dynamic(0, 2), 3, within=NORM),
    case(
        "aten.instance_norm.default",
        tensor(2, 4, 3, 3),
        vector(4),
        vector(4),
        None,
        None,
        True,
        0.1,
        1e-5,
        True,
        within=NORM,
    ),
    case("aten.max_pool2d.default", tensor(2, 3, 8, 8), [3, 3], [2, 2], [1, 1]),
    case("aten.max_pool2d.default", tensor(3, 8, 8), [2, 2]),
    case("aten.avg_pool2d.default", tensor(2, 3, 8, 8), [2, 2], within=SUMS),
    case("aten.avg_pool2d.default", tensor(2, 3, 9, 8), [3, 3], [1, 2], [1, 1], within=SUMS),
    case("aten.max_pool1d.default", tensor(2, 3, 9), [3], [2], [1]),
    case("aten.avg_pool1d.default", tensor(2, 3, 9), [2], within=SUMS),
    case("aten.adaptive_avg_pool2d.default", tensor(2, 3, 8, 6), [1, 1], within=SUMS),
    case("aten.adaptive_avg_pool2d.default", tensor(2, 3, 8, 6), [4, 3], within=SUMS),
    case("aten.adaptive_avg_pool1d.default", tensor(2, 3, 8), [1], within=SUMS),
    case("aten.adaptive_avg_pool1d.default", tensor(2, 3, 8), [4], within=SUMS),
    case("aten.upsample_nearest2d.vec", tensor(2, 3, 4, 5), [8, 15], None),
    case("aten.upsample_nearest2d.vec", tensor(2, 3, 4, 5), None, [2.0, 2.0]),
]

_IMAGE, _KERNEL = tensor(2, 3, 8, 8), tensor(4, 3, 3, 3)
_QUERY, _KEY = tensor(2, 2, 3, 4), tensor(2, 2, 5, 4)
_QUERIES, _KEYS = tensor(1, 1, 3001, 4), tensor(1, 1, 6001, 4)

LAYERS = [
    case("aten.conv2d.default", _IMAGE, _KERNEL, vector(4), [1, 1], [1, 1], within=SUMS),
    case("aten.conv2d.default", _IMAGE, _KERNEL, None, [2, 2], [0, 1], within=SUMS),
    case("aten.conv2d.default", _IMAGE, tensor(4, 3, 4, 4), vector(4), [4, 4], within=SUMS),
    case("aten.conv2d.default", _IMAGE, tensor(6, 1, 3, 3), vector(6), [1, 1], [1, 1], [1, 1], 3, within=SUMS),
    case("aten.conv2d.default", _IMAGE, _KERNEL, vector(4), [1, 1], [2, 2], [2, 2], within=SUMS),
    case("aten.conv2d.padding", _IMAGE, _KERNEL, vector(4), [2, 2], "valid", within=SUMS),
    case("aten.conv2d.padding", _IMAGE, tensor(4, 3, 4, 3), None, [1, 1], "same", within=SUMS),
    case("aten.conv1d.padding", tensor(2, 3, 9), tensor(4, 3, 4), vector(4), [1], "same", [2], within=SUMS),
    case("aten.conv1d.padding", tensor(2, 3, 9), tensor(4, 3, 4), vector(4), [2], "valid", within=SUMS),
    case("aten.conv1d.default", tensor(2, 3, 9), tensor(4, 3, 3), vector(4), [1], [1], within=SUMS),
    case("aten.conv1d.default", tensor(2, 3, 9), tensor(4, 3, 3), None, [2], [1], within=SUMS),
    case("aten.conv1d.default", tensor(2, 4, 9), tensor(4, 1, 3), vector(4), [1], [1], [1], 4, within=SUMS),
    case("paritas.attention_weights.default", _QUERY, _KEY, None, False, None, False, within=ATTEND),
    case("paritas.attention_weights.default", _QUERY, _KEY, bools(2, 1, 3, 5), False, 0.3, False, within=ATTEND),
    case("paritas.attention_weights.default", _QUERY, _KEY, None, True, None, False, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, scale=0.3, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", *(x.dynamic(0, 1, 2, 3) for x in (_QUERY, _KEY, _KEY)),
        within=ATTEND),
    case(
        "aten.scaled_dot_product_attention.default",
        tensor(2, 4, 3, 4).dynamic(2),
        tensor(2, 1, 3, 4).dynamic(2),
        tensor(2, 1, 3, 4).dynamic(2),
        within=ATTEND,
    ),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, bools(2, 1, 3, 5), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, values([[True] * 5, [False] * 5, [True,
        False, True, False, True]], "bool"), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, tensor(2, 1, 3, 5), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY, _KEY, _KEY, values([[0.0] * 5, [-inf] * 5, [0.0,
        -inf, 1.0, -inf, 0.0]]), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _KEY, _KEY, _KEY, None, 0.0, True, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", tensor(2, 4, 3, 4), _KEY, _KEY, enable_gqa=True, within=ATTEND),
    # More scores than are computed at once.
    case("aten.scaled_dot_product_attention.default", _QUERIES, _KEYS, _KEYS, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERIES, _KEYS, _KEYS, bools(1, 3001, 6001), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERIES, _KEYS, _KEYS, tensor(3001, 6001), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERIES, _KEYS, _KEYS, tensor(1, 1, 6001), within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _KEYS, _KEYS, _KEYS, None, 0.0, True, within=ATTEND),
    case("aten.scaled_dot_product_attention.default", _QUERY.dynamic(0, 2), _KEY.dynamic(0, 2), _KEY.dynamic(0,
        2), within=ATTEND),
]  # fmt: skip
