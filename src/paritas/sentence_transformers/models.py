# SPDX-License-Identifier: Apache-2.0
"""Models of sentence-transformers on an engine: all of its modules are one graph, from tokens to what is asked for."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import torch
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Module

from paritas import pipeline
from paritas.dropin import calls, classes
from paritas.dropin.fitting import fits
from paritas.dropin.methods import Method
from paritas.errors import InputError
from paritas.run.engine import default_engine
from paritas.transformers.generation import Generation

#: What the model's own code reads of a call, where that is known: no graph has to answer more.
_wanted: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("wanted", default=())

#: By kind of model, what its inference reads where it is not told otherwise.
_READ = {"SentenceTransformer": "sentence_embedding", "SparseEncoder": "sentence_embedding", "CrossEncoder": "scores"}

#: Sizes of an example: other than 1 and than each other, and shorter than any table of positions.
_ROWS, _LENGTH = 3, 11


class Flow(Method):
    """The forward of a model or of one of its modules, tensors in and tensors out.

    plain: what else is in its features or its keywords: strings, numbers, switches. wanted: which of the features it
    returns; empty for all that are new.
    """

    called = "forward"

    def __init__(self, owner: torch.nn.Module, plain: Mapping[str, Any], wanted: tuple[str, ...] = ()) -> None:
        super().__init__(owner)
        self.plain, self.wanted = plain, wanted

    def of(self, owner: torch.nn.Module) -> Flow:
        return Flow(owner, self.plain, self.wanted)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """features: tensors by name, of one row per text."""
        own = calls.original_class(type(self.owner)).forward
        keywords = self.plain["keywords"]
        given: Any = {**self.plain["features"], **features}
        found = own(self.owner, given, **keywords)
        if self.wanted:
            return {name: found[name] for name in self.wanted}
        return {n: v for n, v in found.items() if _is_tensors(v) and v is not features.get(n)}


def _is_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (tuple, list)) and bool(value) and all(isinstance(one, torch.Tensor) for one in value)
    )


class _Original:
    """A call that PyTorch computes, if it comes to that."""

    def __init__(self, own: Callable[..., Any], features: Any, keywords: Mapping[str, Any]) -> None:
        self._own, self._features, self._keywords = own, features, keywords
        self.was_asked = False

    def __call__(self, features: Any) -> Any:
        self.was_asked = True
        return self._own(self._features, **self._keywords)


class Answers(Generation):
    """The calls of a model of sentence-transformers: features in, features out.

    What is inside of it, a model of transformers for one, is called as anywhere else.
    """

    logger: ClassVar[logging.Logger] = logging.getLogger("paritas.sentence_transformers")

    def __call__(
        self, path: str, module: torch.nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given = args[0] if len(args) == 1 else None
        if not isinstance(module, (BaseModel, Module)) or not isinstance(given, MutableMapping):
            return super().__call__(path, module, own, args, kwargs)
        tensors = {name: value for name, value in given.items() if _is_tensors(value)}
        plain = {
            "features": {name: value for name, value in given.items() if name not in tensors},
            "keywords": {name: value for name, value in kwargs.items() if value is not None},
        }
        wanted = _wanted.get() if not path else ()
        where = f"{path}{sorted(plain['features'].items())}{sorted(plain['keywords'].items())}{wanted}"

        original = _Original(own, given, kwargs)

        if any(map(calls.is_object, (*plain["features"].values(), *plain["keywords"].values()))):
            return super().__call__(path, module, own, args, kwargs)
        found = super().__call__(where, Flow(module, plain, wanted), original, (tensors,), {})
        if original.was_asked:
            return found
        given.update(found)  # as the original leaves its answer
        return given

    def _port_of(self, path: str, module: torch.nn.Module, call: Any) -> tuple[pipeline.Port, dict[str, Any]]:
        if not isinstance(module, Flow):
            return super()._port_of(path, module, call)
        arguments = self._arguments(module, call)
        key = (path, "features", call.signature)
        port = self._port(key, module, arguments, functools.partial(_example, arguments))
        if not fits(port, arguments):  # a size of the example is a constant: one for this call
            port = self._port(key, module, arguments)
        return port, arguments


def _example(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Other texts of the same kind: a graph takes a size of 1, or of a table of its own, for a constant."""
    features = arguments["features"]
    mask = features.get("attention_mask")
    rows, shape = len(next(iter(features.values()))), getattr(mask, "shape", None)

    def changed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return type(value)(map(changed, value))
        if not value.dim() or len(value) != rows:
            return value
        value = value.index_select(0, torch.arange(_ROWS) % rows)
        if shape is not None and len(shape) == 2 and value.shape[1:] == shape[1:]:
            value = value.index_select(1, torch.arange(_LENGTH) % shape[1])
        return value

    return {"features": {name: changed(value) for name, value in features.items()}}


class Ported(classes.Ported):
    """Mixed into `SentenceTransformer` and its like."""

    _paritas_network = Answers

    def _load_modules(self, *args: Any, **kwargs: Any) -> Any:
        asked, plain = self.backend, inspect.signature(BaseModel.__init__).parameters["backend"].default  # type: ignore[attr-defined]
        if asked != plain:
            raise InputError(
                f"backend={asked!r} is an engine that sentence-transformers calls by itself. Leave it out: engine= "
                f"says what computes, by default {default_engine()!r}."
            )
        return super()._load_modules(*args, **kwargs)  # type: ignore[misc]

    def _inference(self, inputs: list[Any], **kwargs: Any) -> Any:
        read = kwargs.get("output_value", _READ.get(self.model_type))  # type: ignore[attr-defined]
        with _reading((read,) if isinstance(read, str) and read in _READ.values() else ()):
            return super()._inference(inputs, **kwargs)  # type: ignore[misc]

    @staticmethod
    def _multi_process_worker(target_device: str, model: Any, input_queue: Any, results_queue: Any) -> None:
        # A function of a module: a class that was made here is found under no name in another process.
        calls.original_class(type(model))._multi_process_worker(target_device, model, input_queue, results_queue)


@contextlib.contextmanager
def _reading(names: tuple[str, ...]) -> Iterator[None]:
    token = _wanted.set(names)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_model(cls: Any) -> bool:
    """Whether a class is one of sentence-transformers' models."""
    return issubclass(cls, BaseModel) and cls is not BaseModel


def ported_class(original: Any) -> Any:
    """The class of sentence-transformers with its networks on an engine. It is a subclass, of the same name."""
    return classes.ported_class(original, Ported)


def attach(model: Any, **ours: Any) -> Any:
    """A model in memory, from now on on the engine: the same object. Raises `InputError` for one of other kinds."""
    if not is_model(type(model)):
        raise InputError(f"{type(model).__name__} is no model of sentence-transformers.")
    return classes.attach(model, Ported, **ours)
