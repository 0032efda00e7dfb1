# SPDX-License-Identifier: Apache-2.0
"""The engine behind one model: a port for each way in which one of its modules is called, made when first needed."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.utils import logging

from paritas import pipeline
from paritas.capture import capture
from paritas.dropin import port_cache
from paritas.errors import CaptureError, InputError, OriginalFails, SizeError, TokenError, first_line
from paritas.guards import complaint
from paritas.program import Source
from paritas.run.state import ArrayState, State
from paritas.transformers import calls, states
from paritas.transformers.arrays import ours
from paritas.transformers.cache import (
    EngineCache,
    arrays_of,
    copy_into,
    fill,
    forgets,
    freeze,
    growing,
    is_kept,
    parts_of,
)
from paritas.transformers.calls import CACHE, Call
from paritas.transformers.describe import describe
from paritas.transformers.dispatch import example_of, install, original
from paritas.transformers.fitting import (
    broken_by,
    differs_by_ones,
    fits,
    fixed_sizes,
    same_values,
    sizes_of,
    values,
)
from paritas.transformers.gradients import asked_for, refusing
from paritas.transformers.plan import plan_of
from paritas.transformers.watch import Watch

logger = logging.get_logger("paritas.transformers")

#: Modules that draw random numbers in inference too. No port can draw torch's, so these are never inside one: their
#: own code runs, with torch's generator, and so does that of what contains them; their layers are ports.
RANDOM = ("SpeechT5SpeechDecoderPrenet", "VitsModel", "VitsStochasticDurationPredictor")

#: Conditions of a model whose ports stay in memory: as it is with an adapter, and without.
CONDITIONS = 4


@dataclasses.dataclass
class _Condition:
    """What was found out about a model while all but the weights that its results depend on was of one description."""

    key: str
    complete: bool
    has_float64: bool = False
    strange: list[Any] = dataclasses.field(default_factory=list)  # what the key names by its address
    ports: dict[Any, list[pipeline.Port]] = dataclasses.field(default_factory=dict)
    remembers: dict[Any, str] = dataclasses.field(default_factory=dict)
    vocabularies: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    random: dict[str, bool] = dataclasses.field(default_factory=dict)
    untraced: dict[Any, str] = dataclasses.field(
        default_factory=dict
    )  # calls that torch.export refuses -> why

    def close(self) -> None:
        for port in self.all_ports():
            port.close()
        self.ports.clear()

    def all_ports(self) -> list[pipeline.Port]:
        return [port for ports in self.ports.values() for port in ports]


class Network:
    """Runs the modules of `model` on an engine. `path` names a module inside, "" the model itself."""

    def __init__(
        self, model: torch.nn.Module, engine: str, *, mode: str, target: str, weights: str, device: str
    ) -> None:
        self.model, self.engine = model, engine
        self.mode, self.target, self.weights, self.device = mode, target, weights, device
        self._watch: Watch | None = None
        self._seen_weights: tuple[Any, ...] = ()
        self._digest = ""
        self._conditions: collections.OrderedDict[str, _Condition] = collections.OrderedDict()
        self._now = _Condition("", complete=False)
        self._lock = threading.RLock()
        self._said: set[str] = set()

    @property
    def options(self) -> dict[str, str]:
        """What a copy of the model is connected with."""
        return {
            "engine": self.engine,
            "mode": self.mode,
            "target": self.target,
            "weights": self.weights,
            "engine_device": self.device,
        }

    def __call__(
        self,
        path: str,
        module: torch.nn.Module,
        own: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """`module(*args, **kwargs)`, torch tensors in and out. own: its forward, that computes in PyTorch."""
        with self._lock, ours():
            self._notice()
            if why := self._only_original(path, module, args, kwargs):
                return self._original(module, why, own, args, kwargs)
            if self._is_random(path, module):
                with torch.no_grad():
                    return own(*args, **kwargs)
            call = calls.take(type(module), args, kwargs, getattr(module, "config", None))
            why, steps = "", states.is_recurrent(call.cache)
            if call.cache is not None and not isinstance(module, PreTrainedModel):
                why = "PyTorch computes, since only a whole model can hand its cache to an engine"
            elif steps:
                why = states.only_original(call, _is_wanted(module, call))
            if not why and self._now.untraced:
                why = self._now.untraced.get((path, call.signature, call.cache is None), "")
            if why:
                return self._original(module, why, own, args, kwargs)
            asked = asked_for(module, call.tensors)
            self._check_tokens(path, module, call)
            try:
                with torch.no_grad():
                    remembering = "engine" if steps else self._is_remembering(path, module, call)
                    if steps:
                        out = self._step(path, module, call)
                    elif remembering == "engine":
                        out = self._generate(path, module, call)
                    elif not remembering:
                        out = self._compute(path, module, call)
            except OriginalFails as error:  # then it says so itself, or computes: it gets the call as it is
                why = first_line(error.__cause__ or error)
                remembering = f"PyTorch computes, since what is captured does not run: {why}"
            except CaptureError as error:
                lines = str(error).splitlines()
                place = next((line for line in lines if line.startswith("at ")), "")
                remembering = f"PyTorch computes, since {lines[0]} {place}".rstrip()
                self._now.untraced[path, call.signature, call.cache is None] = remembering
            if remembering and remembering != "engine":
                return self._original(module, remembering, own, args, kwargs)
        if asked:
            out = refusing(out, asked, type(module).__name__)
        return out.to_tuple() if call.as_tuple and hasattr(out, "to_tuple") else out

    def _original(
        self, module: torch.nn.Module, why: str, own: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        self._say(f"{type(module).__name__}: {why}")
        with original():
            return own(*args, **kwargs)

    def close(self) -> None:
        """Release the engine's memory. The next call makes the ports again, or reads those that were kept."""
        for condition in self._conditions.values():
            condition.close()

    # --- what has changed since the last call ---

    def _notice(self) -> None:
        """Find the ports of the model as it is now."""
        if self._watch is None:
            self._watch = Watch(self.model)
        elif not self._watch.changed():
            return
        else:
            self._watch.look()
        weights = self._watch.weights()
        if weights != self._seen_weights:
            # Weights that were changed in place, or replaced, never come back.
            for condition in self._conditions.values():
                condition.close()
            self._conditions.clear()
            self._seen_weights, self._digest = weights, ""
        install(self.model, self)
        self._watch.look()
        strange: list[Any] = []

        def unknown(value: Any) -> str:
            strange.append(value)
            return f"{type(value).__qualname__} {id(value)}"

        names = {id(tensor): name for name, tensor in self._watch.tensors.items()}
        key = describe(self.model, names, unknown)
        if key not in self._conditions:
            complete = self._watch.complete and not strange
            wide = any(p.dtype == torch.float64 for p in self.model.parameters())
            self._conditions[key] = _Condition(key, complete, wide, strange)
        self._now = self._conditions[key]
        self._conditions.move_to_end(key)
        while len(self._conditions) > CONDITIONS:
            self._conditions.popitem(last=False)[1].close()

    def content(self) -> list[str] | None:
        """What a port kept on disk answers for: description and weights, as hashes; None if they say not all."""
        if not self._now.complete or self._watch is None:
            return None
        if not self._digest:
            self._digest = port_cache.digest(self._watch.tensors)
        return [self._now.key, self._digest] if self._digest else None

    def _only_original(self, path: str, module: torch.nn.Module, args: Any, kwargs: Any) -> str:
        """Why only PyTorch can answer a call; "" if the engine can."""
        if module.training:
            return (
                "in training mode PyTorch computes, since a port computes inference only; call model.eval()"
            )
        if self._now.has_float64 and self.engine == "openvino":
            return "PyTorch computes, since OpenVINO's CPU plugin has no float64"
        assert self._watch is not None
        if not self._watch.is_counted:
            return (
                "PyTorch computes, since weights that were made in torch.inference_mode do not tell when they are "
                "changed; make, cast and move the model outside of it"
            )
        for inner, why in self._watch.only_original.items():
            if inner != path and inner.startswith(path and f"{path}."):
                return f"{inner} {why}: PyTorch computes"
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache) and not is_kept(value) and not states.is_recurrent(value):
                return f"PyTorch computes, since no engine keeps what is in this {type(value).__name__}"
            if calls.is_object(value):
                return f"PyTorch computes, since no engine takes a {type(value).__name__}"
        return ""

    def _say(self, text: str) -> None:
        """Once: a loop would say it in every step."""
        if text not in self._said:
            self._said.add(text)
            logger.warning(text)

    def _is_random(self, path: str, module: torch.nn.Module) -> bool:
        if path not in self._now.random:
            self._now.random[path] = any(type(inner).__name__ in RANDOM for inner in module.modules())
        return self._now.random[path]

    def _check_tokens(self, path: str, module: torch.nn.Module, call: Call) -> None:
        """Engines do not: OpenVINO reads a row that is not there as zeros."""
        for name in ("input_ids", "decoder_input_ids"):
            ids = call.tensors.get(name)
            if not isinstance(ids, torch.Tensor) or not ids.numel():
                continue
            key = (path, name)
            if key not in self._now.vocabularies:
                self._now.vocabularies[key] = _vocabulary(module, name)
            size, (low, high) = self._now.vocabularies[key], (int(found) for found in torch.aminmax(ids))
            if size and not 0 <= low <= high < size:
                raise TokenError(
                    f"{name} has the token {high if high >= size else low}, and the vocabulary of "
                    f"{type(module).__name__} has {size}: 0 to {size - 1}. Is the tokenizer that of another model?"
                )

    # --- calls without memory ---

    def _compute(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        arguments = {**call.tensors, **call.fixed}
        if call.kept:
            arguments["logits_to_keep"] = call.kept
        if call.use_cache is not None and calls.takes(type(module), "use_cache"):
            # What is no cache, as RWKV's tensors, is an output like any other.
            arguments["use_cache"] = bool(call.use_cache) and not calls.takes(type(module), call.cache_name)
        key = (path, "computes", call.signature, call.kept, arguments.get("use_cache"))
        port = self._port(key, module, arguments)
        if any(drawn and path.startswith(f"{outer}.") for outer, drawn in self._now.random.items() if outer):
            session: Any = port.session
            session.part_of_loop = True
        return port(**arguments)

    # --- calls that remember what they have seen ---

    def _is_remembering(self, path: str, module: torch.nn.Module, call: Call) -> str:
        """ "engine" for a call that is to go on with what was seen, or to be gone on with; "" for any other.

        Else why only PyTorch can remember.
        """
        if call.cache is not None and not isinstance(call.cache, Cache):
            raise InputError(
                f"{call.cache_name} is a {type(call.cache).__name__}; pass a Cache of transformers."
            )
        if not calls.takes(type(module), "use_cache") and not calls.takes(type(module), call.cache_name):
            return ""
        if not _is_wanted(module, call) and (call.cache is None or call.use_cache is False):
            return ""
        if call.cache is not None:
            begins = not int(call.cache.get_seq_length())
            return (
                "engine"
                if begins or calls.has_plain_masks(call)
                else "PyTorch goes on with a mask of its own kind"
            )
        key = (path, call.signature)
        # BERT's configuration says use_cache too: what it returns is what counts.
        if key not in self._now.remembers:
            self._now.remembers[key] = self._returns_cache(module, call)
        return self._now.remembers[key]

    def _returns_cache(self, module: torch.nn.Module, call: Call) -> str:
        with self._example(module) as (twin, _):
            out = twin(**call.tensors, **call.fixed, use_cache=True, return_dict=True)
        # Some, as xLSTM, remember in a class of their own.
        found = {
            name: value for name, value in out.items() if isinstance(value, Cache) or calls.is_object(value)
        }
        if not found:
            return ""
        if set(found) == {CACHE} and is_kept(found[CACHE]) and calls.takes(type(module), CACHE):
            return "engine"
        if all(map(states.is_recurrent, found.values())):
            return (
                "PyTorch reads the prompt, token by token; the engine goes on with what it remembers, and computes "
                "all of it with use_cache=False"
            )
        return (
            "PyTorch computes, since no engine keeps what it remembers; with use_cache=False an engine does"
        )

    def _generate(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        cache = call.cache
        seen = cache.get_seq_length() if cache is not None else 0
        tokens = next(
            (t.shape[1] for n, t in call.tensors.items() if n in calls.TOKENS and t.dim() > 1), None
        )
        begins = int(seen) == 0
        if tokens is None and (not begins or calls.LABELS not in call.tensors):
            raise InputError(f"{type(module).__name__} got no tokens: none of {', '.join(calls.TOKENS[:4])}.")
        _, cross = parts_of(cache)
        pair = cross is not None or bool(
            getattr(getattr(module, "config", None), "is_encoder_decoder", False)
        )
        if tokens is None or calls.LABELS in call.tensors:
            if call.kept:
                call.fixed[calls.LOGITS] = call.kept
        elif calls.takes(type(module), calls.LOGITS) and calls.LOGITS not in call.tensors:
            # As places, which may be others in every call; as a number it would be a constant of the graph.
            call.tensors[calls.LOGITS] = torch.arange(tokens - (call.kept or tokens), tokens)
        plain = all(n in (*calls.TOKENS, *calls.SEEN, calls.LOGITS) for n in call.tensors)
        plain = plain and calls.has_plain_masks(call)
        if begins and (pair or not plain or self.engine != "openvino"):
            return self._begin(path, module, call, cache)
        assert tokens is not None
        return self._go_on(path, module, call, DynamicCache() if cache is None else cache, tokens)

    def _begin(self, path: str, module: torch.nn.Module, call: Call, cache: Any) -> Any:
        """The first tokens: the original makes the cache, inside the graph, and the port returns its tensors."""
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "begins", call.signature)
        if forgets(module):
            # Its own cache would keep a window of the tokens, and the port that goes on wants them all.
            arguments[CACHE], key = DynamicCache(), (path, "begins and keeps all", call.signature)
        port = self._port(key, module, arguments, lambda: {**arguments, **self._longer(call)})
        out = port(**arguments)
        made = out[CACHE]
        if cache is None:
            return out
        own, cross = parts_of(cache)
        made_own, made_cross = parts_of(made)
        fill(own, made_own)
        if made_cross is not None:
            if cross is None:  # a decoder alone, given an encoder's outputs: its loop began with half a cache
                cache = EncoderDecoderCache(own, DynamicCache())
            copy_into(cache.cross_attention_cache, made_cross)
            cache.is_updated = {i: layer.keys is not None for i, layer in enumerate(made_cross.layers)}
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
        if refused := broken_by(port, arguments):
            raise SizeError(complaint(refused[0], port.manifest.inputs, sizes_of(port, arguments)) + ".")
        plan = plan_of(port)
        if not isinstance(own, EngineCache) or own._paritas_owner is not port:
            arrays = arrays_of(own)
            freeze(own, self._state(port), port, plan.dtype)
            if arrays:
                own._paritas_state.load(arrays)
        feed = plan.feed(arguments, cross)
        found = own._paritas_state.run(feed, tokens)
        return plan.output(found, cache)

    def _going_on(self, module: torch.nn.Module, call: Call) -> dict[str, Any]:
        """The arguments of a call that goes on, with a cache that the original has made."""
        # A decoder alone calls the mask of its own tokens attention_mask, with an encoder's outputs and without.
        call = calls.of_two_rows(call)
        first, then = calls.generation_examples(call, calls.takes(type(module), "decoder_attention_mask"))
        if forgets(module):
            first = {**first, CACHE: DynamicCache()}
        with self._example(module) as (twin, _):
            made = twin(**first, **call.fixed, use_cache=True, return_dict=True)
        return {**then, **call.fixed, CACHE: growing(made[CACHE]), "use_cache": True}

    def _step(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        """One token of each sequence, from states of a fixed size and to those after it."""
        name, cache = call.cache_name, call.cache
        fixed = {**call.fixed, "use_cache": True}
        key = (path, "steps", call.signature, states.kind(cache))

        def examples() -> dict[str, Any]:
            return {**states.example(call), **fixed, name: states.example_cache(cache)}

        arguments = {**call.tensors, **fixed, name: cache}
        port = self._port(key, module, arguments, examples)
        out = port(**arguments)
        states.take_over(cache, out[name])
        out[name] = cache
        return out

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
        asked, key = key, (key, *_surroundings())
        known = self._now.ports.setdefault(key, [])
        for port in known:
            if fits(port, arguments):
                return port
        # A size of 1 is always taken for a constant; after that, once more with every size free.
        alike = [port for port in known if same_values(port, arguments)]
        free = all(differs_by_ones(port, arguments) for port in alike)
        # The model's code goes another way with these sizes.
        exact = complete and any(broken_by(port, arguments) for port in alike)
        kind = ("free",)[: len(alike)] if free and not exact else fixed_sizes(arguments)
        place = self._place(key, kind)
        read = port_cache.read(place, self.mode)
        if read is not None and not same_values(read, arguments):
            place = self._place(key, (*kind, values(read, arguments)))
            read = port_cache.read(place, self.mode)
        if read is not None and complete and broken_by(read, arguments):
            exact, place = True, self._place(key, fixed_sizes(arguments))
            read = port_cache.read(place, self.mode)
        if read is not None and fits(read, arguments):
            port = read
        else:
            given = dict(arguments) if exact or examples is None else examples()
            port = self._made(module, given, dynamic=free, exact=exact)
            port_cache.write(port, place)
        known.append(port)
        if complete and not exact and broken_by(port, arguments):
            return self._port(asked, module, arguments)  # made for a batch of 2, and 1 is another way
        return port

    def _place(self, key: Any, sizes: Any) -> Path | None:
        """Where a port for calls of that key is kept; None for a model that cannot be described whole."""
        root = port_cache.directory()
        if root is None or (content := self.content()) is None:
            return None
        build = port_cache.Build(self.engine, self.mode, self.target, self.weights, self.device)
        return port_cache.place(root, build, content, key, sizes)

    def _made(
        self, module: torch.nn.Module, given: Mapping[str, Any], *, dynamic: bool, exact: bool = False
    ) -> pipeline.Port:
        with torch.inference_mode(False), self._example(module) as (twin, is_copy):
            source = Source("module", model_class=f"{type(twin).__module__}.{type(twin).__qualname__}")
            program = capture(twin, given, dynamic=dynamic, source=source, exact=exact)
            port = pipeline.port_program(
                program,
                twin,
                self.engine,
                mode=self.mode,
                target=self.target,
                weights=self.weights,
                device=self.device,
                keep_example=False,  # what a user calls it with is nobody else's to read
            )
        if not is_copy and not port.manifest.prepared:
            port._original = None  # the caller's model: it would be verified against itself
        return port

    @contextlib.contextmanager
    def _example(self, module: torch.nn.Module) -> Iterator[tuple[Any, bool]]:
        """What is run or captured in the module's place: nothing that happens there is a change of the caller's."""
        assert self._watch is not None
        with example_of(module) as (twin, is_copy):
            yield twin, is_copy
        if not is_copy:
            self._watch.look()

    def ports(self) -> list[pipeline.Port]:
        """Every port that was made or read so far: their notes say what was fixed, cast or left out."""
        return [port for condition in self._conditions.values() for port in condition.all_ports()]


def _is_wanted(module: torch.nn.Module, call: Call) -> bool:
    """Whether the original would return its cache, as far as the call and the configuration say."""
    if call.use_cache is None:
        return bool(getattr(getattr(module, "config", None), "use_cache", False))
    return call.use_cache


def _surroundings() -> tuple[str, ...]:
    """What a result depends on beside the model: the dtypes that torch is told to compute in."""
    automatic = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else ""
    return automatic, str(torch.get_default_dtype())


def _vocabulary(module: Any, name: str) -> int:
    """How many tokens that argument knows; 0 if the module does not say."""
    try:
        owner = module.get_decoder() if name.startswith("decoder") else module
        return int(owner.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        return 0
