# SPDX-License-Identifier: Apache-2.0
"""The largest and the smallest so far, with their places."""

from paritas.lower.mindspore.ops.arithmetic import FLOATS
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value


@lowers("aten.cummax.default", function="ops.cummax")
@lowers("aten.cummin.default", function="ops.cummin")
def _so_far(emit: Emitter, function: str, self: Value, dim: int) -> Value:
    if any(size == 0 for size in self.shape):
        shape = emit.dims(self.shape)
        parts = (emit.call("ops.zeros", shape, emit.dtype(d)) for d in (self.dtype, "int64"))
        return Value(f"({', '.join(map(str, parts))})")
    if self.rank == 0:
        return Value(f"({self}, {emit.call('ops.zeros', (), emit.dtype('int64'))})")
    kind = self.dtype if self.dtype in (*FLOATS, "int64") else "int64"
    pair = emit.let(emit.call(function, emit.cast(self, kind), dim % self.rank), "pair")
    value = emit.cast(Value(f"{pair}[0]", kind), self.dtype)
    return Value(f"({value}, {emit.cast(Value(f'{pair}[1]', '?'), 'int64')})")
