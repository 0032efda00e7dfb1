# SPDX-License-Identifier: Apache-2.0
"""Sizes that a model keeps in tensors: `shapes = torch.tensor([(h, w)])`, and later `arange(shapes[0, 0])`.

To torch.export, what is read out of a tensor is a new size, which MindSpore cannot plan for. Operators that only move
elements tell which of the model's sizes it is.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from paritas.capture.symbolic_sizes import ITEM, Sizes, with_sizes

#: Operators whose result holds elements of their arguments, each as it was.
_MOVES = {
    f"aten.{name}"
    for name in (
        "alias.default", "cat.default", "clone.default", "expand.default", "flatten.using_ints", "permute.default",
        "reshape.default", "select.int", "slice.Tensor", "squeeze.default", "squeeze.dim", "squeeze.dims",
        "stack.default", "transpose.int", "unbind.int", "unsqueeze.default", "view.default",
    )
}  # fmt: skip

_CASTS = {"aten._to_copy.default", "aten.to.dtype"}

#: Every size fits in these.
_DTYPES = (torch.int32, torch.int64)


def stored_sizes_are_sizes(program: ExportedProgram) -> None:
    """What is read out of a tensor of sizes is the size that was put there."""
    sizes: Sizes = {}
    stored: list[Any] = []  # sizes (nodes) and numbers
    places: dict[Node, Any] = {}  # tensors of these -> where in `stored` each element is
    for node in list(program.graph.nodes):
        if sizes and "val" in node.meta:
            node.meta["val"] = with_sizes(node.meta["val"], sizes)
        if node.op != "call_function":
            continue
        name = str(node.target)
        if name == "aten.scalar_tensor.default" and _is_size(node.args[0]) and node.meta["val"].dtype in _DTYPES:
            places[node] = torch.tensor(len(stored))
            stored.append(node.args[0])
        elif not node.all_input_nodes or not all(source in places for source in node.all_input_nodes):
            continue
        elif name in ITEM:
            _read(node, stored[int(places[node.all_input_nodes[0]])], sizes)
        elif name in _CASTS and node.meta["val"].dtype in _DTYPES:
            places[node] = places[node.all_input_nodes[0]]
        elif name in _MOVES or node.target is operator.getitem:
            arguments = map_arg(node.args, places.__getitem__)
            places[node] = node.target(*arguments, **node.kwargs)


def _is_size(value: object) -> bool:
    known = value.meta.get("val") if isinstance(value, Node) else value
    return isinstance(known, torch.SymInt) or type(known) is int


def _read(node: Node, size: Any, sizes: Sizes) -> None:
    """Let all users of `node` take `size`, and note what the symbol of `node` stands for."""
    read = node.meta["val"]
    known = size.meta["val"] if isinstance(size, Node) else size
    if not isinstance(read, torch.SymInt) or not read.node.expr.is_Symbol:
        return
    sizes[read.node.expr] = known.node.expr if isinstance(known, torch.SymInt) else known
    node.meta["val"] = known
    if isinstance(size, Node):
        node.replace_all_uses_with(size)
