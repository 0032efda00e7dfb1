# SPDX-License-Identifier: Apache-2.0
"""Nodes that OpenVINO's frontend cannot convert, written as nodes that it can. One function for each.

They change a copy of the program's graph, before the frontend sees it; values and names stay.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten


def rewrite(module: GraphModule) -> None:
    """Apply every rule to every node of its operator."""
    for node in list(module.graph.nodes):
        rule = RULES.get(str(node.target)) if node.op == "call_function" else None
        if rule is not None:
            rule(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _given(node: Node, position: int, name: str, otherwise: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, otherwise)


def _items(node: Node) -> list[Node]:
    return [user for user in node.users if user.target is operator.getitem]


def _become(old: Node, target: Any, *args: Any) -> None:
    with old.graph.inserting_before(old):
        new = old.graph.call_function(target, args)
    new.meta = dict(old.meta)
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
    new._rename(old.name)


def unbind(node: Node) -> None:
    """`x.unbind(dim)[i]` is `x.select(dim, i)`: the frontend's unbind wants a static dimension."""
    dim = _given(node, 1, "dim", 0)
    for item in _items(node):
        _become(item, aten.select.int, node.args[0], dim, item.args[1])


def split(node: Node) -> None:
    """`x.split(size, dim)[i]` is a slice; so are parts of given sizes."""
    source: Any = node.args[0]
    sizes: Any = node.args[1]
    dim = _given(node, 2, "dim", 0)
    widths = [value.shape[dim] for value in node.meta["val"]]
    if not all(isinstance(width, int) for width in widths):
        return
    if isinstance(sizes, Node) or (
        isinstance(sizes, (list, tuple)) and any(isinstance(s, Node) for s in sizes)
    ):
        return
    starts = [sum(widths[:i]) for i in range(len(widths))]
    for item in _items(node):
        index: Any = item.args[1]
        start = starts[index]
        _become(item, aten.slice.Tensor, source, dim, start, start + widths[index])


def number_of_elements(node: Node) -> None:
    """`sym_numel` is the product of the sizes."""
    source: Any = node.args[0]
    rank = source.meta["val"].dim()
    with node.graph.inserting_before(node):
        total: Any = 1
        for axis in range(rank):
            size = node.graph.call_function(aten.sym_size.int, (source, axis))
            total = size if axis == 0 else node.graph.call_function(operator.mul, (total, size))
    node.replace_all_uses_with(total)
    node.graph.erase_node(node)


RULES: dict[str, Callable[[Node], None]] = {
    "aten.unbind.int": unbind,
    "aten.split.Tensor": split,
    "aten.split_with_sizes.default": split,
    "aten.sym_numel.default": number_of_elements,
}


def histogram(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> torch.Tensor:
    """`histc` of a range that is given: how many elements lie in each of its parts, the last one closed."""
    if min == max:
        return NotImplemented  # the range depends on the values
    part = torch.floor((x.reshape(-1, 1) - min) * (bins / (max - min))).clamp(max=bins - 1)
    inside = (x.reshape(-1, 1) >= min) & (x.reshape(-1, 1) <= max)
    hit = inside & (part == torch.arange(bins, dtype=x.dtype))
    return hit.to(x.dtype).sum(0)


def identity_matrix(n: int, m: int | None = None, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    """`eye`: where the row's number is the column's."""
    rows, columns = torch.arange(n).reshape(-1, 1), torch.arange(n if m is None else m)
    return (rows == columns).to(dtype or torch.float32)


#: Lanczos' approximation with g = 7 (Godfrey's coefficients): 1e-15 in exact arithmetic.
_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


def log_gamma(x: torch.Tensor) -> torch.Tensor:
    """`lgamma`, by Lanczos above 1/2 and by reflection below."""
    z = torch.where(x < 0.5, 1 - x, x) - 1
    series = sum((c / (z + i) for i, c in enumerate(_LANCZOS[1:], 1)), torch.full_like(z, _LANCZOS[0]))
    t = z + 7.5
    above = 0.5 * math.log(2 * math.pi) + (z + 0.5) * torch.log(t) - t + torch.log(series)
    beside = torch.abs(torch.sin(math.pi * (x - torch.round(x))))
    found = torch.where(x < 0.5, math.log(math.pi) - torch.log(beside) - above, above)
    return torch.where(torch.isinf(x), torch.full_like(x, math.inf), found)


def solve_triangular(
    a: torch.Tensor, b: torch.Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> torch.Tensor:
    """`linalg.solve_triangular` by the inverse: forward substitution by blocks of 1, 2, 4, .. rows.

    Where the number of rows is known at run time only, the solution of a system of more than 1024 is NaN.
    """
    rows = a.shape[-1]
    most = rows if isinstance(rows, int) else 1024
    if not left:
        return solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    if upper:
        turned = solve_triangular(a.flip(-2, -1), b.flip(-2), upper=False, unitriangular=unitriangular)
        return turned.flip(-2)
    if not unitriangular:
        diagonal = (a * torch.eye(rows, dtype=a.dtype)).sum(-1, keepdim=True)
        a, b = a / diagonal, b / diagonal
    inverse, size = torch.eye(rows, dtype=a.dtype), 1
    while size < most:
        block = torch.arange(rows) // size
        below = (block.unsqueeze(-1) - block == 1) & (block % 2 == 0)
        part = torch.where(below, a, torch.zeros_like(a))
        inverse, size = inverse - inverse @ part @ inverse, 2 * size
    if not isinstance(rows, int):
        block = torch.arange(rows) // most
        inverse = torch.where(block.unsqueeze(-1) == block, inverse, torch.full_like(inverse, math.nan))
    return inverse @ b


def softplus(x: torch.Tensor, beta: float = 1, threshold: float = 20) -> torch.Tensor:
    """`softplus` as max(x, 0) + log1p(exp(-|x|)): OpenVINO's loses all digits of what is far below 0.

    So does its logarithm near 1. log1p(y) is 2 artanh(y / (2 + y)), whose argument is at most 1/3: seven terms are 1e-8
    off.
    """
    scaled = x * beta
    small = torch.exp(-scaled.abs())
    z = small / (2 + small)
    series = torch.full_like(z, 1 / 13)
    for odd in (11, 9, 7, 5, 3, 1):
        series = series * z * z + 1 / odd
    return torch.where(scaled > threshold, x, (scaled.clamp(min=0) + 2 * z * series) / beta)


#: What these operators are made of, where torch itself has no decomposition.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.histc.default: histogram,
    aten.lgamma.default: log_gamma,
    aten.linalg_solve_triangular.default: solve_triangular,
    aten.eye.default: identity_matrix,
    aten.eye.m: identity_matrix,
    aten.softplus.default: softplus,
}
