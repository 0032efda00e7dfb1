# SPDX-License-Identifier: Apache-2.0
"""Calls of transformers' models on an engine: those that remember what they have seen, beside those that do not."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.utils import logging

from paritas.dropin.fitting import broken_by, sizes_of
from paritas.dropin.network import Network
from paritas.errors import InputError, SizeError, TokenError
from paritas.guards import complaint
from paritas.run.state import new_state
from paritas.transformers import calls, states
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
from paritas.transformers.plan import plan_of

#: What is remembered there.
ON_ENGINE = "engine"


class Generation(Network):
    """A model of transformers: its calls may have a cache, which is then on the engine too."""

    logger: ClassVar[Any] = logging.get_logger("paritas.transformers")
    taken = (Cache,)

    def _taken_apart(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        return calls.take(type(module), args, kwargs, getattr(module, "config", None))

    def _key(self, call: Call) -> Any:
        return call.signature, call.cache is None

    def _refused_argument(self, value: Any) -> str:
        if isinstance(value, Cache) and not is_kept(value) and not states.is_recurrent(value):
            return f"PyTorch computes, since no engine keeps what is in this {type(value).__name__}"
        return super()._refused_argument(value)

    def _refused(self, module: torch.nn.Module, call: Call) -> str:
        if call.cache is not None and not isinstance(module, PreTrainedModel):
            return "PyTorch computes, since only a whole model can hand its cache to an engine"
        if states.is_recurrent(call.cache):
            return states.only_original(call, _is_wanted(module, call))
        return ""

    def _answer(self, path: str, module: torch.nn.Module, call: Call) -> tuple[Any, str]:
        if states.is_recurrent(call.cache):
            return self._step(path, module, call), ""
        remembering = self._is_remembering(path, module, call)
        if remembering == ON_ENGINE:
            return self._generate(path, module, call), ""
        return (None, remembering) if remembering else (self._computed(path, module, call), "")

    def _arguments(self, module: torch.nn.Module, call: Call) -> dict[str, Any]:
        arguments = super()._arguments(module, call)
        if call.kept:
            arguments[calls.LOGITS] = call.kept
        if call.use_cache is not None and calls.takes(type(module), "use_cache"):
            # What is no cache, as RWKV's tensors, is an output like any other.
            arguments["use_cache"] = bool(call.use_cache) and not calls.takes(type(module), call.cache_name)
        return arguments

    def _handed_out(self, call: Call, out: Any) -> Any:
        return out.to_tuple() if call.as_tuple and hasattr(out, "to_tuple") else out

    def _made_ready(self, twin: Any) -> None:
        can_choose = getattr(twin, "_can_set_experts_implementation", None)
        if can_choose is not None and can_choose() and twin.config._experts_implementation == "eager":
            twin.set_experts_implementation("grouped_mm")  # a loop over the experts that are hit has no graph

    def _check(self, path: str, module: torch.nn.Module, call: Call) -> None:
        """Engines do not: OpenVINO reads a row that is not there as zeros."""
        for name in ("input_ids", "decoder_input_ids"):
            ids = call.tensors.get(name)
            if not isinstance(ids, torch.Tensor) or not ids.numel():
                continue
            key = ("vocabulary", path, name)
            if key not in self.now.known:
                self.now.known[key] = _vocabulary(module, name)
            size, (low, high) = self.now.known[key], (int(found) for found in torch.aminmax(ids))
            if size and not 0 <= low <= high < size:
                raise TokenError(
                    f"{name} has the token {high if high >= size else low}, and the vocabulary of "
                    f"{type(module).__name__} has {size}: 0 to {size - 1}. Is the tokenizer that of another model?"
                )

    # --- calls that remember what they have seen ---

    def _is_remembering(self, path: str, module: torch.nn.Module, call: Call) -> str:
        """ "engine" for a call that is to go on with what was seen, or to be gone on with; "" for any other.

        Else why only PyTorch can remember.
        """
        if call.cache is not None and not isinstance(call.cache, Cache):
            raise InputError(f"{call.cache_name} is a {type(call.cache).__name__}; pass a Cache of transformers.")
        if not calls.takes(type(module), "use_cache") and not calls.takes(type(module), call.cache_name):
            return ""
        if not _is_wanted(module, call) and (call.cache is None or call.use_cache is False):
            return ""
        if call.cache is not None:
            begins = not int(call.cache.get_seq_length())
            return ON_ENGINE if begins or calls.has_plain_masks(call) else "PyTorch goes on with a mask of its own kind"
        key = ("remembers", path, call.signature)
        # BERT's configuration says use_cache too: what it returns is what counts.
        if key not in self.now.known:
            self.now.known[key] = self._returns_cache(module, call)
        return self.now.known[key]

    def _returns_cache(self, module: torch.nn.Module, call: Call) -> str:
        with self._example(module) as (twin, _):
            out = twin(**call.tensors, **call.fixed, use_cache=True, return_dict=True)
        # Some, as xLSTM, remember in a class of their own.
        found = {name: value for name, value in out.items() if isinstance(value, Cache) or calls.is_object(value)}
        if not found:
            return ""
        if set(found) == {CACHE} and is_kept(found[CACHE]) and calls.takes(type(module), CACHE):
            return ON_ENGINE
        if all(map(states.is_recurrent, found.values())):
            return (
                "PyTorch reads the prompt, token by token; the engine goes on with what it remembers, and computes "
                "all of it with use_cache=False"
            )
        return "PyTorch computes, since no engine keeps what it remembers; with use_cache=False an engine does"

    def _generate(self, path: str, module: torch.nn.Module, call: Call) -> Any:
        cache = call.cache
        seen = cache.get_seq_length() if cache is not None else 0
        tokens = next((t.shape[1] for n, t in call.tensors.items() if n in calls.TOKENS and t.dim() > 1), None)
        begins = int(seen) == 0
        if tokens is None and (not begins or calls.LABELS not in call.tensors):
            raise InputError(f"{type(module).__name__} got no tokens: none of {', '.join(calls.TOKENS[:4])}.")
        _, cross = parts_of(cache)
        pair = cross is not None or bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))
        if tokens is None or calls.LABELS in call.tensors:
            if call.kept:
                call.fixed[calls.LOGITS] = call.kept
        elif calls.takes(type(module), calls.LOGITS) and calls.LOGITS not in call.tensors:
            # As places, which may be others in every call; as a number it would be a constant of the graph.
            call.tensors[calls.LOGITS] = torch.arange(tokens - (call.kept or tokens), tokens)
        plain = all(n in (*calls.TOKENS, *calls.SEEN, calls.LOGITS) for n in call.tensors)
        plain = plain and calls.has_plain_masks(call)
        if begins and (pair or not plain or not self.engine.own_state):
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

    def _go_on(self, path: str, module: torch.nn.Module, call: Call, cache: Any, tokens: int) -> Any:
        own, cross = parts_of(cache)
        arguments = {**call.tensors, **call.fixed, "use_cache": True}
        key = (path, "goes on", call.signature)
        port = self._port(key, module, arguments, lambda: self._going_on(module, call), complete=False)
        plan = plan_of(port)
        if not isinstance(own, EngineCache) or own._paritas_owner is not port:
            arrays = arrays_of(own)
            freeze(own, new_state(port.session, port.manifest), port, plan.dtype)
            if arrays:
                own._paritas_state.load(arrays)
        quick = plan.quick(arguments, own._paritas_state.length) if cross is None else None
        if quick is None:
            seen = dict.fromkeys(plan.pasts, own._paritas_state.length)
            if refused := broken_by(port, arguments, seen):
                sizes = {**sizes_of(port, arguments), **seen}
                raise SizeError(complaint(refused[0], port.manifest.inputs, sizes) + ".")
            quick = plan.feed(arguments, cross), tokens
        found = own._paritas_state.run(*quick)
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


def _is_wanted(module: torch.nn.Module, call: Call) -> bool:
    """Whether the original would return its cache, as far as the call and the configuration say."""
    if call.use_cache is None:
        return bool(getattr(getattr(module, "config", None), "use_cache", False))
    return call.use_cache


def _vocabulary(module: Any, name: str) -> int:
    """How many tokens that argument knows; 0 if the module does not say."""
    try:
        owner = module.get_decoder() if name.startswith("decoder") else module
        return int(owner.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        return 0
