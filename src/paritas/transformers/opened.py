# SPDX-License-Identifier: Apache-2.0
"""A port in a directory as a model of transformers: its class without weights, and one port that answers for it.

The model is a skeleton on torch's meta device, of which nothing is allocated: its code is the original's, generation
loops above all, and its forward is the port. What the port cannot do is refused, as no weights are there to do it with.
"""

from __future__ import annotations

import copy
import functools
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicCache
from transformers.utils import logging

from paritas import pipeline
from paritas.components import Components
from paritas.dropin.dispatch import install
from paritas.errors import InputError
from paritas.options import BuildOptions
from paritas.program import Manifest
from paritas.run.session import State
from paritas.run.state import new_state, run_last
from paritas.transformers import calls
from paritas.transformers.cache import EngineCache, arrays_of, freeze, has_seen_nothing, is_kept
from paritas.transformers.calls import LOGITS, SEEN, Call
from paritas.transformers.models import Ported, ported_class
from paritas.transformers.plan import plan_of

logger = logging.get_logger("paritas.transformers")

#: Arguments of forward that say what is returned, and change nothing of it: a port returns what it was made to return.
_OUTPUTS = {"output_attentions": "attentions", "output_hidden_states": "hidden_states"}


class OnePort:
    """What answers for a model that is a port: calls of the whole model, in evaluation mode.

    A model of several components has a subclass of `SeveralPorts`.
    """

    def __init__(self, model: Any, port: pipeline.Port) -> None:
        self.model, self.port = model, port
        manifest = port.manifest
        weights = str(manifest.settings.get("weights", ""))
        self.build = BuildOptions(manifest.engine, manifest.dtype, port.mode, manifest.target, weights)
        self._plan = plan_of(port)
        self._lock = threading.RLock()

    @property
    def again(self) -> str:
        """How a port that does something else is made."""
        return how_again(self.port.manifest)

    def ports(self) -> list[pipeline.Port]:
        return [self.port]

    def close(self) -> None:
        """Release the engine's memory."""
        self.port.close()

    def save(self, directory: str | os.PathLike[str]) -> None:
        self.port.save(directory)

    def __call__(
        self, path: str, module: torch.nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """`module(*args, **kwargs)`, torch tensors in and out. Raises `InputError` for what the port does not do."""
        if path:
            name = type(self.model).__name__
            self._refuse(f"{path} inside {name} was called, and this port computes {name} as a whole")
        return self._answered(module, args, kwargs, self._whole)

    def _answered(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], compute: Callable[[Call], Any]
    ) -> Any:
        """What `compute` says to a call of `module`, in the form that is asked for."""
        if module.training:
            self._refuse(f"{type(module).__name__} is in training mode, and a port computes inference only", "eval")
        call = calls.take(type(module), args, kwargs, self.model.config)
        self._check(call)
        with self._lock, torch.no_grad():
            out = compute(call)
        return out.to_tuple() if call.as_tuple and hasattr(out, "to_tuple") else out

    def _whole(self, call: Call) -> Any:
        for name in [n for n, value in call.fixed.items() if isinstance(value, Mapping | list | tuple) and not value]:
            del call.fixed[name]  # loops hand on what encoders have made, also of nothing
        return self._going_on(call) if self._plan.names else self._computed(call)

    def _refuse(self, what: str, advice: str = "") -> NoReturn:
        do = "Call model.eval()" if advice == "eval" else advice or f"Port it again for that: {self.again}"
        raise InputError(f"{what}. {do}.")

    def _check(self, call: Call) -> None:
        for name, output in _OUTPUTS.items():
            asked = call.fixed.pop(name, None) if name in call.fixed else getattr(self.model.config, name, False)
            has = output in self.port.manifest.structure.get("items", {})
            if asked and not has:
                constants = "{**example, " + repr(name) + ": True}"
                self._refuse(
                    f"{name}=True was asked for, and this port does not return {output}",
                    f"Port it again with an example call that asks for them: paritas.port(model, inputs={constants})",
                )
        if calls.LABELS in call.tensors:
            self._refuse(
                "labels were given, and this port computes no loss", "Compute it of the logits: model.loss_function"
            )

    # --- one forward, without a memory ---

    def _computed(self, call: Call) -> Any:
        cache = call.cache
        if call.use_cache or (isinstance(cache, Cache) and cache.get_seq_length()):
            source = self.port.manifest.source
            again = f"paritas port {source.id or 'ORIGINAL'} --engine openvino --task text-generation-with-past"
            self._refuse("use_cache=True was asked for, and this port has no cache", f"Port it with one: {again}")
        manifest = self.port.manifest
        known = {spec.name for spec in manifest.inputs} | manifest.constants.keys()
        tensors = self._without_positions(call.tensors, known)
        kept = tensors.pop(LOGITS, call.kept) if LOGITS not in known else None
        if kept is None and call.kept:
            tensors[LOGITS] = call.kept
        fixed = {name: value for name, value in manifest.constants.items() if name in ("use_cache", "return_dict")}
        out = self.port(**fixed, **tensors, **call.fixed)
        if isinstance(kept, torch.Tensor) or kept:
            out["logits"] = _kept(out["logits"], kept)
        return out

    def _without_positions(self, tensors: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
        """These arguments without positions that this port counts itself, if they are what it counts."""
        found = dict(tensors)
        for name in ("position_ids", "cache_position"):
            if name in found and name not in known:
                given = found.pop(name)
                if not bool((given == torch.arange(given.shape[-1])).all()):
                    self._refuse(
                        f"{name} was given, and this port counts positions from 0, as without padding",
                        f"Port it with {name} among its inputs: paritas.port(model, inputs={{..., {name!r}: ...}})",
                    )
        return found

    # --- with a cache ---

    def _going_on(self, call: Call) -> Any:
        cache = call.cache
        if cache is not None and not (isinstance(cache, Cache) and (is_kept(cache) or has_seen_nothing(cache))):
            self._refuse(
                f"{call.cache_name} is a {type(cache).__name__}, whose content no engine keeps", "Leave it out"
            )
        wanted = call.use_cache is None or call.use_cache
        own: Any = DynamicCache() if cache is None else cache
        if not isinstance(own, EngineCache) or own._paritas_owner is not self.port:
            arrays = arrays_of(own) if is_kept(own) else []
            freeze(own, new_state(self.port.session, self.port.manifest), self.port, self._plan.dtype)
            if arrays:
                own._paritas_state.load(arrays)
        state: State = own._paritas_state
        tensors, kept = dict(call.tensors), call.kept
        places = tensors.pop(LOGITS, kept) if LOGITS not in self._plan.inputs else kept
        given = self._filled(tensors, state.length)
        if unknown := [name for name in (*given, *call.fixed) if name not in self._plan.inputs]:
            self._refuse(f"{', '.join(unknown)} is no input of this port, which takes {', '.join(self._plan.inputs)}")
        feed, tokens = self._plan.checked(given, state.length)
        found = run_last(state, feed, tokens, places if isinstance(places, int) else 0)
        out = self._plan.output(found, own if wanted else None)
        if isinstance(places, torch.Tensor) or (places and out["logits"].shape[1] > places):
            out["logits"] = _kept(out["logits"], places)
        return out

    def _filled(self, tensors: dict[str, Any], seen: int) -> dict[str, Any]:
        """Mask and positions as the original makes them where they are left out."""
        ids = tensors.get("input_ids")
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2:
            given = f"{', '.join(sorted(tensors)) or 'nothing'} was given"
            self._refuse(f"{given}, and this port takes input_ids [batch, tokens]")
        batch, tokens = ids.shape
        mask = tensors.get("attention_mask")
        for name in SEEN:
            if isinstance(tensors.get(name), torch.Tensor) and tensors[name].dim() != 2:
                self._refuse(f"{name} has {tensors[name].dim()} dimensions, and this port takes [batch, tokens]")
        if mask is not None and mask.shape[1] < seen + tokens:
            raise InputError(
                f"attention_mask has size {mask.shape[1]} in dimension 1; {seen + tokens} are expected: one for each "
                f"of {seen} tokens that were seen, and of {tokens} new ones."
            )
        if mask is None and "attention_mask" in self._plan.inputs:
            tensors["attention_mask"] = torch.ones(batch, seen + tokens, dtype=torch.int64)
        if "position_ids" not in self._plan.inputs:
            tensors.pop("position_ids", None)  # which forward does not take: loops hand them on all the same
        elif tensors.get("position_ids") is None:
            if (mask is not None and not bool(mask[:, 0].all())) or self._counts_otherwise:
                self._refuse(
                    "position_ids is missing, and models count differently there",
                    "Pass it: (attention_mask.cumsum(-1) - 1).clamp(min=0), of the new tokens",
                )
            tensors["position_ids"] = torch.arange(seen, seen + tokens).expand(batch, -1)
        elif len(tensors["position_ids"]) != batch:
            tensors["position_ids"] = tensors["position_ids"].expand(batch, -1)
        return tensors

    @functools.cached_property
    def _counts_otherwise(self) -> bool:
        """Whether the original's positions may begin elsewhere than at 0: a table of positions knows padding."""
        return any(
            "position" in name and getattr(module, "padding_idx", None) is not None
            for name, module in self.model.named_modules()
        )


class SeveralPorts(OnePort):
    """What answers for a model of several components, of which one goes on with the memory of a generation."""

    def __init__(self, model: Any, components: Components[pipeline.Port], goes_on: str) -> None:
        super().__init__(model, components[goes_on])
        self.components = components

    def ports(self) -> list[pipeline.Port]:
        return list(self.components.values())

    def close(self) -> None:
        self.components.close()

    def save(self, directory: str | os.PathLike[str]) -> None:
        self.components.save(directory)


def _kept(logits: torch.Tensor, places: Any) -> torch.Tensor:
    """Those at the places that are asked for, or so many of the last."""
    return logits[:, places] if isinstance(places, torch.Tensor) else logits[:, -places:]


def how_again(manifest: Manifest) -> str:
    """The command that ports the original once more."""
    source = manifest.source
    if source.kind == "module":
        return f"paritas.port(model, engine={manifest.engine!r}, ...)"
    return f"paritas port {source.id or 'ORIGINAL'} --engine {manifest.engine} --out OTHER"


class Opened(Ported):
    """Mixed into a ported class of transformers: a model that is a port, without weights."""

    _paritas: OnePort  # type: ignore[assignment]
    #: Opens the same port once more.
    _paritas_again: Callable[[], Any]

    @property
    def device(self) -> torch.device:
        """Where its tensors go in and come out."""
        return torch.device("cpu")

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = {"config": self.config, "generation_config": getattr(self, "generation_config", None)}  # type: ignore[attr-defined]
        return self._paritas_again, (), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: value for name, value in state.items() if value is not None})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        again, arguments, state = self.__reduce_ex__(4)
        copied = memo[id(self)] = again(*arguments)
        copied.__setstate__(copy.deepcopy(state, memo))
        return copied

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Copy the port, whole or not at all. Raises `PortError`."""
        self._paritas.save(save_directory)

    def in_pytorch(self) -> Any:
        """Raises `InputError`: the original's weights are not there."""
        self._without_weights("The original in PyTorch")

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The same model for what it is already; `InputError` for another device or dtype."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type != "cpu":
            raise InputError(
                f"A port takes and returns tensors on the CPU, not on {device}. Where the engine computes is said "
                "with engine_device=, as from_pretrained(DIR, engine_device='GPU')."
            )
        if dtype is not None and str(dtype).removeprefix("torch.") != self._paritas.build.dtype:
            self._without_weights(f"A cast to {dtype}")
        return self

    def cuda(self, *args: Any, **kwargs: Any) -> Any:
        return self.to("cuda")

    def half(self) -> Any:
        return self.to(torch.float16)

    def bfloat16(self) -> Any:
        return self.to(torch.bfloat16)

    def float(self) -> Any:
        return self.to(torch.float32)

    def _without_weights(self, what: str) -> NoReturn:
        raise InputError(
            f"{what} is not possible: this model is a port, and has no weights of PyTorch's. Load the original, and "
            f"port it again: {self._paritas.again}."
        )


def _refusing(name: str) -> Callable[..., Any]:
    def refused(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._without_weights(f"model.{name}()")

    refused.__name__ = name
    return refused


#: What works on weights, of which a port has none that PyTorch could read or write.
for _name in (
    "state_dict", "load_state_dict", "resize_token_embeddings", "add_adapter", "load_adapter", "quantize",
    "set_input_embeddings", "set_output_embeddings", "push_to_hub", "init_weights",
):  # fmt: skip
    setattr(Opened, _name, _refusing(_name))


@functools.cache
def opened_class(original: Any) -> Any:
    """The ported class of transformers, of a model without weights. It is a subclass, of the same name."""
    base = ported_class(original)
    space = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    return type(original.__name__, (Opened, base), space)


def model_of(
    port: pipeline.Port,
    original: Any,
    config: Any,
    directory: Path,
    again: Callable[[], Any],
    network_of: Callable[[Any], OnePort] | None = None,
) -> Any:
    """A model of the class that `port` was made of, without weights, whose forward the port is.

    directory: where its generation configuration is. again: opens it once more. network_of: what answers for the
    model, where that is not the port alone.
    """
    dtype = getattr(torch, port.manifest.dtype)
    with torch.device("meta"):
        model = original._from_config(config, dtype=dtype).eval()
    model.__class__ = opened_class(original)
    model._paritas_again = again
    network: Any = network_of(model) if network_of is not None else OnePort(model, port)
    install(model, network)
    model.name_or_path = config._name_or_path = str(directory)
    if model.can_generate():
        if Path(directory, "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(directory)
        if not plan_of(port).names:
            model.generation_config.use_cache = model.config.use_cache = False
            if not config.is_encoder_decoder:
                logger.warning(f"{directory} has no cache: each new token costs a call on all before it.")
    return model
