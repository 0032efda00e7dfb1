# SPDX-License-Identifier: Apache-2.0
"""What a lowering sees: `Emitter` turns one node's arguments into MindSpore source.

    @lowers("mindspore", "aten.rsqrt.default")
    def rsqrt(emit, self):
        '''rsqrt(Tensor self) -> Tensor'''
        return emit.call("ops.rsqrt", self)

A lowering returns the expression that computes the node. It never sees the engine, only its source.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import sympy
import torch

from paritas.capture.normalise import expression
from paritas.dtypes import dtype_name
from paritas.errors import LoweringError
from paritas.lower.mindspore.check import grammar
from paritas.lower.mindspore.write.source import Value, arguments, literal, operand

#: How MindSpore spells torch's dtypes.
DTYPES = {
    "float32": "ms.float32",
    "float64": "ms.float64",
    "float16": "ms.float16",
    "bfloat16": "ms.bfloat16",
    "int64": "ms.int64",
    "int32": "ms.int32",
    "int16": "ms.int16",
    "int8": "ms.int8",
    "uint8": "ms.uint8",
    "bool": "ms.bool_",
    "complex64": "ms.complex64",
    "complex128": "ms.complex128",
}


def is_float32(value: float) -> bool:
    """Whether float32 holds the number as it is."""
    return value != value or float(torch.tensor(value, dtype=torch.float32)) == value


class Scope(Protocol):
    """What an emitter needs of the method that it writes into."""

    target: str  # "cpu" | "ascend"

    def let(self, value: Value, hint: str) -> Value: ...
    def primitive(self, expression: str, hint: str) -> str: ...
    def helper(self, name: str) -> None: ...
    def resolve(self, symbol: sympy.Symbol) -> str: ...
    def constant(self, value: torch.Tensor, hint: str) -> Value: ...
    def number(self, name: str, value: int) -> Value | None: ...


@dataclasses.dataclass
class Emitter:
    """`out` describes the node's result: a `Value` without text, or a tuple of them."""

    scope: Scope
    out: Any
    where: str  # the node and its origin, for errors

    @property
    def target(self) -> str:
        return self.scope.target

    # --- expressions ---

    def call(self, function: str, *args: object, **kwargs: object) -> Value:
        """`function(args)`, where function is a public name such as "ops.gelu"."""
        grammar.require(function)
        if (filled := self._filled(function, args, kwargs)) is not None:
            return filled
        return self._result(f"{function}({arguments(self._exact(args), kwargs)})")

    def _filled(self, function: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Value | None:
        """A call that fills with a large whole number, otherwise: MindSpore 2.10 cuts it to 32 bits in Graph mode."""
        number = args[-1] if args else None
        if type(number) is not int or -(2**31) <= number < 2**31:
            return None
        if function == "ops.full":
            return self._result(f"(ops.zeros({arguments(args[:1], kwargs)}) + {number})")
        if function == "ops.full_like":
            return self._result(f"(ops.zeros_like({arguments(args[:1], kwargs)}) + {number})")
        if function == "ops.masked_fill":
            value, mask = args[:2]
            return self._result(f"ops.where({arguments((mask, number, value), {})})")
        return None

    def prim(self, primitive: str, *attributes: object, **options: object) -> Callable[..., Value]:
        """A primitive built once in `__init__`: `emit.prim("ops.Softmax", -1)(x)` is `self.softmax(x)`.

        Building one per call costs PyNative mode up to a millisecond.
        """
        grammar.require(primitive)
        name = self.scope.primitive(f"{primitive}({arguments(attributes, options)})", primitive.split(".")[-1])
        return lambda *args: self._result(f"{name}({arguments(self._exact(args), {})})")

    def prelude(self, name: str, *args: object, **kwargs: object) -> Value:
        """A call of one of our own functions in `prelude`, which is then written at the top of the file."""
        self.scope.helper(name)
        return self._result(f"{name}({arguments(self._exact(args), kwargs)})")

    @property
    def training(self) -> Value:
        """Whether the cell is in training: a constant in Graph mode, so that what is for gradients alone is free."""
        return Value("self.training", "bool", ())

    def infix(self, operator: str, left: object, right: object) -> Value:
        left, right = self._exact((left, right))
        return dataclasses.replace(self._result(f"{operand(left)} {operator} {operand(right)}"), atomic=False)

    def prefix(self, operator: str, value: object) -> Value:
        return dataclasses.replace(self._result(f"{operator}{operand(value)}"), atomic=False)

    def method(self, value: Value, name: str, *args: object) -> Value:
        """`value.name(args)`, for the few methods that are clearer than the function."""
        grammar.require_method(name)
        return self._result(f"{operand(value)}.{name}({arguments(args, {})})")

    def let(self, value: Value, hint: str = "") -> Value:
        """A local variable for a value that is used more than once."""
        return value if re.fullmatch(r"[\w.]+", value.text) else self.scope.let(value, hint)

    def typed(self, value: Value, *, like: Value | None = None, dtype: str | None = None, shape: Any = None) -> Value:
        """The same expression, described otherwise: an intermediate result is not of the node's own shape."""
        return dataclasses.replace(
            value,
            dtype=dtype or (like.dtype if like else value.dtype),
            shape=tuple(shape) if shape is not None else (like.shape if like else value.shape),
        )

    def _exact(self, values: Sequence[object]) -> Sequence[object]:
        """Python's floats are float32 to MindSpore: in an operator of float64 those that are not are tensors."""
        outs = (self.out,) if isinstance(self.out, Value) else self.out or ()
        if not any(isinstance(out, Value) and out.dtype == "float64" for out in outs):
            return values
        return [
            value
            if not isinstance(value, float) or is_float32(value)
            else self.constant(torch.tensor(value, dtype=torch.float64), "number")
            for value in values
        ]

    def _result(self, text: str) -> Value:
        if isinstance(self.out, Value):
            return Value(text, self.out.dtype, self.out.shape)
        return Value(text)

    # --- dtypes ---

    def dtype(self, name: object) -> Value:
        """`ms.float32` for "float32" or torch.float32."""
        spelled = DTYPES.get(dtype_name(name))
        if spelled is None:
            raise self.refuse(f"MindSpore has no dtype {name}")
        return Value(spelled)

    def cast(self, value: Value, dtype: object) -> Value:
        """`value` as `dtype`; no call where it is that already."""
        name = dtype_name(dtype)
        if value.dtype == name:
            return value
        if str(value.dtype).startswith("complex") and not name.startswith("complex"):
            raise self.refuse("it is written for real numbers, and these are complex")
        return Value(f"ops.cast({literal(value)}, {self.dtype(name)})", name, value.shape)

    # --- sizes ---

    def size(self, size: object) -> Value:
        """The source of a size: a number, or `x.shape[1]` and arithmetic on such."""
        if isinstance(size, torch.SymInt):
            size = expression(size)
        if isinstance(size, torch.SymFloat):  # x.shape[-1] ** -0.5
            size = size.node.expr
        if isinstance(size, (int, sympy.Integer)):
            return Value(str(int(size)))
        if isinstance(size, sympy.Expr):
            return self._arithmetic(size)
        raise self.refuse(f"{size!r} is no size")

    def dims(self, shape: Sequence[object], *, free: bool = False) -> tuple[Value, ...]:
        """The source of a shape. free: a single dynamic dimension may be written as -1 (for reshapes)."""
        symbolic = [d for d in shape if not isinstance(d, (int, sympy.Integer))]
        # -1 is ambiguous in an empty tensor.
        if free and len(symbolic) == 1 and not any(d == 0 for d in shape if isinstance(d, (int, sympy.Integer))):
            return tuple(Value("-1") if d is symbolic[0] else self.size(d) for d in shape)
        return tuple(self.size(d) for d in shape)

    def _arithmetic(self, expr: sympy.Expr) -> Value:
        if expr.is_Integer:
            return Value(str(int(expr)))
        if expr.is_Float:
            return Value(repr(float(expr)))
        if expr.is_Symbol:
            return Value(self.scope.resolve(expr))
        if expr.is_Add or expr.is_Mul:  # a whole number of halves is an exact division
            over, under = expr.as_numer_denom()
            if under.is_Integer and under != 1:
                return Value(f"{operand(self._arithmetic(over))} // {int(under)}", atomic=False)
        parts = [operand(self._arithmetic(a)) for a in expr.args]
        name = type(expr).__name__
        if expr.is_Add:
            return Value(" + ".join(parts).replace("+ (-", "- ("), atomic=False)
        if expr.is_Mul:
            return Value(" * ".join(parts), atomic=False)
        if name in ("FloorDiv", "CleanDiv"):
            return Value(f"{parts[0]} // {parts[1]}", atomic=False)
        if name in ("IntTrueDiv", "FloatTrueDiv"):
            return Value(f"{parts[0]} / {parts[1]}", atomic=False)
        if name in ("Mod", "PythonMod"):
            return Value(f"{parts[0]} % {parts[1]}", atomic=False)
        if name == "Pow" and expr.args[1].is_Integer and expr.args[1] > 0:
            return Value(f"{parts[0]} ** {parts[1]}", atomic=False)
        if name == "FloatPow":
            return Value(f"{parts[0]} ** {parts[1]}", atomic=False)
        if name == "OpaqueUnaryFn_sqrt":
            return Value(f"{parts[0]} ** 0.5", atomic=False)
        if name == "ToFloat":
            return self._arithmetic(expr.args[0])
        if name == "CeilToInt" and type(expr.args[0]).__name__ == "IntTrueDiv":
            over, under = (operand(self._arithmetic(a)) for a in expr.args[0].args)
            return Value(f"-(-{over} // {under})", atomic=False)
        if name == "CeilToInt":
            return Value(f"-int(-{operand(self._arithmetic(expr.args[0]))} // 1)", atomic=False)
        if name == "FloorToInt":
            return Value(f"int({operand(self._arithmetic(expr.args[0]))} // 1)")
        if name == "floor":
            over, under = (operand(self._arithmetic(a)) for a in expr.args[0].as_numer_denom())
            return Value(f"{over} // {under}", atomic=False)
        if name == "TruncToInt":
            return Value(f"int({self._arithmetic(expr.args[0])})")
        if name in ("Max", "Min"):
            return Value(f"{name.lower()}({', '.join(parts)})")
        raise self.refuse(f"the size {expr} has no translation ({name})")

    # --- constants and errors ---

    def if_empty(self) -> Value | None:
        """The node's result if it has no elements: kernels of MindSpore's CPU backend refuse empty tensors."""
        out = self.out
        if (
            not isinstance(out, Value)
            or out.shape is None
            or not any(type(size) is int and size == 0 for size in out.shape)
        ):
            return None
        return Value(f"ops.zeros({literal(self.dims(out.shape))}, {self.dtype(out.dtype)})")

    def constant(self, value: torch.Tensor, hint: str = "constant") -> Value:
        """A tensor that was made while lowering: an attribute of the cell."""
        return self.scope.constant(value, hint)

    def number(self, name: str, value: int) -> Value:
        """A number that the cell's constructor takes, so that cells which differ in it are of one class."""
        return self.scope.number(name, value) or Value(str(value))

    def refuse(self, why: str) -> LoweringError:
        return LoweringError(f"mindspore cannot lower {self.where}: {why}.")
