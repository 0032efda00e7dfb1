# SPDX-License-Identifier: Apache-2.0
"""What a model is, as text: everything that its results depend on but the values of its weights.

Two models of one text and of the same weights compute the same. The text is the same in every process, unless
something is met that cannot be described: an object without attributes that can be read.
"""

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import logging
import pathlib
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from paritas.capture.around import around, is_looked_at, is_users
from paritas.dropin import keepers
from paritas.dropin.dispatch import Dispatched, own_forward
from paritas.dropin.library import IGNORED, cast_to
from paritas.dropin.watch import (
    classes_of,
    code_spaces,
    is_open,
    left_out,
    memory_of,
    object_classes,
    replaced,
    slots_of,
    tables_of,
    torch_spaces,
)

#: Values that no result depends on, by the name of their class: what a module of code has beside its functions.
_IDLE = (
    "TypeVar", "MessageFactory", "_GenericAlias", "_UnionGenericAlias", "GenericAlias", "UnionType",
    "Signature",
)  # fmt: skip

#: And by where that is: typing's own, and what torch decorates functions with.
_IDLE_MODULES = ("typing", "logging", "torch.autograd.grad_mode", "torch._dynamo")

_CONTAINERS = (list, tuple, dict, set, frozenset, collections.deque)
_PLAIN = (bool, int, str, bytes, bytearray, complex, type(None), range, slice, type(Ellipsis), type(NotImplemented))
_AS_PRINTED = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format, np.generic, np.dtype)


def describe(model: torch.nn.Module, tensors: Mapping[int, str], unknown: Callable[[Any], str]) -> str:
    """The text, as a hash. tensors: what to call each tensor, by its id; unknown: what to call what has no text."""
    writer = _Writer(tensors, unknown)
    writer.model(model)
    return hashlib.sha256("\x00".join(writer.parts).encode("utf-8", "surrogatepass")).hexdigest()


class _Writer:
    def __init__(self, tensors: Mapping[int, str], unknown: Callable[[Any], str]) -> None:
        self.parts: list[str] = []
        self._tensors, self._unknown = tensors, unknown
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []
        self._open: set[int] = set()
        self._memory: frozenset[str] = frozenset()

    def model(self, model: torch.nn.Module) -> None:
        classes = {cls: None for module in model.modules() for cls in classes_of(module)}
        self._memory = memory_of(classes)
        self._module(model)
        for cls in classes:
            self._class(cls)
        for name, value in replaced(torch_spaces(model)).items():
            self._named(name, value)
        for name, space in code_spaces(classes).items():
            self._say("code", name)
            for key, value in space.items():
                if not key.startswith("__") and not isinstance(value, types.ModuleType):
                    self._named(key, value)

    def _class(self, cls: type) -> None:
        """What a class is: once."""
        if self._again(cls):
            return
        self._say("class", cls.__module__, cls.__qualname__)
        for name, value in vars(cls).items():
            if name != "_abc_impl" and (not name.startswith("__") or isinstance(value, types.FunctionType)):
                self._named(name, value)

    def _say(self, *parts: str) -> None:
        self.parts += parts

    def _named(self, name: Any, value: Any) -> None:
        self._say("." + str(name))
        self.value(value)

    def _module(self, module: torch.nn.Module) -> None:
        if self._again(module):
            return
        cls = type(module)
        cls = getattr(cls, "_paritas_original", cls)
        self._say("module", cls.__module__, cls.__qualname__)
        if dtype := cast_to(module):
            self._say("cast to", str(dtype))
        apart = left_out(module, self._memory)
        for name, value in sorted(vars(module).items()):
            if name not in apart:
                if name == "forward":
                    value = own_forward(module)
                if value is not None or name != "forward":
                    self._named(name, value)
        for table in (module._parameters, module._buffers, module._modules):
            for name, value in table.items():
                self._named(name, value)

    def _again(self, value: Any) -> bool:
        if id(value) in self._seen:
            self._say(f"#{self._seen[id(value)]}")
            return True
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        return False

    def value(self, value: Any) -> None:
        if isinstance(value, enum.Enum):
            self._say(f"{type(value).__qualname__}.{value.name}")
        elif isinstance(value, _PLAIN) and type(value).__module__ == "builtins":
            self._say(repr(value))
        elif isinstance(value, float):
            self._say(float(value).hex())
        elif isinstance(value, (*_AS_PRINTED, re.Pattern, pathlib.PurePath)):
            self._say(repr(value))
        elif isinstance(value, torch.Tensor):
            self._say(self._tensors.get(id(value)) or self._unknown(value), str(value.dtype), str(value.shape))
        elif isinstance(value, torch.nn.Module):
            self._module(value)
        elif isinstance(value, Dispatched):  # in a function that was put in the place of a module's forward
            self._say("forward of")
            self._module(value.module)
        elif isinstance(value, (type, *_CODE)) or type(value).__name__ == "_lru_cache_wrapper":
            self._code(value)
        elif isinstance(value, logging.Logger):  # of any class: libraries have their own
            self._say("Logger")
        elif type(value).__name__ in _IDLE or type(value).__module__.startswith(_IDLE_MODULES):
            self._say(type(value).__name__)
        elif type(value) in _CONTAINERS:
            if id(value) not in self._open:  # one that holds itself is said to, and no more
                self._open.add(id(value))
                self._object(value)
                self._open.discard(id(value))
        elif not self._again(value):
            self._object(value)

    def _object(self, value: Any) -> None:
        self._say(type(value).__module__, type(value).__qualname__)
        if isinstance(value, Mapping) and not is_open(value):
            for key, inner in sorted(value.items(), key=lambda item: repr(item[0])):
                self._named(key if isinstance(key, (str, int)) else _word(key), inner)
        elif isinstance(value, (set, frozenset)):
            self._say(*sorted(map(_word, value)))
        elif isinstance(value, (list, tuple, collections.deque)):
            for inner in value:
                self.value(inner)
            self._say("end")
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._say(str(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
        elif isinstance(value, functools.partial):
            for inner in (value.func, value.args, value.keywords):
                self.value(inner)
        elif is_open(value):
            for cls in object_classes(value):
                self._class(cls)
            if keepers.is_keeper(type(value)):
                return
            if isinstance(value, Mapping):
                for key, inner in sorted(dict.items(value) if isinstance(value, dict) else [], key=repr):
                    if key not in IGNORED:
                        self._named(key, inner)
            for name, inner in sorted(vars(value).items()):
                if name not in IGNORED:
                    self._named(name, inner)
            for table in tables_of(value):
                self.value(table)
        elif names := slots_of(value):
            for name in names:
                self._named(name, getattr(value, name, None))
        else:
            self._say(self._unknown(value))

    def _code(self, value: Any) -> None:
        if isinstance(value, type) and is_users(value.__module__):
            self._class(value)
        elif isinstance(value, type):
            self._say("class", value.__module__, value.__qualname__)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, (staticmethod, classmethod)):
            self.value(value.__func__)
        elif isinstance(value, property):
            for inner in (value.fget, value.fset):
                self.value(inner)
        elif isinstance(value, functools.cached_property):
            self.value(value.func)
        elif wrapped := getattr(value, "__wrapped__", None):
            self.value(wrapped)
        else:
            self._say(getattr(value, "__qualname__", type(value).__qualname__), str(getattr(value, "__module__", "")))

    def _function(self, value: types.FunctionType) -> None:
        if self._again(value):
            return
        self._say("function", _code_text(value.__code__))
        for inner in (value.__defaults__, value.__kwdefaults__):
            self.value(inner)
        read = list(around(value))
        apart = {id(one.holder) for one in read if keepers.is_kept(one) or not is_looked_at(one.value)}
        for cell in value.__closure__ or ():
            try:
                if id(cell) not in apart:
                    self.value(cell.cell_contents)
            except ValueError:  # an empty cell
                self._say("empty")
        for one in read:
            if isinstance(one.holder, dict):
                self._say(one.name)
                if not keepers.is_kept(one) and is_looked_at(one.value):
                    self.value(one.value)


_CODE = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, staticmethod, classmethod, property,
    functools.cached_property, types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType,
    types.MethodDescriptorType, types.MethodWrapperType, types.ModuleType,
)  # fmt: skip

_codes: dict[int, tuple[types.CodeType, str]] = {}


def _code_text(code: types.CodeType) -> str:
    """A hash of what a function does; where it stands and what its variables are called does not count."""
    known = _codes.get(id(code))
    if known is None:
        constants = [_code_text(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
        text = "\x00".join([code.co_code.hex(), *constants, *code.co_names, *code.co_freevars])
        text += f"{code.co_argcount} {code.co_kwonlyargcount} {code.co_flags}"
        known = _codes[id(code)] = (code, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    return known[1]


def _constant(value: Any) -> str:
    return " ".join(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _word(value: Any) -> str:
    """An element of a set, or a key, without an address."""
    if isinstance(value, (type, types.FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
