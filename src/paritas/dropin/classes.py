# SPDX-License-Identifier: Apache-2.0
"""Classes of a library whose networks run on an engine: the original's own class with another forward.

A namespace derives its mixin from `Ported`, with what its library adds: how models are loaded, and the `Network` that
knows its calls. `ported_class` makes the classes, `attach` takes a model that is in memory already.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch

from paritas.dropin.dispatch import computes_original, in_pytorch, install, uncompiled
from paritas.dropin.frameworks import back, to_torch
from paritas.dropin.library import is_of_models
from paritas.dropin.network import Network
from paritas.making import build_options, refuse_free_sizes
from paritas.run.engine import default_engine
from paritas.run.engine import engine as find_engine

#: Keywords of ours where models are made; all others are the original's.
OURS = ("engine", "mode", "target", "weights", "engine_device", "ov_config")


class Ported:
    """Mixed into a class of a library: what is called from outside runs on the engine.

    Everything else is inherited: configuration, weights, saving, loops. `model.ports` are the ports that were made so
    far; each can `verify` itself.
    """

    #: What runs calls of this library's models.
    _paritas_network: ClassVar[type[Network]] = Network

    #: Methods that users call with tensors, beside those of the models' own classes.
    _paritas_methods: ClassVar[tuple[str, ...]] = ()

    #: Methods that are computed as forward is, each as a port of its own: an autoencoder's `decode`.
    _paritas_computed: ClassVar[tuple[str, ...]] = ()

    #: The mixin of the namespace, from which the class was made.
    _paritas_mixin: ClassVar[Any]

    _paritas_original: type
    _paritas: Network | None = None

    @classmethod
    def _paritas_made(cls, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the original's way of making models, `from_pretrained` for one, makes, on the engine of our keywords."""
        ours, theirs = split(kwargs)
        with torch.inference_mode(False):  # whose tensors would tell nobody that they were changed
            made = getattr(super(), name)(*args, **theirs)
        connect(made[0] if isinstance(made, tuple) else made, **ours)
        return made

    @classmethod
    def _paritas_overridden(cls) -> str:
        """A method of the original's that a class of the user's own has another of, which no port would call; forward
        and what is computed like it are called from outside."""
        original = cls._paritas_original
        made = ported_class(original, cls._paritas_mixin)
        before = cls.__mro__[: cls.__mro__.index(made)] if made in cls.__mro__ else ()
        own = (vars(one) for one in before if not one.__module__.startswith("paritas."))
        outside = ("forward", *cls._paritas_computed)
        names = (name for space in own for name, value in space.items() if callable(value) and name not in outside)
        return next((f"{cls.__name__}.{n}" for n in names if not n.startswith("__") and hasattr(original, n)), "")

    def in_pytorch(self) -> Any:
        """The same model of the library's own class, in evaluation mode: its weights are this one's."""
        return in_pytorch(self)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """What is printed of the model beside its modules: on which engine they are computed."""
        own: str = super().extra_repr()  # type: ignore[misc]
        return ", ".join(filter(None, (own, f"engine={self.engine!r}" if self.engine else "")))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        network: Network | None = state.pop("_paritas", None)
        state["_paritas_options"] = network.options if network is not None else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        options = state.pop("_paritas_options", None)
        super().__setstate__(state)  # type: ignore[misc]
        if options is not None:
            connect(self, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # A class that was made here is not found under its name, which is the original's.
        return _blank, (self._paritas_original, self._paritas_mixin), self.__getstate__()

    @property
    def ports(self) -> list[Any]:
        """The ports that were made so far: one for each way in which the model was called."""
        return self._paritas.ports() if self._paritas is not None else []

    @property
    def engine(self) -> str:
        return self._paritas.build.engine if self._paritas is not None else ""


def _blank(original: Any, mixin: Any) -> Any:
    """A model of the ported class without anything in it, as pickle fills it."""
    cls = ported_class(original, mixin)
    return cls.__new__(cls)


def ported_class(original: Any, mixin: Any = Ported) -> Any:
    """The library's class with its networks on an engine. It is a subclass, of the same name."""
    return original if issubclass(original, Ported) else _ported_class(original, mixin)


@functools.cache
def _ported_class(original: Any, mixin: Any) -> Any:
    space: dict[str, Any] = {
        # A library may read from it what a class can do, and whether its code is foreign.
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_paritas_original": original,
        "_paritas_mixin": mixin,
    }
    # Its bases are the original's too: who looks for one of them finds it.
    made = type(original.__name__, (mixin, original, *original.__bases__), space)
    made.__init__ = _init_like(original.__init__)  # type: ignore[misc]
    made.forward = _forward_like(original)  # type: ignore[attr-defined]
    for name in _methods(original, mixin._paritas_methods):
        setattr(made, name, _for_any_framework(made, name))
    for name in mixin._paritas_computed:
        if inspect.isfunction(getattr(original, name, None)):
            setattr(made, name, _method_like(original, name))
    return made


def _init_like(original: Callable[..., Any]) -> Callable[..., None]:
    """Its signature is the original's."""

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        ours = {name: kwargs.pop(name) for name in OURS if name in kwargs}
        with torch.inference_mode(False):
            original(self, *args, **kwargs)
        connect(self, **ours)
        self.eval()

    return __init__


def _answering(original: type, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """A method in whose place the network answers: `answer(self, own, args, kwargs)`, tensors of torch in and out.

    Its signature is the original's: loops read from it what the model takes. What somebody puts in the original's
    place, in its class, is in the place of `own`.
    """

    @functools.wraps(getattr(original, name))
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._paritas is None or computes_original():
            return getattr(original, name)(self, *args, **kwargs)
        return uncompiled(answered)(self, args, kwargs)

    def answered(self: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        args, kwargs, framework = to_torch(given, named)
        return back(answer(self, functools.partial(getattr(original, name), self), args, kwargs), framework)

    return called


def _forward_like(original: type) -> Callable[..., Any]:
    return _answering(original, "forward", lambda self, own, args, kwargs: self._paritas("", self, own, args, kwargs))


def _method_like(original: type, name: str) -> Callable[..., Any]:
    return _answering(original, name, lambda self, own, args, kwargs: self._paritas.method(name, own, args, kwargs))


def attach(model: torch.nn.Module, mixin: Any = Ported, **ours: Any) -> Any:
    """An original in memory, from now on on the engine: the same object, of the ported class."""
    if not isinstance(model, Ported):
        model.__class__ = ported_class(type(model), mixin)
    connect(model, **ours)
    return model.eval()


def split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our keywords, and the original's. Raises `UnknownEngine` or `EngineMissing`: before any weight is read."""
    ours = {name: value for name, value in kwargs.items() if name in OURS and value is not None}
    theirs = {name: value for name, value in kwargs.items() if name not in OURS}
    device = theirs.get("device")
    if isinstance(device, str) and device.isupper():  # as OpenVINO writes "GPU"; torch's are "cpu" and "cuda"
        ours.setdefault("engine_device", theirs.pop("device"))
    find_engine(ours.get("engine") or default_engine())
    return ours, theirs


def connect(
    model: Any,
    *,
    engine: str | None = None,
    mode: str = "",
    target: str = "cpu",
    weights: str | Mapping[str, Any] = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> None:
    """Put an engine behind a model of a ported class. Raises what `build_options` raises."""
    build, _ = build_options(
        engine or default_engine(),
        mode=mode,
        target=target,
        weights=weights,
        device=engine_device,
        ov_config=ov_config,
    )
    refuse_free_sizes(build, True)
    if build.calibration is not None and not build.calibration.tokenizer:
        place = str(getattr(model, "name_or_path", "") or "")
        build = dataclasses.replace(build, calibration=dataclasses.replace(build.calibration, tokenizer=place))
    install(model, model._paritas_network(model, build))


# --- tensors of the caller's framework -----------------------------------------------------------------------


def _methods(original: type, more: tuple[str, ...]) -> list[str]:
    """The methods of the models' own classes, and `more`: what users call with tensors."""
    names = dict.fromkeys(more)
    for cls in original.__mro__:
        if is_of_models(cls.__module__):
            names |= {
                name: None
                for name, value in vars(cls).items()
                if inspect.isfunction(value) and not name.startswith("__") and name != "forward"
            }
    return [name for name in names if inspect.isfunction(getattr(original, name, None))]


def _for_any_framework(made: type, name: str) -> Callable[..., Any]:
    """The method of that name behind this class: the mixin's, or what the original has now."""

    @functools.wraps(getattr(made, name))
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs, framework = to_torch(args, kwargs)
        return back(getattr(super(made, self), name)(*args, **kwargs), framework)

    return called
