# SPDX-License-Identifier: Apache-2.0
"""Whole numbers that leave 32 bits while a model runs: it says so itself, in an output of its own.

OpenVINO 2026.4's CPU plugin computes int64 as int32 and wraps around. Where no range shows that a result fits, the
rule of its operator is applied once more in float32: a wrapped result is 2^32 or more away from that, and a right one
less than 2^31.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import torch

from paritas.capture.ranges import kind_of
from paritas.lower.openvino.emit import Emitter, Output, is_tensor, out
from paritas.lower.openvino.ops.divisors import common_divisor

#: The name of that output, the last one: f32[n], for each watched operator whether a number left 32 bits.
BEYOND = "paritas_beyond_32_bits"

#: Operators that are watched wherever ranges do not show that they fit: how large their sums get, sizes decide.
SUMS = (
    "sum", "nansum", "cumsum", "prod", "cumprod", "pow", "mm", "bmm", "matmul", "dot", "mv", "addmm", "baddbmm",
    "addcmul", "square", "gcd", "lcm", "div", "divide", "floor_divide", "bitwise_left_shift", "__lshift__",
    "_to_copy", "scatter_add", "scatter_reduce", "index_add", "index_put", "_unsafe_index_put", "trace", "outer",
    "ger", "addmv", "addr", "addbmm", "einsum", "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "linear",
)  # fmt: skip

#: And those that are, where no limit at the door keeps them within 32 bits.
ELEMENTWISE = ("add", "sub", "rsub", "mul", "neg", "abs")

_LIMIT = np.float32(2.0**31)


def beyond(emit: Emitter, rule: Callable[..., Any], found: Any, arguments: Any, options: Any) -> Output | None:
    """f32[1]: 1 where an element of `found`, what the rule made in int64, has wrapped around, else 0.

    None where the operator has another kind of result.
    """
    if emit.dtype != torch.int64 or not is_tensor(found):
        return None
    kind = kind_of(emit.node)
    if kind == "_to_copy":
        if not emit.dtype_of(arguments[0]).is_floating_point:
            return None
        # Infinities are cut off as every processor likes; programs choose others in their place.
        x = ops.select(ops.less(ops.abs(arguments[0]), np.float32(np.inf)), arguments[0], np.float32(0))
        wrapped = ops.logical_or(ops.less_equal(_LIMIT, x), ops.less(x, -_LIMIT))
    elif kind in ("div", "divide", "floor_divide"):  # -2^31 by -1
        signs = [ops.less(emit.cast(value, torch.int64), np.int64(0)) for value in (*arguments[:2], found)]
        wrapped = ops.logical_and(ops.logical_and(signs[0], signs[1]), signs[2])
    elif kind == "gcd":  # of nothing but zeros and -2^31
        wrapped = ops.less(found, np.array(0, out(found).get_element_type().to_dtype()))
    else:
        if kind.endswith("shift"):
            x, places = (emit.cast(value, torch.float32) for value in arguments[:2])
            shadow = ops.multiply(x, ops.power(np.float32(2), places))
        elif kind == "lcm":  # what wrapped around is no multiple; the product divided by the divisor is one
            first, second = arguments[:2]
            x, y = emit.cast(first, torch.float32), emit.cast(second, torch.float32)
            divisor = emit.cast(common_divisor(emit, first, second, torch.int64), torch.float32)
            shadow = ops.divide(ops.abs(ops.multiply(x, y)), ops.maximum(divisor, np.float32(1)))
        else:
            shadow = out(rule(emit.of_floats(), *arguments, **options))
            if not shadow.get_element_type().is_real():
                return None
        wrapped = ops.less(_LIMIT, ops.abs(ops.subtract(shadow, ops.convert(found, "f32"))))
    wrapped = ops.convert(wrapped, "f32")
    flat = ops.concat([np.zeros(1, np.float32), ops.reshape(wrapped, np.array([-1], np.int64), False)], 0)
    return out(ops.reduce_max(flat, np.array([0], np.int64), True))


def result(flags: list[Output]) -> openvino.Node:
    """The output port of these flags."""
    joined = out(ops.concat(flags, 0))
    joined.get_tensor().set_names({BEYOND})
    return ops.result(joined)
