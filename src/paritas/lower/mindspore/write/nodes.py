# SPDX-License-Identifier: Apache-2.0
"""Nodes of the graph as expressions of generated code: what they hold, read, and could be called."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

from paritas.capture.modules import is_size
from paritas.capture.normalise import expression
from paritas.dtypes import dtype_name
from paritas.lower.mindspore.write.names import usable
from paritas.lower.mindspore.write.source import Value


def size_argument(size: sympy.Expr) -> str:
    return f"size_{size}"


def tensor_arguments(node: Node) -> list[Node]:
    """Every use of a tensor, with repetition."""
    found: list[Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, Node):
            if not is_size(value):
                found.append(value)
        elif isinstance(value, (list, tuple)):
            for v in value:
                visit(v)
        elif isinstance(value, dict):
            for v in value.values():
                visit(v)

    visit(node.args)
    visit(dict(node.kwargs))
    return found


def values_in(argument: Any) -> Iterator[Value]:
    """Every `Value` in a nest of arguments."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for inner in argument:
            yield from values_in(inner)
    elif isinstance(argument, dict):
        yield from values_in(list(argument.values()))


def value_of(text: str, node: Node) -> Value:
    held = described(node)
    return dataclasses.replace(held, text=text) if isinstance(held, Value) else Value(text)


def described(node: Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return Value("", dtype_name(value.dtype), tuple(expression(s) for s in value.shape))
    if isinstance(value, (tuple, list)):
        return tuple(
            Value("", dtype_name(v.dtype), tuple(expression(s) for s in v.shape))
            if isinstance(v, torch.Tensor)
            else None
            for v in value
        )
    return Value("")


def symbols_of(node: Node) -> set:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return set()
    return {e for e in map(expression, value.shape) if isinstance(e, sympy.Symbol)}


def anonymous(node: Node) -> str:
    """A name for an argument that the original does not name: by what it looks like."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
        return "mask"
    return "x"


def hint_of(node: Node) -> str:
    """ "layer_norm_3" is layer_norm."""
    return usable(re.sub(r"_\d+$", "", node.name).lstrip("_")) or "x"


def dims_of(node: Node | None) -> Sequence[Any]:
    value = node.meta.get("val") if node is not None else None
    return tuple(map(expression, value.shape)) if isinstance(value, torch.Tensor) else ()


def unchanged(name: str, args: Sequence[Any], out: Any) -> Value | None:
    """What is multiplied by one, or divided by it."""
    if name not in ("aten.mul.Tensor", "aten.mul.Scalar", "aten.div.Tensor", "aten.div.Scalar"):
        return None
    value, factor = args[:2]
    one = type(factor) in (int, float) and factor == 1 and isinstance(value, Value)
    return value if one and (value.dtype, value.shape) == (out.dtype, out.shape) else None
