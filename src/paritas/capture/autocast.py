# SPDX-License-Identifier: Apache-2.0
"""A graph of a model under `torch.autocast`: the casts that torch makes inside its operators become nodes.

torch traces an operator as it is called, and casts its arguments below. Which of them, and to what, no list of ours
says: each operator is asked, on tensors without values, what it computes under autocast, and gets those casts with
which it computes the same without.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from paritas.capture.origin import origin
from paritas.dtypes import dtype_name
from paritas.errors import CaptureError, InputError

aten = torch.ops.aten

#: What it may be asked for on a CPU.
DTYPES = ("bfloat16", "float16")


@torch.library.custom_op("paritas::rounded", mutates_args=())
def rounded(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """The numbers of float32 as float16 or bfloat16 has them, in float32: for engines without kernels of that dtype."""
    return x.to(getattr(torch, dtype)).to(x.dtype, copy=True)


@rounded.register_fake
def _(x: torch.Tensor, dtype: str) -> torch.Tensor:
    return torch.empty_like(x)


def asked() -> str:
    """The dtype that `torch.autocast` around this asks for on the CPU; "" outside of it."""
    return dtype_name(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else ""


def applied(dtype: str) -> contextlib.AbstractContextManager[Any]:
    """`torch.autocast` of this dtype; as it is outside, for "".

    Casts of weights are not kept: what is traced without gradients would else be what is trained.
    """
    if not dtype:
        return contextlib.nullcontext()
    return torch.autocast("cpu", getattr(torch, dtype), cache_enabled=False)


def left() -> contextlib.AbstractContextManager[Any]:
    """Operators compute in the dtypes of their arguments, as those of a captured graph do."""
    return torch.autocast("cpu", enabled=False) if asked() else contextlib.nullcontext()


_WRITTEN = "paritas_casts"


def mark(program: ExportedProgram) -> None:
    """Say of a graph that its casts are nodes."""
    program.graph_module.meta[_WRITTEN] = True


def around(program: ExportedProgram) -> contextlib.AbstractContextManager[Any]:
    """What a graph runs in: outside of autocast if its casts are nodes."""
    return left() if program.graph_module.meta.get(_WRITTEN) else contextlib.nullcontext()


def check(dtype: Any) -> str:
    """The name of a dtype that somebody asks for. Raises `InputError` for one that autocast has not."""
    name = str(dtype or "").removeprefix("torch.")
    if name and name not in DTYPES:
        raise InputError(f"autocast={name!r}: it is {' or '.join(map(repr, DTYPES))}.")
    return name


def with_casts(program: ExportedProgram, dtype: str) -> None:
    """Write the casts of a graph that was traced under `torch.autocast` as nodes. Called outside of it.

    Raises `CaptureError` for an operator of which autocast computes parts alone in that dtype.
    """
    graph, low = program.graph, getattr(torch, dtype)
    mode = detect_fake_mode([node.meta.get("val") for node in graph.nodes])
    known: dict[Any, torch.dtype | None] = {}
    with _refusals_unsaid():
        for node in list(graph.nodes):
            if node.op != "call_function" or not _may_cast(node.target):
                continue
            values = [source.meta.get("val") for source in node.all_input_nodes]
            if not any(map(_is_castable, values)):
                continue
            key = node.target, *map(_described, (*values, *pytree.tree_leaves((node.args, node.kwargs))))
            if key not in known:
                known[key] = _cast_of(node, low)
            if known[key] is not None:
                _cast(graph, node, known[key], mode)
    program.graph_module.recompile()


@contextlib.contextmanager
def _refusals_unsaid() -> Iterator[None]:
    """torch logs as an error whatever an operator refuses of tensors without values."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _may_cast(target: Any) -> bool:
    """Whether autocast has a word in an operator, or in what it consists of."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    return target._can_decompose() or torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "AutocastCPU")


def _is_castable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _described(value: Any) -> Any:
    """What of an argument an operator's way may depend on."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.dim()
    return None if isinstance(value, (Node, torch.SymInt, torch.SymFloat, torch.SymBool)) else repr(value)


class _Calls(TorchDispatchMode):
    """Hears which operators compute, and in which dtypes. Casts among floats are no computation."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not aten._to_copy.default and func.namespace != "prim":  # which asks for a device
            leaves = pytree.tree_leaves((args, kwargs, out))
            self.heard.append((func, [leaf.dtype for leaf in leaves if isinstance(leaf, torch.Tensor)]))
        return out


def _cast_of(node: Node, low: torch.dtype) -> torch.dtype | None:
    """To what a node's arguments are cast; None where they stay as they are."""
    with FakeTensorMode(), torch.no_grad():
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: _like(source.meta["val"]))
        with torch.autocast("cpu", low, cache_enabled=False):
            want = _heard(node.target, args, kwargs)
        for dtype in (None, low, torch.float32):
            given = pytree.tree_map_only(torch.Tensor, functools.partial(_to, dtype=dtype), (args, kwargs))
            if want is not None and _heard(node.target, *given) == want:
                return dtype
    raise CaptureError(
        f"torch.autocast computes parts of {node.target} in {dtype_name(low)}, and a graph has it as a whole, at "
        f'{origin(node)}. Call it inside torch.autocast("cpu", enabled=False).'
    )


def _heard(target: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """What it computes, and the dtypes of what it returns; None where it refuses its arguments' dtypes."""
    try:
        with _Calls() as calls:
            out = target(*args, **kwargs)
    except Exception:  # noqa: BLE001 - whichever way it refuses dtypes that do not fit
        return None
    return [*calls.heard, *(one.dtype for one in pytree.tree_leaves(out) if isinstance(one, torch.Tensor))]


def _to(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return value.to(dtype) if dtype is not None and _is_castable(value) else value


def _like(value: Any) -> Any:
    """A value of a trace, with the example's sizes: what is asked of it is no question of the model's."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(_sized(value.shape), _sized(value.stride()), dtype=value.dtype)
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value.node.hint if value.node.hint is not None else 2
    if isinstance(value, (tuple, list)):
        return pytree.tree_map_only((torch.Tensor, torch.SymInt), _like, value)
    return value


def _sized(sizes: Sequence[Any]) -> list[int]:
    return [size if isinstance(size, int) else _like(size) for size in sizes]


def _cast(graph: torch.fx.Graph, node: Node, dtype: torch.dtype | None, mode: Any) -> None:
    """Cast what a node is given of floats, in a node before it, of its module and line."""

    def cast(source: Node) -> Node:
        value: Any = source.meta.get("val")
        if not _is_castable(value) or value.dtype == dtype:
            return source
        with graph.inserting_before(node):
            made = graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
        made.meta = copy.copy(node.meta)
        with mode or contextlib.nullcontext(), torch.no_grad():
            made.meta["val"] = value.to(dtype)
        return made

    node.args, node.kwargs = map_arg(node.args, cast), map_arg(node.kwargs, cast)
