# SPDX-License-Identifier: Apache-2.0
"""Which inputs and outputs of a program, or of a port, are the keys and values of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paritas.program import Manifest, Program
from paritas.pytree import STATES, has_states

#: Inputs whose second dimension counts the tokens of a call.
TOKENS = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")


def remembered(manifest: Manifest | Program) -> dict[str, int]:
    """Inputs that are memory -> the output that continues each: a cache's, of the same name and other sizes.

    And states, which have a fixed size, where a call may have any number of tokens. A step of one token is of a caller
    who keeps them.
    """
    caches = tuple(f"{name}." for name, nested in manifest.nesting.items() if nested["kind"] == "cache")
    outputs = {spec.name: (index, spec.dims) for index, spec in enumerate(manifest.outputs)}
    states = isinstance(tokens(manifest), str)
    return {
        spec.name: outputs[spec.name][0]
        for spec in manifest.inputs
        if spec.name.startswith(caches)
        and spec.name in outputs
        and (spec.dims != outputs[spec.name][1] or (states and is_state(spec.name)))
    }


def computed_once(manifest: Manifest | Program) -> dict[str, int]:
    """Outputs that are a cache's and no input -> their index: the keys and values of an encoder's tokens.

    They do not change between the calls of a generation, so that an engine may compute them in the first.
    """
    caches = tuple(f"{name}." for name, nested in manifest.nesting.items() if nested["kind"] == "cache")
    inputs, names = {spec.name for spec in manifest.inputs}, remembered(manifest)
    grown = {str(manifest.outputs[index].dims[2]) for index in names.values()}
    return {
        spec.name: index
        for index, spec in enumerate(manifest.outputs)
        if names and spec.name.startswith(caches) and spec.name not in inputs and str(spec.dims[2]) not in grown
    }


def is_state(name: str) -> bool:
    """Whether an input or output of a cache has a fixed size: "cache_params.0.conv_states.0"."""
    return any(part in STATES for part in name.split("."))


def tokens(manifest: Manifest | Program) -> int | str:
    """How many tokens a call adds: a symbol where that is free; 0 where nothing says so."""
    specs = {spec.name: spec.dims for spec in manifest.inputs if len(spec.dims) > 1}
    return next((specs[name][1] for name in TOKENS if name in specs), 0)


def new_tokens(manifest: Manifest) -> str:
    """The symbol of how many tokens a call adds to the memory; "" if that is no size of its own."""
    sizes = {spec.name: spec.dims[2] for spec in manifest.inputs if len(spec.dims) == 4}
    growing = {name: index for name, index in remembered(manifest).items() if not is_state(name)}
    if not growing and remembered(manifest):
        return str(tokens(manifest))
    for name, index in growing.items():
        symbols = set(str(manifest.outputs[index].dims[2]).split(" + ")) - {str(sizes[name])}
        return symbols.pop() if len(symbols) == 1 else ""
    return ""


def generates(manifest: Manifest) -> bool:
    """Whether the port begins a memory or goes on with one: then every call has other sizes."""
    items = manifest.structure.get("items", {})
    return isinstance(items, Mapping) and any(item["kind"] == "cache" for item in items.values())


def variables(manifest: Manifest | Program) -> dict[str, int]:
    """What is remembered, as far as an engine can have it as variables: {} where only a part of a cache is memory."""
    items = manifest.structure.get("items", {})
    caches = [item for item in items.values() if item["kind"] == "cache"] if isinstance(items, Mapping) else []
    names = remembered(manifest)
    return names if not any(map(has_states, caches)) or any(map(is_state, names)) else {}


def keeps_inside(manifest: Manifest | Program) -> bool:
    """Whether an engine can have what is remembered as variables."""
    return bool(variables(manifest))


def unchanged(manifest: Manifest | Program) -> set[int]:
    """Outputs that are an input as it was: the keys and values of an encoder's tokens."""
    inputs = {spec.name: spec.dims for spec in manifest.inputs}
    names = remembered(manifest)
    return {
        i for i, spec in enumerate(manifest.outputs) if inputs.get(spec.name) == spec.dims and spec.name not in names
    }


def inside(manifest: Manifest | Program) -> set[int]:
    """Outputs that a model with variables does not return."""
    return {*remembered(manifest).values(), *computed_once(manifest).values(), *unchanged(manifest)}


def begun(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a call that is given nothing remembered goes on with: no tokens, of as many rows as its inputs have."""
    names = variables(manifest)
    if not names or any(given.get(name) is not None for name in names):
        return {}
    rows = next((len(v) for v in given.values() if hasattr(v, "shape") and len(v.shape)), 0)
    specs = [spec for spec in manifest.inputs if spec.name in names]
    return {s.name: np.zeros([rows, *(d if isinstance(d, int) else 0 for d in s.dims[1:])], s.dtype) for s in specs}
