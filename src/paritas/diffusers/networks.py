# SPDX-License-Identifier: Apache-2.0
"""The networks of a pipeline on an engine: what they have beside those of other libraries."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from transformers import PreTrainedModel

import paritas.diffusers.library
import paritas.transformers.library  # noqa: F401 - registers it, as the other
from paritas import pipeline
from paritas.diffusers.caches import CacheCall, WithCaches, fill, is_cache, put_together, taken_apart, with_caches
from paritas.diffusers.runs import Asked
from paritas.dropin import calls, classes, memory, network
from paritas.dropin.arrays import ours
from paritas.dropin.calls import Call
from paritas.dropin.gradients import requiring
from paritas.dropin.library import has_hooks
from paritas.dropin.methods import Method, method_of
from paritas.errors import (
    CaptureError,
    EngineError,
    InputError,
    LoweringError,
    ReturnsObject,
    UnsupportedOps,
    WritesArguments,
)
from paritas.options import BuildOptions
from paritas.program import Artifact, Program
from paritas.run.engine import engine as find_engine
from paritas.transformers.generation import Generation
from paritas.transformers.models import Ported as OfTransformers

#: Switches of an autoencoder with which it goes through its picture in tiles or slices, by names that all share.
_IN_TILES = ("use_tiling", "use_slicing", "use_framewise_encoding", "use_framewise_decoding")

#: Bytes of a network's weights from which on they have no memory beside the engine's.
LARGE = 1 << 26

_REFUSALS = (CaptureError, LoweringError, UnsupportedOps, EngineError)


class Recorded(network.Network):
    """A network of a pipeline: remembers its calls, and whose weights are in memory.

    asked: (path, signature) -> module and call, the first of each kind that a port has answered: what a saved pipeline
    has ports for. unsaved: what no port in a directory can do, of what was asked for. turns: of the networks of which
    one at a time is in memory; None where all may be.
    """

    def __init__(self, model: torch.nn.Module, build: BuildOptions) -> None:
        super().__init__(model, build)
        self.asked: dict[tuple[str, Any], tuple[torch.nn.Module, Any]] = {}
        self.unsaved = ""
        self._asked_as: dict[tuple[str, Any], str] = {}
        self.turns: memory.Turns | None = None
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._moved: Any = None
        self._read = 0  # bytes of weights of which ports were made

    def _computed(self, path: str, module: torch.nn.Module, call: Any) -> Any:
        with self.turns.take(self.rest) if self.turns is not None else contextlib.nullcontext():
            out = super()._computed(path, module, call)
        self.asked.setdefault((path, call.signature), (module, call))
        self._asked_as[path, call.signature] = self.now.key
        return out

    def places(self) -> list[tuple[str, str]]:
        """The modules and methods of which ports have answered: (path, method), "" for the network and for forward."""
        found = (("", path.removesuffix("()")) if path.endswith("()") else (path, "") for path, _ in self.asked)
        return list(dict.fromkeys(found))

    def compared(self, asked: Asked) -> tuple[Any, dict[str, Any], Any]:
        """(the port that answers such a call, what it is called with, None); no port for a call of another kind."""
        call, path = self._call_of(asked), f"{asked.method}()" if asked.method else asked.path
        if (path, call.signature) not in self.asked:
            return None, {}, None
        with self._lock, ours():
            self._notice()
            return *self._port_of(path, self._module_of(asked), call), None

    def _module_of(self, asked: Asked) -> torch.nn.Module:
        return method_of(self.model, asked.method) if asked.method else self.model.get_submodule(asked.path)

    def _call_of(self, asked: Asked) -> Any:
        return self._taken_apart(self._module_of(asked), asked.args, asked.kwargs)

    def check_asked(self, asked: tuple[str, Any], name: str) -> None:
        """Raise `InputError` where the network is no longer what it was in the last such call.

        Attention processors that a pipeline sets for the time of a call would not be in a port that is made now.
        """
        self._notice()
        if any(map(has_hooks, self.model.modules())):
            raise InputError(
                f"{name} has hooks (a cache of earlier steps, casting or offloading), which no saved port has: take "
                "them off, as by disable_cache(), call the pipeline, and save it then."
            )
        if self._asked_as.get(asked) != self.now.key:
            raise InputError(
                f"{name} was called with other modules, attention processors or switches than it has now, and a port "
                "that is saved has those of now: call the pipeline as it is, and save it then. A pipeline that sets "
                "some for the time of a call cannot be saved."
            )

    # --- memory: the engine has weights of its own, so that PyTorch's need none ---

    def rest(self) -> None:
        """Give back the memory of the engine, until the next call, and that of weights."""
        for port in self.ports():
            if not isinstance(port.session, memory.Resting):
                again = functools.partial(_opened_again, port.artifact, self.build)
                port.session = memory.Resting(again, port.session)
            port.session.close()
        self.let_go()

    def _port(self, key: Any, module: torch.nn.Module, *args: Any, **kwargs: Any) -> pipeline.Port:
        self._into_file()
        port = super()._port(key, module, *args, **kwargs)
        if port not in self._known:
            self._known.add(port)
            self._read += bytes_of(module)
            if self._read >= LARGE:  # not for each layer of a network that is computed module by module
                self.let_go()
        return port

    def _made(
        self,
        module: torch.nn.Module,
        given: Mapping[str, Any],
        *,
        dynamic: bool,
        exact: bool = False,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> pipeline.Port:
        def told(stage: str) -> None:
            progress(stage)
            if stage == "run" and bytes_of(module) >= LARGE:  # what the engine opens now is in its files
                self.let_go()

        return super()._made(module, given, dynamic=dynamic, exact=exact, progress=told)

    def content(self) -> list[str] | None:
        known = self._digest
        found = super().content()
        if self._digest != known:  # for which all weights were read
            self.let_go()
        return found

    @property
    def _is_large(self) -> bool:
        return self.turns is not None or bytes_of(self.model) >= LARGE

    def _into_file(self) -> None:
        """Once for all weights, and again for those that have changed: they are still the model's."""
        if self._moved is self._seen_weights or self.engine.is_original or sys.platform != "linux":
            return
        if self._is_large and self._watch is not None and (large := memory.large_in_memory(self.model)):
            try:
                memory.move_to_file(large)
            except OSError as error:
                self._say(f"{type(self.model).__name__}: weights stay in memory, since {error.strerror or error}")
            else:
                del large
                self._watch.look()
                self._seen_weights = self._watch.weights()
        self._moved = self._seen_weights

    def make_room(self) -> None:
        """Before another port of a large network is made: the others are opened again when they are called."""
        if bytes_of(self.model) >= LARGE:
            self.rest()

    def let_go(self) -> None:
        """Free the memory of weights that lie in files: who reads them again gets them from there."""
        self._read = 0
        if self._is_large and not self.engine.is_original:
            memory.let_go(self.model)
            memory.trim()

    def _not_whole(self, module: torch.nn.Module, why: str, own: Any, args: Any, kwargs: Any) -> Any:
        given = {str(i): value for i, value in enumerate(args)} | kwargs
        if asked := with_gradients(Call(given, {})):
            return self._original(module, asked, own, args, kwargs)
        return super()._not_whole(module, why, own, args, kwargs)


class Answers(Recorded):
    """The calls of a network of diffusers.

    What cannot be one port is computed module by module. Whoever asks for gradients gets PyTorch's.
    """

    logger: ClassVar[logging.Logger] = logging.getLogger("paritas.diffusers")
    taken = (torch.Generator,)
    fixed_first = True
    refusals = _REFUSALS
    by_modules = True

    def _taken_apart(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        given = calls.given_to(type(module), args, kwargs)
        # Nobody draws in a port: what does is refused, and gets its generator where PyTorch computes.
        given = {name: value for name, value in given.items() if not _draws(value)}
        objects = {name: value for name, value in given.items() if is_cache(value)}
        found = calls.sorted_out(type(module), given | {name: taken_apart(one) for name, one in objects.items()})
        return CacheCall(*found, objects) if objects else Call(*found)

    def _refused_argument(self, value: Any) -> str:
        return "" if is_cache(value) else super()._refused_argument(value)

    def _answer(self, path: str, module: torch.nn.Module, call: Any) -> tuple[Any, str]:
        if not isinstance(call, CacheCall):
            key = ("writes", path, call.signature)
            if key not in self.now.known:
                try:
                    return super()._answer(path, module, call)
                except (WritesArguments, ReturnsObject):
                    self.now.known[key] = True
            held = {n: v for n, v in {**call.tensors, **call.fixed}.items() if type(v) in (dict, list)}
            call = CacheCall(call.tensors, call.fixed, held)
        self.unsaved = f"{type(module).__name__} fills its caller's {', '.join(call.objects) or 'caches'}"
        out, after = network.Network._computed(self, path, with_caches(module), call)
        for name, one in call.objects.items():
            fill(one, after[name])
        return put_together(out), ""

    def _captured(self, module: torch.nn.Module, program: Program) -> None:
        super()._captured(module, program)
        if not isinstance(module, WithCaches) and any("." in name for name in program.written):
            raise WritesArguments(f"a tensor in an argument is written into: {', '.join(program.written)}")

    def _refused(self, module: torch.nn.Module, call: Call) -> str:
        return with_gradients(call) or super()._refused(module, call)

    def method(self, name: str, own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(getattr(self.model, switch, False) for switch in _IN_TILES):
            given = {str(i): value for i, value in enumerate(args)} | kwargs
            if asked := with_gradients(Call(given, {})):
                return self._original(method_of(self.model, name), asked, own, args, kwargs)
            with torch.no_grad():
                return own(*args, **kwargs)  # its loop is Python's, and what it calls are ports
        return super().method(name, own, args, kwargs)


class TextAnswers(Recorded, Generation):
    """The calls of a network of transformers in a pipeline: a text encoder, mostly called at one length."""

    logger: ClassVar[Any] = logging.getLogger("paritas.diffusers")
    fixed_first = True
    refusals = _REFUSALS
    by_modules = True

    def _refused(self, module: torch.nn.Module, call: Any) -> str:
        return with_gradients(call) or super()._refused(module, call)


def bytes_of(module: torch.nn.Module) -> int:
    """Of its parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())


def _opened_again(artifact: Artifact, build: BuildOptions) -> Any:
    """A session of a port whose session was closed: of one in the cache of ports after checking its files again."""
    mode = build.mode or artifact.manifest.mode
    if not artifact.own:
        config = dict(build.config)
        return pipeline.load_port(artifact.directory, mode=mode, device=build.device, ov_config=config).session
    runtime = find_engine(artifact.manifest.engine)
    return runtime.load(artifact, mode=mode, device=build.device, config=dict(build.config))


def _draws(value: Any) -> bool:
    """Whether it is a generator, or one for each picture."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_draws, value))
    return isinstance(value, torch.Generator)


def with_gradients(call: Call) -> str:
    """Why PyTorch answers a call that somebody will differentiate; "" for any other."""
    if torch.is_grad_enabled():
        names = [name for name, _ in requiring(call.tensors)]
        if names:
            return f"PyTorch computes, since a gradient by {', '.join(names)} is asked for"
    return ""


class Ported(classes.Ported):
    """Mixed into a network of diffusers'."""

    _paritas_network = Answers
    _paritas_computed = ("encode", "decode")

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with `engine=`, `mode=`, `target=`, `weights=`, `engine_device=`, `ov_config=`."""
        return cls._paritas_made("from_pretrained", args, kwargs)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with our keywords."""
        return cls._paritas_made("from_config", args, kwargs)

    @classmethod
    def from_single_file(cls, *args: Any, **kwargs: Any) -> Any:
        """As the original's, and with our keywords."""
        return cls._paritas_made("from_single_file", args, kwargs)


class TextPorted(OfTransformers):
    """Mixed into a network of transformers' that is part of a pipeline."""

    _paritas_network = TextAnswers


def is_network(value: Any) -> bool:
    """Whether a component computes: one that has no forward, as a list of modules, is called piece by piece."""
    return isinstance(value, torch.nn.Module) and not isinstance(value, Method)


def networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The networks of a pipeline by name, each once: "unet", "prior_pipe.prior", "text_encoder_2"."""
    found: dict[str, torch.nn.Module] = {}
    seen: set[int] = set()
    for name, module in _walked(pipeline, ""):
        if id(module) not in seen:
            seen.add(id(module))
            found[name] = module
    return found


def _walked(holder: Any, path: str) -> Iterator[tuple[str, torch.nn.Module]]:
    parts = dict(vars(holder)) if isinstance(holder, DiffusionPipeline) else dict(enumerate(holder))
    inner = []
    for name, value in parts.items():
        where = f"{path}{name}"
        if is_network(value):
            yield where, value
        elif isinstance(value, (list, tuple, DiffusionPipeline)) and not hasattr(value, "_fields"):
            inner.append((where, value))
    for where, value in inner:  # the pipeline's own names first: "vae", and not "decoder_pipe.vae"
        yield from _walked(value, f"{where}.")


def attach(model: torch.nn.Module, **ours: Any) -> Any:
    """A network in memory, from now on on the engine: the same object."""
    mixin: Any = TextPorted if isinstance(model, PreTrainedModel) else Ported
    return classes.attach(model, mixin, **ours)
