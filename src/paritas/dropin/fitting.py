# SPDX-License-Identifier: Apache-2.0
"""Whether a port serves a call: the sizes and values that are constants of it are those of the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from paritas import pipeline
from paritas.arguments import flatten
from paritas.errors import InputError
from paritas.guards import broken, names_in
from paritas.program import Guard


def fits(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    sizes = _constants(port, arguments)
    fixed = sizes is not None and all(had == has for had, has in sizes)
    return fixed and same_values(port, arguments) and not broken_by(port, arguments)


def broken_by(port: pipeline.Port, arguments: Mapping[str, Any], more: Mapping[str, int] | None = None) -> list[Guard]:
    """The port's guards that these arguments break, of those whose sizes the arguments tell, or `more` does."""
    if not port.manifest.guards:
        return []
    sizes = {**sizes_of(port, arguments), **(more or {})}
    return [guard for guard in broken(port.manifest.guards, sizes) if names_in(guard) <= sizes.keys()]


def sizes_of(port: pipeline.Port, arguments: Mapping[str, Any]) -> dict[str, int]:
    """The dynamic dimensions that these arguments tell the sizes of."""
    given = flatten(arguments, port.manifest.nesting)
    sizes: dict[str, int] = {}
    for spec in port.manifest.inputs:
        value = given.get(spec.name)
        if isinstance(value, torch.Tensor) and value.dim() == len(spec.dims):
            sizes |= {dim: size for dim, size in zip(spec.dims, value.shape, strict=True) if isinstance(dim, str)}
    return sizes


def values(port: pipeline.Port, arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What these arguments have where the port takes one value only, since sizes follow from it."""
    names = [spec.name for spec in port.manifest.inputs if spec.value is not None]
    given = flatten(arguments, port.manifest.nesting) if names else {}
    return tuple((n, given[n].tolist()) for n in names if isinstance(given.get(n), torch.Tensor))


def same_values(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    wanted = {spec.name: spec.value for spec in port.manifest.inputs}
    return all(wanted[name] == value for name, value in values(port, arguments))


def differs_by_ones(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    sizes = _constants(port, arguments)
    return sizes is not None and all(had in (1, has) for had, has in sizes)


def was_longer(port: pipeline.Port, arguments: Mapping[str, Any]) -> bool:
    """Whether no size that is a constant of the port is larger in these arguments."""
    sizes = _constants(port, arguments)
    return sizes is not None and all(has <= had for had, has in sizes)


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


def fixed_sizes(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    found = ((name, _sizes_in(value)) for name, value in sorted(arguments.items()))
    return tuple((name, sizes) for name, sizes in found if sizes is not None)


def _sizes_in(value: Any) -> Any:
    """The shape of a tensor, or those of the tensors in a list or a mapping; None for all else."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return tuple((key, sizes) for key, item in value.items() if (sizes := _sizes_in(item)) is not None) or None
    if isinstance(value, (tuple, list)):
        sizes = tuple(map(_sizes_in, value))
        return sizes if any(size is not None for size in sizes) else None
    return None
