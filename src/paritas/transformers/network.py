# SPDX-License-Identifier: Apache-2.0
"""The engine behind one model: a port for each way in which one of its modules is called, made when first needed."""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

from paritas import pipeline
from paritas.capture import capture
from paritas.errors import CaptureError, InputError, SizeError
from paritas.guards import broken, complaint, names_in
from paritas.nesting import flatten
from paritas.outputs import build_output
from paritas.program import Guard, Source
from paritas.run.state import ArrayState, State, remembered
from paritas.run.values import from_numpy, to_numpy
from paritas.transformers import calls, kept
from paritas.transformers.cache import EngineCache, adopt, arrays_of, parts_of
from paritas.transformers.calls import CACHE, Call
from paritas.transformers.frameworks import back, to_torch

_local = threading.local()
_version = operator.attrgetter("_version")

#: Modules that draw random numbers in inference too. No port can draw torch's, so these are never inside one: their
#: own code runs, with torch's generator, and so does that of what contains them; their layers are ports.
RANDOM = ("SpeechT5SpeechDecoderPrenet", "VitsModel", "VitsStochasticDurationPredictor")


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

    def __init__(
        self, model: torch.nn.Module, engine: str, *, mode: str, target: str, weights: str, device: str
    ) -> None:
        self.model, self.engine = model, engine
        self.mode, self.target, self.weights, self.device = mode, target, weights, device
        self._tables = [module._parameters for module in model.modules() if module._parameters]
        self._ports: dict[Any, list[pipeline.Port]] = {}
        self._remembers: dict[Any, bool] = {}
        self._vocabularies: dict[tuple[str, str], int] = {}
        self._random: dict[str, bool] = {}
        self._lock = threading.RLock()
        self._weights_seen = -1

    def __call__(self, path: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any) -> Any:
        """`module(*args, **kwargs)`, torch tensors in and out."""
        if module.training and torch.is_grad_enabled():
            raise InputError(
                f"{type(module).__name__} is in training mode, and its port computes inference only: call "
                "model.eval(), or train the original of transformers."
            )
        if self._is_random(path, module):
            with torch.no_grad():
                return calls.original_class(type(module)).forward(module, *args, **kwargs)
        call = calls.take(type(module), args, kwargs)
        self._check_tokens(path, module, call)
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

    def _is_random(self, path: str, module: torch.nn.Module) -> bool:
        if path not in self._random:
            self._random[path] = any(type(inner).__name__ in RANDOM for inner in module.modules())
        return self._random[path]

    def _check_tokens(self, path: str, module: torch.nn.Module, call: Call) -> None:
        """Engines do not: OpenVINO reads a row that is not there as zeros."""
        for name in ("input_ids", "decoder_input_ids"):
            ids = call.tensors.get(name)
            if not isinstance(ids, torch.Tensor) or not ids.numel():
                continue
            key = (path, name)
            if key not in self._vocabularies:
                self._vocabularies[key] = _vocabulary(module, name)
            size, (low, high) = self._vocabularies[key], (int(found) for found in torch.aminmax(ids))
            if size and not 0 <= low <= high < size:
                raise InputError(
                    f"{name} has the token {high if high >= size else low}, and the vocabulary of "
                    f"{type(module).__name__} has {size}: 0 to {size - 1}. Is the tokenizer that of another model?"
                )

    # --- calls without memory ---

    def _compute(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        arguments = {**call.tensors, **call.fixed}
        if call.kept:
            arguments["logits_to_keep"] = call.kept
        if call.use_cache is not None and calls.takes(type(module), "use_cache"):
            arguments["use_cache"] = False
        port = self._port((path, "computes", call.signature, call.kept), module, arguments)
        if any(drawn and path.startswith(f"{outer}.") for outer, drawn in self._random.items() if outer):
            session: Any = port.session
            session.part_of_loop = True
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
        # BERT's configuration says use_cache too: what it returns is what counts.
        if key not in self._remembers:
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
        return self._go_on(path, module, call, DynamicCache() if cache is None else cache, tokens)

    def _begin(self, path: str, module: torch.nn.Module, call: Call, cache: Any) -> Any:
        """The first tokens: the original makes the cache, inside the graph, and the port returns its tensors."""
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "begins", call.signature)
        if _forgets(module):
            # Its own cache would keep a window of the tokens, and the port that goes on wants them all.
            arguments[CACHE], key = DynamicCache(), (path, "begins and keeps all", call.signature)
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
        if made_cross is not None:
            if cross is None:  # a decoder alone, given an encoder's outputs: its loop began with half a cache
                cache = EncoderDecoderCache(own, DynamicCache())
            _fill(cache.cross_attention_cache, made_cross)
            cache.is_updated = dict.fromkeys(range(len(made_cross.layers)), True)
        out[CACHE] = cache
        return out

    def _longer(self, call: Call) -> dict[str, Any]:
        """Examples of several tokens, where a generation begins with one: a graph takes a size of 1 for a constant."""
        is_pair = "decoder_input_ids" in call.tensors or "decoder_inputs_embeds" in call.tensors
        tensors = call.tensors
        names = [n for n in calls.TOKENS if n in tensors and (n.startswith("decoder") or not is_pair)]
        if any(calls.new_tokens(name, tensors[name]) != 1 for name in names):
            return {calls.LOGITS: torch.arange(2)} if calls.LOGITS in tensors else {}
        first, _ = calls.generation_examples(call, is_pair)
        names += [calls.LOGITS, "decoder_attention_mask" if is_pair else "attention_mask"]
        return {name: first[name] for name in names if name in first}

    def _go_on(
        self,
        path: str,
        module: torch.nn.Module,
        call: Call,
        cache: Any,
        tokens: int,
    ) -> Any:
        own, cross = parts_of(cache)
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "goes on", call.signature)
        port = self._port(key, module, arguments, lambda: self._going_on(module, call), complete=False)
        if found := _broken(port, arguments):
            raise SizeError(complaint(found[0], port.manifest.inputs, _sizes(port, arguments)) + ".")
        plan = _plan(port)
        if not isinstance(own, EngineCache) or own.owner is not port:
            arrays = own.state.arrays() if isinstance(own, EngineCache) else arrays_of(own)
            adopt(own, self._state(port), port)
            if arrays:
                own.state.load(arrays)
        feed = plan.feed(arguments, cross)
        found = own.state.run(feed, tokens)
        return plan.output(found, cache)

    def _going_on(self, module: torch.nn.Module, call: Call) -> dict[str, Any]:
        """The arguments of a call that goes on, with a cache that the original has made."""
        # A decoder alone calls the mask of its own tokens attention_mask, with an encoder's outputs and without.
        first, then = calls.generation_examples(call, calls.takes(type(module), "decoder_attention_mask"))
        with original():
            made = module(**first, **call.fixed, use_cache=True)
        return {**then, **call.fixed, CACHE: _plain(made[CACHE]), "use_cache": True}

    def _state(self, port: pipeline.Port) -> State:
        session: Any = port.session
        if hasattr(session, "state"):
            return session.state()
        return ArrayState(session, port.manifest)

    # --- ports ---

    def _port(
        self,
        key: Any,
        module: torch.nn.Module,
        arguments: Mapping[str, Any],
        examples: Callable[[], dict[str, Any]] | None = None,
        *,
        complete: bool = True,
    ) -> pipeline.Port:
        """A port for such a call: made in this process, or kept from an earlier one, or new.

        complete: the arguments are all that forward gets, so that they can be an example by themselves.
        """
        known = self._ports.setdefault(key, [])
        for port in known:
            if _fits(port, arguments):
                return port
        # A size of 1 is always taken for a constant; after that, once more with every size free.
        alike = [port for port in known if _same_values(port, arguments)]
        free = all(_differs_by_ones(port, arguments) for port in alike)
        # The model's code goes another way with these sizes.
        exact = complete and any(_broken(port, arguments) for port in alike)
        kind = ("free",)[: len(alike)] if free and not exact else _fixed_sizes(arguments)
        place = kept.place(self, key, kind)
        read = kept.read(place, self.mode)
        if read is not None and not _same_values(read, arguments):
            place = kept.place(self, key, (*kind, _values(read, arguments)))
            read = kept.read(place, self.mode)
        if read is not None and complete and _broken(read, arguments):
            exact, place = True, kept.place(self, key, _fixed_sizes(arguments))
            read = kept.read(place, self.mode)
        if read is not None and _fits(read, arguments):
            port = read
        else:
            given = dict(arguments) if exact or examples is None else examples()
            port = self._made(module, given, dynamic=free, exact=exact)
            kept.write(port, place)
        known.append(port)
        if complete and not exact and _broken(port, arguments):
            return self._port(key, module, arguments)  # made for a batch of 2, and 1 is another way
        return port

    def _made(
        self, module: torch.nn.Module, given: Mapping[str, Any], *, dynamic: bool, exact: bool = False
    ) -> pipeline.Port:
        cls = calls.original_class(type(module))
        source = Source("module", model_class=f"{cls.__module__}.{cls.__qualname__}")
        ported, was_training = type(module), module.training
        with original():
            try:
                module.__class__ = cls  # in whose module transformers' exporter looks for what it has to mend
                program = capture(module, given, dynamic=dynamic, source=source, exact=exact)
                return pipeline.port_program(
                    program,
                    module,
                    self.engine,
                    mode=self.mode,
                    target=self.target,
                    weights=self.weights,
                    device=self.device,
                    keep_example=False,  # what a user calls it with is nobody else's to read
                )
            finally:
                module.__class__ = ported
                module.train(was_training)

    def _forget_ports_of_other_weights(self) -> None:
        """Weights that were changed in place, or replaced, since the ports were made count as others."""
        # Through the modules' own tables: `parameters()` takes longer than a step of a small model.
        parameters = [p for table in self._tables for p in table.values() if p is not None]
        seen = sum(map(id, parameters)) + sum(map(_version, parameters))
        if seen != self._weights_seen:
            if self._weights_seen >= 0:
                self.close()
                kept.forget_fingerprint(self.model)
            self._weights_seen = seen

    def ports(self) -> list[pipeline.Port]:
        """Every port that was made or read so far: their notes say what was fixed, cast or left out."""
        return [port for ports in self._ports.values() for port in ports]


class _Plan:
    """What a port that goes on with a generation gets and returns, looked up once."""

    def __init__(self, port: pipeline.Port) -> None:
        manifest = port.manifest
        self.manifest = manifest
        self.names = remembered(manifest)
        self.cross = [
            spec.name
            for spec in manifest.inputs
            if spec.name.startswith(f"{CACHE}.") and spec.name not in self.names
        ]
        self.inputs = [
            s.name for s in manifest.inputs if s.name not in self.names and s.name not in self.cross
        ]
        self.nesting = {name: nested for name, nested in manifest.nesting.items() if name != CACHE}
        items = {
            key: {"kind": "constant", "value": None} if item["kind"] == "cache" else item
            for key, item in manifest.structure["items"].items()
        }
        self.structure = {**manifest.structure, "items": items}

    def feed(self, arguments: Mapping[str, Any], cross: Any) -> dict[str, np.ndarray]:
        given = flatten(arguments, self.nesting)
        if missing := [name for name in self.inputs if given.get(name) is None]:
            raise InputError(f"{', '.join(missing)} is missing: the generation was begun with it.")
        feed = {name: to_numpy(name, given[name]) for name in self.inputs}
        if self.cross:
            feed |= dict(zip(self.cross, arrays_of(cross), strict=True))
        return feed

    def output(self, found: Mapping[int, np.ndarray], cache: Any) -> Any:
        specs = self.manifest.outputs
        flat = [
            from_numpy(found[i], "torch", specs[i].dtype) if i in found else None for i in range(len(specs))
        ]
        out = build_output(self.structure, flat, "torch")
        out[CACHE] = cache
        return out


def _vocabulary(module: Any, name: str) -> int:
    """How many tokens that argument knows; 0 if the module does not say."""
    try:
        owner = module.get_decoder() if name.startswith("decoder") else module
        return int(owner.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        return 0


def _plan(port: pipeline.Port) -> _Plan:
    plan = getattr(port, "_generation_plan", None)
    if plan is None:
        plan = port._generation_plan = _Plan(port)  # type: ignore[attr-defined]
    return plan


def _fill(cache: Any, made: Any) -> None:
    """The keys and values of `made`, in the caller's own cache."""
    if any(isinstance(layer, DynamicSlidingWindowLayer) for layer in cache.layers):
        DynamicCache.__init__(cache)  # keeps all, where it would drop what is outside the window
    if type(cache) is DynamicCache and not cache.get_seq_length():
        cache.layers = made.layers  # an update would copy them
        return
    for index, layer in enumerate(made.layers):
        cache.update(layer.keys, layer.values, index)


def _forgets(module: torch.nn.Module) -> bool:
    """Whether the cache that the original would begin with keeps no more than a window of some layers' tokens."""
    config = getattr(module, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        return False
    layers = DynamicCache(config=config).layers
    return any(type(layer) is DynamicSlidingWindowLayer for layer in layers) and all(
        type(layer) in (DynamicSlidingWindowLayer, DynamicLayer) for layer in layers
    )


def _plain(cache: Any) -> Any:
    """A cache of layers that only grow: the engine keeps every token, and masks leave out what is too far away."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(_plain(cache.self_attention_cache), _plain(cache.cross_attention_cache))
    return DynamicCache([(layer.keys, layer.values) for layer in cache.layers])


def _fits(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    sizes = _constants(port, arguments)
    fixed = sizes is not None and all(had == has for had, has in sizes)
    return fixed and _same_values(port, arguments) and not _broken(port, arguments)


def _broken(port: pipeline.Port, arguments: Mapping[str, Any]) -> list[Guard]:
    """The port's guards that these arguments break, of those whose sizes the arguments tell."""
    if not port.manifest.guards:
        return []
    sizes = _sizes(port, arguments)
    return [guard for guard in broken(port.manifest.guards, sizes) if names_in(guard) <= sizes.keys()]


def _sizes(port: pipeline.Port, arguments: Mapping[str, Any]) -> dict[str, int]:
    """The dynamic dimensions that these arguments tell the sizes of."""
    given = flatten(arguments, port.manifest.nesting)
    sizes: dict[str, int] = {}
    for spec in port.manifest.inputs:
        value = given.get(spec.name)
        if isinstance(value, torch.Tensor) and value.dim() == len(spec.dims):
            sizes |= {
                dim: size for dim, size in zip(spec.dims, value.shape, strict=True) if isinstance(dim, str)
            }
    return sizes


def _values(port: pipeline.Port, arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What these arguments have where the port takes one value only, since sizes follow from it."""
    names = [spec.name for spec in port.manifest.inputs if spec.value is not None]
    given = flatten(arguments, port.manifest.nesting) if names else {}
    return tuple((n, given[n].tolist()) for n in names if isinstance(given.get(n), torch.Tensor))


def _same_values(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    wanted = {spec.name: spec.value for spec in port.manifest.inputs}
    return all(wanted[name] == value for name, value in _values(port, arguments))


def _differs_by_ones(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    sizes = _constants(port, arguments)
    return sizes is not None and all(had in (1, has) for had, has in sizes)


def _constants(port: pipeline.Port, arguments: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    """The sizes that are constants of the port, and what they are in these arguments; None if it takes others."""
    try:
        given = flatten(arguments, port.manifest.nesting)
    except InputError:
        return None
    found = []
    for spec in port.manifest.inputs:
        value = given.get(spec.name)
        if isinstance(value, torch.Tensor) and value.dim() == len(spec.dims):
            sizes = zip(spec.dims, value.shape, strict=True)
            found += [(int(dim), size) for dim, size in sizes if str(dim).isdigit()]
    return found


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
