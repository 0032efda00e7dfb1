# SPDX-License-Identifier: Apache-2.0
"""Nodes without elements: what they give is known while lowering, so no kernel ever sees them.

Kernels of the CPU plugin (2026.4) end the process where a shape holds a 0 (a gather of no positions divides by their
number), find no kernel at all, or take the 0 for a size of 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from paritas.capture.modules import is_size
from paritas.lower.openvino.emit import constant


def known_from_shapes(node: Node, keep: list[Any]) -> Any:
    """What the node gives, as constants, if its shapes alone say so; None otherwise.

    So it is where every result has no element, and where no operand has one: a sum of nothing is what torch says.
    """
    if is_size(node) or not isinstance(node.target, torch._ops.OpOverload):
        return None
    results = _tensors(node.meta.get("val"))
    if not results:
        return None
    if all(_is_empty(value) for value in results):
        made = [torch.empty(tuple(value.shape), dtype=value.dtype) for value in results]
        many = isinstance(node.meta["val"], (list, tuple))
        return [constant(value, keep) for value in made] if many else constant(made[0], keep)
    operands = [source.meta.get("val") for source in node.all_input_nodes]
    if not operands or not all(isinstance(value, torch.Tensor) and _is_empty(value) for value in operands):
        return None
    return _computed(node, keep)


def _computed(node: Node, keep: list[Any]) -> Any:
    """By torch, of operands that have no element."""

    def made(source: Node) -> torch.Tensor:
        value = source.meta["val"]
        return torch.empty(tuple(value.shape), dtype=value.dtype)

    arguments = map_arg(node.args, made), map_arg(node.kwargs, made)
    try:
        with torch.no_grad():
            found: Any = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - then the rule says what it makes of it
        return None
    if isinstance(found, torch.Tensor):
        return constant(found, keep)
    if isinstance(found, (list, tuple)) and all(isinstance(value, torch.Tensor) for value in found):
        return [constant(value, keep) for value in found]
    return None


def _tensors(value: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(value)
    return leaves if all(isinstance(leaf, torch.Tensor) for leaf in leaves) else []


def _is_empty(value: torch.Tensor) -> bool:
    """Whether all its sizes are fixed, and one of them is 0."""
    sizes = list(value.shape)
    return all(isinstance(size, int) for size in sizes) and 0 in sizes
