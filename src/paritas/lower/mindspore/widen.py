# SPDX-License-Identifier: Apache-2.0
"""bfloat16 as float32: MindSpore 2.10's CPU backend has no bfloat16 kernels for MatMul, Softmax or Gather.

Weights are float32, which holds each bfloat16 exactly. A model in bfloat16 computes in float32 from end to end. In a
model of another dtype, what is bfloat16 in between is computed in float32 and rounded, as torch does it on CPU.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from paritas.capture.normalise import copied
from paritas.lower.mindspore.write.emitter import Emitter
from paritas.lower.mindspore.write.source import Value
from paritas.program import Note, Program

NOTE = Note(
    "lower",
    "the model is bfloat16 and runs as float32: MindSpore's CPU backend has no bfloat16 kernels for MatMul, Softmax or "
    "Gather",
)


def is_bfloat16(program: Program) -> bool:
    """Whether that is the dtype of most of its weights, or of its first floating-point input if it has none."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in program.weights.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] += tensor.numel()
    if sizes:
        return sizes.most_common(1)[0][0] == torch.bfloat16
    floats = [spec.dtype for spec in program.inputs if spec.dtype.startswith(("float", "bfloat"))]
    return floats[:1] == ["bfloat16"]


def widened(program: Program) -> Program:
    """The program with float32 for bfloat16: in its weights always, in its graph if the model is of that dtype."""
    whole = is_bfloat16(program)
    held = [program.weights, *(getattr(program.exported, name, {}) for name in _HELD)]
    if not whole and not any(_is_bfloat16(t) for tensors in held for t in tensors.values()):
        return program
    known: dict[tuple, torch.Tensor] = {}
    exported: Any = _Exported(program.exported, known)
    for node in exported.graph.nodes if whole else ():
        node.meta["val"] = _wide_values(node.meta.get("val"))
        node.args = pytree.tree_map_only(torch.dtype, _wide_dtype, node.args)
        node.kwargs = pytree.tree_map_only(torch.dtype, _wide_dtype, node.kwargs)
    return dataclasses.replace(program, exported=exported, weights=_wide(program.weights, known))


def in_float32(lowering: Callable[..., Value], emit: Emitter, args: Any, kwargs: Any) -> Value:
    """What `lowering` writes; in float32, and rounded afterwards, where something of it is bfloat16."""
    out = emit.out
    parts = out if isinstance(out, tuple) else (out,)
    rounded = [isinstance(part, Value) and part.dtype == "bfloat16" for part in parts]
    args, kwargs = pytree.tree_map(lambda leaf: _wide_leaf(emit, leaf), (list(args), dict(kwargs)))
    described = [_described(part, "float32") if wide else part for part, wide in zip(parts, rounded, strict=True)]
    emit.out = tuple(described) if isinstance(out, tuple) else described[0]
    value = emit.if_empty() or lowering(emit, *args, **kwargs)
    emit.out = out
    if not any(rounded):
        return value
    if isinstance(out, Value):
        return emit.cast(_described(value, "float32"), "bfloat16")
    pair = emit.let(value, "results")
    texts = [
        emit.cast(Value(f"{pair}[{i}]", "float32"), "bfloat16").text if wide else f"{pair}[{i}]"
        for i, wide in enumerate(rounded)
    ]
    return Value(f"({', '.join(texts)}{',' if len(texts) == 1 else ''})")


def holds_bfloat16(emit: Emitter, args: Any, kwargs: Any) -> bool:
    """Whether anything that a lowering takes or gives is bfloat16."""
    leaves = [*pytree.tree_leaves((list(args), dict(kwargs))), *pytree.tree_leaves(emit.out)]
    return any(isinstance(leaf, Value) and leaf.dtype == "bfloat16" for leaf in leaves)


def _wide_leaf(emit: Emitter, leaf: Any) -> Any:
    if isinstance(leaf, Value) and leaf.dtype == "bfloat16":
        return emit.cast(leaf, "float32")
    return _wide_dtype(leaf) if isinstance(leaf, torch.dtype) else leaf


def _described(value: Value, dtype: str) -> Value:
    return dataclasses.replace(value, dtype=dtype)


#: What an exported program holds tensors in.
_HELD = ("state_dict", "constants")


class _Exported:
    """An exported program with a graph of its own and float32 weights."""

    def __init__(self, exported: Any, known: dict[tuple, torch.Tensor]) -> None:
        self.graph, self._exported = copied(exported.graph), exported
        self.state_dict, self.constants = (_wide(getattr(exported, name, {}), known) for name in _HELD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exported, name)


def _wide(tensors: Mapping[str, Any], known: dict[tuple, torch.Tensor]) -> dict[str, Any]:
    """Each bfloat16 tensor as float32; what was one tensor under two names still is."""
    found = {}
    for name, tensor in tensors.items():
        if _is_bfloat16(tensor):
            place = tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())
            if place not in known:
                known[place] = tensor.detach().float()
            tensor = known[place]
        found[name] = tensor
    return found


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _wide_values(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, (tuple, list)):
        return type(value)(_wide_values(part) for part in value)
    return value
