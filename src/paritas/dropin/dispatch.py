# SPDX-License-Identifier: Apache-2.0
"""Which calls of a model's modules go to the engine: those from outside, but for what only PyTorch can answer."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from paritas.dropin.frameworks import back, to_torch
from paritas.dropin.library import cast_to, has_hooks, is_of_library, is_watching, registries
from paritas.errors import CaptureError, first_line

#: Computes a call of a module on an engine: its path in the model, it, its own forward, and the call's arguments.
Answers = Callable[[str, torch.nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_local = threading.local()


@contextlib.contextmanager
def original() -> Iterator[None]:
    """Modules compute in PyTorch while it is open, in this thread."""
    before = getattr(_local, "original", False)
    _local.original = True
    try:
        yield
    finally:
        _local.original = before


def computes_original() -> bool:
    """Whether a module that is called now computes in PyTorch."""
    return getattr(_local, "original", False)


class Dispatched:
    """The `forward` of a module inside a model on an engine.

    own: the forward that somebody had put in the module before; None for that of its class. A copy of a part of the
    model belongs to no network, and computes in PyTorch.
    """

    __slots__ = ("module", "network", "own", "path")  # and no attributes, which who wraps it would take along

    def __init__(
        self, module: torch.nn.Module, path: str = "", network: Answers | None = None, own: Any = None
    ) -> None:
        self.module, self.path, self.network, self.own = module, path, network, own

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The original's: its signature is read from it."""
        return self.own or type(self.module).forward.__get__(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.__wrapped__
        if self.network is None or computes_original():
            return own(*args, **kwargs)
        return uncompiled(_dispatched)(self, own, args, kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dispatched, (self.module, self.path, None, self.own)

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__self__", "__func__", "__code__", "__defaults__"):
            return getattr(self.__wrapped__, name)
        raise AttributeError(name)


def _dispatched(held: Dispatched, own: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    assert held.network is not None
    args, kwargs, framework = to_torch(given, named)
    return back(held.network(held.path, held.module, own, args, kwargs), framework)


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which torch's compiler leaves as it is: who compiles a network compiles what is around it."""
    if "torch._dynamo" not in sys.modules:
        return function
    if function not in _uncompiled:
        _uncompiled[function] = sys.modules["torch._dynamo"].disable(function)
    return _uncompiled[function]


_uncompiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def install(model: torch.nn.Module, network: Answers) -> None:
    """From now on every call of one of the model's modules from outside runs on the engine."""
    for path, module in model.named_modules():
        if path and not is_weight(path):
            own = vars(module).get("forward")
            if isinstance(own, Dispatched):
                own.module, own.path, own.network = module, path, network
            else:
                module.forward = Dispatched(module, path, network, own)
        _install_below_hooks(module, path, network)
    vars(model)["_paritas"] = network


def _install_below_hooks(module: torch.nn.Module, path: str, network: Answers) -> None:
    """What a library's hooks stand around, where they were set before the model was ported, is asked as from outside.

    They hold the forward that the module had then, that of the library's class.
    """
    cls = type(module)
    own = getattr(cls, "_paritas_original", cls).forward
    below = Dispatched(module, path, network) if path else types.MethodType(cls.forward, module)
    for registry in registries(module).values():
        for hook in getattr(registry, "hooks", {}).values():
            for name, held in vars(hook.fn_ref).items():
                if isinstance(held, types.MethodType) and held.__self__ is module and held.__func__ is own:
                    setattr(hook.fn_ref, name, below)


def in_pytorch(module: torch.nn.Module) -> Any:
    """The same module as the library has it, in evaluation mode: its weights are this one's, all else is its own.

    What its code leaves in its attributes when it runs is not left in the caller's.
    """
    tensors: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for inner in module.modules():  # as torch.nn.utils.weight_norm leaves its weight, which it computes in each call
        tensors |= {id(v): v.detach() for v in vars(inner).values() if isinstance(v, torch.Tensor) and not v.is_leaf}
    hooked = [has_hooks(inner) for inner in module.modules()]
    for inner in module.modules():
        if dtype := cast_to(inner):
            tensors |= {
                id(t): _cast(t, dtype) for t in (*inner.parameters(), *inner.buffers()) if t.is_floating_point()
            }
    holding = set[str]()
    for inner in module.modules():  # what they hold of earlier calls is large, and may lead anywhere
        tensors |= {id(registry): None for registry in registries(inner).values()}
        holding |= registries(inner).keys()
    twin: Any = copy.deepcopy(module, tensors)
    for inner, is_hooked in zip(twin.modules(), hooked, strict=True):
        own = vars(inner).get("forward")
        if isinstance(own, Dispatched) or is_hooked or hands_on(own):
            own = _below(inner, own, is_hooked)
            vars(inner).pop("forward", None)
            if own is not None:
                inner.forward = own
        for name in holding:
            vars(inner).pop(name, None)
    if vars(twin).pop("_paritas", None) is not None and not hooked[0]:
        vars(twin).pop("forward", None)  # who put one before a model's calls what is below it
    twin.__class__ = getattr(type(twin), "_paritas_original", type(twin))
    return twin.eval()


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    made = tensor.detach().to(dtype)
    return torch.nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else made


def own_forward(module: torch.nn.Module) -> Any:
    """What somebody has put into a module as its forward, below what is never in a port; None for that of its class."""
    return _below(module, vars(module).get("forward"), has_hooks(module))


#: What a function may hold of what is around it, and still compute the same in every call: code, and modules.
_CODE = (
    torch.nn.Module, Dispatched, type, types.FunctionType, types.MethodType, types.BuiltinFunctionType,
    types.ModuleType, functools.partial, type(None),
)  # fmt: skip


def hands_on(forward: Any) -> bool:
    """Whether a function that somebody has put into a module as its forward holds values, which no port would look at.

    It may hand on what it sees in a list, take what others have put there, or go another way once a variable around it
    has changed: in each call, and not as it was captured.
    """
    function = getattr(forward, "__func__", forward)
    if not isinstance(function, types.FunctionType) or _is_of_libraries(function):
        return False
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            if not isinstance(cell.cell_contents, _CODE):
                return True
    return False


def put_in(module: torch.nn.Module) -> Any:
    """What stands in a module as its forward, below what asks its ports; None for that of its class."""
    forward: Any = vars(module).get("forward")
    while isinstance(forward, Dispatched):
        forward = forward.own
    return forward


def its_own(module: torch.nn.Module) -> frozenset[str]:
    """Attributes that such a forward of a module uses and the code of its class does not, as what it has seen: they are
    in no port, and no change of the module."""
    forward = put_in(module)
    if not hands_on(forward):
        return frozenset()
    cls: Any = type(module)
    return frozenset(getattr(forward, "__func__", forward).__code__.co_names) - _names_in(cls)


@functools.cache
def _names_in(cls: type) -> frozenset[str]:
    """What the code of a class names."""
    spaces = (vars(base) for base in cls.__mro__ if base not in (torch.nn.Module, object))
    functions = (f for space in spaces for f in space.values() if isinstance(f, types.FunctionType))
    return frozenset().union(*(inspect.unwrap(f).__code__.co_names for f in functions))


def _is_of_libraries(function: types.FunctionType) -> bool:
    return is_of_library(function.__module__) or function.__module__.startswith("torch.")


def _below(module: torch.nn.Module, forward: Any, is_hooked: bool) -> Any:
    while isinstance(forward, Dispatched) or (is_hooked and isinstance(forward, functools.partial)):
        forward = forward.own if isinstance(forward, Dispatched) else getattr(forward, "__wrapped__", None)
    if hands_on(forward):
        return None
    is_class = isinstance(forward, types.MethodType) and forward.__func__ is type(module).forward
    return None if is_hooked and is_class else forward


@contextlib.contextmanager
def example_of(module: torch.nn.Module) -> Iterator[tuple[Any, bool]]:
    """A module to run or to capture in PyTorch, without the caller's hooks, and whether it is a copy of the caller's.

    One that cannot be copied is the caller's own: a function that was put into it may hold modules of this model, and
    would go on with those.
    """
    with original():
        values = (value for inner in module.modules() for value in _held(inner, is_top=inner is module))
        if any(map(_is_foreign, values)):
            with _as_original(module):
                yield module, False
            return
        try:
            twin = in_pytorch(module)
        except RuntimeError as error:  # something in it holds a tensor of a computation that is differentiated
            raise CaptureError(f"{type(module).__name__} cannot be copied: {first_line(error)}") from error
        for hooks in (twin._forward_hooks, twin._forward_pre_hooks):  # the call itself has them
            for key in [key for key, hook in hooks.items() if is_users(hook)]:
                del hooks[key]
        yield twin, True


def _held(module: torch.nn.Module, *, is_top: bool) -> Iterator[Any]:
    """What is in a module's attributes; not what somebody has put before the forward of a model, who calls that."""
    space = vars(module)
    return (value for name, value in space.items() if not (is_top and name == "forward" and "_paritas" in space))


def _is_foreign(value: Any) -> bool:
    if isinstance(value, Dispatched):
        value = value.own
    return isinstance(value, types.FunctionType) and not _is_of_libraries(value) and not hands_on(value)


@contextlib.contextmanager
def _as_original(module: Any) -> Iterator[None]:
    cls, modes = type(module), [(inner, inner.training) for inner in module.modules()]
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    before = vars(module).pop("forward", None) if "_paritas" in vars(module) else None
    module.__class__ = getattr(cls, "_paritas_original", cls)
    module._forward_hooks, module._forward_pre_hooks = type(hooks[0])(), type(hooks[1])()
    try:
        yield
    finally:
        module.__class__ = cls
        if before is not None:
            vars(module)["forward"] = before
        module._forward_hooks, module._forward_pre_hooks = hooks
        for inner, training in modes:
            inner.training = training


def is_users(hook: Any) -> bool:
    """Whether a hook was set by a user: libraries record hidden states by hooks, and torch normalises weights."""
    module = getattr(hook, "__module__", "") or ""
    if is_watching(module):
        return True
    return not (is_of_library(module) or module.startswith("torch.nn.utils."))


def is_weight(path: str) -> bool:
    """Whether a module computes a weight, as weight normalisation does: part of its owner, and no network."""
    return "parametrizations" in path.split(".")
