# SPDX-License-Identifier: Apache-2.0
"""What a forward leaves behind: in its inputs, in its model, and whether its next answer depends on that."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from paritas.arguments import invoke, nest
from paritas.capture.around import Behind, around_model, is_looked_at, is_users
from paritas.capture.forward import Call
from paritas.errors import CaptureError, LeavesBehind, OriginalFails, WritesArguments
from paritas.pytree import Structure, describe_output

#: Attributes of every module, which are looked after elsewhere or never change in a forward.
_OWN = frozenset(vars(torch.nn.Module())) - {"training"}

#: Those of them that hold hooks, which a forward may install: once, and keep in an attribute that it has.
_HOOKS = tuple(sorted(name for name in _OWN if "_hooks" in name and isinstance(vars(torch.nn.Module())[name], dict)))


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model returned in a first call, and what it did besides.

    written: inputs that it wrote into. kept: attributes and buffers that it changed, by their names.
    """

    flat: list[torch.Tensor]
    structure: Structure
    written: tuple[str, ...]
    kept: tuple[str, ...]


class Left:
    """What a model was like: `changed` says what a forward has changed since, `undo` makes it as it was."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._before = [
            (
                name,
                module,
                {key: (value, _content(value)) for key, value in vars(module).items() if key not in _OWN},
                {key: (b, b.clone()) for key, b in module._buffers.items() if b is not None},
                {key: dict(hooks) for key in _HOOKS if (hooks := vars(module).get(key)) is not None},
            )
            for name, module in model.named_modules()
        ]
        computing = {
            f"{name}.{key}".lstrip("."): value
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if _computes(value)
        }
        self._keepers: dict[str, type] = {path: type(value) for path, value in computing.items()}
        self._beside = [
            (root, path, held, type(held)(held))
            for root, value in computing.items()
            for path, held in _held_by(value, root)
        ]
        self._around = [one for one in around_model(model) if is_looked_at(one.value)]
        code = (type, types.FunctionType, types.MethodType)
        held = [one for one in self._around if not isinstance(one.value, code)]
        self._variables = [
            (one.name, path, inside, type(inside)(inside))
            for one in held
            for path, inside in _held_by(one.value, one.name)
        ]

    def left_beside(self) -> tuple[Behind, ...]:
        """What was put into objects that compute for modules, as processors of attention, or into what these hold."""
        return tuple(Behind(name, self._keepers.get(path)) for path, name in _put_into(self._beside))

    def left_by_users(self) -> tuple[Behind, ...]:
        """What code of a user's own has put into its modules' attributes, and into variables around it."""
        modules = [(path, type(module)) for path, module, *_ in self._before]
        attributes = (
            Behind(f"{path}.{name}".lstrip("."), cls, name)
            for (path, cls), found in zip(modules, self._changed(), strict=True)
            for name in found
            if is_users(cls.__module__)
        )
        written = dict.fromkeys(path for path, _ in _put_into(self._variables))
        variables = (one for one in self._around if one.now is not one.value or one.name in written)
        return (*attributes, *(Behind(one.name, one) for one in variables))

    def changed(self) -> tuple[str, ...]:
        paths = (path for path, *_ in self._before)
        pairs = zip(paths, self._changed(), strict=True)
        return tuple(f"{path}.{name}".lstrip(".") for path, found in pairs for name in found)

    def _changed(self) -> Iterator[list[str]]:
        """Attributes and buffers, module by module, in the order of `_before`."""
        for _, module, attributes, buffers, _ in self._before:
            now = {key: value for key, value in vars(module).items() if key not in _OWN}
            names = [k for k in now if k not in attributes or not _is(now[k], *attributes[k])]
            names += [k for k, (b, copy) in buffers.items() if not _equal(module._buffers.get(k), copy)]
            yield names

    def undo(self) -> None:
        for _, module, attributes, buffers, hooks in self._before:
            held = vars(module)
            for key, content in hooks.items():
                if held[key].keys() != content.keys():
                    _refill(held[key], content)  # the handles of hooks know this dictionary
            for key in [key for key in held if key not in _OWN and key not in attributes]:
                del held[key]
            for key, (value, content) in attributes.items():
                held[key] = value
                if not _is(value, value, content):
                    _refill(value, content)
            for key, (buffer, copy) in buffers.items():
                module._buffers[key] = buffer
                if not _equal(buffer, copy):
                    with torch.no_grad():
                        buffer.copy_(copy)
        for *_, held, before in (*self._beside, *self._variables):
            if len(held) != len(before) or any(not _had(before, name, item) for name, item in _entries(held)):
                _refill(held, before)
        for one in self._around:
            if one.now is not one.value:
                one.restore()


def _put_into(held: Sequence[tuple[str, str, Any, Any]]) -> Iterator[tuple[str, str]]:
    """(of what, where) of all that is another than it was."""
    for root, path, one, before in held:
        yield from ((root, f"{path}.{name}") for name, item in _entries(one) if not _had(before, name, item))


def _computes(value: Any) -> bool:
    """Whether it is a plain object that is called: no module, no function, no class."""
    plain = not isinstance(value, (torch.nn.Module, torch.Tensor, type, functools.partial)) and callable(value)
    return plain and isinstance(getattr(value, "__dict__", None), dict) and not hasattr(value, "__code__")


#: Beyond that many, what such an object holds is not its own.
_MOST_HELD = 10_000


def _held_by(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The attributes of a plain object as their dictionary, and the dictionaries and lists in it, at any depth."""
    seen: set[int] = set()
    waiting = [(path, value)]
    while waiting and len(seen) < _MOST_HELD:
        path, one = waiting.pop()
        space = one if type(one) in (dict, list) else getattr(one, "__dict__", None)
        closed = (torch.nn.Module, torch.Tensor, type, types.FunctionType, types.ModuleType, types.MethodType)
        if type(space) not in (dict, list) or isinstance(one, closed) or id(space) in seen:
            continue
        seen.add(id(space))
        yield path, space
        waiting += [(f"{path}.{name}", item) for name, item in _entries(space)]


def _entries(held: Any) -> list[tuple[Any, Any]]:
    return list(held.items() if isinstance(held, dict) else enumerate(held))


def _had(before: Any, name: Any, item: Any) -> bool:
    if isinstance(before, dict):
        return name in before and before[name] is item
    return name < len(before) and before[name] is item


def _content(value: Any) -> Any:
    return type(value)(value) if type(value) in (list, dict, set) else None


def _is(value: Any, before: Any, content: Any) -> bool:
    """Whether an attribute is the object that it was, with the same things in it."""
    if value is not before:
        return type(value) is type(before) and type(value) in (int, float, str, bool) and value == before
    if isinstance(content, dict):
        return value.keys() == content.keys() and all(value[key] is content[key] for key in content)
    if isinstance(content, list):
        return len(value) == len(content) and all(a is b for a, b in zip(value, content, strict=True))
    return content is None or value == content


def _refill(value: Any, content: Any) -> None:
    value.clear()
    (value.extend if isinstance(value, list) else value.update)(content)


@contextlib.contextmanager
def unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Whatever is done to the model inside (its mode, its attributes, its buffers) is undone."""
    left = Left(model)
    try:
        yield
    finally:
        left.undo()


@contextlib.contextmanager
def without_inference_mode(model: torch.nn.Module) -> Iterator[None]:
    """What was made in `torch.inference_mode` counts no writes, which a trace asks for: copies stand in its place."""
    copies: dict[int, Any] = {}
    replaced: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    with torch.inference_mode(False):
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and tensor.is_inference():
                        replaced.append((tensors, name, tensor))
                        if id(tensor) not in copies:
                            copy: Any = tensor.detach().clone()
                            is_parameter = isinstance(tensor, torch.nn.Parameter)
                            copies[id(tensor)] = (
                                torch.nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
                            )
        for table, name, tensor in replaced:
            table[name] = copies[id(tensor)]
        try:
            yield
        finally:
            for table, name, tensor in replaced:
                table[name] = tensor


@contextlib.contextmanager
def plain_paths(model: torch.nn.Module) -> Iterator[None]:
    """Transformer layers compute as they do in training: their fast path packs what is not padding.

    And what `torch.compile` was asked to compile runs as it is written.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    compiled = [m for m in model.modules() if vars(m).get("_compiled_call_impl") is not None]
    calls = [vars(module).pop("_compiled_call_impl") for module in compiled]
    torch.backends.mha.set_fastpath_enabled(False)
    # Whatever was compiled has imported torch's compiler, and so has nobody else.
    stance: Any = contextlib.nullcontext()
    if "torch._dynamo.eval_frame" in sys.modules:
        stance = torch.compiler.set_stance("force_eager")
    try:
        with stance:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        for module, call in zip(compiled, calls, strict=True):
            vars(module)["_compiled_call_impl"] = call


def does_not_run(model: torch.nn.Module, given: Mapping[str, Any], error: Exception) -> OriginalFails:
    """What to raise where a model raises on what it was given: its own words, what it got, and what it takes."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    name = type(model).__name__
    got = ", ".join(f"{key}: {_kind(value)}" for key, value in given.items() if value is not None)
    known = inspect.signature(model.forward).parameters
    takes = [key for key, parameter in known.items() if parameter.kind not in _MANY]
    strange = [key for key in given if key not in takes]
    told = f"\n{', '.join(strange)} is none of {name}.forward's arguments: {', '.join(takes)}." if strange else ""
    return OriginalFails(
        f"{name} does not run on these inputs in PyTorch either: {type(error).__name__}: "
        + "\n  ".join(lines[:6])
        + f"\nIt got {got or 'nothing'}.{told}"
    )


_MANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__ if isinstance(value, list | tuple | dict) else repr(value)[:40]


def first_answer(model: torch.nn.Module, call: Call) -> Answer:
    """Run the model as its user would. Raises `OriginalFails` where it does not run on these inputs."""
    copies = {name: tensor.clone() for name, tensor in call.tensors.items()}
    versions = {name: tensor._version for name, tensor in copies.items()}
    left = Left(model)
    arguments = {**nest(copies, call.nesting), **call.fixed}
    before = {name: _contents(value) for name, value in arguments.items()}
    try:
        with torch.no_grad(), seeded():
            out = invoke(model, arguments)
    except Exception as error:
        raise does_not_run(model, {**nest(call.tensors, call.nesting), **call.fixed}, error) from error
    if kept := [name for name, value in arguments.items() if _contents(value) != before[name]]:
        raise WritesArguments(
            f"{type(model).__name__} puts other things into the lists that it is given as {', '.join(kept)}, which no "
            "port does. Let it return them."
        )
    if beside := left.left_beside():
        raise LeavesBehind(
            f"{type(model).__name__} leaves {beside[0].name} for somebody to read, where a port leaves nothing. "
            "Let it return it.",
            beside,
        )
    flat, structure = describe_output(out)
    if not all(isinstance(value, torch.Tensor) for value in flat):
        raise CaptureError(
            f"{type(model).__name__} returns arrays of NumPy, which a graph of torch cannot. Return the tensors."
        )
    written = tuple(name for name, tensor in copies.items() if tensor._version != versions[name])
    return Answer([value.clone() for value in flat], structure, written, left.changed())


def _contents(value: Any) -> Any:
    """What lists and dictionaries in an argument hold, by identity; None for what is neither."""
    if type(value) is dict:
        return [(key, id(item), _contents(item)) for key, item in value.items()]
    if type(value) in (list, tuple):
        return [(id(item), _contents(item)) for item in value]
    return None


def check_second_answer(model: torch.nn.Module, call: Call, first: Answer) -> tuple[Behind, ...]:
    """A port answers every call as the first: raises `CaptureError` where the model's second answer is another.

    Returns what code of a user's own leaves in each call, for somebody to read: not what it keeps once, as a table.
    """
    left = Left(model)
    with torch.no_grad(), seeded():
        flat, structure = describe_output(call.run(model))
    behind = left.left_by_users()
    alike = structure == first.structure and all(
        _equal(a, b) or _close(a, b) for a, b in zip(flat, first.flat, strict=True)
    )
    if alike:
        return behind
    what = f" It keeps {', '.join(first.kept[:5])}." if first.kept else ""
    raise CaptureError(
        f"{type(model).__name__} answers the same inputs differently the second time.{what} A port keeps nothing from "
        "one call to the next, and draws no numbers of Python or NumPy: take what changes as an input, and return its "
        "new value as an output."
    )


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _equal(a: Any, b: torch.Tensor) -> bool:
    if not isinstance(a, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.nan_to_num(7e7), b.nan_to_num(7e7)))


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Sums of several threads may differ in their last bits."""
    if a.shape != b.shape or a.dtype != b.dtype or not (a.is_floating_point() or a.is_complex()):
        return False
    return bool(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True))


def remarks_on(model: torch.nn.Module, call: Call, first: Answer) -> list[str]:
    """What a user must know of what the model does beside computing its outputs."""
    found = []
    if first.written:
        found.append(
            f"the model writes into its inputs {', '.join(first.written)}: the port computes the same outputs, and "
            "leaves its caller's tensors as they are"
        )
    hooked = [
        path or "the model"
        for path, module in model.named_modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if not (getattr(hook, "__module__", None) or type(hook).__module__).startswith("torch.nn.utils")
    ]
    if hooked:
        names = ", ".join(dict.fromkeys(hooked))
        found.append(f"hooks of {names} ran while it was captured: what they compute is part of the port")
    masks = any(tensor.dtype == torch.bool for tensor in call.tensors.values())
    if masks and any(isinstance(module, torch.nn.TransformerEncoder) for module in model.modules()):
        found.append(
            "nn.TransformerEncoder's fast path returns zeros where a padding mask hides everything; the port computes "
            "what it returns without its fast path"
        )
    return found
