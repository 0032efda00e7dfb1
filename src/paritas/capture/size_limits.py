# SPDX-License-Identifier: Apache-2.0
"""How large a dynamic dimension may get: as far as the model's tables of positions reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from paritas.capture.normalise import expression, name_of
from paritas.capture.origin import origin
from paritas.program import Guard

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
    for _, reach, rows in _counts(exported):
        symbols = sorted(getattr(reach, "free_symbols", ()), key=str)
        # Counts that begin with a cache's length have a sum of sizes, which no single size limits: see `guards`.
        if len(symbols) == 1 and getattr(begin := reach - symbols[0], "is_Integer", False):
            most = rows - int(begin)
            found[str(symbols[0])] = min(found.get(str(symbols[0]), most), most)
    return found


def guards(exported: torch.export.ExportedProgram) -> dict[Node, Guard]:
    """What limits tokens that are new beside those that a cache remembers, by the operator that looks a position up."""
    return {
        node: Guard(f"{reach} <= {rows}", str(origin(node)))
        for node, reach, rows in _counts(exported)
        if len(getattr(reach, "free_symbols", ())) > 1
    }


def _counts(exported: torch.export.ExportedProgram) -> Iterator[tuple[Node, Any, int]]:
    """Where a table of positions is read by a count: the operator, how far the count reaches, and the table's rows."""
    for node in exported.graph.nodes:
        if name_of(node) not in ("aten.embedding.default", "aten.index.Tensor"):
            continue
        table, index = node.args[0], node.args[1]
        if isinstance(index, (list, tuple)):
            index = index[0] if len(index) == 1 else None
        if table.op != "placeholder" or "paritas_input" in table.meta or not isinstance(index, Node):
            continue
        reach = _reach(index)
        if reach is not None:
            yield node, reach, int(table.meta["val"].shape[0])


def _reach(node: Node) -> Any:
    """first + size, an expression of sizes, if the node's values are first, first + 1, .. of a free size; else None."""
    begin: Any = 0
    while True:
        name = name_of(node)
        if name in _SAME_VALUES:
            node = node.args[0]  # type: ignore[assignment]
        elif name == "aten.add.Tensor" and (more := _size(node.args[1])) is not None:
            begin += more
            node = node.args[0]  # type: ignore[assignment]
        elif name in ("aten.arange.default", "aten.arange.start"):
            first = 0 if name == "aten.arange.default" else _size(node.args[0])
            size = expression(node.meta["val"].shape[0])
            return None if first is None or isinstance(size, int) else begin + first + size
        else:
            return None


def _size(value: Any) -> Any:
    """A number, or the expression of a size; None for a tensor."""
    if type(value) is int:
        return value
    known = value.meta.get("val") if isinstance(value, Node) else None
    return expression(known) if isinstance(known, torch.SymInt) else None
