# SPDX-License-Identifier: Apache-2.0
"""Parameters under the original's names, and constants as source text where they are short."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from paritas.capture.forward_names import weight
from paritas.dtypes import dtype_name
from paritas.lower.mindspore.write.context import Weights
from paritas.lower.mindspore.write.emitter import DTYPES
from paritas.lower.mindspore.write.source import literal
from paritas.program import Program

#: Constants of at most this many elements are written into the source as numbers.
LITERAL_ELEMENTS = 64


def collect(program: Program) -> Weights:
    """Every weight that the graph uses, and every one that the checkpoint has.

    A tied parameter has one name, the one under which the checkpoint stores it. A MindSpore Parameter cannot be
    empty: those of no elements are constants where they are used, and left out where they are not.
    """
    saved = {name: tensor for name, tensor in program.weights.items() if tensor.numel()}
    by_storage = {_storage(tensor): name for name, tensor in saved.items()}
    names: dict[str, str] = {}
    values = dict(saved)
    signature = program.exported.graph_signature
    for node in program.graph.nodes:
        if node.op != "placeholder" or "paritas_input" in node.meta:
            continue
        tensor = weight(program.exported, node)
        if not isinstance(tensor, torch.Tensor) or not node.users:
            continue
        own = (
            signature.inputs_to_parameters.get(node.name)
            or signature.inputs_to_buffers.get(node.name)
            or signature.inputs_to_lifted_tensor_constants[node.name]
        )
        name = own if own in program.weights else by_storage.get(_storage(tensor), own)
        names[node.name] = name
        values.setdefault(name, tensor.detach())
    return Weights(names, values, tuple(saved))


def _storage(tensor: torch.Tensor) -> tuple:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype


def constant_source(value: torch.Tensor) -> str | None:
    """An expression that makes `value`, or None if only a file can hold it."""
    dtype = DTYPES[dtype_name(value.dtype)]
    shape = tuple(value.shape)
    flat = value.detach().reshape(-1)
    if flat.numel() == 0:
        return f"ops.zeros({literal(shape)}, {dtype})"
    if flat.numel() > 1 and not value.dtype.is_complex and bool((flat == flat[0]).all()):
        return f"ops.full({literal(shape)}, {literal(flat[0].item())}, dtype={dtype})"
    if flat.numel() > 2 and value.dtype == torch.int64 and torch.equal(flat, torch.arange(flat.numel())):
        text = f"ops.arange({flat.numel()})"
        return text if len(shape) == 1 else f"{text}.reshape({literal(shape)})"
    if flat.numel() <= LITERAL_ELEMENTS and not value.dtype.is_complex:
        return f"Tensor({literal(value.tolist())}, {dtype})"
    return None


def constants_for_file(constants: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The constants that the source cannot express, by their name in the module."""
    return {name: value.contiguous() for name, value in constants.items() if constant_source(value) is None}
