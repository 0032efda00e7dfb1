# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline, written down: what comes out, the latents after each step, and what its networks are asked."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, DiffusionPipeline
from safetensors import SafetensorError

from paritas.errors import InputError, ParitasError, SourceError, reason_of

#: What every pipeline is called with that takes it.
CALL: dict[str, Any] = {"prompt": "a photo of a cat", "num_inference_steps": 2, "output_type": "np"}

#: Calls of one kind that are kept: of a loop, the first two and the last.
_FIRST = 2


def call_of(pipeline: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call. Raises `InputError` for what is missing or unknown."""
    takes = inspect.signature(pipeline.__call__).parameters
    if unknown := [name for name in given if name not in takes]:
        raise InputError(f"{type(pipeline).__name__} takes no {', '.join(unknown)}; it takes {', '.join(takes)}.")
    found = {**{name: value for name, value in CALL.items() if name in takes}, **given}
    missing = [n for n, p in takes.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD and n not in found]
    if missing:
        raise InputError(
            f"{type(pipeline).__name__} needs {', '.join(missing)} as well, which a command cannot give it. In Python: "
            "pipe = paritas.diffusers.DiffusionPipeline.from_pretrained(SOURCE); pipe(...); pipe.save_pretrained(DIR)"
        )
    if "generator" in takes:
        found["generator"] = None
    return found


def loaded(source: str | os.PathLike[str]) -> Any:
    """A pipeline of diffusers in PyTorch. Raises `SourceError`."""
    try:
        return DiffusionPipeline.from_pretrained(source)
    except (OSError, ValueError, AttributeError, ImportError, TypeError, SafetensorError) as error:
        raise SourceError(f"The pipeline {source} cannot be loaded: {reason_of(error)}") from error


@dataclasses.dataclass(frozen=True)
class Run:
    """latents: what the scheduler has returned, step by step. outputs: by name, in numbers."""

    latents: list[np.ndarray]
    outputs: dict[str, np.ndarray]


def run(pipeline: Any, arguments: Mapping[str, Any], seed: int = 0) -> Run:
    """Call a pipeline, with all that it draws from this seed; a generator that it takes is made of it too.

    Raises `InputError` for a call that the pipeline refuses, in its words, and what an engine raises.
    """
    latents: list[np.ndarray] = []
    given = dict(arguments)
    if "generator" in given:
        given["generator"] = torch.Generator().manual_seed(seed)
    with _seeded(seed), _steps_seen(pipeline, latents.append):
        try:
            found = pipeline(**given)
        except (ParitasError, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"{type(pipeline).__name__} refuses this call: {reason_of(error)}") from error
    named = found.items() if isinstance(found, Mapping) else enumerate(found if isinstance(found, tuple) else [found])
    return Run(latents, {name: value for key, one in named for name, value in _arrays(str(key), one)})


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What is drawn without a generator, by torch, NumPy or Python, is drawn from this seed; as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def of_a_picture(pipeline: Any, picture: np.ndarray | None) -> None:
    """Make a picture of a picture, where there is such a pipeline of the same networks: `vae.encode` is then asked."""
    try:
        other = AutoPipelineForImage2Image.from_pipe(pipeline)
    except (ValueError, TypeError):
        return
    if picture is None or picture.ndim != 4:
        return
    image = torch.from_numpy(picture[:1]).permute(0, 3, 1, 2).float()
    takes = inspect.signature(other.__call__).parameters
    call = {**CALL, "image": image, "strength": 1.0}
    other(**{name: value for name, value in call.items() if name in takes})


def _arrays(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """What an output is in numbers: one array of equal pictures, an array for each of others."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        yield name, (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            yield name, value
    elif hasattr(value, "getbands"):  # a picture of PIL's
        yield name, np.asarray(value)
    elif isinstance(value, (list, tuple)):
        found = [pair for index, one in enumerate(value) for pair in _arrays(f"{name}[{index}]", one)]
        if found and len({(one.shape, one.dtype) for _, one in found}) == 1:
            found = [(name, np.stack([one for _, one in found]))]
        yield from found


def _holders(pipeline: Any) -> Iterator[Any]:
    """A pipeline, and those inside it."""
    yield pipeline
    for value in vars(pipeline).values():
        if isinstance(value, DiffusionPipeline):
            yield from _holders(value)


@contextlib.contextmanager
def _steps_seen(pipeline: Any, see: Callable[[np.ndarray], None]) -> Iterator[None]:
    """Tell of what schedulers return. It is their classes that tell: a pipeline may copy its scheduler first."""
    held = (value for one in _holders(pipeline) for value in vars(one).values())
    classes: dict[Any, Any] = {type(one): None for one in held if callable(getattr(type(one), "step", None))}
    with contextlib.ExitStack() as stack:
        for cls in classes:
            if isinstance(cls, type) and not issubclass(cls, torch.nn.Module):
                stack.enter_context(_replaced(cls, "step", _telling(cls.step, see)))  # type: ignore[attr-defined]
        yield


def _telling(own: Callable[..., Any], see: Callable[[np.ndarray], None]) -> Callable[..., Any]:
    @functools.wraps(own)  # pipelines read its signature
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = own(self, *args, **kwargs)
        first = out[0] if isinstance(out, (tuple, Mapping)) else out
        if isinstance(first, torch.Tensor):
            see(first.detach().float().cpu().numpy().copy())
        return out

    return step


@contextlib.contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute as another, for a while: of a class or of an object, wherever it has it from."""
    had, own = name in vars(holder), vars(holder).get(name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, own) if had else delattr(holder, name)


# --- networks in another precision ---------------------------------------------------------------------------


@contextlib.contextmanager
def computed_in(networks: Mapping[str, torch.nn.Module], dtype: torch.dtype, copied: _Copied) -> Iterator[None]:
    """Copies of these networks answer for them, in that precision; what they return is cast back. copied: makes one."""
    with contextlib.ExitStack() as stack:
        for module in networks.values():
            own = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
            if own != dtype:
                wide = copied(module, dtype)
                for name in ("forward", "encode", "decode"):
                    if inspect.isroutine(getattr(type(module), name, None)):
                        called = _answered_by(module, wide, name, own, dtype)
                        stack.enter_context(_replaced(module, name, called))
        yield


_Copied = Callable[[torch.nn.Module, torch.dtype], torch.nn.Module]


def _answered_by(module: Any, wide: Any, name: str, own: torch.dtype, dtype: torch.dtype) -> Callable[..., Any]:
    @functools.wraps(getattr(type(module), name))
    def called(*args: Any, **kwargs: Any) -> Any:
        if hasattr(module, "attn_processors"):  # which a pipeline may have set since
            wide.set_attn_processor(dict(module.attn_processors))
        return _cast(getattr(wide, name)(*_cast(args, dtype), **_cast(kwargs, dtype)), own)

    called.__dict__.pop("__wrapped__", None)
    return called


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """All floating tensors in it, those in the objects that autoencoders return too."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) is dict:
        return {key: _cast(inner, dtype) for key, inner in value.items()}
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            value[key] = _cast(inner, dtype)
        return value
    if type(value) in (list, tuple):
        return type(value)(_cast(inner, dtype) for inner in value)
    if hasattr(value, "__dict__") and type(value).__module__.startswith("diffusers."):
        for key, inner in vars(value).items():
            setattr(value, key, _cast(inner, dtype))
    return value


# --- what networks are asked ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asked:
    """One call of a network, of a module in it, or of a method, "" for forward."""

    network: str
    path: str
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Calls:
    """What networks were asked, of each kind of call the first ones and the last."""

    def __init__(self) -> None:
        self._found: dict[Any, list[Asked]] = {}

    def __iter__(self) -> Iterator[list[Asked]]:
        """The calls of each kind, in the order of the first."""
        return iter(self._found.values())

    def add(self, asked: Asked) -> None:
        kind = (asked.network, asked.path, asked.method, _kind(asked.args), _kind(asked.kwargs))
        known = self._found.setdefault(kind, [])
        del known[_FIRST:]
        known.append(dataclasses.replace(asked, args=_copied(asked.args), kwargs=_copied(asked.kwargs)))


@contextlib.contextmanager
def heard(networks: Mapping[str, torch.nn.Module], of: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[Calls]:
    """The calls of these modules and methods, network by network: (path, method)."""
    calls = Calls()
    with contextlib.ExitStack() as stack:
        for name, places in of.items():
            for path, method in places:
                _listen(stack, calls, networks[name], name, path, method)
        yield calls


def _listen(
    stack: contextlib.ExitStack, calls: Calls, network: torch.nn.Module, name: str, path: str, method: str
) -> None:
    module = network.get_submodule(path)
    if not method:

        def hook(module: Any, args: Any, kwargs: Any) -> None:
            calls.add(Asked(name, path, "", args, kwargs))

        stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        return
    own = getattr(module, method)

    @functools.wraps(own)
    def called(*args: Any, **kwargs: Any) -> Any:
        calls.add(Asked(name, path, method, args, kwargs))
        return own(*args, **kwargs)

    stack.enter_context(_replaced(module, method, called))


def _kind(value: Any) -> Any:
    """What decides which port answers: numbers that are no tensors do, and shapes."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape)
    if isinstance(value, Mapping):
        return tuple((key, _kind(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_kind, value))
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__


def _copied(value: Any) -> Any:
    """Tensors as they are now: a loop may write into them afterwards."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {key: _copied(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return value
