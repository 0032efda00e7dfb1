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


#: What optimum's configuration of weights has -> the same in ours, where it is not what is usual there.
_SAME = {
    "group_size": "group_size", "sym": "symmetric", "ratio": "ratio", "sensitivity_metric": "sensitivity_metric",
    "all_layers": "all_layers", "backup_precision": "backup_mode", "scale_estimation": "scale_estimation",
    "gptq": "gptq", "lora_correction": "lora_correction", "num_samples": "subset_size", "dataset": "dataset",
}  # fmt: skip

#: What it has and Paritas not -> the value with which it says nothing.
_NOT_HERE = {"ignored_scope": None, "statistics_path": None, "group_size_fallback": None, "dtype": None}


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
    asked: dict[str, Any] = {f"{name}=True": weights for name, weights in _BITS.items() if kwargs.get(name)}
    config = found.get("quantization_config")
    given = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    is_ours = type(config).__name__.startswith("OV") or (isinstance(config, Mapping) and "quant_method" not in config)
    if is_ours and (bits := getattr(config, "bits", None) or given.get("bits")):
        asked[f"quantization_config with {bits} bits"] = _weights_of(bits, given)
        del found["quantization_config"]
    if found.get("weights"):
        asked[f"weights={found['weights']!r}"] = found["weights"]
    first = next(iter(asked.values()), None)
    if any(one != first for one in asked.values()):
        raise InputError(
            f"{' and '.join(asked)} contradict each other. Give one: weights={next(iter(asked.values()))!r}"
        )
    if asked:
        found["weights"] = first
    return found


def _weights_of(bits: int, config: Mapping[str, Any]) -> str | dict[str, Any]:
    """What optimum's configuration of weights asks for, as `weights=` has it. Raises `InputError` for what has not."""
    if strange := [
        name for name, nothing in _NOT_HERE.items() if config.get(name, nothing) not in (nothing, f"int{bits}")
    ]:
        raise InputError(f"quantization_config asks for {', '.join(strange)}, which Paritas has not.")
    asked = {ours: config[name] for name, ours in _SAME.items() if config.get(name) not in (None, False)}
    method = str(getattr(config.get("quant_method"), "value", config.get("quant_method") or "")).lower()
    if method in ("awq", "gptq"):
        asked[method] = True
    # Eight bits have neither groups nor a share, which is how optimum writes it.
    usual = {"group_size": -1, "ratio": 1.0} if bits == 8 else {"ratio": 1.0}
    asked = {name: value for name, value in asked.items() if value != usual.get(name)}
    if "dataset" not in asked:
        asked.pop("subset_size", None)
    return {"format": f"int{bits}", **asked} if asked else f"int{bits}"
