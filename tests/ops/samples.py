# SPDX-License-Identifier: Apache-2.0
"""Cases out of PyTorch's own generator of samples, `op_db`: each ATen call that a sample makes is one case.

A sample is called with a recorder on the dispatch key at which torch.export records, so that composite
operators are seen whole, as our graphs have them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from making import Case, Given
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DTYPES = (torch.float32, torch.int64, torch.bool, torch.float16)

#: Beyond this many elements an argument shows nothing that a smaller one does not.
LARGEST = 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class Held(Given):
    """An argument that is there already."""

    tensor: Any = None

    def make(self, generator: torch.Generator, grown: bool = False) -> torch.Tensor:
        return self.tensor


def held(tensor: torch.Tensor) -> Held:
    dtype = str(tensor.dtype).removeprefix("torch.")
    order = () if tensor.is_contiguous() else (-1,)  # shown in the name
    return Held(tuple(tensor.shape), dtype, order=order, tensor=tensor)


class _Recorder(SchemaCheckMode):
    """Keeps every ATen call. A `SchemaCheckMode` is the mode for foreign code that torch admits at this key."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, _dispatch_key=torch._C.DispatchKey.PreDispatch)
        self.calls: list[tuple[str, tuple, dict]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Copies: an operator that works in place may change an argument after this.
        kept = pytree.tree_map_only(torch.Tensor, _copied, (args, kwargs or {}))
        self.calls.append((str(func), *kept))
        return func(*args, **(kwargs or {}))


def calls_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[tuple[str, tuple, dict]]:
    """(overload, args, kwargs) of each ATen call that `function` makes."""
    recorder = _Recorder()
    with torch.no_grad(), warnings.catch_warnings(), enable_python_dispatcher(), recorder:
        warnings.simplefilter("ignore")
        function(*args, **kwargs)
    return recorder.calls


def case_of(target: str, args: tuple, kwargs: dict) -> Case | None:
    """The call as a case; None if an argument is none that a graph of ours holds."""

    def usable(leaf: Any) -> bool:
        if not isinstance(leaf, torch.Tensor):
            return not isinstance(leaf, (torch.Generator, complex))
        plain = leaf.layout == torch.strided and not leaf.is_quantized and not leaf.is_complex()
        return plain and leaf.numel() <= LARGEST and leaf.dtype in _KNOWN

    if not all(usable(leaf) for leaf in pytree.tree_leaves((args, kwargs))):
        return None
    kept = pytree.tree_map_only(torch.Tensor, held, (args, kwargs))
    return Case(target, tuple(kept[0]), kept[1])


_KNOWN = {
    torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool,
}  # fmt: skip


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided or tensor.numel() > LARGEST:
        return tensor  # never becomes a case
    # An expanded tensor, of which several elements share a place, cannot be written: its clone is dense.
    shared = any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
    if shared or tensor.is_quantized:
        return tensor.detach().clone()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


def testing(name: str) -> types.ModuleType:
    """A module of torch.testing._internal."""
    # torch.testing subclasses expecttest.TestCase, and uses nothing of that package here.
    stand_in = types.ModuleType("expecttest")
    stand_in.TestCase, stand_in.ACCEPT = unittest.TestCase, False  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stand_in)
    return importlib.import_module(f"torch.testing._internal.{name}")


def _op_db() -> list:
    return testing("common_methods_invocations").op_db


def sampled(
    targets: Collection[str], dtypes: Collection[torch.dtype] = DTYPES, each: int | None = None
) -> Iterator[Case]:
    """The cases of `targets`, no two of one overload with the same shapes, dtypes and other arguments.

    each: only so many samples of each operator and dtype.
    """
    seen: set[str] = set()
    for operator in _op_db():
        if operator.name.startswith("jiterator"):
            continue
        for dtype in dtypes:
            if dtype in operator.dtypes:
                torch.manual_seed(0)
                # Samples are made one by one, as they are asked for.
                for case in _of_operator(operator, dtype, targets, each):
                    if str(case) not in seen:
                        seen.add(str(case))
                        yield case


#: After so many samples without a call that is wanted, no later one makes such a call.
PATIENCE = 12

#: How many samples its second names are tried with.
ALIAS_SAMPLES = 6


def _of_operator(operator: Any, dtype: torch.dtype, targets: Collection[str], each: int | None) -> Iterator[Case]:
    hits = 0
    samples = operator.sample_inputs("cpu", dtype, requires_grad=False)
    for number, sample in enumerate(itertools.islice(samples, each)):
        if number == PATIENCE and not hits:
            return
        calls = calls_of(operator, sample.input, *sample.args, **sample.kwargs)
        for alias in operator.aliases if number < ALIAS_SAMPLES else ():
            with contextlib.suppress(NotImplementedError, TypeError):  # it may know fewer dtypes, or arguments
                calls += calls_of(alias, sample.input, *sample.args, **sample.kwargs)
        for target, args, kwargs in calls:
            if target in targets:
                hits += 1
                case = case_of(target, args, kwargs)
                if case is not None:
                    yield case
