# SPDX-License-Identifier: Apache-2.0
"""Which inputs and outputs of a program, or of a port, are the keys and values of a generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paritas.program import Manifest, Program
from paritas.pytree import has_states


def remembered(manifest: Manifest | Program) -> dict[str, int]:
    """Inputs that are memory -> the output that continues each: a cache's, of the same name and other sizes."""
    caches = tuple(f"{name}." for name, nested in manifest.nesting.items() if nested["kind"] == "cache")
    outputs = {spec.name: (index, spec.dims) for index, spec in enumerate(manifest.outputs)}
    return {
        spec.name: outputs[spec.name][0]
        for spec in manifest.inputs
        if spec.name.startswith(caches) and spec.name in outputs and spec.dims != outputs[spec.name][1]
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


def new_tokens(manifest: Manifest) -> str:
    """The symbol of how many tokens a call adds to the memory; "" if that is no size of its own."""
    sizes = {spec.name: spec.dims[2] for spec in manifest.inputs if len(spec.dims) == 4}
    for name, index in remembered(manifest).items():
        symbols = set(str(manifest.outputs[index].dims[2]).split(" + ")) - {str(sizes[name])}
        return symbols.pop() if len(symbols) == 1 else ""
    return ""


def generates(manifest: Manifest) -> bool:
    """Whether the port begins a memory or goes on with one: then every call has other sizes."""
    items = manifest.structure.get("items", {})
    return isinstance(items, Mapping) and any(item["kind"] == "cache" for item in items.values())


def keeps_inside(manifest: Manifest | Program) -> bool:
    """Whether an engine can have it as variables: keys and values that grow, without states of a fixed size."""
    items = manifest.structure.get("items", {})
    caches = [item for item in items.values() if item["kind"] == "cache"] if isinstance(items, Mapping) else []
    return bool(remembered(manifest)) and not any(map(has_states, caches))


def unchanged(manifest: Manifest | Program) -> set[int]:
    """Outputs that are an input as it was: the keys and values of an encoder's tokens."""
    inputs = {spec.name: spec.dims for spec in manifest.inputs}
    return {i for i, spec in enumerate(manifest.outputs) if inputs.get(spec.name) == spec.dims}


def inside(manifest: Manifest | Program) -> set[int]:
    """Outputs that a model with variables does not return."""
    return {*remembered(manifest).values(), *computed_once(manifest).values(), *unchanged(manifest)}


def begun(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What a call that is given nothing remembered goes on with: no tokens, of as many rows as its inputs have."""
    names = remembered(manifest) if keeps_inside(manifest) else {}
    if not names or any(given.get(name) is not None for name in names):
        return {}
    rows = next((len(v) for v in given.values() if hasattr(v, "shape") and len(v.shape)), 0)
    specs = [spec for spec in manifest.inputs if spec.name in names]
    return {s.name: np.zeros([rows, *(d if isinstance(d, int) else 0 for d in s.dims[1:])], s.dtype) for s in specs}
