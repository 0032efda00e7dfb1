# SPDX-License-Identifier: Apache-2.0
"""Second names of operators: ATen has several for one function, and a captured graph keeps the one that was used."""

from paritas.lower.mindspore.ops import (
    activation,
    arithmetic,
    logic,
    matmul,
    reduce,
    shape,
    special,
    unary,
    where_clamp,
)
from paritas.lower.registry import LOWERINGS, lowers

#: other name -> the name under which it is lowered. Their schemas differ in nothing but the name.
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

#: The modules that register the originals.
_ORIGINALS = (activation, where_clamp, arithmetic, logic, matmul, reduce, shape, special, unary)

for _alias, _original in ALIASES.items():
    lowers(f"aten.{_alias}")(LOWERINGS["mindspore"][f"aten.{_original}"])
