# SPDX-License-Identifier: Apache-2.0
"""Complex numbers: how they are made, taken apart and computed with."""

import math
from typing import Any

import numpy as np
import openvino.opset16 as ops
import torch

from paritas.lower.openvino.complexes import also_complex, paired, parts
from paritas.lower.openvino.emit import Emitter, Tensor, complex_numbers, is_tensor, out
from paritas.lower.openvino.ops.arithmetic import angle_of
from paritas.lower.openvino.ops.registry import lowers
from paritas.lower.openvino.ops.shape import shared_sizes
from paritas.lower.openvino.rounding import rounded_to_half


def _is_complex(emit: Emitter, x: Tensor) -> bool:
    return emit.meta(x).is_complex()


@lowers("aten.view_as_real.default", "aten.view_as_complex.default")
@complex_numbers
def view_as_real(emit: Emitter, self: Tensor) -> Tensor:
    return out(ops.identity(self))  # a value of its own: torch knows two shapes of it


@lowers("aten.complex.default")
@complex_numbers
def complex_of(emit: Emitter, real: Tensor, imag: Tensor) -> Tensor:
    return paired(emit, *_alike(emit, real, imag))


def _alike(emit: Emitter, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    sizes = shared_sizes(emit, [a, b])
    return emit.broadcast(a, sizes), emit.broadcast(b, sizes)


@lowers("aten.polar.default")
@complex_numbers
def polar(emit: Emitter, abs: Tensor, angle: Tensor) -> Tensor:
    return paired(emit, ops.multiply(abs, ops.cos(angle)), ops.multiply(abs, ops.sin(angle)))


@lowers("aten.real.default")
@complex_numbers
def real(emit: Emitter, self: Tensor) -> Tensor:
    return parts(emit, self)[0] if _is_complex(emit, self) else self


@lowers("aten.imag.default")
@complex_numbers
def imag(emit: Emitter, self: Tensor) -> Tensor:
    return parts(emit, self)[1]


@lowers("aten._conj.default", "aten.conj.default", "aten.conj_physical.default")
@complex_numbers
def conj(emit: Emitter, self: Tensor) -> Tensor:
    if not _is_complex(emit, self):
        return self
    a, b = parts(emit, self)
    return paired(emit, a, ops.multiply(b, np.float32(-1)))


@lowers("aten.resolve_conj.default")
@complex_numbers
def resolve_conj(emit: Emitter, self: Tensor) -> Tensor:
    return self


@lowers("aten.angle.default")
@complex_numbers
def angle(emit: Emitter, self: Tensor) -> Tensor:
    if _is_complex(emit, self):
        a, b = parts(emit, self)
        return angle_of(emit, b, a)
    x = emit.cast(self, emit.dtype)
    turned = ops.select(ops.less(x, np.float32(0)), np.float32(math.pi), np.float32(0))
    return ops.select(ops.is_nan(x), x, turned)


def magnitude(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a^2 + b^2), by the larger of both, so that no square overflows."""
    a, b = ops.abs(a), ops.abs(b)
    most, least = ops.maximum(a, b), ops.minimum(a, b)
    nothing = ops.equal(most, np.float32(0))
    ratio = ops.divide(least, ops.select(nothing, np.float32(1), most))
    return out(ops.multiply(most, ops.sqrt(ops.add(ops.multiply(ratio, ratio), np.float32(1)))))


@also_complex("aten.abs.default")
def absolute(emit: Emitter, self: Tensor) -> Tensor:
    return magnitude(*parts(emit, self))


@also_complex("aten.exp.default")
def exponential(emit: Emitter, self: Tensor) -> Any:
    a, b = parts(emit, self)
    size = ops.exp(a)
    return paired(emit, ops.multiply(size, ops.cos(b)), ops.multiply(size, ops.sin(b)))


@also_complex("aten._to_copy.default", "aten.to.dtype", "prims.convert_element_type.default")
def converted(emit: Emitter, self: Tensor, *_: Any, **__: Any) -> Tensor:
    if not emit.out.is_complex():
        raise emit.refuse("a cast that drops the imaginary part")
    found = self if _is_complex(emit, self) else paired(emit, *parts(emit, self))
    return rounded_to_half(found, torch.float16) if emit.out.dtype == torch.complex32 and emit.rounds else found


@also_complex("aten.full.default", "aten.scalar_tensor.default")
def constant_of(emit: Emitter, *arguments: Any, **__: Any) -> Any:
    *sizes, value = arguments
    real, imaginary = complex(value).real, complex(value).imag
    wanted = sizes[0] if sizes else []
    return paired(emit, *(emit.full(wanted, part, torch.float32) for part in (real, imaginary)))


@also_complex("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def quotient(emit: Emitter, self: Tensor, other: Tensor) -> Tensor:
    pairs = [parts(emit, value) for value in (self, other)]
    (a, b), (c, d) = ([emit.cast(x, torch.float32) for x in pair] for pair in pairs)
    if not isinstance(other, complex) and not (is_tensor(other) and _is_complex(emit, other)):
        return paired(emit, ops.divide(a, c), ops.divide(b, c))
    whole = ops.add(ops.multiply(c, c), ops.multiply(d, d))
    first = ops.add(ops.multiply(a, c), ops.multiply(b, d))
    second = ops.subtract(ops.multiply(b, c), ops.multiply(a, d))
    return paired(emit, ops.divide(first, whole), ops.divide(second, whole))
