# SPDX-License-Identifier: Apache-2.0
"""Results whose size depends on the values: what a mask selects, where numbers are not 0, runs of equal ones.

MindSpore's CPU backend runs such sizes in both modes, with one compile for all of them.
"""

from collections.abc import Sequence

from paritas.lower.mindspore.ops.order import in_order
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Value


def true_places(emit: Emitter, mask: Value) -> Value:
    """Where a mask holds, counted through all of its dimensions."""
    flags = emit.call("ops.reshape", mask, (-1,))
    return emit.call("ops.reshape", emit.call("ops.nonzero", flags), (-1,))


def selected(emit: Emitter, self: Value, indices: Sequence[Value | None]) -> Value:
    """`self[.., mask, ..]` for a single mask, whose dimensions become one."""
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    axis, mask = given[0]
    if len(given) > 1 or mask.dtype != "bool" or is_empty(self) or not mask.rank:
        raise emit.refuse("a mask beside other indices, of bytes, without dimensions, or of nothing")
    shape = emit.dims(self.shape)
    x = self
    if mask.rank > 1:
        x = emit.call("ops.reshape", self, (*shape[:axis], -1, *shape[axis + mask.rank :]))
    return emit.call("ops.gather", x, true_places(emit, mask), axis)


@lowers("aten.nonzero.default", "aten.argwhere.default")
def nonzero(emit: Emitter, self: Value) -> Value:
    if not self.rank or is_empty(self):
        raise emit.refuse("nonzero of a number, or of nothing")
    return emit.call("ops.nonzero", self)


@lowers("aten.masked_select.default")
def masked_select(emit: Emitter, self: Value, mask: Value) -> Value:
    if is_empty(self) or is_empty(mask):
        raise emit.refuse("masked_select of nothing")
    if list(self.shape) != list(mask.shape):  # both as large as the two together
        x, mask = emit.let(self, "x"), emit.let(mask, "mask")
        self = emit.let(emit.call("ops.where", mask, x, x), "x")
        nowhere = emit.cast(emit.call("ops.zeros_like", self), "bool")
        mask = emit.call("ops.logical_or", mask, nowhere)
    return emit.call("ops.gather", emit.call("ops.reshape", self, (-1,)), true_places(emit, mask), 0)


@lowers("aten.repeat_interleave.Tensor")
def repeated_places(emit: Emitter, repeats: Value, *, output_size: Size | None = None) -> Value:
    if repeats.rank != 1 or is_empty(repeats):
        raise emit.refuse("repetitions that are no list of numbers")
    return emit.cast(emit.typed(emit.prelude("repeated_places", repeats), dtype="int64"), repeats.dtype)


@lowers("aten.repeat_interleave.self_Tensor")
def repeat_interleave(
    emit: Emitter, self: Value, repeats: Value, dim: int | None = None, *, output_size: Size | None = None
) -> Value:
    if is_empty(self) or not self.rank:
        raise emit.refuse("repeat_interleave of nothing, or of a number")
    x, axis = (emit.call("ops.reshape", self, (-1,)), 0) if dim is None else (self, dim % self.rank)
    size = self.shape[axis] if dim is not None or self.rank == 1 else None
    if list(repeats.shape) != [size]:
        raise emit.refuse("repetitions of another number than the elements have")
    return emit.call("ops.gather", x, emit.prelude("repeated_places", repeats), axis)


def _comparable(emit: Emitter, self: Value) -> Value:
    """`self` in a dtype that all of MindSpore's kernels compare and sort."""
    wide = {"bool": "int32", "uint8": "int32", "int8": "int32", "int16": "int32", "float16": "float32"}
    return emit.cast(self, wide.get(self.dtype, self.dtype))


@lowers("aten.unique_consecutive.default")
def unique_consecutive(emit: Emitter, self: Value, return_inverse: bool, return_counts: bool, dim: int | None) -> Value:
    if is_empty(self):
        raise emit.refuse("unique_consecutive of nothing")
    if dim is not None and not (dim == 0 and self.rank == 1):  # torch then returns both, asked for or not
        return_inverse = return_counts = True
    along = dim % self.rank if dim is not None and self.rank > 1 else None
    self = emit.typed(emit.let(self, "x"), like=self)
    shape: tuple[Size, ...]
    wide = emit.typed(_comparable(emit, self), shape=self.shape)
    if along is None:
        x = emit.let(emit.call("ops.reshape", wide, (-1,)), "x")
        taken = x if wide.dtype == self.dtype else emit.call("ops.reshape", self, (-1,))
        starts, shape = emit.prelude("run_starts", x), emit.dims(self.shape)
    else:
        size = self.shape[along]
        turned = permuted(emit, wide, [along, *(a for a in range(self.rank) if a != along)])
        x = emit.let(emit.call("ops.reshape", turned, (emit.size(size), -1)), "x")
        single = emit.call("ops.ones", (1,), emit.dtype("bool"))
        starts, shape = single if size == 1 else emit.prelude("row_starts", x), (-1,)
        taken = self
    starts = emit.let(starts, "starts")
    places = emit.let(true_places(emit, starts), "places")
    nothing = emit.call("ops.zeros", (0,), emit.dtype("int64"))
    inverse = counts = nothing
    if return_inverse:
        inverse = emit.call("ops.reshape", _numbers(emit, starts), shape)
    if return_counts:
        counts = emit.prelude("run_lengths", places, x)
    found = emit.call("ops.gather", taken, places, along or 0)
    return Value(f"({found}, {inverse}, {counts})")


def _numbers(emit: Emitter, starts: Value) -> Value:
    """For each element the number of its run."""
    number = emit.prim("ops.CumSum")(emit.cast(emit.typed(starts, dtype="bool"), "int64"), 0)
    return emit.infix("-", number, 1)


@lowers("aten._unique2.default")
def unique(emit: Emitter, self: Value, return_inverse: bool, return_counts: bool, **_: object) -> Value:
    if is_empty(self):
        raise emit.refuse("unique of nothing")
    flat = emit.typed(emit.let(emit.call("ops.reshape", self, (-1,)), "flat"), dtype=self.dtype, shape=(None,))
    keys = emit.let(emit.typed(_comparable(emit, flat), shape=flat.shape), "keys")
    order = emit.let(in_order(emit, keys), "order")
    x = emit.let(emit.call("ops.gather", keys, order, 0), "x")
    starts = emit.let(emit.prelude("run_starts", x), "starts")
    places = emit.let(true_places(emit, starts), "places")
    inverse = counts = emit.call("ops.zeros", (0,), emit.dtype("int64"))
    if return_inverse:
        rows = emit.call("ops.expand_dims", order, -1)
        blank = emit.call("ops.zeros_like", order)
        inverse = emit.prim("ops.TensorScatterUpdate")(blank, rows, _numbers(emit, starts))
        inverse = emit.call("ops.reshape", inverse, emit.dims(self.shape))
    if return_counts:
        counts = emit.prelude("run_lengths", places, x)
    found = emit.call("ops.gather", flat, emit.call("ops.gather", order, places, 0), 0)
    return Value(f"({found}, {inverse}, {counts})")
