# SPDX-License-Identifier: Apache-2.0
"""Systems of equations: inverses, determinants, factors. Computed in float64, in which MindSpore's kernels are as good
as LAPACK's; in float32 they are not always.

Vectors that belong to singular values or to eigenvalues have no sign of their own, and another library gives
another one: they are not written.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.mindspore.ops.registry import lowers
from paritas.lower.mindspore.ops.shape import is_empty, permuted
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Sizes, Value
from paritas.lower.registry import Arg


def _wide(emit: Emitter, self: Value) -> Value:
    if self.dtype.startswith("complex"):
        raise emit.refuse("it is written for real numbers, and these are complex")
    return emit.typed(emit.cast(self, "float64"), dtype="float64", shape=self.shape)


def _narrow(emit: Emitter, value: Value, dtype: str) -> Value:
    return emit.cast(emit.typed(value, dtype="float64"), dtype)


def _no_info(emit: Emitter, shape: Sizes) -> Value:
    """What PyTorch says went wrong in each matrix: nothing. Where something does, the values are NaN."""
    return emit.call("ops.zeros", emit.dims(shape), emit.dtype("int32"))


@lowers("aten.inverse.default", A=Arg("self"))
@lowers("aten.linalg_inv.default")
def linalg_inv(emit: Emitter, A: Value) -> Value:
    if is_empty(A):
        return filled(emit, 0)
    return _narrow(emit, emit.prelude("inverted", _wide(emit, A)), A.dtype)


@lowers("aten.linalg_inv_ex.default")
def linalg_inv_ex(emit: Emitter, A: Value, **_: object) -> Value:
    if is_empty(A):
        found = filled(emit, 0, shape=A.shape, dtype=A.dtype)
    else:
        found = _narrow(emit, emit.prelude("inverted", _wide(emit, A)), A.dtype)
    return Value(f"({found}, {_no_info(emit, A.shape[:-2])})")


@lowers("aten.linalg_det.default")
def linalg_det(emit: Emitter, A: Value) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if is_empty(A):
        return filled(emit, 1)
    return _narrow(emit, emit.prelude("determinant", _wide(emit, A)), A.dtype)


def _sign_and_log(emit: Emitter, A: Value) -> tuple[Value, ...]:
    if is_empty(A):
        shape = A.shape[:-2]
        return (filled(emit, 1, shape=shape, dtype=A.dtype), filled(emit, 0, shape=shape, dtype=A.dtype))
    pair = emit.let(emit.prelude("sign_and_log", _wide(emit, A)), "pair")
    return tuple(
        emit.typed(_narrow(emit, Value(f"{pair}[{i}]"), A.dtype), dtype=A.dtype, shape=A.shape[:-2]) for i in (0, 1)
    )


@lowers("aten.linalg_slogdet.default")
def linalg_slogdet(emit: Emitter, A: Value) -> Value:
    sign, size = _sign_and_log(emit, A)
    return Value(f"({sign}, {size})")


@lowers("aten.logdet.default")
def logdet(emit: Emitter, self: Value) -> Value:
    sign, size = _sign_and_log(emit, self)
    missing = emit.call("ops.full_like", size, math.nan)
    return emit.call("ops.where", emit.infix("<", sign, 0), missing, size)


def _solved(emit: Emitter, A: Value, B: Value, left: bool, dtype: str) -> Value:
    """(solution, whether it has the shape of the node's first result)."""
    vector = B.rank == 1 or (B.rank == A.rank - 1 and list(B.shape) == list(A.shape[:-1]))
    a, b = _wide(emit, A), _wide(emit, B)
    if vector:
        b = emit.typed(emit.call("ops.expand_dims", b, -1), dtype="float64", shape=(*B.shape, 1))
    if not left:  # x a = b is a^T x^T = b^T
        a, b = _turned(emit, a), _turned(emit, b)
    x = emit.prelude("solved", a, b)
    if not left:
        x = emit.method(x, "swapaxes", -1, -2)
    if vector:
        x = emit.call("ops.squeeze", x, -1)
    return _narrow(emit, x, dtype)


def _turned(emit: Emitter, x: Value) -> Value:
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    shape = [x.shape[axis] for axis in order]
    return emit.typed(permuted(emit, x, order), dtype=x.dtype, shape=shape)


@lowers("aten.linalg_solve.default")
def linalg_solve(emit: Emitter, A: Value, B: Value, *, left: bool) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    return _solved(emit, A, B, left, emit.out.dtype)


@lowers("aten.linalg_solve_ex.default")
def linalg_solve_ex(emit: Emitter, A: Value, B: Value, *, left: bool, **_: object) -> Value:
    found = (
        filled(emit, 0, shape=emit.out[0].shape, dtype=A.dtype)
        if is_empty(emit.out[0])
        else _solved(emit, A, B, left, A.dtype)
    )
    return Value(f"({found}, {_no_info(emit, A.shape[:-2])})")


@lowers("aten.cholesky.default", "aten.linalg_cholesky.default")
def cholesky(emit: Emitter, self: Value, upper: bool) -> Value:
    if is_empty(self):
        return filled(emit, 0, shape=self.shape, dtype=self.dtype)
    x = _wide(emit, self)
    x = emit.typed(emit.prelude("lower_of", _turned(emit, x) if upper else x), like=x)
    if self.shape[-1] == 1:
        return _narrow(emit, emit.call("ops.sqrt", x), self.dtype)
    found = emit.typed(emit.call("ops.cholesky", x), like=x)
    return _narrow(emit, _turned(emit, found) if upper else found, self.dtype)


@lowers("aten.linalg_cholesky_ex.default")
def linalg_cholesky_ex(emit: Emitter, self: Value, *, upper: bool, **_: object) -> Value:
    return Value(f"({cholesky(emit, self, upper)}, {_no_info(emit, self.shape[:-2])})")


@lowers("aten.linalg_qr.default")
def linalg_qr(emit: Emitter, A: Value, mode: str = "reduced") -> Value:
    if is_empty(A):
        rows = A.shape[-2]
        first = filled(emit, 0, shape=emit.out[0].shape, dtype=A.dtype)
        if mode == "complete" and not is_empty(emit.out[0]):
            whole = emit.constant(torch.eye(int(rows), dtype=getattr(torch, A.dtype)), "whole")
            first = emit.call("ops.broadcast_to", whole, emit.dims(emit.out[0].shape))
        return Value(f"({first}, {filled(emit, 0, shape=emit.out[1].shape, dtype=A.dtype)})")
    pair = emit.let(emit.call("ops.qr", _wide(emit, A), "complete" if mode == "complete" else "reduced"), "pair")
    factors = [_narrow(emit, Value(f"{pair}[{i}]"), A.dtype) for i in (0, 1)]
    if mode == "r":
        factors[0] = emit.call("ops.zeros", (0,), emit.dtype(A.dtype))
    return Value(f"({factors[0]}, {factors[1]})")


@lowers("aten.qr.default")
def qr(emit: Emitter, self: Value, some: bool) -> Value:
    return linalg_qr(emit, self, "reduced" if some else "complete")


@lowers("aten.linalg_svdvals.default")
def linalg_svdvals(emit: Emitter, A: Value, **_: object) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    return _narrow(emit, emit.call("ops.svd", _wide(emit, A), False, False), A.dtype)


@lowers("aten.linalg_eigvalsh.default")
def linalg_eigvalsh(emit: Emitter, self: Value, UPLO: str) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    x = _wide(emit, self)
    x = _turned(emit, x) if UPLO.upper() == "U" else x
    return _narrow(emit, emit.prelude("eigenvalues", emit.prelude("lower_of", x)), self.dtype)


@lowers("aten.pinverse.default", A=Arg("self"), atol=0.0, rtol=Arg("rcond"))
def pseudo_inverse(emit: Emitter, A: Value, atol: float | None, rtol: float) -> Value:
    if (nothing := emit.if_empty()) is not None:
        return nothing
    if isinstance(atol, Value) and rtol is None:
        raise emit.refuse("a tolerance that is a tensor, and decides whether the other one counts")
    if rtol is None:
        precision = 2.0**-52 if A.dtype == "float64" else 2.0**-23
        rows, columns = (emit.size(size) for size in A.shape[-2:])
        most = Value(f"max({rows}, {columns})")
        relative = 0.0 if atol else emit.infix("*", most, precision)
    else:
        relative = _tolerance(emit, rtol)
    found = emit.prelude("pseudo_inverse", _wide(emit, A), _tolerance(emit, atol), relative)
    return _narrow(emit, found, A.dtype)


def _tolerance(emit: Emitter, value: float | None) -> float:
    return emit.cast(value, "float64") if isinstance(value, Value) else float(value or 0.0)


@lowers("aten.linalg_pinv.atol_rtol_float", "aten.linalg_pinv.atol_rtol_tensor")
@lowers("aten.linalg_pinv.default", atol=0.0, rtol=Arg("rcond"))
def linalg_pinv(emit: Emitter, self: Value, *, atol: Any, rtol: Any, hermitian: bool) -> Value:
    x = emit.typed(emit.prelude("lower_of", self), like=self) if hermitian else self
    return pseudo_inverse(emit, x, atol, rtol)


# --- whole numbers ---


#: The smallest number, and as many turns as Euclid's algorithm may need: Fibonacci numbers are the worst.
_NARROW = {"int8": (-(2**7), 12), "int16": (-(2**15), 24)}


@lowers("aten.lcm.default", name="common_multiple")
def of_whole(
    emit: Emitter, name: str, self: Value, other: Value, more: Sequence[int] = (), kind: str | None = None
) -> Value:
    """A function of the prelude of two whole numbers, and of what it needs `more`, computed in `kind`."""
    # There is no kernel of narrower ones.
    kind = kind or ("int64" if emit.out.dtype == "int64" else "int32")
    x, y = (emit.cast(v, kind) for v in (self, other))
    if self.shape != other.shape:  # whose kernel does not broadcast in either mode
        x, y = (emit.call("ops.broadcast_to", v, emit.dims(emit.out.shape)) for v in (x, y))
    return emit.cast(emit.typed(emit.prelude(name, x, y, *more), dtype=kind), emit.out.dtype)


@lowers("aten.gcd.default")
def gcd(emit: Emitter, self: Value, other: Value) -> Value:
    if emit.out.dtype in _NARROW:
        return of_whole(emit, "common_divisor_narrow", self, other, _NARROW[emit.out.dtype], kind="float32")
    return of_whole(emit, "common_divisor", self, other)
