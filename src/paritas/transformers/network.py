# SPDX-License-Identifier: Apache-2.0
"""The engine behind one model: a port for each way in which one of its modules is called, made when first needed."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from paritas import pipeline
from paritas.capture import capture
from paritas.errors import CaptureError, InputError, ParitasError
from paritas.nesting import flatten
from paritas.outputs import build_output
from paritas.program import Source
from paritas.run.state import State, remembered, unchanged
from paritas.run.values import from_numpy, to_numpy
from paritas.transformers import calls, kept
from paritas.transformers.cache import EngineCache, adopt, arrays_of, parts_of
from paritas.transformers.calls import CACHE, Call
from paritas.transformers.frameworks import back, to_torch

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


class Network:
    """Runs the modules of `model` on an engine. `path` names a module inside, "" the model itself."""

    def __init__(self, model: torch.nn.Module, engine: str, *, mode: str, target: str, device: str) -> None:
        self.model, self.engine = model, engine
        self.mode, self.target, self.device = mode, target, device
        self._ports: dict[Any, list[pipeline.Port]] = {}
        self._remembers: dict[Any, bool] = {}
        self._lock = threading.RLock()
        self._weights_seen = -1

    def __call__(self, path: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
        """`module(*args, **kwargs)`, torch tensors in and out."""
        if module.training and torch.is_grad_enabled():
            raise InputError(
                f"{type(module).__name__} is in training mode, and its port computes inference only: call "
                "model.eval(), or train the original of transformers."
            )
        call = calls.take(type(module), args, kwargs)
        with self._lock, torch.no_grad():
            self._forget_ports_of_other_weights()
            if self._is_remembering(path, module, call):
                out = self._generate(path, module, call)
            else:
                out = self._compute(path, module, call)
        return out.to_tuple() if call.as_tuple and hasattr(out, "to_tuple") else out

    def close(self) -> None:
        """Release the engine's memory. The next call makes the ports again, or reads those that were kept."""
        for ports in self._ports.values():
            for port in ports:
                port.close()
        self._ports.clear()

    # --- calls without memory ---

    def _compute(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        arguments = {**call.tensors, **call.fixed}
        if call.kept:
            arguments["logits_to_keep"] = call.kept
        if call.use_cache is not None and calls.takes(type(module), "use_cache"):
            arguments["use_cache"] = call.use_cache and False
        port = self._port((path, "computes", call.signature, call.kept), module, arguments)
        return port(**arguments)

    # --- calls that remember what they have seen ---

    def _is_remembering(self, path: str, module: torch.nn.Module, call: Call) -> bool:
        if call.cache is not None and not isinstance(call.cache, Cache):
            raise InputError(f"{CACHE} is a {type(call.cache).__name__}; pass a Cache of transformers.")
        if not calls.takes(type(module), CACHE):
            return False
        wanted = call.use_cache
        if wanted is None:
            wanted = call.cache is not None or bool(
                getattr(getattr(module, "config", None), "use_cache", False)
            )
        if not wanted or call.cache is not None:
            return bool(wanted)
        key = (path, call.signature)
        if (
            key not in self._remembers
        ):  # BERT's configuration says use_cache too: what it returns is what counts
            self._remembers[key] = self._returns_cache(module, call)
        return self._remembers[key]

    def _returns_cache(self, module: torch.nn.Module, call: Call) -> bool:
        with original():
            out = module(**call.tensors, **call.fixed, use_cache=True)
        return isinstance(getattr(out, CACHE, None), Cache)

    def _generate(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        cache = call.cache
        seen = cache.get_seq_length() if cache is not None else 0
        tokens = next(
            (t.shape[1] for n, t in call.tensors.items() if n in calls.TOKENS and t.dim() > 1), None
        )
        if tokens is None:
            raise InputError(f"{type(module).__name__} got no tokens: none of {', '.join(calls.TOKENS[:4])}.")
        _, cross = parts_of(cache)
        pair = cross is not None or bool(
            getattr(getattr(module, "config", None), "is_encoder_decoder", False)
        )
        if calls.takes(type(module), calls.LOGITS) and calls.LOGITS not in call.tensors:
            # As places, which may be others in every call; as a number it would be a constant of the graph.
            call.tensors[calls.LOGITS] = torch.arange(tokens - (call.kept or tokens), tokens)
        plain = all(n in (*calls.TOKENS, *calls.SEEN, calls.LOGITS) for n in call.tensors)
        begins = int(seen) == 0
        if begins and (pair or not plain or self.engine != "openvino"):
            return self._begin(path, module, call, cache)
        return self._go_on(path, module, call, DynamicCache() if cache is None else cache, tokens, pair)

    def _begin(self, path: str, module: torch.nn.Module, call: Call, cache: Any) -> Any:
        """The first tokens: the original makes the cache, inside the graph, and the port returns its tensors."""
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "begins", call.signature)
        port = self._port(key, module, arguments, lambda: {**arguments, **self._longer(call)})
        out = port(**arguments)
        made = out[CACHE]
        if not isinstance(made, Cache):
            raise CaptureError(
                f"{type(module).__name__} returns a {type(made).__name__} as {CACHE}, which no engine keeps. "
                "Pass use_cache=False."
            )
        if cache is None:
            return out
        own, cross = parts_of(cache)
        made_own, made_cross = parts_of(made)
        _fill(own, made_own)
        if cross is not None and made_cross is not None:
            _fill(cross, made_cross)
            cache.is_updated = dict.fromkeys(range(len(made_cross.layers)), True)
        out[CACHE] = cache
        return out

    def _longer(self, call: Call) -> dict[str, Any]:
        """Examples of several tokens, where a generation begins with one: a graph takes a size of 1 for a constant."""
        is_pair = "decoder_input_ids" in call.tensors or "decoder_inputs_embeds" in call.tensors
        tensors = call.tensors
        names = [n for n in calls.TOKENS if n in tensors and (n.startswith("decoder") or not is_pair)]
        if any(tensors[name].shape[-1] != 1 or tensors[name].dim() > 2 for name in names):
            return {calls.LOGITS: torch.arange(2)} if calls.LOGITS in tensors else {}
        first, _ = calls.generation_examples(call, is_pair)
        names += [calls.LOGITS, "decoder_attention_mask"]
        return {name: first[name] for name in names if name in first}

    def _go_on(
        self,
        path: str,
        module: torch.nn.Module,
        call: Call,
        cache: Any,
        tokens: int,
        pair: bool,
    ) -> Any:
        own, cross = parts_of(cache)
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "goes on", call.signature)
        port = self._port(key, module, arguments, lambda: self._going_on(module, call, pair))
        plan = _plan(port)
        if not isinstance(own, EngineCache) or own.owner is not port:
            arrays = own.state.arrays() if isinstance(own, EngineCache) else arrays_of(own)
            adopt(own, self._state(port), port)
            if arrays:
                own.state.load(arrays)
        feed = plan.feed(arguments, cross)
        found = own.state.run(feed, tokens)
        return plan.output(found, cache)

    def _going_on(self, module: torch.nn.Module, call: Call, pair: bool) -> dict[str, Any]:
        """The arguments of a call that goes on, with a cache that the original has made."""
        first, then = calls.generation_examples(call, pair)
        with original():
            made = module(**first, **call.fixed, use_cache=True)
        return {**then, **call.fixed, CACHE: _plain(made[CACHE]), "use_cache": True}

    def _state(self, port: pipeline.Port) -> State:
        session: Any = port.session
        if hasattr(session, "state"):
            return session.state()
        from paritas.run.state import ArrayState

        return ArrayState(session, port.manifest)

    # --- ports ---

    def _port(
        self,
        key: Any,
        module: torch.nn.Module,
        arguments: Mapping[str, Any],
        examples: Callable[[], dict[str, Any]] | None = None,
    ) -> pipeline.Port:
        """A port for such a call: made in this process, or kept from an earlier one, or new."""
        known = self._ports.setdefault(key, [])
        for port in known:
            if _fits(port, arguments):
                return port
        place = kept.place(self, key, _fixed_sizes(arguments) if known else ())
        read = kept.read(place, self.mode)
        if read is not None and _fits(read, arguments):
            port = read
        else:
            given = examples() if examples is not None else dict(arguments)
            port = self._made(module, given, dynamic=not known)
            kept.write(port, place)
        known.append(port)
        return port

    def _made(self, module: torch.nn.Module, given: Mapping[str, Any], *, dynamic: bool) -> pipeline.Port:
        cls = getattr(type(module), "_paritas_original", type(module))
        source = Source("module", model_class=f"{cls.__module__}.{cls.__qualname__}")
        ported, was_training = type(module), module.training
        with original():
            try:
                module.__class__ = cls  # in whose module transformers' exporter looks for what it has to mend
                program = capture(module, given, dynamic=dynamic, source=source)
                return pipeline.port_program(
                    program,
                    module,
                    self.engine,
                    mode=self.mode,
                    target=self.target,
                    device=self.device,
                )
            finally:
                module.__class__ = ported
                module.train(was_training)

    def _forget_ports_of_other_weights(self) -> None:
        """Weights that were changed in place since the ports were made count as others."""
        seen = sum(parameter._version for parameter in self._parameters())
        if seen != self._weights_seen:
            if self._weights_seen >= 0:
                self.close()
                kept.forget_fingerprint(self.model)
            self._weights_seen = seen

    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.model.parameters())

    def ports(self) -> list[pipeline.Port]:
        """Every port that was made or read so far: their notes say what was fixed, cast or left out."""
        return [port for ports in self._ports.values() for port in ports]


class _Plan:
    """What a port that goes on with a generation gets and returns, looked up once."""

    def __init__(self, port: pipeline.Port) -> None:
        manifest = port.manifest
        self.port, self.manifest = port, manifest
        self.names = remembered(manifest)
        self.cross = [
            spec.name
            for spec in manifest.inputs
            if spec.name.startswith(f"{CACHE}.") and spec.name not in self.names
        ]
        self.inputs = [
            s.name for s in manifest.inputs if s.name not in self.names and s.name not in self.cross
        ]
        self.dtypes = {spec.name: spec.dtype for spec in manifest.inputs}
        self.structure = manifest.structure
        self.missing = np.zeros(0, np.float32)
        self.unchanged = unchanged(manifest)

    def feed(self, arguments: Mapping[str, Any], cross: Any) -> dict[str, np.ndarray]:
        given = flatten(
            arguments, {name: nested for name, nested in self.manifest.nesting.items() if name != CACHE}
        )
        if missing := [name for name in self.inputs if given.get(name) is None]:
            raise InputError(f"{', '.join(missing)} is missing: the generation was begun with it.")
        feed = {name: to_numpy(name, given[name]) for name in self.inputs}
        for name, array in feed.items():
            if "ids" in name and "position" not in name and array.dtype.kind == "i":
                self._check_ids(name, array)
        if self.cross:
            feed |= dict(zip(self.cross, arrays_of(cross), strict=True))
        return feed

    def _check_ids(self, name: str, array: np.ndarray) -> None:
        size = self.vocabulary
        if size and array.size and not 0 <= int(array.min()) <= int(array.max()) < size:
            worst = int(array.max()) if int(array.max()) >= size else int(array.min())
            raise InputError(
                f"{name} has the token {worst}, and the model's vocabulary has {size}: 0 to {size - 1}. "
                "Is the tokenizer that of another model?"
            )

    vocabulary = 0

    def output(self, found: Mapping[int, np.ndarray], cache: Any) -> Any:
        specs = self.manifest.outputs
        flat = [
            from_numpy(found[i], "torch", specs[i].dtype) if i in found else None for i in range(len(specs))
        ]
        items = {
            key: {"kind": "constant", "value": None} if item["kind"] == "cache" else item
            for key, item in self.structure["items"].items()
        }
        out = build_output({**self.structure, "items": items}, flat, "torch")
        out[CACHE] = cache
        return out


def _plan(port: pipeline.Port) -> _Plan:
    plan = getattr(port, "_generation_plan", None)
    if plan is None:
        plan = port._generation_plan = _Plan(port)  # type: ignore[attr-defined]
    return plan


def _fill(cache: Any, made: Any) -> None:
    """The keys and values of `made`, in the caller's own cache."""
    for index, layer in enumerate(made.layers):
        cache.update(layer.keys, layer.values, index)


def _plain(cache: Any) -> Any:
    """A cache of layers that only grow: the engine keeps every token, and masks leave out what is too far away."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(_plain(cache.self_attention_cache), _plain(cache.cross_attention_cache))
    return DynamicCache([(layer.keys, layer.values) for layer in cache.layers])


def _fits(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    try:
        given = flatten(arguments, port.manifest.nesting)
    except InputError:
        return False
    for spec in port.manifest.inputs:
        value = given.get(spec.name)
        if not isinstance(value, torch.Tensor) or value.dim() != len(spec.dims):
            continue
        if any(
            str(dim).isdigit() and int(dim) != size for dim, size in zip(spec.dims, value.shape, strict=True)
        ):
            return False
    return True


def _fixed_sizes(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((n, tuple(v.shape)) for n, v in sorted(arguments.items()) if isinstance(v, torch.Tensor))


def install(model: torch.nn.Module, network: Network) -> None:
    """From now on every call of one of the model's modules from outside runs on the engine."""
    for path, module in model.named_modules():
        if path:
            module.forward = _dispatched(module, path, network)
    vars(model)["_paritas"] = network


def _dispatched(module: torch.nn.Module, path: str, network: Network) -> Callable[..., Any]:
    own = type(module).forward.__get__(module)

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if getattr(_local, "original", False):
            return own(*args, **kwargs)
        args, kwargs, framework = to_torch(args, kwargs)
        return back(network(path, module, args, kwargs), framework)

    return forward


__all__ = ["Network", "ParitasError", "Path", "install", "original"]
