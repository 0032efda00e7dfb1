# SPDX-License-Identifier: Apache-2.0
"""Cases of the operators that compute element by element."""

import torch
from making import bools, case, inf, ints, matrix, nan, scalar, tensor, values, vector

from paritas.verify.tolerance import Tolerance

EDGES = (nan, inf, -inf, 0.0, -1.0)

BY_EXP = Tolerance(
    5e-6,
    1e-6,
    "MindSpore's sigmoid and exp are polynomials, off by 3e-6 of the value (torch: 1e-7); a sum of two",
)
FROM_EXP = Tolerance(2e-5, 1.5e-6, "exp(-|x|) is off by 2e-5 of itself where it is tiny, and is added to 1 or x")
HALF_WITH_EXP = Tolerance(2e-3, 1e-4, "one rounding of 1e-3 to float16, of numbers that float32 has 5e-6 off")
GELU = Tolerance(4e-6, 2e-6, "a polynomial for erf that is 6e-7 off, times x")

#: Beyond what a float64 holds, and what a float32 holds.
_HUGE = [2**53 + 1, -(2**60) + 3, 7, -7, 2**31, -(2**40) - 1, 2**62 + 1, 5]
_WIDE = [1e9, -1e9, 16777217.0, 2147483648.0, -2147483648.0, 1e20, 7.5, -7.5, 1.0, -0.0, 0.0, float("inf")]

ARITHMETIC = [
    case("aten.add.Tensor", matrix(3, 4), vector(4)),
    case("aten.add.Tensor", matrix(3, 4).with_(*EDGES), matrix(3, 4).strided()),
    case("aten.add.Tensor", ints(3, 4), 2.5),
    case("aten.add.Tensor", ints(3, 4), matrix(3, 4), alpha=3),
    case("aten.add.Tensor", ints(4, dtype="int32"), ints(4), alpha=-2),
    case("aten.add.Tensor", ints(4, dtype="int32"), 7),
    case("aten.add.Tensor", bools(3, 4), bools(4)),
    case("aten.add.Tensor", bools(4), 1),
    case("aten.add.Tensor", bools(4), 0.5),
    case("aten.add.Tensor", vector(4).as_("float16"), 0.1),
    case("aten.add.Tensor", vector(4).as_("float16"), vector(4)),
    case("aten.add.Tensor", vector(4).as_("float16"), scalar(2.0)),
    case("aten.add.Tensor", ints(4), scalar(0.5)),
    case("aten.add.Tensor", scalar(2, "int64"), scalar(3, "int64")),
    case("aten.add.Tensor", tensor(0, 3), vector(3)),
    case("aten.add.Tensor", matrix(5, 4).dynamic(0), matrix(5, 4).dynamic(0)),
    case("aten.add.Tensor", vector(4).as_("float64"), vector(4)),
    case("aten.add.Tensor", values([2**53 + 1, -(2**60)], "int64"), 3),
    case("aten.add.Scalar", vector(4), 2, 3),
    case("aten.sub.Tensor", matrix(3, 4), vector(4), alpha=0.5),
    case("aten.sub.Tensor", ints(3, 4), 1.5),
    case("aten.sub.Tensor", ints(3, 4), 4, alpha=2),
    case("aten.sub.Tensor", vector(4).as_("float16"), 1),
    case("aten.sub.Scalar", ints(4), 2),
    case("aten.rsub.Scalar", matrix(3, 4), 1.0),
    case("aten.rsub.Scalar", ints(4), 1.5, 2),
    case("aten.rsub.Scalar", bools(4).as_("int64"), 1),
    case("aten.rsub.Scalar", vector(4).as_("float16"), 1.0),
    case("aten.rsub.Tensor", ints(4), vector(4), alpha=2),
    case("aten.mul.Tensor", matrix(3, 4), matrix(3, 1)),
    case("aten.mul.Tensor", matrix(3, 4).with_(*EDGES), 0.0),
    case("aten.mul.Tensor", bools(4), vector(4).with_(1.0)),
    case("aten.mul.Tensor", bools(4), bools(4)),
    case("aten.mul.Tensor", ints(4), bools(4)),
    case("aten.mul.Tensor", ints(4), 2.5),
    case("aten.mul.Tensor", vector(4).as_("float16"), 0.3),
    case("aten.mul.Tensor", scalar(2.0), vector(4)),
    case("aten.mul.Tensor", values([2**53 + 1, -(2**60) + 3], "int64"), 1),
    case("aten.mul.Scalar", ints(4), 3),
    case("aten.multiply.Tensor", ints(4), vector(4)),
    case("aten.div.Tensor", matrix(3, 4), vector(4)),
    case("aten.div.Tensor", ints(3, 4), ints(4, low=1)),
    case("aten.div.Tensor", ints(4), 2),
    case("aten.div.Tensor", matrix(3, 4).with_(*EDGES), 0.0),
    case("aten.div.Tensor", matrix(3, 4).with_(*EDGES), 8.0),
    case("aten.div.Tensor", matrix(3, 4), 3),
    case("aten.div.Tensor", matrix(3, 4).with_(*EDGES), inf),
    case("aten.div.Tensor", ints(4), scalar(0, "int64")),
    case("aten.div.Tensor", bools(4), 3),
    case("aten.div.Tensor", vector(4).as_("float16"), 3.0),
    case("aten.div.Tensor", values([nan, 1.0, 2.0]), values([0.0, 0.0, 4.0])),
    case("aten.div.Scalar", ints(4), 3),
    case("aten.true_divide.Tensor", ints(4), ints(4, low=1)),
    case("aten.div.Tensor_mode", ints(12), 4, rounding_mode="floor"),
    case("aten.div.Tensor_mode", ints(12), 4, rounding_mode="trunc"),
    case("aten.div.Tensor_mode", ints(12), ints(12, low=-5, high=-1), rounding_mode="trunc"),
    case("aten.div.Tensor_mode", vector(12), 0.7, rounding_mode="floor"),
    case("aten.div.Tensor_mode", vector(12), 0.7, rounding_mode="trunc"),
    case("aten.div.Tensor_mode", ints(12), 0.7, rounding_mode="floor"),
    case("aten.div.Tensor_mode", vector(12), 0.7, rounding_mode=None),
    case("aten.div.Tensor_mode", vector(4).with_(inf, -inf), 2.0, rounding_mode="floor"),
    case("aten.div.Scalar_mode", ints(12), 5, rounding_mode="floor"),
    case("aten.floor_divide.default", ints(12), 4),
    case("aten.floor_divide.default", ints(12), ints(12, low=-5, high=-1)),
    case("aten.floor_divide.default", ints(12, dtype="int32"), 3),
    case("aten.floor_divide.default", vector(12), 1.5),
    case("aten.floor_divide.default", values([2**53 + 1, -(2**60) + 3], "int64"), 1),
    case("aten.floor_divide.default", values(_HUGE, "int64"), values(_HUGE[::-1], "int64")),
    case("aten.floor_divide.default", values(_HUGE, "int64"), -3),
    case("aten.floor_divide.default", values(_WIDE), 0.1),
    case("aten.floor_divide.default", values(_WIDE), -2.5),
    case("aten.floor_divide.Scalar", ints(12), 5),
    case("aten.remainder.Scalar", ints(12), 4),
    case("aten.remainder.Scalar", ints(12), -4),
    case("aten.remainder.Scalar", vector(12), 0.75),
    case("aten.remainder.Scalar", vector(12), -0.75),
    case("aten.remainder.Tensor", ints(12), ints(12, low=-5, high=-1)),
    case("aten.remainder.Tensor", ints(12), vector(12)),
    case("aten.remainder.Tensor", values(_HUGE, "int64"), values(_HUGE[::-1], "int64")),
    case("aten.remainder.Scalar", values(_WIDE), -2.5),
    case("aten.remainder.Scalar", values(_WIDE), 0.1),
    case("aten.remainder.Scalar", values(_HUGE, "int64"), -2.5),
    case("aten.fmod.Tensor", values(_HUGE, "int64"), values(_HUGE[::-1], "int64")),
    case("aten.fmod.Scalar", ints(12), 4),
    case("aten.fmod.Scalar", vector(12), -0.75),
    case("aten.fmod.Tensor", ints(12), ints(12, low=-5, high=-1)),
    *(case("aten.pow.Tensor_Scalar", vector(12).with_(*EDGES), e) for e in (0, 1, 2, 3, 4, 0.5, -1, -2, 2.5, -0.5, 5)),
    case("aten.pow.Tensor_Scalar", vector(12).above_zero(), -1.5),
    case("aten.pow.Tensor_Scalar", ints(12), 2),
    case("aten.pow.Tensor_Scalar", ints(12), 5),
    case("aten.pow.Tensor_Scalar", ints(12, low=0), 0.5),
    case("aten.pow.Tensor_Scalar", vector(12).as_("float16"), 2),
    case("aten.pow.Tensor_Scalar", vector(12).as_("float16"), 3),
    case("aten.pow.Tensor_Scalar", tensor(2, 3).dynamic(0), 3.0),
    case("aten.pow.Tensor_Scalar", scalar(-3.0), 3),
    case("aten.pow.Tensor_Tensor", vector(4).above_zero(), vector(4)),
    case("aten.pow.Tensor_Tensor", ints(4, low=1, high=5), ints(4, low=0, high=4)),
    case("aten.pow.Scalar", 10000.0, matrix(3, 4)),
    case("aten.pow.Scalar", 2, ints(4, low=0)),
    case("aten.pow.Scalar", 10000.0, ints(4, low=-2, high=3)),
    case("aten.square.default", ints(4)),
    case("aten.square.default", vector(4).with_(nan, inf)),
    case("aten.lerp.Scalar", vector(4), vector(4), 0.25),
    case("aten.lerp.Scalar", vector(4), vector(4), 0.75),
    case("aten.addcmul.default", vector(4), matrix(3, 4), vector(4), value=0.5),
    case("aten.addcdiv.default", vector(4), matrix(3, 4), vector(4).above_zero(), value=2),
    case("aten._to_copy.default", vector(4), dtype=torch.float16),
    case("aten._to_copy.default", values([-2.7, 2.7, 0.0, -0.5]), dtype=torch.int64),
    case("aten._to_copy.default", values([-2.7, 2.7, 0.0, nan, inf]), dtype=torch.bool),
    case("aten._to_copy.default", values([-2.5, 0.0, nan], "float16"), dtype=torch.bool),
    case("aten._to_copy.default", bools(4), dtype=torch.float32),
    case("aten._to_copy.default", ints(4), dtype=torch.int32),
    case("aten._to_copy.default", ints(4, low=0), dtype=torch.uint8),
    case("aten._to_copy.default", matrix(0, 4), dtype=torch.int64),
    case("aten._to_copy.default", scalar(3.0), dtype=torch.float64),
    case("aten.type_as.default", ints(4), vector(2)),
    case("aten.to.dtype", vector(4), torch.int32),
    case("aten.clone.default", matrix(3, 4).strided()),
    case("aten.contiguous.default", matrix(3, 4).strided()),
    case("aten.alias.default", vector(4)),
    case("aten.detach.default", vector(4)),
    case("aten.copy.default", matrix(3, 4), ints(4)),
    case("aten.copy.default", ints(3, 4), matrix(3, 4)),
]

_ANY = vector(40).with_(*EDGES)
_TINY = values([1e-8, -1e-8, 1e-5, -1e-5, 0.3, -0.3])

FUNCTIONS = [
    *(
        case(f"aten.{name}.default", x)
        for name in (
            "neg", "abs", "sign", "reciprocal", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt",
            "sin", "cos", "tan", "atan", "erf", "floor", "ceil", "round", "trunc", "isnan", "isinf", "isfinite",
        )
        for x in (_ANY, vector(6).as_("float16"), matrix(3, 4).strided().above_zero(), scalar(0.7))
    ),
    *(case(f"aten.{n}.default", ints(6, low=1)) for n in ("exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "erf")),
    *(case(f"aten.{n}.default", ints(6)) for n in ("neg", "abs", "sign", "floor", "ceil", "round", "trunc")),
    *(case(f"aten.{n}.default", ints(6)) for n in ("isnan", "isinf", "isfinite")),
    *(case(f"aten.{n}.default", _TINY) for n in ("expm1", "log1p", "tanh", "sin", "erf")),
    case("aten.abs.default", ints(6, dtype="int32")),
    case("aten.exp.default", values([-87.0, -50.0, -10.0, 10.0, 50.0, 88.0])),
    case("aten.exp.default", tensor(0, 3)),
    case("aten.round.default", values([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999])),
    case("aten.cos.default", values([0.0, 100.0, 511.0, 4095.0])),
    case("aten.atan2.default", vector(8), vector(8)),
    case("aten.atan2.default", vector(8), ints(8)),
    case("aten.nan_to_num.default", _ANY),
    case("aten.nan_to_num.default", _ANY, 1.0, 2.0, -3.0),
    case("aten.nan_to_num.default", ints(4)),
]  # fmt: skip


def _activations():
    bounds = {
        "tanh": None, "sigmoid": BY_EXP, "silu": BY_EXP, "relu": None, "relu6": None, "hardsigmoid": None,
        "hardswish": None, "softplus": None, "mish": FROM_EXP, "log_sigmoid": None, "elu": None,
        "leaky_relu": None, "hardtanh": None, "gelu": GELU,
    }  # fmt: skip
    for name, within in bounds.items():
        half = HALF_WITH_EXP if within else None
        yield case(f"aten.{name}.default", matrix(20, 40), within=within)
        yield case(f"aten.{name}.default", vector(40).with_(nan, inf, 0.0, -30.0, 30.0), within=within)
        yield case(f"aten.{name}.default", vector(6).as_("float16"), within=half)
        yield case(f"aten.{name}.default", scalar(0.7), within=within)
        yield case(f"aten.{name}.default", tensor(0, 3), within=within)
        yield case(f"aten.{name}.default", matrix(2, 5).dynamic(0, 1), within=within)


_MASKED = values(
    [
        [0.0, -inf, 1.0],
        [-inf, -inf, -inf],
        [nan, 0.0, 1.0],
        [inf, 0.0, 1.0],
        [-3e38, -3.4e38, -3.4028234663852886e38],
    ]
)

ACTIVATIONS = [
    *_activations(),
    case("aten.sigmoid.default", ints(6), within=BY_EXP),
    case("aten.tanh.default", ints(6)),
    case("aten.relu.default", ints(6)),
    case("aten.relu.default", vector(9).with_(-inf)),
    case("aten.tanh.default", values([-9.0, -5.1, -5.0, -4.9, 4.9, 5.0, 5.1, 9.0])),
    case("aten.gelu.default", matrix(20, 40), approximate="tanh", within=BY_EXP),
    case("aten.gelu.default", vector(6).as_("float16"), approximate="tanh", within=HALF_WITH_EXP),
    case("aten.leaky_relu.default", matrix(3, 4).with_(nan, inf), 0.2),
    case("aten.elu.default", vector(8), 0.5, 2.0, 1.5),
    case("aten.elu.default", _TINY),
    case("aten.softplus.default", vector(8), 2.0, 10.0),
    case("aten.hardtanh.default", vector(8), -0.5, 0.25),
    case("aten.prelu.default", tensor(2, 3, 4), vector(3)),
    case("aten.prelu.default", vector(8), vector(1)),
    case("aten.glu.default", matrix(3, 8), -1, within=BY_EXP),
    case("aten.glu.default", tensor(2, 6, 5), 1, within=BY_EXP),
    *(
        case(f"aten.{name}", x, d, *rest, within=BY_EXP)
        for name, rest in (("softmax.int", ()), ("_softmax.default", (False,)))
        for x, d in (
            (matrix(3, 7), -1), (tensor(2, 5, 3), 1), (tensor(2, 5, 3).strided(2, 0, 1), 0), (_MASKED, 1),
            (_MASKED, -2), (scalar(3.0), 0), (vector(6), 0), (matrix(0, 3), 1),
            (tensor(2, 3, 4, 5).dynamic(0, 2, 3), -1),
        )
    ),
    case("aten.softmax.int", vector(8).as_("float16"), 0, within=HALF_WITH_EXP),
    case("aten.softmax.int", matrix(2, 8).as_("float16"), -1, torch.float32, within=BY_EXP),
    case("aten.softmax.int", ints(2, 8), -1, torch.float32, within=BY_EXP),
    case("aten.softmax.int", matrix(2, 8).as_("float64"), -1),
    *(
        case(f"aten.{name}", x, d, *rest, within=FROM_EXP)
        for name, rest in (("log_softmax.int", ()), ("_log_softmax.default", (False,)))
        for x, d in ((matrix(3, 7), -1), (tensor(2, 5, 3), 1), (scalar(3.0), 0), (_MASKED, 1))
    ),
]  # fmt: skip

LOGIC = [
    *(
        case(f"aten.{name}.Tensor", a, b)
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for a, b in (
            (ints(3, 4, low=0, high=3), ints(4, low=0, high=3)),
            (vector(6).with_(nan, inf), vector(6).with_(nan, inf)),
            (ints(6, low=0, high=3), values([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])),
            (bools(8), bools(8)),
        )
    ),
    *(
        case(f"aten.{name}.Scalar", a, b)
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for a, b in (
            (ints(9, low=0, high=3), 1),
            (ints(9, low=0, high=3), 0.5),
            (bools(9), 1),
            (vector(9).with_(nan), 0),
        )
    ),
    case("aten.eq.Scalar", bools(9), 2),
    case("aten.eq.Scalar", bools(9), False),
    case("aten.eq.Scalar", bools(9), 0.5),
    case("aten.eq.Scalar", ints(9, low=0, high=3), True),
    case("aten.eq.Scalar", vector(9).with_(-inf), -inf),
    case("aten.gt.Tensor", ints(9), scalar(0.5)),
    case("aten.le.Tensor", ints(5).dynamic(0), matrix(5, 1).as_("int64").dynamic(0)),
    case("aten.ne.Scalar", tensor(0, 3), 1.0),
    case("aten.lt.Scalar", values([0.1, 0.2, 0.3], "float16"), 0.2),
    *(
        case(f"aten.{name}.Tensor", a, b)
        for op in ("and", "or", "xor")
        for name in (f"__{op}__", f"bitwise_{op}")
        for a, b in ((bools(3, 4), bools(4)), (ints(6, low=0), ints(6, low=0, dtype="int32")))
    ),
    *(
        case(f"aten.{name}.Scalar", a, b)
        for op in ("and", "or", "xor")
        for name in (f"__{op}__", f"bitwise_{op}")
        for a, b in ((bools(6), True), (ints(6, low=0), 5))
    ),
    case("aten.bitwise_not.default", bools(4)),
    case("aten.bitwise_not.default", ints(4)),
    *(case("aten.logical_not.default", x) for x in (bools(4), ints(9, low=-1, high=2), vector(6).with_(nan, 0.0, inf))),
    *(
        case(f"aten.logical_{op}.default", a, b)
        for op in ("and", "or", "xor")
        for a, b in ((bools(3, 4), bools(4)), (ints(9, low=-1, high=2), vector(9).with_(nan, 0.0)))
    ),
    case("aten.isin.Tensor_Tensor", ints(3, 4, low=0, high=5), ints(3, low=0, high=5)),
    case("aten.isin.Tensor_Tensor", ints(6, low=0, high=5), ints(2, 2, low=0, high=5), invert=True),
]

_BAD = (nan, inf, -inf)

CHOICES = [
    case("aten.where.self", bools(3, 4), matrix(3, 4).with_(*_BAD), vector(4)),
    case("aten.where.self", bools(3, 1), ints(4), vector(4)),
    case("aten.where.self", bools(4), scalar(1.5), vector(4).as_("float16")),
    case("aten.where.self", bools(4), bools(4), bools(4)),
    case("aten.where.self", bools(4), ints(4, dtype="int32"), ints(4)),
    case("aten.where.self", bools(5).dynamic(0), vector(5).dynamic(0), scalar(0.0)),
    case("aten.where.ScalarOther", bools(3, 4), matrix(3, 4), -inf),
    case("aten.where.ScalarOther", bools(4), ints(4), 1.5),
    case("aten.where.ScalarOther", bools(4), ints(4), -100),
    case("aten.where.ScalarOther", bools(4), vector(4).as_("float16"), -65504.0),
    case("aten.where.ScalarSelf", bools(3, 4), 0.5, matrix(3, 4)),
    case("aten.where.ScalarSelf", bools(3, 4), 2, ints(4)),
    case("aten.where.Scalar", bools(3, 4), 1.0, 0.0),
    case("aten.where.Scalar", bools(3, 4), 3, 4),
    case("aten.masked_fill.Scalar", matrix(3, 4), bools(3, 4), -inf),
    case("aten.masked_fill.Scalar", matrix(3, 4), bools(3, 4), -3.4028234663852886e38),
    case("aten.masked_fill.Scalar", matrix(3, 4), bools(4), nan),
    case("aten.masked_fill.Scalar", vector(4), bools(3, 4), 0),
    case("aten.masked_fill.Scalar", ints(3, 4), bools(3, 1), -100),
    case("aten.masked_fill.Scalar", ints(3, 4), bools(3, 1), 2**40 + 1),
    case("aten.floor_divide.default", ints(3, 4), -(2**40)),
    case("aten.masked_fill.Scalar", bools(3, 4), bools(3, 4), True),
    case("aten.masked_fill.Scalar", vector(4).as_("float16"), bools(4), -65504.0),
    case("aten.masked_fill.Scalar", matrix(2, 4).dynamic(0), bools(4), 1.0),
    case("aten.masked_fill.Tensor", matrix(3, 4), bools(4), scalar(2.0)),
    case("aten.masked_fill.Tensor", ints(3, 4), bools(4), scalar(2, "int64")),
    *(
        case(f"aten.{name}", a, b)
        for name in ("maximum.default", "minimum.default", "max.other", "min.other")
        for a, b in (
            (vector(40).with_(*_BAD), vector(40)),
            (vector(40), vector(40).with_(*_BAD)),
            (ints(3, 4), vector(4)),
            (ints(6), ints(6)),
            (vector(4).as_("float16"), scalar(0.5)),
        )
    ),
    case("aten.maximum.default", bools(4), bools(4)),
    case("aten.minimum.default", bools(4), bools(4)),
    case("aten.clamp.default", vector(40).with_(*_BAD), -0.5, 0.5),
    case("aten.clamp.default", vector(40).with_(*_BAD), 0.5, -0.5),
    case("aten.clamp.default", vector(8), None, 0.5),
    case("aten.clamp.default", vector(8), 1),
    case("aten.clamp.default", ints(8), 0, 5),
    case("aten.clamp.default", ints(8), 0.5),
    case("aten.clamp.default", ints(8, dtype="int32"), -2, 2),
    case("aten.clamp.default", vector(8).as_("float16"), -0.5, 65504.0),
    case("aten.clamp.default", vector(8).with_(inf, -inf), -3.4028234663852886e38, 3.4028234663852886e38),
    case("aten.clip.default", vector(8), -1, 1),
    case("aten.clamp_min.default", vector(8).with_(*_BAD), 1e-12),
    case("aten.clamp_min.default", ints(8), 1),
    case("aten.clamp_max.default", vector(8).with_(*_BAD), 0.25),
    case("aten.clamp.Tensor", vector(8).with_(nan), vector(8).with_(nan), scalar(1.0)),
    case("aten.clamp_min.Tensor", ints(8), ints(8)),
    case("aten.clamp_max.Tensor", vector(8), vector(1)),
]
