# SPDX-License-Identifier: Apache-2.0
"""What a captured model returns: the graph's outputs, and how a caller's object is made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import Node

from paritas import formulas
from paritas.capture.forward import Traced
from paritas.capture.normalise import dims_of, expression, name_of
from paritas.capture.state import Answer
from paritas.capture.symbolic_sizes import ITEM
from paritas.dtypes import dtype_name
from paritas.errors import CaptureError
from paritas.formulas import NoFormula
from paritas.program import TensorSpec
from paritas.pytree import Structure, leaf_names, with_symbols


def returned(
    exported: ExportedProgram, traced: Traced | None, first: Answer, tensors: Mapping[str, torch.Tensor]
) -> Structure:
    """The description of the output, sizes as formulas of the inputs' dimensions; numbers become tensors in the graph.

    Raises `CaptureError` where the traced model returned something else than the one that ran.
    """
    _numbers_are_tensors(exported)
    if traced is None or traced.structure is None:
        return first.structure
    structure = with_symbols(traced.structure, lambda size: {"kind": "size", "value": str(expression(size))})
    sizes = _sizes(exported, tensors)

    def known(text: str) -> Structure:
        try:
            return {"kind": "constant", "value": formulas.value(text, sizes)}
        except NoFormula:
            raise CaptureError(
                f"The model returns the size {text}, which does not follow from its inputs' sizes alone. "
                "Return a tensor instead."
            ) from None

    if not _alike(with_symbols(structure, known), first.structure):
        raise CaptureError(
            "The model returns something else while it is traced than when it runs: numbers or structure of its "
            "output depend on values. Return tensors, always in the same structure."
        )
    return structure


def renamed(formula: str, equal: Mapping[str, str]) -> str:
    """A formula with one name for sizes that have to be equal."""
    return re.sub(r"[A-Za-z_]\w*", lambda match: equal.get(match[0], match[0]), formula)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["kind"] == "number":
        return other["kind"] == "constant"
    if one["kind"] == "constant" and other["kind"] == "constant":
        return bool(one["value"] == other["value"])
    if one.keys() != other.keys() or any(one[key] != other[key] for key in one if key not in ("items", "index")):
        return False
    mine, theirs = one.get("items", ()), other.get("items", ())
    if len(mine) != len(theirs) or one["kind"] == "cache":
        return one["kind"] == "cache"
    if isinstance(mine, Mapping):
        return list(mine) == list(theirs) and all(_alike(mine[key], theirs[key]) for key in mine)
    return all(map(_alike, mine, theirs))


def _sizes(exported: ExportedProgram, tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The example's size of each dynamic dimension."""
    users = {s.arg.name for s in exported.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    nodes = [n for n in exported.graph.nodes if n.op == "placeholder" and n.name in users]
    values = [n.meta["val"] for n in nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    found: dict[str, int] = {}
    for value, tensor in zip(values, tensors.values(), strict=False):
        found |= {str(d): n for d, n in zip(dims_of(value), tensor.shape, strict=True) if isinstance(d, str)}
    return found


def _numbers_are_tensors(exported: ExportedProgram) -> None:
    """`x.sum().item()` among the outputs is `x.sum()`: whoever builds the output reads the number out of it."""
    end = exported.graph.output_node()
    values = list(end.args[0])
    for index, (value, spec) in enumerate(zip(values, exported.graph_signature.output_specs, strict=True)):
        if isinstance(value, Node) and name_of(value) in ITEM and spec.kind is OutputKind.USER_OUTPUT:
            source: Any = value.args[0]
            values[index], spec.arg = source, TensorArgument(name=source.name)
    if values != list(end.args[0]):
        end.args = (tuple(values),)
        exported.graph_module.recompile()


def output_specs(exported: ExportedProgram, structure: Structure) -> tuple[TensorSpec, ...]:
    """One spec for each tensor that the graph returns. Raises `CaptureError` where it returns anything else."""
    nodes = [node for node in exported.graph.output_node().args[0] if isinstance(node, Node)]
    names = leaf_names(structure)
    values = [node.meta["val"] for node in nodes]
    if len(values) != len(names) or not all(isinstance(value, torch.Tensor) for value in values):
        odd = [str(node.meta["val"]) for node in nodes if not isinstance(node.meta["val"], torch.Tensor)]
        what = f", among them {', '.join(odd[:3])}, computed from values" if odd else ""
        raise CaptureError(
            f"The model returns {len(names)} tensors ({', '.join(names[:6])}), its graph {len(values)} values{what}. "
            "Return tensors: x.sum() for x.sum().item()."
        )
    return tuple(
        TensorSpec(name, dtype_name(value.dtype), dims_of(value)) for name, value in zip(names, values, strict=True)
    )
