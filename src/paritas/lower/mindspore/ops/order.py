# SPDX-License-Identifier: Apache-2.0
"""Order: sorted, the largest, the middle. NaN is the largest of all, and equal elements keep their order, as in torch.

What is sorted are keys (`order_keys` in the prelude), in which NaN is a number; the values are looked up afterwards.
"""

from collections.abc import Callable
from typing import Any

import torch

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import indexed, is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Size, Value

#: Above every number of the narrower dtype, and below infinity.
_TOP = {torch.float32: 3e38, torch.float64: 1.7976931348623157e308}


def _pair(first: Value | str, second: Value | str) -> Value:
    return Value(f"({first}, {second})")


def _keys(emit: Emitter, x: Value) -> Value:
    if x.dtype in ("float32", "float16", "float64"):
        wide = torch.float32 if x.dtype == "float16" else torch.float64
        return emit.prelude("order_keys", x, emit.constant(torch.tensor(_TOP[wide], dtype=wide), "top"))
    return emit.cast(x, "int32") if x.dtype == "bool" else x  # there is no order of booleans


def _places(emit: Emitter, x: Value, descending: bool) -> Value:
    """Where the elements of the last dimension come from, in order. ops.Sort keeps the order of equals."""
    if x.dtype == "float64":
        # Ascending order is that of the negative numbers from the largest on; NaN is then the smallest.
        keys = _keys(emit, x)
        return emit.prelude("places_in_order_64", keys if descending else emit.prefix("-", keys))
    if x.dtype in ("float32", "float16"):
        return emit.prelude("places_in_order", x, bool(descending))
    found = emit.let(emit.prim("ops.Sort", -1, bool(descending))(_keys(emit, x)), "found")
    return emit.cast(Value(f"{found}[1]", "int32"), "int64")


def in_order(emit: Emitter, x: Value) -> Value:
    """Where the elements of a vector come from, the smallest first; of floats and whole numbers of 32 bits and more."""
    return _places(emit, x, False)


def _last(emit: Emitter, self: Value, dim: int, write: Callable[..., Any]) -> Value:
    """(values, places) of the places that `write(x)` finds along the last dimension; dimensions as they were."""
    if self.rank == 0:
        return _pair(self, emit.call("ops.zeros", (), emit.dtype("int64")))
    dim = dim % self.rank
    order = list(range(self.rank))
    order[dim], order[-1] = order[-1], order[dim]
    x = emit.let(permuted(emit, self, order), "x")
    places = emit.let(write(emit.typed(x, dtype=self.dtype)), "places")
    found = emit.call("ops.gather_elements", x, self.rank - 1, places)
    return _pair(permuted(emit, found, order), permuted(emit, places, order))


@lowers("aten.topk.default")
def topk(emit: Emitter, self: Value, k: Size, dim: int, largest: bool, **_: object) -> Value:
    def write(x: Value) -> Value:
        if largest:
            found = emit.let(emit.prim("ops.TopK", True)(_keys(emit, x), k), "found")
            return emit.cast(Value(f"{found}[1]", "int32"), "int64")
        return Value(f"{_places(emit, x, False)}[..., :{k}]")

    if self.rank and is_empty(self):
        return _nothing(emit)
    return _last(emit, self, dim, write)


def _nothing(emit: Emitter) -> Any:
    texts = [emit.call("ops.zeros", emit.dims(part.shape), emit.dtype(part.dtype)).text for part in emit.out]
    return _pair(*texts)


@lowers("aten.sort.default", "aten.sort.stable")
def sorted_pair(emit: Emitter, self: Value, dim: int, descending: bool, **_: object) -> Value:
    """Values and places in order."""
    if self.rank and is_empty(self):
        shape = emit.dims(self.shape)
        return _pair(self, emit.call("ops.zeros", shape, emit.dtype("int64")))
    return _last(emit, self, dim, lambda x: _places(emit, x, descending))


@lowers("aten.msort.default")
def msort(emit: Emitter, self: Value) -> Value:
    return Value(f"{emit.let(sorted_pair(emit, self, 0, False), 'pair')}[0]")


@lowers("aten.argsort.default", "aten.argsort.stable")
def argsort(emit: Emitter, self: Value, dim: int, descending: bool, **_: object) -> Value:
    pair = emit.let(sorted_pair(emit, self, dim, descending), "pair")
    return Value(f"{pair}[1]")


# --- one of them ---


def _one(emit: Emitter, self: Value, dim: int, keepdim: bool, place: int | str) -> Value:
    """(value, index) of the element that is at `place` in order, along a dimension."""
    if self.rank == 0:
        return _pair(self, emit.call("ops.zeros", (), emit.dtype("int64")))
    if is_empty(self):
        return _nothing(emit)
    dim = dim % self.rank
    pair = emit.let(sorted_pair(emit, self, dim, False), "pair")
    cut = f"{place}:{operand_plus_one(place)}" if keepdim else str(place)
    return _pair(*(indexed(emit, Value(f"{pair}[{i}]", shape=self.shape), dim, cut) for i in (0, 1)))


def operand_plus_one(place: int | str) -> int | str:
    return place + 1 if isinstance(place, int) else f"{place} + 1"


@lowers("aten.kthvalue.default")
def kthvalue(emit: Emitter, self: Value, k: Size, dim: int, keepdim: bool) -> Value:
    return _one(emit, self, dim, keepdim, k - 1 if isinstance(k, int) else f"{k} - 1")


def _middle(emit: Emitter, self: Value, dim: int) -> int | str:
    size = self.shape[dim]
    if isinstance(size, int):
        return (size - 1) // 2
    return f"({emit.size(size)} - 1) // 2"


@lowers("aten.median.dim")
def median_dim(emit: Emitter, self: Value, dim: int, keepdim: bool = False) -> Value:
    if self.rank == 0 or is_empty(self):
        return _one(emit, self, dim, keepdim, 0)
    dim = dim % self.rank
    x = emit.let(self, "x")
    if self.dtype not in FLOATS:
        return _one(emit, x, dim, keepdim, _middle(emit, self, dim))
    # A row with a NaN has NaN for its middle.
    pair = emit.let(_one(emit, x, dim, True, _middle(emit, self, dim)), "middle")
    return _squeezed(emit, emit.prelude("median_nan", x, Value(f"{pair}[0]"), Value(f"{pair}[1]"), dim), dim, keepdim)


def _squeezed(emit: Emitter, pair: Value, dim: int, keepdim: bool) -> Value:
    if keepdim:
        return pair
    found = emit.let(pair, "found")
    return _pair(*(emit.call("ops.squeeze", Value(f"{found}[{i}]"), dim) for i in (0, 1)))


def _flat(emit: Emitter, self: Value) -> Value:
    size = 1
    for part in self.shape:
        size = size * part
    return emit.typed(emit.call("ops.reshape", self, (-1,)), dtype=self.dtype, shape=(size,))


@lowers("aten.median.default")
def median(emit: Emitter, self: Value) -> Value:
    if self.rank == 0:
        return self
    if is_empty(self):
        return emit.call("ops.full", (), float("nan"), dtype=emit.dtype(self.dtype))
    return Value(f"{emit.let(median_dim(emit, _flat(emit, self), 0), 'pair')}[0]")


@lowers("aten.nanmedian.dim")
def nanmedian_dim(emit: Emitter, self: Value, dim: int, keepdim: bool = False) -> Value:
    if self.rank == 0 or is_empty(self) or self.dtype not in FLOATS:
        return median_dim(emit, self, dim, keepdim)
    dim = dim % self.rank
    x = emit.let(self, "x")
    pair = emit.let(sorted_pair(emit, x, dim, False), "pair")
    found = emit.prelude("middle_known", x, Value(f"{pair}[0]"), Value(f"{pair}[1]"), dim)
    return _squeezed(emit, found, dim, keepdim)


@lowers("aten.nanmedian.default")
def nanmedian(emit: Emitter, self: Value) -> Value:
    if self.rank == 0:
        return self
    if is_empty(self):
        return emit.call("ops.full", (), float("nan"), dtype=emit.dtype(self.dtype))
    return Value(f"{emit.let(nanmedian_dim(emit, _flat(emit, self), 0), 'pair')}[0]")
