# SPDX-License-Identifier: Apache-2.0
"""Complex numbers. MindSpore's CPU kernels compute with them as torch does, but mix no real operand in."""

import math

from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value

REAL = {"complex64": "float32", "complex128": "float64"}


@lowers("aten.imag.default", name="imag")
def part(emit: Emitter, self: Value, name: str) -> Value:
    """`ops.real` or `ops.imag` of a complex value."""
    return emit.typed(emit.call(f"ops.{name}", self), dtype=REAL[self.dtype], shape=self.shape)


@lowers("aten.view_as_complex.default")
def view_as_complex(emit: Emitter, self: Value) -> Value:
    # x[..., 0] would be ops.StridedSlice, twice as slow on CPU.
    parts = emit.let(emit.call("ops.split", self, 1, -1), "parts")
    pairs = emit.prim("ops.Complex")(Value(f"{parts}[0]"), Value(f"{parts}[1]"))
    return emit.call("ops.squeeze", pairs, -1)


@lowers("aten.view_as_real.default")
def view_as_real(emit: Emitter, self: Value) -> Value:
    x = emit.let(self, "x")
    return emit.call("ops.stack", (part(emit, x, "real"), part(emit, x, "imag")), -1)


@lowers("aten.complex.default")
def complex_(emit: Emitter, real: Value, imag: Value) -> Value:
    emit.dtype(emit.out.dtype)  # refused if MindSpore has none
    return emit.prim("ops.Complex")(*(_spread(emit, x) for x in (real, imag)))


def _spread(emit: Emitter, x: Value) -> Value:
    if list(x.shape) == list(emit.out.shape):
        return x
    return emit.call("ops.broadcast_to", x, emit.dims(emit.out.shape))


@lowers("aten.polar.default")
def polar(emit: Emitter, abs: Value, angle: Value) -> Value:
    length, angle = emit.let(abs, "length"), emit.let(angle, "angle")
    real, imag = (
        emit.typed(emit.infix("*", length, emit.call(f"ops.{name}", angle)), dtype=length.dtype, shape=emit.out.shape)
        for name in ("cos", "sin")
    )
    return emit.prim("ops.Complex")(real, imag)


@lowers("aten.real.default")
def real(emit: Emitter, self: Value) -> Value:
    return part(emit, self, "real") if self.dtype in REAL else self


@lowers("aten.angle.default")
def angle(emit: Emitter, self: Value) -> Value:
    if self.dtype not in REAL:  # 0 or half a turn, and NaN as it is
        x = emit.let(emit.cast(self, emit.out.dtype), "x")
        turned = emit.call("ops.where", emit.infix("<", x, 0), math.pi, 0.0)
        turned = emit.cast(emit.typed(turned, dtype="?"), emit.out.dtype)
        return emit.call("ops.where", emit.infix("!=", x, x), x, turned)
    x = emit.let(self, "x")
    return emit.call("ops.atan2", part(emit, x, "imag"), part(emit, x, "real"))


@lowers("aten.conj.default", "aten._conj.default", "aten.conj_physical.default")
def conj(emit: Emitter, self: Value) -> Value:
    return emit.call("ops.conj", self) if self.dtype in REAL else self


@lowers("aten.resolve_conj.default")
def resolve_conj(emit: Emitter, self: Value) -> Value:
    return self
