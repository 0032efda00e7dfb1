# SPDX-License-Identifier: Apache-2.0
"""What code of a user's own reads around it: variables of its script, and of the function that it was written in.

The code of an installed package is known by its version. A script's variables change all the time, and of these only
those count that the functions of a model name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@functools.cache
def is_users(module: str) -> bool:
    """Whether a module of code belongs to no installed package: a script, a notebook, a file beside it."""
    if module == "__main__":
        return True
    if module.partition(".")[0] in ("paritas", "torch", *sys.stdlib_module_names):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    if not isinstance(file, str):
        return True
    parents = Path(file).parents
    return not any(root in parents for root in _standard()) and not any(map(_holds_packages, parents))


@functools.cache
def _standard() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    roots = (Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(dict.fromkeys(one for root in roots for one in (root, root.resolve())))


@functools.cache
def _holds_packages(folder: Path) -> bool:
    """Whether packages are installed there, as `pip install --user` and `--target` do: their versions are beside them.

    A project that is installed to be worked on has its version elsewhere.
    """
    return str(folder) in sys.path and any(folder.glob("*.dist-info"))


def cells(function: types.FunctionType) -> tuple[Any, ...]:
    """The variables of the function in which a user's one was written, or of what torch has wrapped it in."""
    return function.__closure__ or () if is_users(function.__module__ or "") else ()


def variables(function: types.FunctionType) -> Iterator[tuple[dict[str, Any], str]]:
    """The variables of scripts that a user's function names: where each is, and what it is called there."""
    space = function.__globals__
    if not is_users(str(space.get("__name__", ""))):
        return
    names = _names(function.__code__)
    for name in names:
        if name not in space:
            continue
        yield space, name
        value = space[name]
        if isinstance(value, types.ModuleType) and is_users(value.__name__):
            yield from ((vars(value), inner) for inner in names if inner in vars(value))


@functools.cache
def _names(code: types.CodeType) -> tuple[str, ...]:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return tuple(dict.fromkeys((*code.co_names, *(name for one in inner for name in _names(one)))))


def is_looked_at(value: Any) -> bool:
    """Whether all that a variable holds can be looked at before each call. What is alive by itself cannot: a model, a
    pipeline, a file."""
    if isinstance(value, torch.nn.Module):
        return False
    module = str(type(value).__module__)
    if module == "builtins" or isinstance(value, (torch.Tensor, dict, list, tuple, set, frozenset, logging.Logger)):
        return not isinstance(value, types.GeneratorType)
    if isinstance(value, type) or callable(value):
        return True
    return is_users(module) or module.partition(".")[0] in ("torch", "numpy", "typing", "types", "enum", "collections")


def functions_of(value: Any) -> Iterator[types.FunctionType]:
    """The functions that a value of a class, or of a module's attribute, stands for."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, (types.MethodType, staticmethod, classmethod)):
        yield from functions_of(value.__func__)
    elif isinstance(value, functools.partial):
        yield from functions_of(value.func)
    elif isinstance(value, property):
        for one in (value.fget, value.fset):
            yield from functions_of(one)


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A variable around a function: in a script's dictionary, or in a cell. value: what it held when it was found."""

    name: str
    holder: Any
    value: Any

    @property
    def now(self) -> Any:
        return self.holder.get(self.name) if isinstance(self.holder, dict) else self.holder.cell_contents

    def restore(self) -> None:
        if isinstance(self.holder, dict):
            self.holder[self.name] = self.value
        else:
            self.holder.cell_contents = self.value


@dataclasses.dataclass(frozen=True)
class Behind:
    """What a model's run has left. owner: the class of the object that has it, or of the module, by that attribute; or
    a variable around its code."""

    name: str
    owner: Any
    attribute: str = ""


def around(function: types.FunctionType) -> Iterator[Variable]:
    """What a function of a user's own reads around it."""
    for space, name in variables(function):
        yield Variable(name, space, space[name])
    for name, cell in zip(function.__code__.co_freevars, cells(function), strict=False):
        with contextlib.suppress(ValueError):  # an empty one
            yield Variable(name, cell, cell.cell_contents)


def around_model(model: torch.nn.Module) -> Iterator[Variable]:
    """What code of a user's own in a model reads around it: in its classes, in what is put in the place of their
    methods, and in objects that compute for modules, as processors of attention do."""
    seen: set[int] = set()
    waiting: list[types.FunctionType] = []
    classes: dict[type, None] = {}
    for module in model.modules():
        classes |= dict.fromkeys(type(module).__mro__)
        for value in vars(module).values():
            waiting += functions_of(value)
            if callable(value) and not isinstance(value, (type, types.FunctionType)):
                classes |= dict.fromkeys(type(value).__mro__)
    for cls in classes:
        if cls.__module__ not in ("builtins", "torch.nn.modules.module"):
            waiting += [f for value in vars(cls).values() for f in functions_of(value)]
    while waiting:
        function = waiting.pop()
        if id(function) not in seen:
            seen.add(id(function))
            for one in around(function):
                waiting += functions_of(one.value)
                yield one
