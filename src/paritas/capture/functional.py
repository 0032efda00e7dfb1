# SPDX-License-Identifier: Apache-2.0
"""A captured graph without mutation, in the same operators.

`run_decompositions({})` does this for any graph by tracing it once more, which is half the time of a capture.
Most graphs mutate nothing: for those it is enough to write the few operators that it would have replaced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

aten = torch.ops.aten

#: Operators of inference that are the identity, or a cast where the dtype changes.
_CASTS = {
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten.to.other",
    "aten.type_as.default",
}
_DROPOUTS = {
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
}


def functional(program: ExportedProgram) -> ExportedProgram:
    """`program` with no operator that writes into its argument. The graph may be changed in place."""
    if not _mutates_nothing(program):
        return program.run_decompositions({})
    graph = program.graph
    for node in list(graph.nodes):
        name = str(node.target) if node.op == "call_function" else ""
        if name in _CASTS:
            source: Any = node.args[0]
            node.args, node.kwargs = (source,), {"dtype": node.meta["val"].dtype}
            node.target = aten._to_copy.default
        elif name in _DROPOUTS and not node.args[2]:
            node.target, node.args, node.kwargs = aten.alias.default, (node.args[0],), {}
        elif name == "aten.chunk.default":
            _split(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _mutates_nothing(program: ExportedProgram) -> bool:
    for node in program.graph.nodes:
        if node.op == "call_module" or node.op == "get_attr":
            return False  # a higher-order operator with a graph of its own
        if node.op != "call_function":
            continue
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            return False
        if isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable:
            return False
        if str(target) in _DROPOUTS and node.args[2]:
            return False
    return True


def _split(node: Node) -> None:
    """`chunk` as the `split` into parts of the size that the capture found, as torch itself decomposes it."""
    source: Any = node.args[0]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    parts = node.meta["val"]
    size = parts[0].shape[dim]
    if not isinstance(size, int):
        return
    node.target, node.args, node.kwargs = aten.split.Tensor, (source, size, dim), {}
