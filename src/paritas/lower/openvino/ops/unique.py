# SPDX-License-Identifier: Apache-2.0
"""Distinct values: how many there are, the values decide."""

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.emit import Emitter, Tensor, out, rank_of
from paritas.lower.openvino.integers import not_equal
from paritas.lower.openvino.ops.move import END
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.registry import Arg


@lowers("aten._unique2.default", x=Arg("self"), axis=None, inverse=Arg("return_inverse"), counts=Arg("return_counts"))
def _counted(emit: Emitter, x: Tensor, axis: int | None, inverse: bool, counts: bool, **_: object) -> list[Tensor]:
    """(values, inverse, counts) in ascending order; along an axis, or of the flat tensor."""
    dtype = emit.dtype_of(x)
    wide = emit.cast(x, torch.int32) if dtype == torch.bool else emit.wide(x, dtype)
    if dtype.is_floating_point:  # OpenVINO tells 0 from -0
        wide = ops.select(ops.equal(wide, np.float32(0)), np.float32(0), wide)
    found = ops.unique(wide, None if axis is None else np.int64(axis), True, "i64", "i64")
    values = emit.cast(found.output(0), dtype)
    places, numbers = out(found.output(2)), out(found.output(3))
    if axis is None and inverse:
        places = emit.reshape(places, emit.sizes(x))
    nothing = emit.const(np.zeros(0), torch.int64)
    # Along an axis torch makes all three, asked for or not.
    everything = axis is not None
    return [values, places if inverse or everything else nothing, numbers if counts or everything else nothing]


@lowers("aten.unique_dim.default")
def unique_dim(
    emit: Emitter, self: Tensor, dim: int, return_inverse: bool, return_counts: bool, **_: object
) -> list[Tensor]:
    return _counted(emit, self, dim % max(rank_of(self), 1), return_inverse, return_counts)


@lowers("aten.unique_consecutive.default")
def unique_consecutive(
    emit: Emitter, self: Tensor, return_inverse: bool, return_counts: bool, dim: int | None
) -> list[Tensor]:
    x = out(self)
    if dim is not None and dim < 0:
        raise emit.refuse("torch itself takes a negative dimension for another here: count it from the front")
    everything = dim is not None
    if dim is None:
        rows = out(ops.reshape(x, emit.array([-1]), False))
        axis = 0
    else:
        axis, rows = dim % rank_of(x), x
    before, after = emit.slice(rows, 0, -1, axis), emit.slice(rows, 1, END, axis)
    others = [a for a in range(rank_of(rows)) if a != axis]
    if out(rows).get_element_type().to_string() == "boolean":
        differ = ops.logical_xor(before, after)
    else:
        differ = not_equal(before, after)
    changed = out(ops.reduce_logical_or(differ, emit.array(others), False)) if others else out(differ)
    starts = ops.concat([emit.const([True], torch.bool), changed], 0)
    starts = emit.slice(starts, 0, emit.size(rows, axis), 0)  # an empty row has no first element
    places = ops.squeeze(ops.non_zero(starts, "i64"), emit.array([0]))
    values = ops.gather(rows, places, np.int64(axis))
    nothing = emit.const(np.zeros(0), torch.int64)
    inverse, counts = nothing, nothing
    if return_inverse or everything:
        numbered = ops.cum_sum(ops.convert(starts, "i64"), np.int64(0))
        inverse = ops.subtract(numbered, np.int64(1))
        if dim is None:
            inverse = emit.reshape(inverse, emit.sizes(x))
    if return_counts or everything:
        ends = ops.concat([emit.slice(places, 1, END, 0), emit.dims([emit.size(rows, axis)])], 0)
        counts = ops.subtract(ends, places)
    return [values, inverse, counts]
