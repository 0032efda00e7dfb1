# SPDX-License-Identifier: Apache-2.0
"""Losses: an error of each element, and the mean or the sum of these."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from paritas.lower.mindspore.ops.activation import log_softmax_of, stable_softplus
from paritas.lower.mindspore.ops.arithmetic import promote
from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty
from paritas.lower.mindspore.ops.unary import near_zero
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Sizes, Value
from paritas.lower.registry import Arg

NONE, MEAN, SUM = 0, 1, 2  # torch's numbers for a reduction


def reduced(emit: Emitter, loss: Value, shape: Sizes, reduction: int) -> Value:
    """`loss`, an expression of `shape`, as it is, its mean, or its sum."""
    if reduction == NONE:
        return loss
    if any(size == 0 for size in shape):
        return filled(emit, math.nan if reduction == MEAN else 0)
    if not shape:
        return loss
    primitive = "ops.ReduceMean" if reduction == MEAN else "ops.ReduceSum"
    wide = emit.typed(loss, dtype=emit.out.dtype, shape=shape)
    axes = tuple(range(len(shape)))
    if emit.out.dtype != "float16":
        return emit.prim(primitive)(wide, axes)
    total = emit.prim(primitive)(emit.cast(wide, "float32"), axes)  # torch adds in float32
    return emit.cast(emit.typed(total, dtype="float32"), "float16")


def common_shape(*operands: Any) -> tuple[Size, ...]:
    """The shape that the operands broadcast to."""
    rank = max(x.rank for x in operands)
    padded = [[1] * (rank - x.rank) + list(x.shape) for x in operands]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


@lowers("aten.mse_loss.default")
def mse_loss(emit: Emitter, self: Value, target: Value, reduction: int) -> Value:
    shape = common_shape(self, target)
    if is_empty(self) or is_empty(target):
        return reduced(emit, self, shape, reduction)
    error = emit.let(emit.infix("-", *promote(emit, self, target)), "error")
    return reduced(emit, emit.infix("*", error, error), shape, reduction)


def _apart(emit: Emitter, self: Value, target: Value) -> Value | None:
    """self - target, or None if there is nothing to compare."""
    if is_empty(self) or is_empty(target):
        return None
    return emit.let(emit.infix("-", *promote(emit, self, target)), "error")


@lowers("aten.l1_loss.default")
def l1_loss(emit: Emitter, self: Value, target: Value, reduction: int = MEAN) -> Value:
    shape = common_shape(self, target)
    error = _apart(emit, self, target)
    return reduced(emit, self if error is None else emit.call("ops.abs", error), shape, reduction)


@lowers("aten.huber_loss.default", bound=Arg("delta"), divisor=1.0)
def _bent(emit: Emitter, self: Value, target: Value, reduction: int, bound: float, divisor: float) -> Value:
    """Squares below `bound`, straight lines above: huber and smooth_l1, which is the same over `divisor`."""
    shape = common_shape(self, target)
    error = _apart(emit, self, target)
    if error is None:
        return reduced(emit, self, shape, reduction)
    size = emit.let(emit.call("ops.abs", error), "size")
    square = emit.infix("*", emit.infix("*", size, size), 0.5 / divisor)
    line = emit.infix("*", emit.infix("-", size, 0.5 * bound), bound / divisor)
    bent = emit.call("ops.where", emit.infix("<", size, bound), square, line)
    return reduced(emit, emit.cast(emit.typed(bent, like=emit.out), emit.out.dtype), shape, reduction)


@lowers("aten.smooth_l1_loss.default")
def smooth_l1_loss(emit: Emitter, self: Value, target: Value, reduction: int, beta: float) -> Value:
    if beta == 0:
        return l1_loss(emit, self, target, reduction)
    return _bent(emit, self, target, reduction, beta, beta)


def _log(emit: Emitter, x: Value) -> Value:
    wide = emit.typed(emit.call("ops.log", emit.cast(x, "float64")), dtype="float64", shape=x.shape)
    return emit.typed(emit.cast(wide, emit.out.dtype), dtype=emit.out.dtype)


def _weighted(emit: Emitter, loss: Value, weight: Value | None) -> Value:
    return loss if weight is None else emit.infix("*", loss, weight)


@lowers("aten.binary_cross_entropy.default")
def binary_cross_entropy(emit: Emitter, self: Value, target: Value, weight: Value | None, reduction: int) -> Value:
    if is_empty(self):
        return reduced(emit, self, self.shape, reduction)
    p, y = (emit.let(emit.cast(x, emit.out.dtype), "x") for x in (self, target))
    # torch bounds the logarithms at -100.
    yes = emit.call("ops.maximum", -100.0, _log(emit, p))
    no = emit.call("ops.maximum", -100.0, _log(emit, emit.typed(emit.infix("-", 1.0, p), like=p)))
    loss = emit.infix("-", emit.infix("*", emit.infix("-", y, 1.0), no), emit.infix("*", y, yes))
    return reduced(emit, _weighted(emit, loss, weight), self.shape, reduction)


@lowers("aten.binary_cross_entropy_with_logits.default")
def binary_cross_entropy_with_logits(
    emit: Emitter, self: Value, target: Value, weight: Value | None, pos_weight: Value | None, reduction: int
) -> Value:
    if is_empty(self):
        return reduced(emit, self, self.shape, reduction)
    x, y = (emit.let(emit.cast(v, emit.out.dtype), "x") for v in (self, target))
    # softplus(-x) is -log(sigmoid(x)).
    soft = stable_softplus(emit, emit.prefix("-", x))
    if pos_weight is not None:
        more = emit.infix("*", emit.infix("-", pos_weight, 1.0), y)
        soft = emit.infix("*", emit.infix("+", more, 1.0), soft)
    loss = emit.infix("+", emit.infix("*", emit.infix("-", 1.0, y), x), soft)
    shape = common_shape(*(v for v in (self, target, weight) if v is not None))
    return reduced(emit, _weighted(emit, loss, weight), shape, reduction)


@lowers("aten.kl_div.default")
def kl_div(emit: Emitter, self: Value, target: Value, reduction: int, *, log_target: bool) -> Value:
    shape = common_shape(self, target)
    if is_empty(self) or is_empty(target):
        return reduced(emit, self, shape, reduction)
    x, y = (emit.let(v, "x") for v in promote(emit, self, target))
    if log_target:
        wide = emit.typed(emit.call("ops.exp", emit.cast(y, "float64")), dtype="float64")
        loss = emit.infix("*", emit.cast(wide, emit.out.dtype), emit.infix("-", y, x))
    else:
        # 0 * log(0) is 0.
        own = emit.infix("*", y, _log(emit, y))
        own = emit.call("ops.where", emit.infix("==", y, 0), 0.0, own)
        loss = emit.infix("-", own, emit.infix("*", y, x))
    return reduced(emit, loss, shape, reduction)


@lowers("aten.soft_margin_loss.default")
def soft_margin_loss(emit: Emitter, self: Value, target: Value, reduction: int) -> Value:
    if emit.out.dtype == "float16":
        raise emit.refuse("soft_margin_loss in float16, which overflows in torch")
    if is_empty(self):
        return reduced(emit, self, self.shape, reduction)
    x, y = promote(emit, self, target)
    # No softplus, which does not overflow: torch's does.
    z = emit.infix("*", emit.prefix("-", x), y)
    grown = emit.typed(emit.call("ops.exp", emit.typed(z, like=x)), like=x)
    loss = emit.typed(near_zero(emit, "log1p", grown), dtype=emit.out.dtype)
    return reduced(emit, loss, self.shape, reduction)


def _picked(
    emit: Emitter, scores: Value, target: Value, weight: Value | None, reduction: int, ignore_index: int, dim: int
) -> Value:
    """-weight[t] * scores[.., t, ..] for each target t, where t is not ignored; mean: over these weights."""
    shape = target.shape
    t = emit.let(emit.cast(target, "int64"), "target")
    seen = emit.let(emit.infix("!=", t, ignore_index), "seen")
    place = emit.let(emit.call("ops.where", seen, t, emit.call("ops.zeros_like", t)), "place")
    if scores.rank == 1:
        found = emit.call("ops.gather", scores, place, 0)
    else:
        index = emit.call("ops.expand_dims", place, dim)
        found = emit.call("ops.gather_elements", scores, dim, index)
        found = emit.call("ops.reshape", found, emit.dims(shape))
    kind = emit.out.dtype
    factor = emit.cast(Value(f"{seen}", "bool", shape), kind)
    if weight is not None:
        picked = emit.call("ops.gather", weight, place, 0)
        factor = emit.infix("*", factor, picked)
    factor = emit.let(factor, "weights")
    # What is ignored may be infinite.
    nothing = emit.call("ops.zeros_like", factor)
    loss = emit.let(emit.call("ops.where", seen, emit.infix("*", emit.prefix("-", found), factor), nothing), "loss")
    if reduction == NONE:
        return loss
    total = reduced(emit, loss, shape, SUM)
    if reduction == SUM:
        return total
    if any(size == 0 for size in shape):
        return filled(emit, math.nan)
    return emit.infix("/", total, reduced(emit, factor, shape, SUM))


def _in_float32(write: Callable[..., Any]) -> Callable[..., Any]:
    """A loss of float16 by way of float32: of many small numbers torch too keeps more than float16 has."""

    @functools.wraps(write)
    def lowering(emit: Emitter, self: Any, target: Any, weight: Any = None, *rest: Any, **options: Any) -> Value:
        if emit.out.dtype != "float16":
            return write(emit, self, target, weight, *rest, **options)
        wide = dataclasses.replace(emit, out=emit.typed(emit.out, dtype="float32"))
        halves = (self, target, weight)
        self, target, weight = (
            emit.cast(x, "float32") if x is not None and x.dtype == "float16" else x for x in halves
        )
        found = write(wide, self, target, weight, *rest, **options)
        return emit.cast(wide.typed(found, dtype="float32"), "float16")

    return lowering


@lowers("aten.nll_loss.default", "aten.nll_loss_nd.default")
@_in_float32
def nll_loss(
    emit: Emitter, self: Value, target: Value, weight: Value | None, reduction: int, ignore_index: Size
) -> Value:
    if is_empty(self) or is_empty(target):
        return _of_nothing(emit, reduction)
    return _picked(emit, self, target, weight, reduction, ignore_index, min(self.rank - 1, 1))


def _of_nothing(emit: Emitter, reduction: Any) -> Any:
    return filled(emit, math.nan if reduction == MEAN else 0)


@lowers("aten.cross_entropy_loss.default")
@_in_float32
def cross_entropy_loss(
    emit: Emitter,
    self: Value,
    target: Value,
    weight: Value | None,
    reduction: int,
    ignore_index: Size,
    label_smoothing: float,
) -> Value:
    if is_empty(self) or is_empty(target):
        return _of_nothing(emit, reduction)
    dim = 0 if self.rank == 1 else 1
    like = emit.typed(self, dtype=emit.out.dtype)
    scores = emit.let(emit.typed(log_softmax_of(emit, self, dim), like=like), "scores")
    if target.dtype in ("float32", "float64"):
        return _of_chances(emit, scores, target, weight, reduction, label_smoothing, dim)
    if label_smoothing:
        return _smoothed(emit, scores, target, weight, reduction, ignore_index, label_smoothing, dim)
    return _picked(emit, scores, target, weight, reduction, ignore_index, dim)


def _smoothed(
    emit: Emitter,
    scores: Value,
    target: Value,
    weight: Value | None,
    reduction: int,
    ignore_index: int,
    smoothing: float,
    dim: int,
) -> Value:
    """Most of the loss at the target, and the rest of it spread over all classes."""
    own = _picked(emit, scores, target, weight, reduction, ignore_index, dim)
    spread = scores
    if weight is not None:
        shape = (-1, *[1] * (scores.rank - 1 - dim))
        spread = emit.infix("*", scores, emit.call("ops.reshape", weight, shape))
    total = emit.prefix("-", emit.prim("ops.ReduceSum")(spread, dim))
    seen = emit.let(emit.typed(emit.infix("!=", target, ignore_index), dtype="bool"), "seen")
    total = emit.call("ops.where", seen, total, 0.0)
    shape = target.shape
    if reduction != NONE:
        total = reduced(emit, total, shape, SUM)
    if reduction == MEAN:
        count = emit.cast(emit.typed(seen, dtype="bool", shape=shape), emit.out.dtype)
        if weight is not None:
            place = emit.call("ops.where", seen, target, emit.call("ops.zeros_like", target))
            count = emit.infix("*", count, emit.call("ops.gather", weight, place, 0))
        total = emit.infix("/", total, reduced(emit, count, shape, SUM))
    part = emit.infix("/", smoothing, emit.size(scores.shape[dim]))
    return emit.infix("+", emit.infix("*", own, 1.0 - smoothing), emit.infix("*", total, part))


def _of_chances(
    emit: Emitter, scores: Value, target: Value, weight: Value | None, reduction: int, smoothing: float, dim: int
) -> Value:
    """Targets that are a distribution over the classes."""
    classes = scores.shape[dim]
    if smoothing:
        uniform = emit.infix("/", smoothing, emit.size(classes))
        target = emit.infix("+", emit.infix("*", target, 1.0 - smoothing), uniform)
    if weight is not None:
        spread = emit.call("ops.reshape", weight, (-1, *[1] * (scores.rank - 1 - dim)))
        target = emit.infix("*", target, spread)
    product = emit.typed(emit.infix("*", scores, target), like=scores)
    if reduction == NONE:
        return emit.prefix("-", emit.prim("ops.ReduceSum")(product, dim))
    total = emit.prefix("-", reduced(emit, product, scores.shape, SUM))
    if reduction == SUM:
        return total
    count = 1
    for axis, size in enumerate(scores.shape):
        if axis != dim:
            count = count * size
    return emit.infix("/", total, emit.size(count))
