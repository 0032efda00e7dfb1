# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers with their networks on an engine. All else in them is the original's own code."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin

from paritas.diffusers import saving
from paritas.diffusers.moved import as_before
from paritas.diffusers.networks import Ported, Recorded, attach, networks
from paritas.diffusers.opened import OpenedNetwork, is_saved, open_pipeline, opened_class
from paritas.dropin import classes, memory
from paritas.errors import InputError
from paritas.making import build_options
from paritas.run.engine import default_engine
from paritas.run.engine import engine as find_engine

#: Keywords that may name a value for each network: {"unet": "openvino", "vae": "mindspore"}.
_EACH = ("engine", "weights", "mode", "target", "engine_device")

#: Keywords of ours where pipelines are made.
_OURS = (*classes.OURS, "low_memory")


def port(
    pipeline: Any,
    engine: str | Mapping[str, str | None] | None = None,
    *,
    low_memory: bool = False,
    **options: Any,
) -> Any:
    """A pipeline of diffusers in memory, from now on with its networks on an engine: the same object.

    engine: one of `paritas.engines()`, by default the best that is installed; or one for each network by its name in
    the pipeline, where None leaves it in PyTorch and a network that is not named gets the default. options: `weights`,
    `mode`, `target`, `engine_device`, `ov_config`, each also by network. low_memory: one network at a time is in
    memory; each is opened again when it is its turn. Raises `InputError` for a name that is no network of the pipeline,
    `UnknownEngine`, `EngineMissing` and what an engine refuses, before anything is changed.
    """
    found = networks(pipeline)
    chosen = {name: _chosen(name, {"engine": engine, **options}, found) for name in found}
    for ours in chosen.values():
        if ours is not None:
            find_engine(ours.get("engine") or default_engine())
            refuse(**ours)
    for name, ours in chosen.items():
        if ours is not None and not _is_so(found[name], name, ours):
            attach(found[name], **ours)
    if low_memory:
        in_turns(found)
    return with_ours(pipeline)


def refuse(engine: str | None = None, engine_device: str = "", **options: Any) -> None:
    """Raise what `build_options` raises, before anything is changed."""
    build_options(engine or default_engine(), device=engine_device, **options)


def in_turns(found: Mapping[str, torch.nn.Module]) -> None:
    """From now on one of these networks at a time is in memory."""
    recorded = [one for one in map(_answers, found.values()) if one is not None]
    turns = next((one.turns for one in recorded if one.turns is not None), None) or memory.Turns()
    for one in recorded:
        one.turns = turns


def _answers(network: Any) -> Recorded | None:
    found = network._paritas if isinstance(network, classes.Ported) else None
    return found if isinstance(found, Recorded) else None


def _is_so(network: Any, name: str, ours: Mapping[str, Any]) -> bool:
    """Whether a network is ported as is asked for already: its ports are then kept.

    Raises `InputError` for one that is ports of another kind, without weights.
    """
    answers = network._paritas if isinstance(network, classes.Ported) else None
    if answers is None:
        return False
    other = [key for key, value in ours.items() if answers.options.get(key) != value]
    if other and isinstance(network, OpenedNetwork):
        raise InputError(
            f"{name} was opened as a port, without weights, and {other[0]}={ours[other[0]]!r} is another: load the "
            "original, and port that."
        )
    return not other


def with_ours(pipeline: Any) -> Any:
    """The same pipeline, with `verify`, and `save_pretrained` that writes ports. Its class stays diffusers' own."""
    if isinstance(pipeline, DiffusionPipeline):
        for name, function in (("save_pretrained", save), ("verify", verify), ("bisect", bisect)):
            vars(pipeline)[name] = functools.partial(function, pipeline)
        copyreg.dispatch_table[type(pipeline)] = _reduced
    return pipeline


def _reduced(pipeline: Any) -> tuple[Any, ...]:
    """What copies and pickles of a pipeline are made of: what is ours in it is bound to it, and theirs to them."""
    make, args, state, *more = pipeline.__reduce_ex__(4)
    held = state if isinstance(state, dict) else {}
    bound = [name for name, value in held.items() if getattr(value, "func", None) in (save, verify, bisect)]
    if not bound:
        return make, args, state, *more
    return _blank, (type(pipeline),), {name: value for name, value in held.items() if name not in bound}


def _blank(cls: Any) -> Any:
    """A pipeline without anything in it, as `copy` and pickle fill it."""
    return with_ours(cls.__new__(cls))


def verify(pipeline: Any, inputs: Mapping[str, Any] | None = None, level: str = "modules", **how: Any) -> Any:
    """Compare a pipeline on engines with PyTorch's: each port on what a run asks of it, and the picture of the run.

    inputs: the arguments of that run; a prompt of ours and two steps if None, or for a saved pipeline the call that it
    was made with. level: as in `paritas.Port.verify`. original: a pipeline, or what one is loaded from; if None, of a
    pipeline in memory its own networks in PyTorch, of a directory what it was made of. component: this port alone, by
    its folder's name: "unet", "vae_decoder". seed: of the run. progress: told what is done.

    Returns a `ParityReport` for each port by its folder's name, and one for the "picture": latents after each step
    within 1e-4, pictures of 8 bits within one level. Raises `InputError` for a call that the pipeline refuses, and
    `OriginalMissing`.
    """
    from paritas.diffusers.verifying import verify as verified

    return verified(pipeline, networks(pipeline), inputs, level, **how)


def bisect(
    pipeline: Any,
    component: str,
    inputs: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    **how: Any,
) -> Any:
    """The smallest part of one port of a pipeline that is wrong by itself: see `verify`, and `paritas.Port.bisect`."""
    from paritas.diffusers.verifying import bisect as bisected

    return bisected(pipeline, networks(pipeline), component, inputs, out, **how)


def save(
    pipeline: Any,
    save_directory: str | os.PathLike[str],
    *,
    dynamic: bool = True,
    source: str = "",
    call: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write a pipeline whose networks are ports, for the calls that it has made so far: see `paritas.diffusers.saving`.

    dynamic: with sizes as free as the networks leave them, or only for those of these calls. source, call: of which
    original it was made, and a call that it answers, for who verifies it. Raises `InputError` for a pipeline that was
    never called, and `PortError`; nothing is left behind.
    """
    saving.save(
        pipeline, save_directory, networks(pipeline), dynamic=dynamic, source=source, call=call, progress=progress
    )


def _chosen(name: str, options: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Our keywords for one network; None if it stays in PyTorch."""
    ours: dict[str, Any] = {}
    for key, value in options.items():
        if key in _EACH and isinstance(value, Mapping):
            if unknown := sorted(set(value) - set(found)):
                raise InputError(f"{key} names {', '.join(unknown)}, and the networks are {', '.join(found)}.")
            if key == "engine" and name in value and value[name] is None:
                return None
            value = value.get(name)
        if value is not None:
            ours[key] = value
    return ours


def know_types() -> None:
    """diffusers hands a network on to another pipeline (`from_pipe`) if its class is the very one that is named there.

    Ported classes are named beside it. Doing it again changes nothing.
    """
    base: Any = DiffusionPipeline
    own = base._get_signature_types.__func__
    if own.__module__ == __name__:
        return

    def types_of(cls: Any) -> dict[str, tuple[type, ...]]:
        return {name: (*types, *_ported(types)) for name, types in own(cls).items()}

    base._get_signature_types = classmethod(types_of)


def _ported(types: tuple[Any, ...]) -> tuple[type, ...]:
    known = [one for one in types if isinstance(one, type) and issubclass(one, ModelMixin)]
    return tuple(cls for one in known for cls in (classes.ported_class(one, Ported), opened_class(one, Ported)))


# --- classes by name -----------------------------------------------------------------------------------------


class _LikeOriginal(type):
    """What our class makes are pipelines of the original class, and count as ours. A class that is derived from it is
    one of its own, whose pipelines have their networks on an engine too."""

    _paritas_original: Any

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls._is_derived():
            return super().__call__(*args, **kwargs)
        ours, theirs = split(kwargs)
        made = super().__call__(*args, **theirs)
        return made if getattr(_making, "now", False) else port(made, **ours)

    def _is_derived(cls) -> bool:
        return "_paritas_original" not in vars(cls)

    def __instancecheck__(cls, instance: Any) -> bool:
        return super().__instancecheck__(instance) if cls._is_derived() else isinstance(instance, cls._paritas_original)

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return super().__subclasscheck__(subclass) if cls._is_derived() else issubclass(subclass, cls._paritas_original)


#: Whether a pipeline is being made by one of these ways, which then ports it.
_making = threading.local()


_MAKERS = ("from_pretrained", "from_pipe", "from_single_file", "from_config")


@functools.cache
def ported_pipeline_class(original: Any) -> Any:
    """A class by whose ways of making pipelines, `from_pretrained` and its constructor, these have their networks on
    an engine. They are of the original's class."""
    space: dict[str, Any] = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__new__": _new_of(original),
        "_paritas_original": original,
    }
    for name in _MAKERS:
        if hasattr(original, name):
            space[name] = classmethod(_maker(original, name))
    return _LikeOriginal(original.__name__, (original,), space)


def _new_of(original: Any) -> Any:
    @functools.wraps(original.__init__)
    def __new__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if cls._is_derived():
            return object.__new__(cls)
        ours, theirs = split(kwargs)
        return port(original(*args, **theirs), **ours)

    return __new__


def _maker(original: Any, name: str) -> Any:
    own = getattr(original, name)
    function = own.__func__ if hasattr(own, "__func__") else None

    @functools.wraps(inspect.unwrap(own.__func__ if hasattr(own, "__func__") else own))
    def made(cls: Any, *args: Any, **kwargs: Any) -> Any:
        ours, theirs = split(kwargs)
        if name == "from_pipe" and not ours:
            source = args[0] if args else theirs.get("pipeline")
            ours = _as_in(source)
        if name == "from_pretrained":
            more = dict(theirs)
            source = args[0] if args else more.pop("pretrained_model_name_or_path", None)
            if is_saved(source):
                return with_ours(open_pipeline(cls if cls._is_derived() else original, source, more, ours))
        make = functools.partial(function, cls) if function is not None and cls._is_derived() else own
        # Tensors of inference mode would tell nobody that they were changed.
        with torch.inference_mode(False), as_before():
            with _made_here():
                made = make(*args, **theirs)
            return port(made, **ours)

    return made


@contextlib.contextmanager
def _made_here() -> Iterator[None]:
    before, _making.now = getattr(_making, "now", False), True
    try:
        yield
    finally:
        _making.now = before


def _as_in(pipeline: Any) -> dict[str, Any]:
    """How the networks of a pipeline are ported, for others beside them."""
    ported = [module for module in networks(pipeline).values() if isinstance(module, classes.Ported)]
    first = next((module._paritas for module in ported if module._paritas is not None), None)
    if first is None:
        return {}
    return {**first.options, "low_memory": getattr(first, "turns", None) is not None}


def split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our keywords, and the original's."""
    ours = {name: value for name, value in kwargs.items() if name in _OURS and value is not None}
    return ours, {name: value for name, value in kwargs.items() if name not in _OURS}


know_types()
