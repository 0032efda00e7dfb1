# SPDX-License-Identifier: Apache-2.0
"""Tensors of the caller's framework: torch's for the original's code, and back again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from paritas.dtypes import dtype_name
from paritas.errors import InputError
from paritas.pytree import build_output, describe_output
from paritas.run.values import framework_of_type, from_numpy, to_numpy


def to_torch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], str]:
    """The arguments with torch tensors, and whose they were: "" where all were torch's already."""
    found = {_foreign(value) for value in (*args, *kwargs.values())} - {""}
    if not found:
        return args, kwargs, ""
    if len(found) > 1:
        raise InputError(f"The arguments are of different frameworks: {', '.join(sorted(found))}.")
    # Whoever mixes arrays with tensors of torch, as a library's own code may, gets torch's.
    mixed = any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))
    return (
        tuple(_as_torch(value) for value in args),
        {name: _as_torch(value) for name, value in kwargs.items()},
        "" if mixed else found.pop(),
    )


def _foreign(value: Any) -> str:
    framework = framework_of_type(type(value))
    if framework:
        return "" if framework == "torch" else framework
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((kind for item in value if (kind := _foreign(item))), "")
    return ""


def _as_torch(value: Any) -> Any:
    if framework_of_type(type(value)) not in ("", "torch"):
        tensor = torch.from_numpy(to_numpy("an argument", value))
        # NumPy has no bfloat16: its values came as float32, which holds them exactly.
        return tensor.bfloat16() if str(value.dtype).lower() == "bfloat16" else tensor
    if isinstance(value, Mapping):
        changed = {name: _as_torch(item) for name, item in value.items()}
        with contextlib.suppress(TypeError):
            return type(value)(**changed) if hasattr(value, "to_tuple") else changed
        return changed
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_as_torch, value))
    return [_as_torch(item) for item in value] if isinstance(value, list) else value


#: Classes that are to be handed back to a model and not to be read: they stay what they are.
_kept: set[type] = set()


def keep(cls: type) -> None:
    """From now on what a method returns of this class stays what it is, in whichever framework it was called."""
    _kept.add(cls)


def back(out: Any, framework: str) -> Any:
    """What a method returned, in the caller's framework."""
    if not framework or out is None or isinstance(out, (bool, int, float, str, torch.nn.Module)):
        return out
    if isinstance(out, Mapping) and any(isinstance(value, tuple(_kept)) for value in out.values()):
        kept = {key: value for key, value in out.items() if isinstance(value, tuple(_kept))}
        rest = back(type(out)(**{key: value for key, value in out.items() if key not in kept}), framework)
        return type(out)(**{key: kept.get(key, rest.get(key)) for key in out})
    flat, structure = describe_output(out)
    changed = [from_numpy(to_numpy("an output", one), framework, dtype_name(one.dtype)) for one in flat]
    return build_output(structure, changed, framework)
