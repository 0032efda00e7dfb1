# SPDX-License-Identifier: Apache-2.0
"""Functions of the original that torch.export cannot trace, replaced by equivalent ones while it traces.

A patch is named after its family, says why it is there, computes the same numbers, and is undone afterwards. It is
applied only where the module that it replaces something in has been imported, so a model pays for its own alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

#: Given the original function, the one that takes its place.
Factory = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Patch:
    """One replacement: `target` is "package.module.Class.method", `why` one sentence, `upstream` where to read on."""

    family: str
    target: str
    factory: Factory
    upstream: str

    @property
    def why(self) -> str:
        return " ".join((self.factory.__doc__ or "").split())

    def place(self) -> tuple[Any, str] | None:
        """The object that holds the function and its name there; None if its module was never imported."""
        parts = self.target.split(".")
        for length in range(len(parts) - 1, 0, -1):
            if (owner := sys.modules.get(".".join(parts[:length]))) is not None:
                # transformers imports a module when it is asked for it by `getattr`.
                if parts[length] not in vars(owner):
                    return None
                try:
                    for part in parts[length:-1]:
                        owner = getattr(owner, part)
                    getattr(owner, parts[-1])
                except AttributeError:
                    return None
                return owner, parts[-1]
        return None


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Tensors that a module keeps for sizes and switches: plain numbers while it is traced, as they never change."""

    family: str
    target: str  # "package.module.Class"
    names: tuple[str, ...]
    why: str
    upstream: str

    def modules(self, model: torch.nn.Module) -> Iterator[torch.nn.Module]:
        module, _, name = self.target.rpartition(".")
        cls = getattr(sys.modules.get(module), name, None)
        if cls is not None:
            yield from (one for one in model.modules() if isinstance(one, cls))


_REGISTRY: list[Patch] = []
_NUMBERS: list[Numbers] = []
_AROUND: list[Callable[[], AbstractContextManager[None]]] = []


def patch(family: str, *targets: str, upstream: str = "") -> Callable[[Factory], Factory]:
    """Register `factory(original) -> replacement` for each target. Its docstring says why."""

    def register(factory: Factory) -> Factory:
        _REGISTRY.extend(Patch(family, target, factory, upstream) for target in targets)
        return factory

    return register


def numbers(family: str, target: str, *names: str, why: str, upstream: str = "") -> None:
    """Register tensors of a class that are numbers while it is traced."""
    _NUMBERS.append(Numbers(family, target, names, why, upstream))


def around(context: Callable[[], AbstractContextManager[None]]) -> Callable[[], AbstractContextManager[None]]:
    """Register a context that is open during every capture. What it does changes no number, and is no remark."""
    _AROUND.append(context)
    return context


@functools.cache
def patches() -> tuple[Patch, ...]:
    """Every replacement of a function; the modules that register them are imported here."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(_REGISTRY)


class Used:
    """Which replacements were called while they were in place."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], int] = {}

    def watch(self, one: Patch, replacement: Any) -> Any:
        if not callable(replacement) or isinstance(replacement, type):
            return replacement

        @functools.wraps(replacement)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._calls[one.family, one.why] = 1
            return replacement(*args, **kwargs)

        return watched

    def count(self, few: Numbers) -> None:
        self._calls[few.family, few.why] = 1

    def remarks(self) -> list[str]:
        return [f"patched while it was captured ({family}): {why}" for family, why in self._calls]


@contextlib.contextmanager
def applied(model: torch.nn.Module) -> Iterator[Used]:
    """All patches of imported modules in place; undone at the end, whatever happens. Yields which were called."""
    used = Used()
    undo: list[tuple[Any, str, Any]] = []
    try:
        for one in patches():
            if (place := one.place()) is not None:
                owner, name = place
                # What the class itself holds: getattr would unwrap a staticmethod, and find an inherited one.
                own = vars(owner).get(name, _ABSENT)
                undo.append((owner, name, own))
                replacement = used.watch(one, one.factory(getattr(owner, name)))
                setattr(owner, name, staticmethod(replacement) if isinstance(own, staticmethod) else replacement)
        with contextlib.ExitStack() as stack:
            for context in _AROUND:
                stack.enter_context(context())
            for few in _NUMBERS:
                for module in few.modules(model):
                    stack.enter_context(_as_numbers(module, few.names))
                    used.count(few)
            yield used
    finally:
        for owner, name, own in reversed(undo):
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


@contextlib.contextmanager
def _as_numbers(module: torch.nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    held, buffers = vars(module), dict(module._buffers)
    plain = {name: held[name] for name in names if name in held}
    try:
        for name in names:
            value = getattr(module, name, None)
            if isinstance(value, torch.Tensor):
                module._buffers.pop(name, None)
                held[name] = value.tolist()  # a number, of a tensor without dimensions
        yield
    finally:
        for name in names:
            held.pop(name, None)
        held.update(plain)
        module._buffers.clear()  # and filled again as a whole: the order of a state_dict is theirs
        module._buffers.update(buffers)


_ABSENT = object()
