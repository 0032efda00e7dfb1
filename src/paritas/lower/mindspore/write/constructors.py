# SPDX-License-Identifier: Apache-2.0
"""Constructors with the original's arguments: `Linear(64, 128)`, where its source says how weights follow from them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from paritas.lower.mindspore.write.names import definition_at, usable
from paritas.lower.mindspore.write.source import literal

#: How weights of convolutions are made of their arguments. Those of groups are shapes.
_CONVOLUTIONS = {
    "Conv": ("out_channels", "in_channels", "*kernel_size"),
    "ConvTranspose": ("in_channels", "out_channels", "*kernel_size"),
}


@dataclasses.dataclass(frozen=True)
class Constructor:
    """What a leaf's `__init__` takes, what this one is given, and the source of each weight's shape."""

    arguments: tuple[str, ...]
    values: tuple[Any, ...]
    shapes: Mapping[str, str]

    def with_numbers(self, numbers: Mapping[str, int]) -> Constructor:
        """The same, which takes numbers behind the rest."""
        return Constructor((*self.arguments, *numbers), (*self.values, *numbers.values()), self.shapes)


def constructor(qualified: str, shapes: Mapping[str, Sequence[int]], grouped: bool = False) -> Constructor | None:
    """The constructor of a class for weights of these shapes; None where its source does not say how they are made."""
    order, made = _convolution(qualified, shapes) if not grouped else ((), {})
    if not made:
        order, made = _source(qualified)
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for name, shape in shapes.items():
        dims = made.get(name)
        if not dims:
            return None
        sizes = list(shape)
        for place, dim in enumerate(dims):
            if dim.startswith("*"):
                rest = len(sizes) - len(dims[place + 1 :])
                value: Any = tuple(sizes[:rest])
                sizes = sizes[rest:]
                if len(value) == 1 and len(dims) == 1:
                    value = value[0]
            elif not sizes:
                return None
            else:
                value = sizes.pop(0)
            if values.setdefault(dim.strip("*"), value) != value:
                return None
        if sizes:
            return None
        texts[name] = _shape(dims, values)
    arguments = tuple(name for name in order if name in values)
    if len(arguments) < len(values) or not arguments:
        return None
    return Constructor(arguments, tuple(values[name] for name in arguments), texts)


def _shape(dims: Sequence[str], values: Mapping[str, Any]) -> str:
    if len(dims) == 1 and dims[0].startswith("*") and isinstance(values[dims[0][1:]], tuple):
        return dims[0][1:]
    plain = [dim.strip("*") if not isinstance(values[dim.strip("*")], tuple) else dim for dim in dims]
    return f"({plain[0]},)" if len(plain) == 1 else f"({', '.join(plain)})"


def _convolution(
    qualified: str, shapes: Mapping[str, Sequence[int]]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    module, _, name = qualified.rpartition(".")
    dims = _CONVOLUTIONS.get(name[:-2]) if module == "torch.nn.modules.conv" else None
    if dims is None:
        return (), {}
    return ("in_channels", "out_channels", "kernel_size"), {"weight": dims, "bias": ("out_channels",)}


def _source(qualified: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The parameters of `__init__`, and what it makes each weight of: `self.weight = Parameter(torch.ones(size))`."""
    module, _, name = qualified.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    code = getattr(inspect.unwrap(getattr(cls, "__init__", None) or len), "__code__", None)
    node = definition_at(code.co_filename, code.co_firstlineno) if code is not None else None
    if node is None:
        return (), {}
    order = tuple(argument.arg for argument in node.args.args if usable(argument.arg))
    made: dict[str, tuple[str, ...]] = {}
    for one in ast.walk(node):
        if not isinstance(one, ast.Assign) or not isinstance(one.value, ast.Call):
            continue
        target, value = ast.unparse(one.targets[0]), one.value
        if target.startswith("self.") and ast.unparse(value.func).endswith("Parameter") and value.args:
            dims = _dims(value.args[0], order)
            if dims and made.setdefault(target.removeprefix("self."), dims) != dims:
                return (), {}
    return order, made


def _dims(made: ast.expr, order: Sequence[str]) -> tuple[str, ...]:
    """The sizes that `torch.empty((out_features, in_features), **options)` is given."""
    if not isinstance(made, ast.Call) or not ast.unparse(made.func).startswith("torch."):
        return ()
    sizes = [argument for argument in made.args if not isinstance(argument, ast.Starred)]
    if len(sizes) == 1 and isinstance(sizes[0], ast.Tuple):
        sizes = sizes[0].elts
    if len(sizes) == 1 and isinstance(sizes[0], ast.Attribute):
        name = sizes[0].attr  # `self.normalized_shape`, whatever it consists of
        return (f"*{name}",) if name in order else ()
    names = tuple(size.id for size in sizes if isinstance(size, ast.Name) and size.id in order)
    return names if len(names) == len(sizes) else ()


def call(class_name: str, values: Sequence[Any]) -> str:
    return f"{class_name}({', '.join(literal(value) for value in values)})"
