# SPDX-License-Identifier: Apache-2.0
"""Sizes for which something is reduced that is empty: MindSpore 2.10 then leaves the result unwritten.

A sum of x[:, 1:] at a length of 1 is whatever was in memory. So the port asks for sizes of which nothing that is
reduced is empty; others get a port of their own, in which an empty tensor is known to be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import sympy
import torch
from torch.fx import Node

from paritas.capture.guards import Fact, as_guards
from paritas.capture.normalise import equal_inputs, expression, name_of
from paritas.lower.empties import may_be_empty
from paritas.program import Guard, Program

#: Operators that return something where they are given nothing.
_REDUCES = re.compile(
    r"aten\.(sum|mean|prod|any|all|linalg_vector_norm|norm|logsumexp|var|std|var_mean|std_mean|count_nonzero|nansum"
    r"|nanmean|mm|bmm|matmul|addmm|baddbmm|addbmm|linear|dot|mv|addmv|conv\w*|cdist|scaled_dot_product_attention"
    r"|bilinear|tensordot|einsum|layer_norm|group_norm|instance_norm|batch_norm)\."
)


def guards_of(program: Program) -> tuple[Guard, ...]:
    """What sizes have to be, so that nothing that is reduced is empty."""
    known = {name: sympy.Integer(size) for name, size in program.sizes.items()}
    equal = equal_inputs(program.exported)
    facts: dict[object, Fact] = {}
    for node, size in _reduced(program):
        fact = sympy.Ge(size, 1)
        symbols: set[sympy.Symbol] = getattr(fact, "free_symbols", set())
        named = {symbol: equal.get(str(symbol), str(symbol)) for symbol in symbols}
        if not symbols or not set(named.values()) <= known.keys():
            continue
        if fact.xreplace({symbol: known[name] for symbol, name in named.items()}) == sympy.true:
            facts.setdefault(fact, Fact(fact, str(program.origin(node.meta.get("paritas_of", node.name)))))
    found = as_guards(list(facts.values()), equal, program.sizes)
    return tuple(guard for guard in found if guard not in program.guards)


def _reduced(program: Program) -> Iterator[tuple[Node, sympy.Expr]]:
    for node in program.graph.nodes:
        if node.op != "call_function" or not _REDUCES.match(name_of(node)):
            continue
        made = node.meta.get("val")
        kept = {str(expression(size)) for size in made.shape} if isinstance(made, torch.Tensor) else set()
        for source in node.all_input_nodes:
            value = source.meta.get("val")
            for size in value.shape if isinstance(value, torch.Tensor) else ():
                found = expression(size)
                if not isinstance(found, int) and str(found) not in kept and may_be_empty(found):
                    yield node, found
