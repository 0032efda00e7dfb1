# SPDX-License-Identifier: Apache-2.0
"""What a lowering to OpenVINO sees: `Emitter`, which turns one node's arguments into opset nodes.

    @lowers("aten.rsqrt.default")
    def rsqrt(emit: Emitter, self: Tensor) -> Tensor:
        return ops.divide(1.0, ops.sqrt(emit.cast(self, emit.dtype)))

Arguments come as the schema has them: tensors as `Output`, sizes as Python ints or as i64 scalar outputs, all else
as it is in the graph. A lowering returns one opset node or output, or a list of them where the operator has several
results.

**Types are ours.** Every operand is cast to the dtype that torch computes in, and the result is cast to the dtype of
the node. Floats of all widths are f32 in the graph. What the CPU plugin (2026.4) does to integers, all measured:
int64 is computed as int32; sums, products along an axis, powers, quotients, remainders, clamps, maxima along an axis,
comparisons and choices of broadcast operands go through float32 and lose what is above 2^24; int8 and uint8 saturate.
Exact are: + - * (they wrap around), comparisons with zero, minimum and maximum of two, bitwise operators, running sums,
TopK and everything that only moves. `integers` has exact words for the rest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import openvino
import openvino.opset16 as ops
import torch
from openvino import Output
from torch.fx import Node

from paritas.capture.normalise import expression
from paritas.capture.stored import halves
from paritas.errors import LoweringError
from paritas.lower.registry import Lowering

#: An `Output`, or a node with one output: what OpenVINO's functions take, though its type stubs do not say so.
Tensor: TypeAlias = Any
#: A size in a program: an int where it is fixed, else an i64 scalar.
Size: TypeAlias = Any
Sizes: TypeAlias = Sequence[Size]
#: A number: Python's, or a scalar tensor where it is made of free sizes.
Scalar: TypeAlias = Any

#: How OpenVINO spells torch's dtypes inside the graph: every float as float32.
TYPES = {
    torch.float32: openvino.Type.f32,
    torch.float64: openvino.Type.f32,
    torch.float16: openvino.Type.f32,
    torch.bfloat16: openvino.Type.f32,
    torch.int64: openvino.Type.i64,
    torch.int32: openvino.Type.i32,
    torch.int16: openvino.Type.i16,
    torch.int8: openvino.Type.i8,
    torch.uint8: openvino.Type.u8,
    torch.bool: openvino.Type.boolean,
}
HALF = (torch.bfloat16, torch.float16)
#: Integers whose arithmetic is done in 32 bits and brought back, since the plugin's own saturates.
NARROW = {torch.uint8: (8, False), torch.int8: (8, True), torch.int16: (16, True)}

_SPELLED = {kind: dtype for dtype, kind in reversed(TYPES.items())}


def out(value: Any) -> Output:
    """The output of a node that has one."""
    return value if isinstance(value, Output) else value.output(0)


def is_tensor(value: object) -> bool:
    return isinstance(value, (Output, openvino.Node))


def complex_numbers(rule: Lowering) -> Lowering:
    """Marks a rule that knows that a complex tensor is a real one with a last axis of 2."""
    rule.complex = True  # type: ignore[attr-defined]
    return rule


class Emitter:
    """One node of the program: what it returns, where it comes from, and how to write what is needed for it.

    node: the fx node; out: its `meta["val"]`; shared: what rules made once for all nodes of the program.
    """

    def __init__(
        self, node: Node, where: str, keep: list[Any], metas: dict[int, Any], rounds: bool, shared: dict[Any, Any]
    ) -> None:
        self.node, self.where = node, where
        self.out: Any = node.meta.get("val")
        self.rounds = rounds  # whether a cast to half precision rounds: it does in a float32 program
        self.shared = shared
        self._keep, self._metas = keep, metas

    # --- dtypes ---

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the node's (first) result."""
        value = self.out[0] if isinstance(self.out, (list, tuple)) else self.out
        return value.dtype

    @property
    def shape(self) -> torch.Size:
        """The shape of the node's result: ints, and `SymInt`s where it is free."""
        return self.out.shape

    def meta(self, value: Any) -> Any:
        """What torch knows of an argument: a fake tensor; None for what was made while lowering."""
        return self._metas.get(id(value))

    def learn(self, value: Any, meta: Any) -> None:
        """What torch would know of `value`, which was made while lowering."""
        self._metas[id(value)] = meta
        self._keep.append(value)  # its id must stay its own

    def of_parts(self) -> Emitter:
        """The same for the real (or imaginary) part of a complex result."""
        other = copy.copy(self)
        if isinstance(self.out, (list, tuple)):
            other.out = [value.real for value in self.out]
        elif self.out.is_complex():
            other.out = self.out.real
        return other

    def of_floats(self) -> Emitter:
        """The same, as if its result were of float32."""
        other = copy.copy(self)
        other.out = self.out.float()
        return other

    def dtype_of(self, value: Any) -> torch.dtype:
        """The dtype that torch gives to an argument; of an intermediate result, the one that fits its type."""
        known = self.meta(value)
        if known is not None:
            return known.dtype
        return _SPELLED[out(value).get_element_type()]

    def promoted(self, *values: Any) -> torch.dtype:
        """The dtype in which torch computes with `values`, tensors and numbers."""
        found: Any = None
        for value in values:
            if value is None:
                continue
            if is_tensor(value):
                known = self.meta(value)
                rank = known.dim() if known is not None else rank_of(value)
                value = torch.empty((1,) * min(rank, 1), dtype=self.dtype_of(value))
            found = value if found is None else torch.result_type(found, value)
            if isinstance(found, torch.dtype):
                # A dimension keeps its priority over numbers and scalars that come after.
                found = torch.empty((1,), dtype=found)
        return found.dtype if isinstance(found, torch.Tensor) else torch.result_type(torch.empty(()), found)

    def cast(self, value: Any, dtype: torch.dtype) -> Output:
        """`value`, a tensor or a number, as a tensor of `dtype`: as torch casts it, but half precision stays wide."""
        if not is_tensor(value):
            return self.const(value, dtype)
        value = out(value)
        kind, own = TYPES[dtype], value.get_element_type()
        if kind == own:
            return value
        if kind == openvino.Type.boolean:  # the plugin's own cast takes 0.5 for False
            return out(ops.not_equal(value, np.array(0, own.to_dtype())))
        if dtype in NARROW and own != openvino.Type.boolean:
            return self.narrow(out(ops.convert(value, "i32")), dtype)
        return out(ops.convert(value, kind.to_string()))

    def narrow(self, value: Any, dtype: torch.dtype) -> Output:
        """An int32 that wraps around to 8 or 16 bits, as torch has it; the plugin's cast saturates."""
        bits, signed = NARROW[dtype]
        mask = np.int32(2**bits - 1)
        if signed:
            half = np.int32(2 ** (bits - 1))
            value = ops.subtract(ops.bitwise_and(ops.add(value, half), mask), half)
        else:
            value = ops.bitwise_and(value, mask)
        return out(ops.convert(value, TYPES[dtype].to_string()))

    def wide(self, value: Any, dtype: torch.dtype) -> Output:
        """`value` in the type in which `dtype` is computed: int32 for narrow integers, as it is otherwise."""
        return self.cast(value, torch.int32 if dtype in NARROW else dtype)

    def result(self, value: Any, dtype: torch.dtype | None = None) -> Output:
        """What was computed in `wide` types, in the node's dtype (or in `dtype`)."""
        dtype = dtype or self.dtype
        return self.cast(value, dtype)

    # --- constants ---

    def const(self, value: Any, dtype: torch.dtype) -> Output:
        """A number, or an array of them, as a constant of `dtype`."""
        kind = TYPES[dtype].to_dtype()
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, (float, int)) and not isinstance(value, bool) and kind.kind in "iu":
            value = int(value)
            if not -(2**31) <= value < 2**31:
                raise self.refuse(f"{value} takes more than 32 bits, which OpenVINO cuts off")
            value = np.array(value, np.int64)
        if isinstance(value, (bool, int, float)) and kind.kind == "b":
            value = bool(value)
        with np.errstate(over="ignore"):
            return out(ops.constant(np.asarray(value).astype(kind)))

    def array(self, values: Sequence[int]) -> Output:
        """Whole numbers as an i64 vector: axes, paddings, shapes."""
        return out(ops.constant(np.array(values, np.int64)))

    def tensor(self, value: torch.Tensor) -> Output:
        """A tensor of torch as a constant that shares its memory where it can."""
        return constant(value, self._keep)

    # --- sizes ---

    def shape_of(self, value: Any) -> Output:
        """The shape of a tensor, i64[rank]: a constant if it is static."""
        shape = out(value).get_partial_shape()
        if shape.is_static:
            return self.array([d.get_length() for d in shape])
        return out(ops.shape_of(value, output_type="i64"))

    def size(self, value: Any, axis: int) -> int | Output:
        """The size of an axis: an int if it is fixed, else an i64 scalar."""
        dim = out(value).get_partial_shape()[axis]
        if dim.is_static:
            return dim.get_length()
        shape = ops.shape_of(value, output_type="i64")
        return out(ops.gather(shape, np.int64(axis), np.int64(0)))

    def sizes(self, value: Any) -> list[int | Output]:
        """All sizes of a tensor, each as `size` has it."""
        return [self.size(value, axis) for axis in range(rank_of(value))]

    def dims(self, sizes: Sequence[int | Output]) -> Output:
        """Sizes as one i64 vector."""
        if all(isinstance(size, int) for size in sizes):
            return self.array([int(size) for size in sizes])
        parts: list[Output] = []
        run: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                run.append(size)
                continue
            if run:
                parts.append(self.array(run))
                run = []
            parts.append(out(ops.reshape(size, self.array([1]), False)))
        if run:
            parts.append(self.array(run))
        return parts[0] if len(parts) == 1 else out(ops.concat(parts, 0))

    def number(self, size: int | float | Output, dtype: torch.dtype = torch.int64) -> Output:
        """A size, or a number that was made of one, as a scalar tensor."""
        return self.cast(size, dtype)

    def arithmetic(self, operation: Callable[..., Any], python: Callable[..., Any], *sizes: int | Output) -> Any:
        """`python(sizes)` if all are numbers, else `operation` of them as i64 scalars."""
        if all(not is_tensor(size) for size in sizes):
            return python(*sizes)
        return out(operation(*(self.number(size) for size in sizes)))

    def plus(self, a: int | Output, b: int | Output) -> int | Output:
        if isinstance(b, int) and b == 0:
            return a
        return self.arithmetic(ops.add, lambda x, y: x + y, a, b)

    def minus(self, a: int | Output, b: int | Output) -> int | Output:
        return self.arithmetic(ops.subtract, lambda x, y: x - y, a, b)

    def times(self, a: int | Output, b: int | Output) -> int | Output:
        return self.arithmetic(ops.multiply, lambda x, y: x * y, a, b)

    # --- idioms of many families ---

    def reshape(self, value: Any, sizes: Sequence[int | Output], like: Any = None) -> Output:
        """`value` in another shape. like: what torch says of the result, to see which sizes stay where they are.

        Where a size stays in its place it is copied, and one other free size is left to be found: so shapes are known
        while compiling, and nothing is computed for them.
        """
        own = self.meta(value)
        written: list[int | Output] = list(sizes)
        empty = any(isinstance(size, int) and size == 0 for size in written)
        before = own.shape if own is not None else ()
        after = like.shape if like is not None else ()
        if not empty and len(after) == len(written):
            for axis, size in enumerate(written):
                if isinstance(size, int) and size != -1:
                    continue
                if axis < len(before) and expression(before[axis]) == expression(after[axis]):
                    written[axis] = 0
        if not empty and not any(isinstance(size, int) and size == -1 for size in written):
            free = [axis for axis, size in enumerate(written) if not isinstance(size, int)]
            if len(free) == 1:
                written[free[0]] = -1
        return out(ops.reshape(value, self.dims(written), not empty))

    def squeeze(self, value: Any, *axes: int) -> Output:
        return out(ops.squeeze(value, self.array(axes)))

    def unsqueeze(self, value: Any, *axes: int) -> Output:
        return out(ops.unsqueeze(value, self.array(axes)))

    def transpose(self, value: Any, order: Sequence[int]) -> Output:
        if list(order) == list(range(len(order))):
            return out(value)
        return out(ops.transpose(value, self.array(order)))

    def broadcast(self, value: Any, sizes: Sequence[int | Output]) -> Output:
        return out(ops.broadcast(value, self.dims(sizes)))

    def slice(self, value: Any, start: Any, stop: Any, axis: int, step: int = 1) -> Output:
        """`value[start:stop:step]` along an axis; start and stop are ints or i64 scalars."""
        ends = [self.dims([bound]) for bound in (start, stop, step)]
        return out(ops.slice(value, *ends, self.array([axis])))

    def full(self, sizes: Sequence[int | Output], value: Any, dtype: torch.dtype) -> Output:
        """A tensor of one value."""
        return self.broadcast(self.cast(value, dtype), sizes)

    def arange(self, start: Any, stop: Any, step: Any = 1) -> Output:
        """start, start + step, .. below stop, in i64. Python ints and i64 scalars."""
        bounds = [self.number(bound) for bound in (start, stop, step)]
        return out(ops.range(*bounds, "i64"))

    def operands_within(self, most: int) -> bool:
        """Whether the whole numbers in the first two operands are known to lie in [-most, most]."""
        known = self.shared["ranges"]()
        for operand in self.node.args[:2]:
            if isinstance(operand, Node):
                interval = known.get(operand)
                if interval is None or not interval.within(-most, most):
                    return False
            elif not isinstance(operand, (int, float)) or not abs(operand) <= most:
                return False
        return True

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        return axis % rank if rank else 0

    def refuse(self, why: str) -> LoweringError:
        return LoweringError(f"openvino cannot lower {self.where}: {why}.")


def constant(value: torch.Tensor, keep: list[Any]) -> Output:
    """A tensor as a constant. It shares the memory of `value`, which `keep` holds from here on.

    Half precision and double precision become float32, complex numbers pairs of real ones.
    """
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    if value.dtype in (torch.bfloat16, torch.float16, torch.float64):
        value = value.float()
    host = value.detach().resolve_neg().cpu().contiguous()
    array = host.numpy()
    if array.size == 0 or array.ndim == 0:
        return out(ops.constant(array.copy()))
    keep.append((host, array))
    return out(ops.constant(array, shared_memory=True))


def half_constant(value: torch.Tensor, keep: list[Any]) -> Output:
    """A tensor of half precision as float32: a constant of its own bits, which shares their memory, and a cast.

    That compressed weights look so, and are not to be computed in advance, OpenVINO's plugins know by the mark.
    """
    bits = halves(value.contiguous())
    kind = openvino.Type.bf16 if value.dtype is torch.bfloat16 else openvino.Type.f16
    tensor = openvino.Tensor(bits, openvino.Shape(list(value.shape)), kind)
    keep.append((value, bits, tensor))
    return out(ops.convert(ops.constant(tensor, shared_memory=True), "f32"))


def rank_of(value: Any) -> int:
    return out(value).get_partial_shape().rank.get_length()


def concatenated(values: Sequence[Any], axis: int) -> Output:
    """Tensors one behind the other. Vectors as rows: the plugin's Abs (2026.4) writes into what joined vectors made.

    The last axis is -1: only as such does the plugin see a rotary embedding, and compute it as one operator.
    """
    if (rank := rank_of(values[0])) != 1:
        return out(ops.concat(list(values), -1 if axis == rank - 1 else axis))
    first = np.array([0], np.int64)
    rows = ops.concat([ops.unsqueeze(value, first) for value in values], 1)
    return out(ops.squeeze(rows, first))


def static_shape(value: Any) -> list[int] | None:
    """The shape, if all of it is fixed."""
    shape = out(value).get_partial_shape()
    return [d.get_length() for d in shape] if shape.is_static else None


def product(sizes: Sequence[int]) -> int:
    return math.prod(sizes)
