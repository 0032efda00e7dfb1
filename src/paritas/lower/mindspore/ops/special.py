# SPDX-License-Identifier: Apache-2.0
"""Inverse trigonometric, hyperbolic and error functions; logit, gamma and Bessel functions."""

import numpy as np

from paritas.lower.mindspore.ops.activation import in_float32
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.unary import in_float64
from paritas.lower.mindspore.ops.where_clamp import bounded
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("aten.acos.default", "aten.arccos.default", function="ops.acos")
@lowers("aten.acosh.default", "aten.arccosh.default", function="ops.acosh")
@lowers("aten.asin.default", "aten.arcsin.default", function="ops.asin")
@lowers("aten.asinh.default", "aten.arcsinh.default", function="ops.asinh")
@lowers("aten.atanh.default", "aten.arctanh.default", function="ops.atanh")
@lowers("aten.cosh.default", function="ops.cosh")
@lowers("aten.sinh.default", function="ops.sinh")
@lowers("aten.erfc.default", "aten.special_erfc.default", function="ops.erfc")
@lowers("aten.exp2.default", "aten.special_exp2.default", function="ops.exp2")
def accurate(emit: Emitter, function: str, self: Value) -> Value:
    """MindSpore's float32 kernel is as good as torch's; float16 goes by way of float32, as in torch."""
    return in_float32(emit, self, lambda x: emit.call(function, x))


# 1e-5 off in float32.
lowers("aten.lgamma.default", "aten.special_gammaln.default", function="ops.lgamma")(in_float64)
lowers("aten.i0.default", "aten.special_i0.default", function="ops.bessel_i0")(in_float64)
lowers("aten.special_i0e.default", function="ops.bessel_i0e")(in_float64)
lowers("aten.special_i1.default", function="ops.bessel_i1")(in_float64)
lowers("aten.special_i1e.default", function="ops.bessel_i1e")(in_float64)


@lowers("aten.erfinv.default", "aten.special_erfinv.default")
def erfinv(emit: Emitter, self: Value) -> Value:
    wide = emit.prelude("erfinv", emit.cast(self, "float64"))
    return emit.cast(emit.typed(wide, dtype="float64"), emit.out.dtype)


@lowers("aten.logit.default", "aten.special_logit.default")
def logit(emit: Emitter, self: Value, eps: float | None) -> Value:
    x = emit.cast(self, emit.out.dtype)
    if eps is not None and eps >= 0:
        # The upper bound rounded as torch rounds it: 1 - bound is all that the result depends on.
        kind = {"float64": np.float64}.get(emit.out.dtype, np.float32)
        x = bounded(emit, x, float(kind(eps)), float(kind(1) - kind(eps)))
    x = emit.let(emit.cast(emit.typed(x, like=emit.out), "float64"), "x")
    odds = emit.infix("/", x, emit.infix("-", 1.0, x))
    wide = emit.typed(emit.call("ops.log", odds), dtype="float64", shape=self.shape)
    return emit.cast(wide, emit.out.dtype)
