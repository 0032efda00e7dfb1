# SPDX-License-Identifier: Apache-2.0
"""Activations."""

import math
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.capture.normalise import expression, name_of
from paritas.lower.openvino.emit import Emitter, Scalar, Tensor, out, rank_of
from paritas.lower.openvino.ops.arithmetic import computed, expm1_of, log1p_of, with_nan
from paritas.lower.openvino.ops.registry import lowers


@lowers("aten.relu.default")
def relu(emit: Emitter, self: Tensor) -> Tensor:
    if emit.dtype.is_floating_point:
        return rectified(emit, self)
    return computed(emit, ops.maximum, self, 0)


def rectified(emit: Emitter, x: Tensor) -> Tensor:
    """max(0, x), and NaN where x is: Relu (2026.4) has 0 there. It is as fast, and fused as often.

    Fused to a chain of elementwise operations the plugin turns its operands around, and loses NaN. So behind what makes
    NaN out of numbers it is a choice, which costs half a pass over memory and is never fused.
    """
    if not ends_a_product(x) and makes_nan(x, emit.shared.setdefault("makes NaN", {})):
        return ops.select(ops.less(x, np.float32(0)), np.float32(0), x)
    return ops.maximum(np.float32(0), x)


#: Whose results the plugin rectifies itself, after scales, shifts and, of a convolution, another tensor were added.
_CONVOLUTIONS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}
_AFFINE = {"Add", "Subtract", "Multiply"}
_ELEMENTWISE = _AFFINE | {
    "Sqrt", "Divide", "Power", "Maximum", "Minimum", "Negative", "Abs", "Tanh", "Sigmoid", "Erf", "Exp", "Clamp",
    "Floor", "Ceiling", "Sign", "FloorMod", "Mod", "PRelu", "Elu", "Gelu", "HSwish", "Swish", "Mish", "SoftPlus",
    "HSigmoid", "Round", "Convert", "SquaredDifference", "Relu",
}  # fmt: skip
#: Operations that make NaN out of numbers.
_MAKERS = {"Sqrt", "Divide", "Power", "Log", "Mod", "FloorMod", "Acos", "Asin", "Acosh", "Atanh"}


def ends_a_product(x: Tensor) -> bool:
    """Whether `x` is no end of a chain of elementwise operations, or one that a product or convolution takes in."""
    last = out(x).get_node()
    node = _unscaled(last)
    if node.get_type_name() == "Add":  # of two tensors: a convolution adds one of them itself
        return any(_unscaled(v.get_node()).get_type_name() in _CONVOLUTIONS for v in node.input_values())
    kind = node.get_type_name()
    return kind in _CONVOLUTIONS | {"MatMul"} or (node is last and kind not in _ELEMENTWISE)


def _unscaled(node: Tensor) -> Tensor:
    """What `node` is, without the constants that it is scaled and shifted by."""
    while node.get_type_name() in _AFFINE:
        tensors = [v.get_node() for v in node.input_values() if v.get_node().get_type_name() != "Constant"]
        if len(tensors) != 1:
            break
        node = tensors[0]
    return node


def makes_nan(x: Tensor, known: Any) -> Any:
    """Whether an operation that makes NaN out of numbers is before `x`. known: what was found of nodes, by name."""
    last = out(x).get_node()
    left, seen = [last], set()
    while left:
        node = left.pop()
        name, kind = node.get_name(), node.get_type_name()
        if known.get(name) or (kind in _MAKERS and not _is_harmless(node)):
            known[last.get_name()] = True
            return True
        if name not in seen and name not in known:
            seen.add(name)
            left.extend(source.get_node() for source in node.input_values())
    known.update(dict.fromkeys(seen, False))
    return False


def _is_harmless(node: Any) -> Any:
    """A division by numbers other than 0, or a whole power."""
    second = node.input_value(1).get_node() if len(node.input_values()) > 1 else None
    if second is None or second.get_type_name() != "Constant":
        return False
    numbers = second.get_data()
    if node.get_type_name() == "Power":
        return bool((numbers >= 0).all() and (numbers == np.floor(numbers)).all())
    return node.get_type_name() == "Divide" and bool((numbers != 0).all() and np.isfinite(numbers).all())


@lowers("aten.gelu.default")
def gelu(emit: Emitter, self: Tensor, approximate: str) -> Tensor:
    return ops.gelu(self, "erf" if approximate == "none" else "tanh")


@lowers("aten.silu.default")
def silu(emit: Emitter, self: Tensor) -> Tensor:
    return ops.swish(self)


@lowers("aten.mish.default")
def mish(emit: Emitter, self: Tensor) -> Tensor:
    return ops.multiply(self, ops.tanh(softplus_of(self)))


def softplus_of(x: Tensor) -> Tensor:
    """max(x, 0) + log1p(exp(-|x|)): OpenVINO 2026.4's loses all digits of what is far below 0."""
    return ops.add(ops.maximum(np.float32(0), x), log1p_of(ops.exp(ops.multiply(ops.abs(x), np.float32(-1)))))


@lowers("aten.softplus.default")
def softplus(emit: Emitter, self: Tensor, beta: Scalar, threshold: Scalar) -> Tensor:
    scaled = ops.multiply(self, np.float32(beta))
    found = ops.multiply(softplus_of(scaled), np.float32(1 / beta))
    return ops.select(ops.greater(scaled, np.float32(threshold)), self, found)


@lowers("aten.log_sigmoid.default")
def log_sigmoid(emit: Emitter, self: Tensor) -> Tensor:
    minus = np.float32(-1)
    return ops.multiply(softplus_of(ops.multiply(self, minus)), minus)


@lowers("aten.softmax.int", "aten._softmax.default")
def softmax(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    x = emit.cast(self, emit.dtype)
    rank = rank_of(self)
    if not rank:
        return with_nan(emit.full([], 1, emit.dtype), x)
    found = ops.softmax(x, dim % rank)
    if dim % rank == rank - 1 and _only_multiplied(emit.node):
        return found
    # Of a row with a NaN or an infinity the plugin's (2026.4) has NaN in that place alone.
    return ops.add(found, ops.multiply(ops.reduce_sum(found, emit.array([dim % rank]), True), np.float32(0)))


def _only_multiplied(node: Tensor) -> bool:
    """Whether all that reads rows of the node are products of matrices: a NaN is in all their sums anyway."""
    width = expression(node.meta["val"].shape[-1])
    for user in node.users:
        name = name_of(user)
        if name in _PRODUCTS and user.args[0] is node and user.args[1] is not node:
            continue
        value = user.meta.get("val")
        if name not in _VIEWS or not isinstance(value, torch.Tensor) or not value.dim():
            return False
        if expression(value.shape[-1]) != width or not _only_multiplied(user):
            return False
    return bool(node.users)


_PRODUCTS = ("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
_VIEWS = (
    "aten.reshape.default", "aten.view.default", "aten.expand.default", "aten.clone.default", "aten.dropout.default",
    "aten.contiguous.default",
)  # fmt: skip


@lowers("aten.log_softmax.int", "aten._log_softmax.default")
def log_softmax(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    x = emit.cast(self, emit.dtype)
    rank = rank_of(self)
    if not rank:
        return with_nan(emit.full([], 0, emit.dtype), x)
    found, axis = ops.log_softmax(x, dim % rank), emit.array([dim % rank])
    lost = ops.logical_or(ops.is_nan(x), ops.equal(x, np.float32(math.inf)))
    return ops.select(ops.reduce_logical_or(lost, axis, True), np.float32(math.nan), found)


@lowers("aten.leaky_relu.default")
def leaky_relu(emit: Emitter, self: Tensor, negative_slope: Scalar) -> Tensor:
    below = ops.multiply(self, np.float32(negative_slope))
    return ops.select(ops.greater(self, np.float32(0)), self, below)


@lowers("aten.prelu.default")
def prelu(emit: Emitter, self: Tensor, weight: Tensor) -> Tensor:
    rank = rank_of(self)
    if rank_of(weight) == 1 and rank > 1:
        weight = emit.unsqueeze(weight, 0, *range(2, rank))
    elif rank_of(weight) > rank:
        weight = ops.reshape(weight, emit.array([]), False)
    return ops.select(ops.greater(self, np.float32(0)), self, ops.multiply(self, weight))


@lowers("aten.elu.default")
def elu(emit: Emitter, self: Tensor, alpha: Scalar, scale: Scalar, input_scale: Scalar) -> Tensor:
    x = ops.multiply(self, np.float32(input_scale)) if input_scale != 1 else self
    below = ops.multiply(expm1_of(ops.minimum(x, np.float32(0))), np.float32(alpha))
    found = ops.select(ops.less_equal(self, np.float32(0)), below, self)
    return ops.multiply(found, np.float32(scale)) if scale != 1 else found


@lowers("aten.hardsigmoid.default")
def hardsigmoid(emit: Emitter, self: Tensor) -> Tensor:
    return with_nan(ops.divide(ops.clamp(ops.add(self, np.float32(3)), 0.0, 6.0), np.float32(6)), self)


@lowers("aten.hardswish.default")
def hardswish(emit: Emitter, self: Tensor) -> Tensor:
    return ops.hswish(self)


@lowers("aten.glu.default")
def glu(emit: Emitter, self: Tensor, dim: int) -> Tensor:
    a, b = ops.split(self, np.int64(dim % rank_of(self)), 2).outputs()
    return ops.multiply(a, ops.sigmoid(b))


@lowers("aten.special_logit.default", "aten.logit.default")
def logit(emit: Emitter, self: Tensor, eps: float | None) -> Tensor:
    x = emit.cast(self, emit.dtype)
    if eps is not None:
        x = with_nan(ops.clamp(x, float(eps), 1 - float(eps)), x)
    return ops.log(ops.divide(x, ops.subtract(np.float32(1), x)))


#: Lanczos' approximation with g = 7 (Godfrey's coefficients): 1e-15 in exact arithmetic.
_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


@lowers("aten.lgamma.default")
def lgamma(emit: Emitter, self: Tensor) -> Tensor:
    """By Lanczos above 1/2 and by reflection below."""
    f = np.float32
    x = emit.cast(self, emit.dtype)
    low = ops.less(x, f(0.5))
    z = ops.subtract(ops.select(low, ops.subtract(f(1), x), x), f(1))
    series = f(_LANCZOS[0])
    for i, c in enumerate(_LANCZOS[1:], 1):
        series = ops.add(series, ops.divide(f(c), ops.add(z, f(i))))
    t = ops.add(z, f(7.5))
    above = ops.subtract(ops.multiply(ops.add(z, f(0.5)), ops.log(t)), t)
    above = ops.add(ops.add(above, ops.log(series)), f(0.5 * math.log(2 * math.pi)))
    off = ops.subtract(x, ops.round(x, "half_to_even"))
    beside = ops.abs(ops.sin(ops.multiply(off, f(math.pi))))
    reflected = ops.subtract(ops.subtract(f(math.log(math.pi)), ops.log(beside)), above)
    found = ops.select(ops.is_inf(x), f(math.inf), ops.select(low, reflected, above))
    zero = ops.logical_or(ops.equal(x, f(1)), ops.equal(x, f(2)))
    return ops.select(zero, f(0), found)
