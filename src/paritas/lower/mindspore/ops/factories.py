# SPDX-License-Identifier: Apache-2.0
"""Tensors made from sizes and numbers."""

from collections.abc import Sequence

import torch

from paritas.lower.mindspore.ops.arithmetic import FLOATS, WHOLE, exactly
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter, is_float32
from paritas.lower.mindspore.write.source import Scalar, Size, Sizes, Value
from paritas.lower.registry import Arg


@lowers("aten.arange.default", start=0, step=1)
@lowers("aten.arange.start", step=1)
@lowers("aten.arange.start_step")
def _arange(emit: Emitter, start: float, end: Scalar, step: float) -> Value:
    start, end, step = (int(x) if isinstance(x, bool) else x for x in (start, end, step))
    if all(isinstance(bound, (int, float)) for bound in (start, end, step)) and not all(
        isinstance(bound, int) for bound in (start, end, step)
    ):
        # A range of floats has a length that rounding decides: torch's own numbers, as a constant.
        made = torch.arange(start, end, step, dtype=getattr(torch, emit.out.dtype))
        return emit.constant(made, "range")
    if emit.out.dtype == "int64":
        return emit.call("ops.arange", end) if start == 0 and step == 1 else emit.call("ops.arange", start, end, step)
    return emit.cast(emit.typed(emit.call("ops.arange", start, end, step), dtype="int64"), emit.out.dtype)


@lowers("aten.linspace.default")
def linspace(emit: Emitter, start: Scalar, end: Scalar, steps: int) -> Value:
    if isinstance(steps, int):
        return emit.constant(torch.linspace(start, end, steps, dtype=getattr(torch, emit.out.dtype)), "range")
    count = emit.cast(emit.typed(emit.call("ops.arange", steps), dtype="int64"), emit.out.dtype)
    pace = f"({end} - {start}) / ({steps} - 1)"
    return emit.infix("+", emit.infix("*", count, Value(pace, atomic=False)), start)


@lowers("aten.full.default", "aten.full_like.default", "aten.new_full.default", value=Arg("fill_value"), dtype=None)
@lowers("aten.fill.Scalar")
@lowers("aten.zeros.default", "aten.zeros_like.default", "aten.new_zeros.default", value=0, dtype=None)
# torch leaves these unwritten; every model that reads one before writing it is wrong in torch already.
@lowers("aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default", value=0, dtype=None)
@lowers("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default", value=1, dtype=None)
@lowers("aten.scalar_tensor.default", value=Arg("s"), dtype=None)
def filled(emit: Emitter, value: float, shape: Sizes | None = None, dtype: str | None = None, **_: object) -> Value:
    shape = emit.dims(emit.out.shape if shape is None else shape)
    dtype = dtype or emit.out.dtype
    if isinstance(value, complex):
        exact = exactly(emit, value, dtype)
        return emit.call("ops.broadcast_to", exact, shape) if shape else exact
    if not isinstance(value, (int, float)):  # a size, or a quotient of sizes
        if dtype in FLOATS:  # without it ops.full would take the quotient for a whole number
            return emit.call("ops.full", shape, value, dtype=emit.dtype(dtype))
        return emit.cast(emit.typed(emit.call("ops.full", shape, value), dtype="?"), dtype)
    if dtype == "bool":
        value = bool(value)
    elif dtype not in FLOATS:
        value = int(value)
    if (dtype in WHOLE and not -(2**31) <= value < 2**31) or (dtype == "float64" and not is_float32(value)):
        exact = exactly(emit, value, dtype)
        return emit.call("ops.broadcast_to", exact, shape) if shape else exact
    if value in (0, 1):
        return emit.call("ops.ones" if value else "ops.zeros", shape, emit.dtype(dtype))
    return emit.call("ops.full", shape, value, dtype=emit.dtype(dtype))


@lowers("aten.fill.Tensor")
def fill_tensor(emit: Emitter, self: Value, value: Value) -> Value:
    return emit.call("ops.broadcast_to", emit.cast(value, emit.out.dtype), emit.dims(emit.out.shape))


@lowers("aten.eye.default", rows=Arg("n"), columns=Arg("n"))
@lowers("aten.eye.m", rows=Arg("n"), columns=Arg("m"))
def _eye(emit: Emitter, rows: Size, columns: Size) -> Value:
    row = emit.call("ops.expand_dims", emit.call("ops.arange", rows), -1)
    equal = emit.typed(emit.infix("==", row, emit.call("ops.arange", columns)), dtype="bool")
    return emit.cast(equal, emit.out.dtype)


def _below(emit: Emitter, self: Value, diagonal: int, symbol: str) -> Value:
    """Whether row + diagonal >= column, or <=, of the last two dimensions."""
    rows = emit.call("ops.expand_dims", emit.call("ops.arange", emit.size(self.shape[-2])), -1)
    rows = emit.infix("+", rows, diagonal) if diagonal else rows
    return emit.infix(symbol, rows, emit.call("ops.arange", emit.size(self.shape[-1])))


@lowers("aten.tril.default", symbol=">=")
@lowers("aten.triu.default", symbol="<=")
def _triangle(emit: Emitter, self: Value, diagonal: Size, symbol: str) -> Value:
    # ops.Tril multiplies, so that inf and NaN outside stay as NaN.
    kept = emit.typed(_below(emit, self, diagonal, symbol), dtype="bool")
    if emit.out.dtype == "bool":
        return emit.call("ops.logical_and", self, kept)
    nothing = emit.call("ops.full", (), 0, dtype=emit.dtype(self.dtype))
    return emit.call("ops.where", kept, self, nothing)


@lowers("aten.one_hot.default")
def one_hot(emit: Emitter, self: Value, num_classes: int) -> Value:
    if num_classes == -1:
        raise emit.refuse("the number of classes depends on the values")
    equal = emit.infix("==", emit.call("ops.expand_dims", self, -1), emit.call("ops.arange", num_classes))
    return emit.cast(emit.typed(equal, dtype="bool"), "int64")


@lowers("aten.meshgrid.indexing")
@lowers("aten.meshgrid.default", indexing="ij")
def _meshgrid(emit: Emitter, tensors: Sequence[Value], indexing: str) -> Value:
    places = list(range(len(tensors)))
    if indexing == "xy" and len(places) > 1:
        places[0], places[1] = 1, 0
    texts = []
    for place, x, piece in zip(places, tensors, emit.out, strict=True):
        shape = [1] * len(tensors)
        shape[place] = -1
        spread = emit.call("ops.reshape", x, tuple(shape))
        texts.append(emit.call("ops.broadcast_to", spread, emit.dims(piece.shape)).text)
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")
