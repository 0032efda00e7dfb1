# SPDX-License-Identifier: Apache-2.0
"""Peepholes before the source is written: a few nodes that are one function become one node.

Each works on a copy of the graph, so that the program which verification runs stays as it was captured.
The last node of a pattern becomes the function and keeps its name, so it can still be observed; the
others disappear. Only patterns inside one module are touched, and only in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from paritas.capture.modules import is_size
from paritas.capture.normalise import WHOLE_DIMENSION, copied, expression, name_of, same_dims
from paritas.capture.origin import levels
from paritas.capture.symbolic_sizes import like
from paritas.lower.empties import may_be_negative
from paritas.program import Program

aten = torch.ops.aten


def fused(program: Program, peepholes: Sequence[Callable[[Node], None]] = ()) -> Program:
    """The program with fewer nodes; what it computes differs by rounding only. peepholes: all, if there are none."""
    exported: Any = _Exported(program.exported, copied(program.graph))
    program = dataclasses.replace(program, exported=exported)
    for peephole in peepholes or PEEPHOLES:
        for node in list(program.graph.nodes):
            if _is_float32(node) or peephole is half_rms_norm:
                peephole(node)
        program.graph.eliminate_dead_code()
    for node in list(program.graph.nodes):
        unsqueezed(node)
    program.graph.eliminate_dead_code()
    return program


class _Exported:
    """An exported program with another graph, and all else its own."""

    def __init__(self, exported: Any, graph: torch.fx.Graph):
        self.graph, self._exported = graph, exported

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exported, name)


# --- RMSNorm -----------------------------------------------------------------------------------


def rms_norm(node: Node) -> None:
    """`weight * (x * rsqrt(mean(x ** 2) + eps))`: how T5, Llama and their kin normalise."""
    for weight, scaled in _operands(node, "aten.mul.Tensor"):
        if not _is_vector(weight) or not _only_use(scaled, node):
            continue
        for x, root in _operands(scaled, "aten.mul.Tensor"):
            eps = _mean_square_eps(root, x)
            width = weight.meta["val"].shape
            if eps is not None and same_dims(x.meta["val"].shape[-1:], width):
                _become(node, aten.rms_norm.default, (x, list(width), weight, eps))
                return


def half_rms_norm(node: Node) -> None:
    """The same at half precision, by way of float32: Ascend's kernel computes so by itself."""
    for weight, cast in _operands(node, "aten.mul.Tensor"):
        scaled = _argument(cast, "aten._to_copy.default")
        for wide, root in _operands(scaled, "aten.mul.Tensor"):
            eps, x = _mean_square_eps(root, wide), _argument(wide, "aten._to_copy.default")
            if eps is None or not isinstance(x, Node) or not isinstance(weight, Node):
                continue
            given = [one.meta["val"] for one in (x, weight, cast, node)]
            halves = all(value.dtype in (torch.float16, torch.bfloat16) for value in given)
            same = len({value.dtype for value in given}) == 1
            if halves and same and same_dims(given[0].shape[-1:], given[1].shape):
                _become(node, aten.rms_norm.default, (x, list(given[1].shape), weight, eps))
                return


def _mean_square_eps(root: Any, x: Any) -> float | None:
    """eps, if `root` is `rsqrt(mean(x ** 2, -1, keepdim=True) + eps)`."""
    shifted = _argument(root, "aten.rsqrt.default")
    for mean, eps in _operands(shifted, "aten.add.Tensor", "aten.add.Scalar"):
        square = _argument(mean, "aten.mean.dim")
        if not isinstance(eps, (int, float)) or square is None:
            continue
        dims, keepdim = mean.args[1], len(mean.args) > 2 and mean.args[2]
        last = x.meta["val"].dim() - 1
        if [d % (last + 1) for d in dims] != [last] or not keepdim or mean.kwargs.get("dtype") is not None:
            continue
        if name_of(square) == "aten.pow.Tensor_Scalar" and square.args == (x, 2):
            return float(eps)
        if name_of(square) == "aten.mul.Tensor" and square.args == (x, x):
            return float(eps)
    return None


# --- GELU --------------------------------------------------------------------------------------


def gelu_tanh(node: Node) -> None:
    """`0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))`: GPT-2's GELU, written out."""
    for half, gate in _operands(node, "aten.mul.Tensor"):
        x = next((x for x, factor in _operands(half, "aten.mul.Tensor", "aten.mul.Scalar") if factor == 0.5), None)
        if not isinstance(x, Node):
            continue
        for tanh, one in _operands(gate, "aten.add.Tensor", "aten.add.Scalar"):
            if one in (1, 1.0) and _is_gelu_angle(_argument(tanh, "aten.tanh.default"), x):
                _become(node, aten.gelu.default, (x,), {"approximate": "tanh"})
                return


def _is_gelu_angle(angle: Any, x: Node) -> bool:
    for total, factor in _operands(angle, "aten.mul.Tensor", "aten.mul.Scalar"):
        if not isinstance(factor, float) or not math.isclose(factor, math.sqrt(2 / math.pi), rel_tol=1e-6):
            continue
        for first, cubic in _operands(total, "aten.add.Tensor"):
            if first is not x:
                continue
            for cube, factor in _operands(cubic, "aten.mul.Tensor", "aten.mul.Scalar"):
                if factor == 0.044715 and name_of(cube) == "aten.pow.Tensor_Scalar" and tuple(cube.args) == (x, 3):
                    return True
    return False


# --- broadcasting ------------------------------------------------------------------------------

_BROADCASTING = ("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor")


def explicit_broadcast(node: Node) -> None:
    """`x * cos` becomes `x * cos.expand(x.shape)` inside repeated layers; free sizes are in what is known of the node.

    MindSpore's CPU operators are 5 to 10 times slower where they broadcast than where they do not, and
    what all layers expand alike, such as rotary embeddings and masks, Graph mode expands once.
    """
    shape = node.meta["val"].shape
    if name_of(node) not in _BROADCASTING or len(shape) < 3 or not _in_a_list(node):
        return
    tensors = [a for a in node.args if isinstance(a, Node) and not is_size(a)]
    large = next((t for t in tensors if same_dims(t.meta["val"].shape, shape)), None)
    if large is None or len(tensors) != 2:
        return
    for small in tensors:
        value = small.meta["val"]
        if value.dtype != torch.float32 or value.dim() == 0 or same_dims(value.shape, shape):
            continue
        with node.graph.inserting_before(node):
            # Not `expand_as`: what `large` is has a name of its own only where something else reads it.
            sizes = [size if isinstance(size, int) else -1 for size in shape]
            wide = node.graph.call_function(aten.expand.default, (small, sizes))
        wide.meta = {**node.meta, "val": value.expand(shape)}
        node.replace_input_with(small, wide)


def _in_a_list(node: Node) -> bool:
    """Whether it ran inside one module of a list: "encoder.layer.3.attention"."""
    found = levels(node)
    return bool(found) and any(part.isdigit() for part in found[-1].path.split("."))


# --- views -------------------------------------------------------------------------------------


def unsqueezed(node: Node) -> None:
    """`x[None, None, :, None]`, which is a node for each None, becomes one reshape."""
    first: Any = node
    while name_of(first) == "aten.unsqueeze.default" and (first is node or _only_use(first, next(iter(first.users)))):
        first = first.args[0]
    inner = node.args[0] if node.args else None
    if first in (node, inner) or any(name_of(user) == "aten.unsqueeze.default" for user in node.users):
        return
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    _become(node, aten.reshape.default, (first, sizes))


# --- filling up --------------------------------------------------------------------------------


def filled_behind(node: Node) -> None:
    """`x[n:] = row` is `where(arange >= n, row, x)`: the row, expanded to what is left, may be empty otherwise."""
    if name_of(node) != "aten.slice_scatter.default" or node.kwargs or len(node.args) < 4:
        return
    args: Any = node.args
    x, source, dim, start, *rest = args
    if rest and not (isinstance(rest[0], int) and rest[0] >= WHOLE_DIMENSION and rest[1:] in ([], [1])):
        return
    if name_of(source) == "aten.copy.default":
        source = source.args[1]
    first = start.meta["val"] if isinstance(start, Node) else start
    if name_of(source) != "aten.expand.default" or first is None or may_be_negative(first):
        return
    row = source.args[0]
    value = node.meta["val"]
    after = value.dim() - dim % value.dim()
    if row.meta["val"].dim() >= after and expression(row.meta["val"].shape[-after]) != 1:
        return
    graph, size = node.graph, value.shape[dim]

    def made(target: Any, args: tuple[Any, ...], meta: Any) -> Node:
        new = graph.call_function(target, args)
        new.meta = {**node.meta, "val": meta}
        return new

    with graph.inserting_before(node):
        length = made(aten.sym_size.int, (x, dim), size) if isinstance(size, torch.SymInt) else size
        places = made(aten.arange.default, (length,), like(value, [size], torch.int64))
        behind = made(aten.ge.Scalar, (places, start), like(value, [size], torch.bool))
        shape = [-1, *[1] * (after - 1)]
        behind = made(aten.reshape.default, (behind, shape), like(value, [size, *shape[1:]], torch.bool))
    node.target, node.args = aten.where.self, (behind, row, x)


#: What has a kernel of its own. The others spare MindSpore's CPU backend what it is slow at.
FUNCTIONS: tuple[Callable[[Node], None], ...] = (rms_norm, half_rms_norm, gelu_tanh)
PEEPHOLES: tuple[Callable[[Node], None], ...] = (rms_norm, gelu_tanh, explicit_broadcast, filled_behind)


# --- nodes -------------------------------------------------------------------------------------


def _is_float32(node: Node) -> bool:
    value = node.meta.get("val")
    return name_of(node) != "" and isinstance(value, torch.Tensor) and value.dtype == torch.float32


def _is_vector(node: Any) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.dim() == 1 and value.dtype == torch.float32


def _operands(node: Any, *targets: str) -> Iterator[tuple[Any, Any]]:
    """Both orders of the operands of a commutative node."""
    if isinstance(node, Node) and name_of(node) in targets and not node.kwargs and len(node.args) == 2:
        left, right = node.args
        yield left, right
        yield right, left


def _argument(node: Any, target: str) -> Any:
    """The first argument of a call of `target`, else None."""
    return node.args[0] if isinstance(node, Node) and name_of(node) == target else None


def _only_use(node: Any, user: Node) -> bool:
    return isinstance(node, Node) and set(node.users) == {user} and _path(node) == _path(user)


def _path(node: Node) -> str:
    found = levels(node)
    return found[-1].path if found else ""


def _become(node: Node, target: Any, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
    node.target, node.args, node.kwargs = target, args, kwargs or {}
