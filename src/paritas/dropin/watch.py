# SPDX-License-Identifier: Apache-2.0
"""Whether anything was changed on which a model's results depend: weights, modules, attributes, configuration, code.

A look at all of it takes milliseconds, so a call does not look but asks whether there is reason to: every value that
a look has met is still the same object, and every tensor has the version and the memory that it had, with the same
numbers at some places. These are a few loops in C over flat lists.
"""

from __future__ import annotations

import collections
import dis
import functools
import inspect
import logging
import operator
import sys
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch

from paritas.capture.around import around, functions_of, is_looked_at, is_users
from paritas.dropin import keepers
from paritas.dropin.arrays import storages_of, watch_arrays, written
from paritas.dropin.dispatch import hands_on, its_own, put_in
from paritas.dropin.dispatch import is_users as is_users_hook
from paritas.dropin.library import IGNORED, aside, is_hooked, is_of_bases, is_of_models
from paritas.dropin.samples import Samples

_version = operator.attrgetter("_version")
_content = operator.attrgetter("cell_contents")
_address = operator.methodcaller("data_ptr")
_numbers = operator.methodcaller("tobytes")
entries = operator.methodcaller("values")

#: Attributes that have a look of their own, or hold what is looked at elsewhere.
TABLES = frozenset(
    (
        "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    )
)  # fmt: skip

#: What no look goes into: it does not change what a module computes, or has no end.
_CLOSED = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, str, bytes, int, float,
    complex, bool, type(None), torch.dtype, torch.device, torch.Size, torch.Generator, logging.Logger,
)  # fmt: skip

#: Why a module in training mode is in no port of inference.
TRAINING = "is in training mode, and a port computes inference only"

#: What runs a function.
_CODE = (types.FunctionType, types.MethodType, staticmethod, classmethod, property, functools.partial)

#: How methods are called that nobody calls while a model runs.
_SETTERS = ("set_", "enable_", "disable_", "fuse_", "unfuse_")

#: Beyond that many objects a model holds something that is not its own.
_MOST = 50_000


class Watch:
    """A model as it was at the last look.

    tensors: parameters, buffers and tensors in attributes, by where they were found. only_original: the paths of
    modules that have no twin in a port, and why. keeping: those of them of which this holds when they are called by
    themselves, too. complete: False if something was too large to look at whole.
    replaced: a function of torch's, or a method of tensors, in whose place somebody has put another; "" for none.
    is_counted: False if a tensor was made in `torch.inference_mode`, and tells nobody when it is written to.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._objects: keepers.Held = {}
        watch_data()
        watch_arrays({})
        self.look()

    def look(self) -> None:
        """From now on the model is what it is now."""
        found = _Walk(self._model)
        self.replaced = replaced_everywhere()
        keepers.compared(self._objects, found.objects)
        self._objects = found.objects
        self.tensors, self.complete = found.tensors, found.complete
        self.keeping = {path: reason for path, _ in self._model.named_modules() if (reason := found.reason(path))}
        reasons = ((p, _reason(module) or self.keeping.get(p)) for p, module in self._model.named_modules())
        self.only_original = {path: reason for path, reason in reasons if reason}
        # Most tables of hooks, of buffers and of modules are empty, and have to stay so.
        self._dicts, self._empty = [one for one in found.dicts if one], [one for one in found.dicts if not one]
        self._views, self._lists = found.views, found.lists
        self._values = [*chain.from_iterable(map(entries, self._dicts))]
        self._classes = [*chain.from_iterable(map(entries, self._views))]
        self._items = [*chain.from_iterable(self._lists)]
        self._typed, self._types = found.typed, [*map(type, found.typed)]
        self._arrays, self._numbers = found.arrays, [*map(_numbers, found.arrays)]
        self._slotted, self._slots = found.slotted, found.slots
        self._filled = [*map(getattr, self._slotted, self._slots, repeat(None))]
        self._spaces, self._names, self._cells = found.spaces, found.names, found.cells
        self._variables = [*map(dict.get, self._spaces, self._names), *map(_content, self._cells)]
        # A view of what `.data` handed out shares memory with its parameter and not the version.
        plain = [t for t in self.tensors.values() if not t.is_inference()]
        self.is_counted = len(plain) == len(self.tensors)
        self._versioned = [*plain, *_handed_of(plain)]
        self._versions = [*map(_version, self._versioned)]
        self._placed = [t for t in self.tensors.values() if t.layout is torch.strided and not t.is_meta]
        self._addresses = [*map(_address, self._placed)]
        self._storages = storages_of(self._placed)
        watch_arrays(self._storages)
        self._written = written(self._storages)
        self._samples = Samples(self._placed)
        self._sampled = self._samples.taken()
        self._reads = _data.reads
        _data.watched.update(map(id, plain))

    def changed(self) -> bool:
        """Whether anything may be another than at the last look."""
        return not (
            self._reads == _data.reads
            and self._versions == [*map(_version, self._versioned)]
            and self._addresses == [*map(_address, self._placed)]
            and self._written == written(self._storages)
            and self._sampled == self._samples.taken()  # behind addresses: memory that is gone is not read
            and not any(self._empty)
            and same(self._values, self._dicts, entries)
            and same(self._classes, self._views, entries)
            and same(self._items, self._lists, iter)
            and self._types == [*map(type, self._typed)]
            and self._numbers == [*map(_numbers, self._arrays)]
            and all(map(operator.is_, self._filled, map(getattr, self._slotted, self._slots, repeat(None))))
            and all(map(operator.is_, self._variables, self._read_around()))
        )

    def _read_around(self) -> Iterator[Any]:
        """What the variables around a user's own code hold now."""
        return chain(map(dict.get, self._spaces, self._names), map(_content, self._cells))

    def weights(self) -> tuple[Any, ...]:
        """Which weights they are, in this process: those that were changed in between never come back."""
        state = [(n, id(t), 0 if t.is_inference() else t._version) for n, t in self.tensors.items()]
        # A version of 0 was only read, as a copy of the model reads it.
        handed = [(id(t), t._version) for t in _handed_of(self.tensors.values()) if t._version]
        return tuple(state), tuple(self._addresses), tuple(handed), self._written, self._sampled


def same(had: list[Any], spaces: list[Any], entries: Any) -> bool:
    return sum(map(len, spaces)) == len(had) and all(map(operator.is_, had, chain.from_iterable(map(entries, spaces))))


def _reason(module: torch.nn.Module) -> str:
    if any(map(is_users_hook, chain(module._forward_hooks.values(), module._forward_pre_hooks.values()))):
        return "has hooks, and a port has no such module to call them"
    if is_hooked(module):
        return "has hooks that go on from call to call, and a port does not"
    if hands_on(put_in(module)):
        return "has a forward with values of its own, and a port would not see them change"
    if module.training and _minds_training(module):
        return TRAINING
    return ""


def _minds_training(module: torch.nn.Module) -> bool:
    """Whether it computes otherwise in training mode: most modules do not, and new ones are in that mode."""
    drops = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._NormBase)
    return isinstance(module, drops) or any(map(_reads_training, classes_of(module)))


@functools.cache
def _reads_training(cls: type) -> bool:
    functions = [inspect.unwrap(value) for value in vars(cls).values() if isinstance(value, types.FunctionType)]
    return any("training" in function.__code__.co_names for function in functions)


class _Walk:
    """Everything that a model's results may depend on and that can be changed in place."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.dicts: list[dict[Any, Any]] = []
        self.views: list[Mapping[str, Any]] = []
        self.lists: list[Any] = []
        self.typed: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self.slotted: list[Any] = []
        self.slots: list[str] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.spaces: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.cells: list[Any] = []
        self.objects: keepers.Held = {}
        self.complete = True
        self._seen: set[int] = set()
        self._kept: list[Any] = []
        self._at: Any = None  # the module, by its path, or the class whose code is looked at
        self._classes: dict[str, dict[type, None]] = {}
        self._reasons: dict[Any, str] = {}
        classes = {cls: None for module in model.modules() for cls in classes_of(module)}
        self._memory = memory_of(classes)
        for path, module in model.named_modules():
            self._at = path
            self._module(path, module)
        for cls in classes:
            self._class(cls)
        self._at = None
        of_torch = torch_spaces(model)
        for space in of_torch:
            (self.dicts if isinstance(space, dict) else self.views).append(space)
        self._all("torch ", replaced(of_torch).values())
        for name, space in code_spaces(classes).items():
            self.dicts.append(space)
            self._all(f"{name} ", space.values())

    def _module(self, path: str, module: torch.nn.Module) -> None:
        self._seen.add(id(module))
        self.typed.append(module)
        space = vars(module)
        self.dicts += [space, module._forward_hooks, module._forward_pre_hooks]
        self.dicts += [module._parameters, module._buffers, module._modules]
        for kind in (module._parameters, module._buffers):
            for name, value in kind.items():
                if value is not None:
                    self.tensors[f"{path}.{name}".lstrip(".")] = value
        self._classes.setdefault(self._at, {}).update(dict.fromkeys(classes_of(module)))
        if kept := keepers.attributes(type(module)):
            self._reasons.setdefault(self._at, f"keeps what it sees in {min(kept)}")
        apart = left_out(module, self._memory)
        for name, value in space.items():
            if name not in apart and name != "forward":
                self._value(f"{path}.{name}", value)
        if not hands_on(own := put_in(module)):
            self._value(f"{path}.forward", own)

    def _all(self, path: str, values: Any) -> None:
        for index, value in enumerate(list(values)):
            self._value(f"{path}{index}", value)

    def reason(self, path: str) -> str:
        """Why a module has no twin in a port, as far as its code and what its objects keep tells; "" for no reason."""
        owners = (path, *self._classes.get(path, ()))
        return next(filter(None, map(self._reasons.get, owners)), "")

    def _class(self, cls: type) -> None:
        """The code of a class: of a module, or of an object in one."""
        if id(cls) in self._seen:
            return
        self._seen.add(id(cls))
        before, self._at = self._at, cls
        self.views.append(vars(cls))
        self._all(f"{cls.__qualname__} ", vars(cls).values())
        self._at = before

    def _function(self, path: str, function: types.FunctionType) -> None:
        if id(function) in self._seen:
            return
        self._seen.add(id(function))
        for one in around(function):
            if keepers.is_kept(one) or not is_looked_at(one.value):
                self._reasons.setdefault(self._at, f"has code that goes by {one.name}, which is no part of a port")
                continue
            if isinstance(one.holder, dict):
                self.spaces.append(one.holder)
                self.names.append(one.name)
            else:
                self.cells.append(one.holder)
            self.objects[keepers.key_of(one)] = one, keepers.content_of(one)
            self._value(f"{path} {one.name}", one.value)

    def _value(self, path: str, value: Any) -> None:
        if isinstance(value, _CODE):
            for function in functions_of(value):
                self._function(path, function)
        if isinstance(value, type) and is_users(value.__module__):
            self._class(value)
        if isinstance(value, _CLOSED) or id(value) in self._seen:
            return
        if len(self._seen) > _MOST:
            self.complete = False
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, torch.Tensor):
            self.tensors[path] = value
        elif isinstance(value, torch.nn.Module):
            for inner, module in value.named_modules():  # one that is no child, as a list of modules holds them
                if id(module) not in self._seen or module is value:
                    self._module(f"{path}.{inner}", module)
        elif isinstance(value, dict):
            self.dicts.append(value)
            self._all(f"{path}.", value.values())
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            self.lists.append(value)
            self._all(f"{path}.", value)
        elif isinstance(value, bytearray):
            self.lists.append(value)
        elif isinstance(value, np.ndarray):
            self.arrays.append(value)
        elif isinstance(value, functools.partial):
            self._all(f"{path}.", (value.func, value.args, value.keywords))
        elif is_open(value):
            own = object_classes(value)
            self._classes.setdefault(self._at, {}).update(dict.fromkeys(own))
            for cls in own:
                self._class(cls)
            if keepers.is_keeper(type(value)):
                self._reasons.setdefault(self._at, f"has a {type(value).__name__}, which keeps what it sees")
                return
            if callable(value):
                self.objects[id(value)] = value, tuple(vars(value).values())
            self.typed.append(value)
            self.dicts.append(vars(value))
            self.dicts += tables_of(value)
            for name, inner in list(vars(value).items()):
                if name not in IGNORED:
                    self._value(f"{path}.{name}", inner)
        elif names := slots_of(value):
            self.typed.append(value)
            self.slotted += [value] * len(names)
            self.slots += names
            for name in names:
                self._value(f"{path}.{name}", getattr(value, name, None))


def left_out(module: torch.nn.Module, memory: Set[str]) -> Set[str]:
    """The attributes of a module that are none of what it computes. memory: those of its class that remember."""
    return IGNORED | TABLES | memory | its_own(module) | keepers.attributes(type(module)) | aside(module)


def is_open(value: Any) -> bool:
    """Whether a value is a plain object with attributes of its own: a configuration, a cell, a table of functions."""
    module = type(value).__module__
    return (
        isinstance(getattr(value, "__dict__", None), dict)
        and not isinstance(value, _CLOSED)
        and module.partition(".")[0] not in ("torch", "logging", "threading", "typing", "paritas", "weakref", "re")
    )


def slots_of(value: Any) -> tuple[str, ...]:
    """The attributes of an object of a user's or a library's that has no dictionary of them."""
    if not (is_of_models(type(value).__module__) or is_users(type(value).__module__)):
        return ()
    own = (vars(cls).get("__slots__", ()) for cls in type(value).__mro__)
    names = chain.from_iterable((one,) if isinstance(one, str) else one for one in own)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def torch_spaces(model: torch.nn.Module) -> list[Any]:
    """Where torch's functions and methods are that a model may call."""
    classes = {cls: None for module in model.modules() for cls in type(module).__mro__}
    layers = [vars(cls) for cls in classes if cls.__module__.startswith("torch.")]
    return [vars(torch.nn.functional), vars(torch), vars(torch.Tensor), *layers]


def replaced(spaces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What somebody has put in the place of functions and methods of torch, as another attention, or another way of all
    linear layers."""
    found = chain.from_iterable(map(_replaced_in, spaces))
    return {f"{name} {index}": value for index, (name, value) in enumerate(found)}


def _replaced_in(space: Mapping[str, Any]) -> list[tuple[str, Any]]:
    own = ("torch", "collections", "typing", "warnings", "paritas")
    functions = ((name, value) for name, value in space.items() if isinstance(value, types.FunctionType))
    return [(name, value) for name, value in functions if not (value.__module__ or "").startswith(own)]


def replaced_everywhere() -> str:
    """A function of `torch`, or a method of its tensors, in whose place is another: torch calls it too."""
    spaces = {torch.__name__: vars(torch), "torch.Tensor": vars(torch.Tensor)}
    return next((f"{at}.{name}" for at, space in spaces.items() for name, _ in _replaced_in(space)), "")


def tables_of(value: Any) -> list[dict[Any, Any]]:
    """The dictionaries in a value's class, as a library may register functions of attention in one."""
    cls: Any = type(value)
    return _tables(cls)


@functools.cache
def _tables(cls: type) -> list[dict[Any, Any]]:
    entries = [(name, value) for base in cls.__mro__ for name, value in vars(base).items()]
    return [value for name, value in entries if type(value) is dict and not name.startswith("__")]


def code_spaces(classes: Mapping[type, None]) -> dict[str, dict[str, Any]]:
    """The modules of a library, or of a checkpoint, in which these classes are: whose functions they call.

    A user's own script is none: its variables change all the time.
    """
    names = {cls.__module__: None for cls in classes}
    return {name: vars(sys.modules[name]) for name in names if name in sys.modules and is_of_models(name)}


def classes_of(module: torch.nn.Module) -> tuple[type, ...]:
    """The classes whose code a module runs: its own and what it derives from, but the bases of all."""
    cls: Any = type(module)
    return _own_classes(cls)


def object_classes(value: Any) -> tuple[type, ...]:
    """The classes whose code an object in a module runs, as a processor of attention: of a library of models, or a
    user's own."""
    cls: Any = type(value)
    own = _own_classes(cls)
    return tuple(cls for cls in own if is_of_models(cls.__module__) or is_users(cls.__module__))


def memory_of(classes: Iterable[type]) -> frozenset[str]:
    """Attributes that a library's own methods write while a model runs, as the offsets of a picture's positions.

    They are the original's memory from one call to the next, and no change of the caller's. What only setters write is
    one: attention processors, for example.
    """
    return frozenset().union(*map(_written, classes))


@functools.cache
def _written(cls: type) -> frozenset[str]:
    if not is_of_models(cls.__module__):
        return frozenset()
    methods = [(name, f) for name, f in vars(cls).items() if isinstance(f, types.FunctionType)]
    functions = [f for name, f in methods if name != "__init__" and not name.startswith(_SETTERS)]
    steps = chain.from_iterable(dis.get_instructions(inspect.unwrap(function)) for function in functions)
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")


@functools.cache
def _own_classes(cls: type) -> tuple[type, ...]:
    return tuple(
        base
        for base in cls.__mro__
        if base.__module__.partition(".")[0] not in ("torch", "builtins", "typing", "abc", "paritas")
        and not is_of_bases(base.__module__)
        and "_paritas_original" not in vars(base)
    )


# --- `.data` -------------------------------------------------------------------------------------------------


class _Data:
    """What `Parameter.data` handed out, of parameters that are watched."""

    def __init__(self) -> None:
        self.reads = 0
        self.watched: set[int] = set()
        self.handed: dict[int, tuple[Any, torch.Tensor]] = {}


_data = _Data()
_own: Any = torch.Tensor.data


def watch_data() -> None:
    """Writing through `parameter.data` counts as a change of the parameter. Doing it again changes nothing.

    torch gives every tensor that `.data` returns a version of its own, so that `weight.data.mul_(2)` leaves no trace
    on `weight`. Of watched parameters, all that `.data` returns shares one version, which can be looked at.
    """
    if "data" not in vars(torch.nn.Parameter):
        torch.nn.Parameter.data = property(_read, _write)  # type: ignore[assignment]


def _read(parameter: torch.Tensor) -> torch.Tensor:
    plain: torch.Tensor = _own.__get__(parameter)
    if id(parameter) not in _data.watched:
        return plain
    _data.reads += 1
    _, shared = _data.handed.get(id(parameter), (None, None))
    if shared is None or not _is_same_memory(shared, plain):
        shared = plain
        _data.handed[id(parameter)] = (_reference(parameter), plain)
    return shared.detach()


def _write(parameter: torch.Tensor, value: torch.Tensor) -> None:
    if id(parameter) in _data.watched:
        _data.reads += 1
    _own.__set__(parameter, value)


def _reference(tensor: torch.Tensor) -> Any:
    """A reference that takes what was handed out of a parameter with it."""
    key = id(tensor)

    def gone(_: Any) -> None:
        _data.watched.discard(key)
        _data.handed.pop(key, None)

    return weakref.ref(tensor, gone)


def _is_same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.dtype, a.shape, a.stride()) == (b.data_ptr(), b.dtype, b.shape, b.stride())


def _handed_of(tensors: Any) -> list[torch.Tensor]:
    return [_data.handed[id(t)][1] for t in tensors if id(t) in _data.handed]
