# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules while they run: what each was called with, what it returned, and from which line."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import linecache
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_HERE = str(Path(__file__).resolve().parents[2]) + os.sep
#: Wrappers of forward, whose lines say nothing about a model.
_GLUE = (f"{os.sep}transformers{os.sep}utils{os.sep}", f"{os.sep}transformers{os.sep}modeling_layers.py")


@dataclasses.dataclass
class WatchedCall:
    """One call of one module. order: counts the calls of all modules as they begin. site: the line that called it."""

    path: str
    number: int
    order: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    returned: Any = None
    site: str = ""

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What it returned, flat."""
        return [leaf for leaf in pytree.tree_leaves(self.returned) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def watching(model: torch.nn.Module, paths: Collection[str]) -> Iterator[list[WatchedCall]]:
    """The calls of the modules at `paths` while the block runs, in the order of returning. Tensors are copies."""
    calls: list[WatchedCall] = []
    open_: list[WatchedCall] = []
    begun: dict[str, int] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            site = call_site()
            args, kwargs = copied((args, kwargs))
            open_.append(WatchedCall(path, begun.get(path, 0), sum(begun.values()), args, kwargs, site=site))
            begun[path] = begun.get(path, 0) + 1

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
            while open_ and open_[-1].path != path:
                open_.pop()  # a module that raised, and whose caller went on
            call = open_.pop()
            call.returned = copied(returned)
            calls.append(call)

        return hook

    handles = []
    modules = dict(model.named_modules(remove_duplicate=False))
    try:
        for path in paths:
            module = modules[path]
            handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
            handles.append(module.register_forward_hook(after(path), with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def copied(tree: Any) -> Any:
    """The tensors of a nest of arguments as they are now: a model may change them in place later."""
    return pytree.tree_map_only(torch.Tensor, lambda value: value.detach().clone(), tree)


def callable_paths(model: torch.nn.Module) -> list[str]:
    """The modules that can be called, the model itself ("") first; lists and dicts of modules cannot."""
    return [
        path
        for path, module in model.named_modules()
        if type(module).forward is not torch.nn.Module.forward or "forward" in vars(module)
    ]


def call_site() -> str:
    """ "modeling_x.py:88  x = self.act(x)": the innermost frame outside torch and Paritas, or ""."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH, _HERE, "<")) and not any(glue in file for glue in _GLUE):
            text = linecache.getline(file, frame.f_lineno).strip()
            return f"{os.path.basename(file)}:{frame.f_lineno}  {text}".rstrip()
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def definition(module: torch.nn.Module) -> str:
    """ "modeling_x.py:60" where the module's forward begins; "" for a class without source, and for torch's own."""
    try:
        file = inspect.getsourcefile(type(module)) or ""
        line = inspect.getsourcelines(type(module).forward)[1]
    except (OSError, TypeError):
        return ""
    return "" if not file or file.startswith(_TORCH) else f"{os.path.basename(file)}:{line}"


def arguments_of(module: torch.nn.Module, call: WatchedCall) -> dict[str, torch.Tensor]:
    """A call's tensors by name of forward's parameters, parts of nested ones numbered: "position_embeddings.1"."""
    try:
        bound = inspect.signature(module.forward).bind(*call.args, **call.kwargs)
        given: Mapping[str, Any] = bound.arguments
    except (TypeError, ValueError):
        given = {**{str(n): value for n, value in enumerate(call.args)}, **call.kwargs}
    found: dict[str, torch.Tensor] = {}
    for name, value in given.items():
        leaves = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        single = len(leaves) == 1
        found |= {name if single else f"{name}.{number}": leaf for number, leaf in enumerate(leaves)}
    return found


def with_arguments(call: WatchedCall, tensors: list[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments with other tensors in the places of its own, in the order of `tensors_of`."""
    leaves, spec = pytree.tree_flatten((call.args, call.kwargs))
    remaining = iter(tensors)
    leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    return pytree.tree_unflatten(leaves, spec)


def tensors_of(call: WatchedCall) -> list[torch.Tensor]:
    """The tensors that a module was called with, flat."""
    leaves = pytree.tree_leaves((call.args, call.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
