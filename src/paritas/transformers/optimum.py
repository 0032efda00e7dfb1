# SPDX-License-Identifier: Apache-2.0
"""What people write who come from optimum: names of its classes, and keywords of its `from_pretrained`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from paritas.errors import InputError
from paritas.run.engine import all_about

#: What optimum calls otherwise than transformers' Auto classes.
_OTHERWISE = {
    "": "AutoModel",
    "ForFeatureExtraction": "AutoModel",
    "ForCustomTasks": "AutoModel",
    "ForVisualCausalLM": "AutoModelForImageTextToText",
    "ForImageTextToText": "AutoModelForImageTextToText",
    "ForAudioFrameClassification": "AutoModelForAudioFrameClassification",
    "ForZeroShotImageClassification": "AutoModelForZeroShotImageClassification",
}

#: What optimum makes a model with, and there is nothing to ask for here: a model is always ported.
_OF_COURSE = ("export", "from_transformers", "compile")

#: keyword of transformers' and optimum's -> the weights that it asks for.
_BITS = {"load_in_8bit": "int8", "load_in_4bit": "int4"}


def auto_name(name: str) -> tuple[str, str]:
    """(transformers' class, engine) for a class of optimum: "OVModelForCausalLM"; ("", "") for any other name.

    Raises `AttributeError` for a class of optimum's for an engine that Paritas has not.
    """
    prefix, model, rest = name.partition("Model")
    if not model or not prefix.isupper() or not (rest == "" or rest.startswith("For")):
        return "", ""
    wanted = _OTHERWISE.get(rest, f"AutoModel{rest}")
    engines = {one.optimum: one.name for one in all_about() if one.optimum}
    if prefix not in engines:
        raise AttributeError(
            f"{name} is optimum's, for an engine that Paritas has not. Take {wanted} of paritas.transformers, with "
            f"engine= one of {', '.join(repr(one.name) for one in all_about())}."
        )
    return wanted, engines[prefix]


def names_of(autos: Iterable[str]) -> list[str]:
    """optimum's names, as far as Paritas has their engines, for Auto classes of transformers."""
    rests = [*_OTHERWISE, *(name.removeprefix("AutoModel") for name in autos)]
    known = set(autos)
    names = [f"{one.optimum}Model{rest}" for one in all_about() if one.optimum for rest in dict.fromkeys(rests)]
    return [name for name in names if auto_name(name)[0] in known]


def understood(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of optimum's as ours: `load_in_8bit=True` is `weights="int8"`; `export=True` asks for nothing.

    A quantisation of transformers' own stays what it is. Raises `InputError` for two that contradict each other.
    """
    found = {name: value for name, value in kwargs.items() if name not in (*_OF_COURSE, *_BITS)}
    asked = {f"{name}=True": weights for name, weights in _BITS.items() if kwargs.get(name)}
    config: Any = found.get("quantization_config")
    if type(config).__name__.startswith("OV") and getattr(config, "bits", None):
        asked[f"quantization_config with {config.bits} bits"] = f"int{config.bits}"
        del found["quantization_config"]
    if found.get("weights"):
        asked[f"weights={found['weights']!r}"] = found["weights"]
    if len(set(asked.values())) > 1:
        raise InputError(
            f"{' and '.join(asked)} contradict each other. Give one: weights={next(iter(asked.values()))!r}"
        )
    if asked:
        found["weights"] = next(iter(asked.values()))
    return found
