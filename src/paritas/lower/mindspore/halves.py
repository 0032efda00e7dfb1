# SPDX-License-Identifier: Apache-2.0
"""Mixed precision on MindSpore's CPU: what is float16 or bfloat16 in a graph is float32, rounded to that.

MindSpore 2.10 has next to no kernels of bfloat16 on the CPU, and adds none of its gradients up; those of float16 are no
faster than those of float32. So each operator computes in float32, as PyTorch's kernels of these dtypes do inside, and
what it returns is rounded: `cast(cast(x, bfloat16), float32)`, whose gradient is rounded alike, and overflows alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

import paritas.capture.autocast  # noqa: F401 - whose operator it is
from paritas.capture.normalise import copied, name_of
from paritas.program import Note, Program

HALVES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}

NOTE = (
    "what torch.autocast computes in {0} is computed in float32 and rounded to {0}, forward and backward: MindSpore's "
    "CPU backend has too few kernels of bfloat16, and none of float16 that are faster. It is no faster for that, and "
    'takes no less memory; target="ascend" computes in {0}'
)

#: What returns numbers of its arguments, which are rounded already; or such of which a sign alone is another.
MOVES = frozenset(
    f"aten.{name}"
    for name in (
        "alias.default", "clone.default", "contiguous.default", "detach.default", "reshape.default", "view.default",
        "transpose.int", "permute.default", "t.default", "expand.default", "unsqueeze.default", "squeeze.dim",
        "squeeze.default", "squeeze.dims", "slice.Tensor", "select.int", "cat.default", "stack.default",
        "split.Tensor", "split_with_sizes.default", "unbind.int", "chunk.default", "flatten.using_ints",
        "unflatten.int", "repeat.default", "flip.default", "roll.default", "narrow.default", "movedim.int",
        "swapaxes.default", "embedding.default", "gather.default", "index_select.default", "index.Tensor",
        "neg.default", "abs.default", "relu.default", "max_pool2d.default", "where.self", "tril.default",
        "triu.default", "masked_select.default",
    )
)  # fmt: skip


def note(dtype: str) -> Note:
    return Note("lower", NOTE.format(dtype))


def in_float32(program: Program) -> Program:
    """The program with float32 in the place of halves, and a node that rounds behind each that computes one.

    That node has the name of what it rounds, so that what is compared by names is.
    """
    exported: Any = _Exported(program.exported)
    graph = exported.graph
    for node in list(graph.nodes):
        dtypes = _halves(node.meta.get("val"))
        node.meta["val"] = _wide(node.meta.get("val"))
        node.args = pytree.tree_map_only(torch.dtype, _wide_dtype, node.args)
        node.kwargs = pytree.tree_map_only(torch.dtype, _wide_dtype, node.kwargs)
        if len(dtypes) == 1 and _computes(node) and isinstance(node.meta["val"], torch.Tensor):
            _round(graph, node, HALVES[dtypes.pop()])
    graph.eliminate_dead_code()
    return dataclasses.replace(
        program, exported=exported, weights={name: _wide(tensor) for name, tensor in program.weights.items()}
    )


def _computes(node: Node) -> bool:
    """Whether what a node returns may be more than a half can hold."""
    if node.op != "call_function":
        return False
    if name_of(node) == "getitem":
        source: Any = node.args[0]
        return name_of(source) not in MOVES
    return name_of(node) not in MOVES


def _round(graph: torch.fx.Graph, node: Node, dtype: str) -> None:
    name, rounded = node.name, torch.ops.paritas.rounded.default
    if name_of(node) == "aten._to_copy.default":
        source: Any = node.args[0]
        if source.meta["val"].dtype == torch.float32:  # a cast is nothing else
            node.target, node.args, node.kwargs = rounded, (source, dtype), {}
            return
    with graph.inserting_after(node):
        made = graph.call_function(rounded, (node, dtype))
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
    made.meta = dict(node.meta)
    node.name, made.name = f"{name}_in_float32", name


class _Exported:
    """An exported program with a graph of its own, and float32 for halves in what it holds."""

    def __init__(self, exported: Any) -> None:
        self.graph, self._exported = copied(exported.graph), exported
        self.state_dict, self.constants = (
            {name: _wide(value) for name, value in getattr(exported, held, {}).items()}
            for held in ("state_dict", "constants")
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exported, name)


def _halves(value: Any) -> set[torch.dtype]:
    leaves = pytree.tree_leaves(value)
    return {leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dtype in HALVES}


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in HALVES else dtype


def _wide(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in HALVES else value
    if isinstance(value, (tuple, list)):
        return type(value)(_wide(part) for part in value)
    return value
