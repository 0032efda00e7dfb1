# SPDX-License-Identifier: Apache-2.0
"""How large a dynamic dimension may get: as far as the model's tables of positions reach."""

from __future__ import annotations

import torch
from torch.fx import Node

from paritas.capture.normalise import expression, name_of

#: Operators behind which a count of positions is still one, in another shape or dtype.
_SAME_VALUES = {
    "aten.unsqueeze.default", "aten.expand.default", "aten.reshape.default", "aten.view.default",
    "aten._to_copy.default", "aten.to.dtype", "aten.repeat.default", "aten.clone.default", "aten.alias.default",
}  # fmt: skip


def limits(exported: torch.export.ExportedProgram) -> dict[str, int]:
    """The largest size of each dynamic dimension that has one: CLIP's text has 77 positions."""
    found: dict[str, int] = {}
    for symbol, bounds in exported.range_constraints.items():
        if getattr(bounds.upper, "is_Integer", False) and int(bounds.upper) < 2**31:
            found[str(symbol)] = int(bounds.upper)
    for node in exported.graph.nodes:
        if name_of(node) not in ("aten.embedding.default", "aten.index.Tensor"):
            continue
        table, index = node.args[0], node.args[1]
        if isinstance(index, (list, tuple)):
            index = index[0] if len(index) == 1 else None
        if table.op != "placeholder" or "paritas_input" in table.meta or not isinstance(index, Node):
            continue
        counted = _count(index)
        if counted is not None:
            # Counts that begin with a cache's length have a sum of sizes, which no single size limits.
            symbol, begin = counted
            most = int(table.meta["val"].shape[0]) - begin
            found[symbol] = min(found.get(symbol, most), most)
    return found


def _count(node: Node) -> tuple[str, int] | None:
    """(size, first) if the node's values are first, first + 1, .., one for each of a dynamic dimension."""
    begin = 0
    while True:
        name = name_of(node)
        if name in _SAME_VALUES:
            node = node.args[0]  # type: ignore[assignment]
        elif name == "aten.add.Tensor" and type(node.args[1]) is int:
            begin += node.args[1]
            node = node.args[0]  # type: ignore[assignment]
        elif name in ("aten.arange.default", "aten.arange.start"):
            if name == "aten.arange.start":
                if type(node.args[0]) is not int:
                    return None
                begin += node.args[0]
            size = node.meta["val"].shape[0]
            free = getattr(expression(size), "is_Symbol", False)
            return (str(expression(size)), begin) if free else None
        else:
            return None
