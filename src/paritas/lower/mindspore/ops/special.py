# SPDX-License-Identifier: Apache-2.0
"""Inverse trigonometric, hyperbolic and error functions; logit, gamma and Bessel functions."""

import numpy as np

from paritas.lower.mindspore.ops.activation import in_float32
from paritas.lower.mindspore.ops.unary import in_float64
from paritas.lower.mindspore.ops.where_clamp import bounded
from paritas.lower.registry import lowers


def _function(function, write):
    def lowering(emit, self):
        return write(emit, function, self)

    return lowering


def _accurate(emit, function, self):
    """MindSpore's float32 kernel is as good as torch's; float16 goes by way of float32, as in torch."""
    return in_float32(emit, self, lambda x: emit.call(function, x))


#: ATen name -> MindSpore's function, and how it is called.
_FUNCTIONS = {
    "acos": ("ops.acos", _accurate),
    "acosh": ("ops.acosh", _accurate),
    "asin": ("ops.asin", _accurate),
    "asinh": ("ops.asinh", _accurate),
    "atanh": ("ops.atanh", _accurate),
    "cosh": ("ops.cosh", _accurate),
    "sinh": ("ops.sinh", _accurate),
    "erfc": ("ops.erfc", _accurate),
    "exp2": ("ops.exp2", _accurate),
    "lgamma": ("ops.lgamma", in_float64),  # 1e-5 off in float32
    "i0": ("ops.bessel_i0", in_float64),
    "special_i0e": ("ops.bessel_i0e", in_float64),
    "special_i1": ("ops.bessel_i1", in_float64),
    "special_i1e": ("ops.bessel_i1e", in_float64),
}

for _name, (_mindspore, _write) in _FUNCTIONS.items():
    _lowering = _function(_mindspore, _write)
    _lowering.__doc__, _lowering.__name__ = f"{_name}(Tensor self) -> Tensor", _name
    lowers("mindspore", f"aten.{_name}.default")(_lowering)


@lowers("mindspore", "aten.erfinv.default")
def erfinv(emit, self):
    """erfinv(Tensor self) -> Tensor"""
    wide = emit.help("erfinv", emit.cast(self, "float64"))
    return emit.cast(emit.typed(wide, dtype="float64"), emit.out.dtype)


@lowers("mindspore", "aten.logit.default", "aten.special_logit.default")
def logit(emit, self, eps=None):
    """logit(Tensor self, float? eps=None) -> Tensor"""
    x = emit.cast(self, emit.out.dtype)
    if eps is not None and eps >= 0:
        # The upper bound rounded as torch rounds it: 1 - bound is all that the result depends on.
        kind = {"float64": np.float64}.get(emit.out.dtype, np.float32)
        x = bounded(emit, x, float(kind(eps)), float(kind(1) - kind(eps)))
    x = emit.let(emit.cast(emit.typed(x, like=emit.out), "float64"), "x")
    odds = emit.infix("/", x, emit.infix("-", 1.0, x))
    wide = emit.typed(emit.call("ops.log", odds), dtype="float64", shape=self.shape)
    return emit.cast(wide, emit.out.dtype)
