# SPDX-License-Identifier: Apache-2.0
"""A model whose weights stay in the checkpoint's files computes: each operator reads those that it is given.

In the model are stand-ins (`stored`). While `reading` is open, an operator that is given one gets what the files have
instead, in float32, or in the dtype that it casts to; afterwards it is gone again. So no more than one weight is in
memory, and what is computed is what a model of restored weights computes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from paritas.capture import stored

_aten = torch.ops.aten

#: Operators that move numbers and compute none: what leaves them is cast, which is often less than what enters.
_MOVING = frozenset(
    (
        _aten.t, _aten.transpose, _aten.permute, _aten.view, _aten._unsafe_view, _aten.select, _aten.slice, _aten.split,
        _aten.split_with_sizes, _aten.unbind, _aten.unsqueeze, _aten.squeeze, _aten.expand, _aten.embedding,
        _aten.index_select, _aten.index, _aten.clone, _aten.detach, _aten.alias,
    )
)  # fmt: skip


@contextlib.contextmanager
def reading(dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """While inside, stand-ins are what the checkpoint has, in `dtype`."""
    held = stored.held()
    if not held:
        yield
        return
    with _Reading(held, dtype):
        yield


class _Reading(TorchDispatchMode):
    """held: the address of a stand-in -> what the checkpoint has, in half precision."""

    def __init__(self, held: Mapping[int, torch.Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self._held, self._dtype = held, dtype
        self._memory = stored.memory()
        self._files = stored.mapped_files()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found: list[torch.Tensor] = []

        def real(value: Any) -> Any:
            half = self._read(value)
            if half is None:
                return value
            found.append(half)
            return half

        halves = pytree.tree_map(real, (tuple(args), dict(kwargs)))
        if not found:
            return func(*args, **kwargs)
        try:
            return self._computed(func, *halves)
        finally:
            for half in found:
                stored.drop(half, self._files)

    def _read(self, value: Any) -> torch.Tensor | None:
        if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or value.device.type != "cpu":
            return None
        place = value.data_ptr()
        if not any(start <= place < end for start, end in self._memory):
            return None
        half = self._held.get(place)
        if half is None or half.shape != value.shape or not value.is_contiguous():
            # Computed with, it would be random numbers that look like weights.
            raise RuntimeError("a view of a weight that stays in its checkpoint's files was made before it was read")
        return half

    def _computed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is _aten._to_copy.default:
            return func(*args, **{**kwargs, "dtype": kwargs.get("dtype") or self._dtype})
        if func.overloadpacket in _MOVING:
            return pytree.tree_map(self._wide, func(*args, **kwargs))
        args, kwargs = pytree.tree_map(self._wide, (args, kwargs))
        return func(*args, **kwargs)

    def _wide(self, value: Any) -> Any:
        return value.to(self._dtype) if isinstance(value, torch.Tensor) and value.dtype in stored.HALF else value


def in_half(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy in half precision, whose weights are the checkpoint's own where they have that dtype."""
    held = stored.of(dict(module.named_parameters(remove_duplicate=False)))
    memo: dict[int, Any] = {}
    for name, half in held.items():
        value = torch.nn.Parameter(half.to(dtype), requires_grad=False)
        memo[id(module.get_parameter(name))] = value
    return copy.deepcopy(module, memo).to(dtype)


def in_double(module: torch.nn.Module) -> torch.nn.Module:
    """A copy in float64 but for the stand-ins, which `reading(torch.float64)` reads in it."""
    held = stored.of(dict(module.named_parameters(remove_duplicate=False)))
    found = copy.deepcopy(module, {id(one): one for one in map(module.get_parameter, held)})
    for tensors in (found.named_parameters(), found.named_buffers()):
        for name, tensor in tensors:
            if name not in held and tensor.is_floating_point():
                tensor.data = tensor.data.double()
    return found
