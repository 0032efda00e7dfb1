# SPDX-License-Identifier: Apache-2.0
"""Error and Bessel functions that OpenVINO has not, by series that are exact to a rounding or two."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset16 as ops

from paritas.capture.ranges import kind_of
from paritas.lower.openvino.emit import Emitter, Tensor
from paritas.lower.openvino.ops.arithmetic import exp_of
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.quotients import halves

_f = np.float32

#: erf(x) / x in powers of x^2, from the highest, for |x| < 0.5.
_ERF = tuple(2 / np.sqrt(np.pi) * c for c in (1 / 9360, -1 / 1320, 1 / 216, -1 / 42, 1 / 10, -1 / 3, 1))


@lowers("aten.erf.default")
def erf(emit: Emitter, self: Tensor) -> Tensor:
    """OpenVINO 2026.4's own is 6e-8 off near 0, where torch has all digits of small numbers. Where 1 is added to it
    that is no difference, and the plugin knows GELU by it.
    """
    x = emit.cast(self, emit.dtype)
    users = list(emit.node.users)
    if users and all(kind_of(user) == "add" and 1 in user.args for user in users):
        return ops.erf(x)
    square, near = ops.multiply(x, x), _f(_ERF[0])
    for c in _ERF[1:]:
        near = ops.add(ops.multiply(near, square), _f(c))
    return ops.select(ops.less(ops.abs(x), _f(0.5)), ops.multiply(x, near), ops.erf(x))


#: log(erfc(x) exp(x^2) / t) in powers of t = 1 / (1 + x/2), from the highest; relative error below 1.2e-7.
_ERFC = (
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
)  # fmt: skip


def _square_exponential(x: Tensor) -> Tensor:
    """exp(-x^2): of the square's leading bits and of what they leave, since the square alone is 1e-5 off at 10."""
    high, low = halves(x)
    rest = ops.multiply(ops.add(x, high), low)
    return ops.multiply(ops.exp(ops.negative(ops.multiply(high, high))), ops.exp(ops.negative(rest)))


@lowers("aten.erfc.default", "aten.special_erfc.default")
def erfc(emit: Emitter, self: Tensor) -> Tensor:
    x = emit.cast(self, emit.dtype)
    size = ops.minimum(ops.abs(x), _f(16))  # 0 beyond, and no infinity less an infinity
    t = ops.divide(_f(1), ops.add(_f(1), ops.multiply(size, _f(0.5))))
    power = _f(_ERFC[0])
    for c in _ERFC[1:]:
        power = ops.add(ops.multiply(power, t), _f(c))
    tail = ops.multiply(ops.multiply(t, ops.exp(power)), _square_exponential(size))
    far = ops.select(ops.less(x, _f(0)), ops.subtract(_f(2), tail), tail)
    near = ops.subtract(_f(1), ops.erf(x))
    found = ops.select(ops.less(size, _f(0.5)), near, far)
    return ops.select(ops.is_nan(x), x, found)


def _chebyshev(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The series of Chebyshev polynomials, by Clenshaw."""
    twice = ops.multiply(x, _f(2))
    before, last = _f(0), _f(0)
    for c in reversed(coefficients[1:]):
        before, last = last, ops.add(ops.subtract(ops.multiply(twice, last), before), _f(c))
    return ops.add(ops.subtract(ops.multiply(x, last), before), _f(coefficients[0]))


#: I0(x) exp(-x) on [0, 8] in x/4 - 1, and times sqrt(x) beyond in 16/x - 1.
_I0 = (
    (
        0.338397637, -0.304682672, 0.171620902, -0.094901097, 0.0493052842, -0.0237374148, 0.0105464604, -0.00432431,
        0.00163947562, -0.000576375575, 0.000188502885, -5.75419501e-05, 1.64484481e-05, -4.41673836e-06,
        1.11738754e-06, -2.67079386e-07, 6.04699505e-08, -1.30002503e-08, 2.65982398e-09,
    ),
    (0.402245206, 0.00336911648, 6.88975835e-05, 2.89137052e-06, 2.04891857e-07, 2.26666861e-08, 3.39624142e-09),
)  # fmt: skip
#: The same of I1(x) / x on [0, 8], and of I1(x) beyond.
_I1 = (
    (
        0.126293593, -0.176416518, 0.102643659, -0.0529459812, 0.024726449, -0.0105640849, 0.00415642294,
        -0.00151357245, 0.000512285956, -0.000161760816, 4.78156511e-05, -1.32731637e-05, 3.47025131e-06,
        -8.56872027e-07, 2.00329475e-07, -4.44505914e-08, 9.38153751e-09, -1.88724987e-09, 3.6255913e-10,
    ),
    (
        0.389288118, -0.00976109749, -0.000110588939, -3.88256481e-06, -2.51223622e-07, -2.63146846e-08,
        -3.83539091e-09,
    ),
)  # fmt: skip


def _bessel(x: Tensor, coefficients: Sequence[Any], is_odd: bool) -> Tensor:
    """I0(|x|) exp(-|x|), or I1(x) exp(-|x|)."""
    size, edge = ops.abs(x), _f(8)
    near = _chebyshev(ops.subtract(ops.multiply(ops.minimum(size, edge), _f(0.25)), _f(1)), coefficients[0])
    large = ops.maximum(size, edge)
    far = _chebyshev(ops.subtract(ops.divide(_f(16), large), _f(1)), coefficients[1])
    far = ops.divide(far, ops.sqrt(large))
    if is_odd:
        near = ops.multiply(near, x)
        far = ops.multiply(far, ops.sign(x))
    found = ops.select(ops.less_equal(size, edge), near, far)
    return ops.select(ops.is_nan(x), x, found)


@lowers("aten.i0.default", "aten.special_i0.default", coefficients=_I0, is_odd=False, is_scaled=False)
@lowers("aten.special_i0e.default", coefficients=_I0, is_odd=False, is_scaled=True)
@lowers("aten.special_i1.default", coefficients=_I1, is_odd=True, is_scaled=False)
@lowers("aten.special_i1e.default", coefficients=_I1, is_odd=True, is_scaled=True)
def bessel(emit: Emitter, self: Tensor, coefficients: Sequence[Any], is_odd: bool, is_scaled: bool) -> Tensor:
    x = emit.cast(self, emit.dtype)
    found = _bessel(x, coefficients, is_odd)
    return found if is_scaled else ops.multiply(found, exp_of(ops.abs(x)))
