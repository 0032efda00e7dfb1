# SPDX-License-Identifier: Apache-2.0
"""What a model is called with: nested arguments taken apart into named tensors, and put together again.

An engine takes tensors by name. `added_cond_kwargs={"text_embeds": t}` is the input "added_cond_kwargs.text_embeds",
`image_rotary_emb=(cos, sin)` the inputs "image_rotary_emb.0" and "image_rotary_emb.1". How they make the argument
is a description as in `paritas.pytree`, whose flat tensors are the inputs with the argument's name in front,
in the order of the description.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from paritas.errors import CaptureError, InputError
from paritas.program import Manifest
from paritas.pytree import Structure, build_output, describe_output, is_tensor, leaf_names

#: Argument of forward -> how its tensors make it.
Nesting = Mapping[str, Structure]


def take_apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Structure]]:
    """Tensors by name, the arguments that hold none, and the descriptions of those that hold several.

    Raises `CaptureError` naming every argument that is of another kind.
    """
    tensors: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    nesting: dict[str, Structure] = {}
    refused: list[str] = []
    for name, value in given.items():
        if is_tensor(value):
            tensors[name] = value
            continue
        try:
            flat, structure = describe_output(value)
        except CaptureError:
            refused.append(f"{name} ({type(value).__name__})")
            continue
        if flat or structure["kind"] == "cache":  # an empty cache is no constant: calls write into it
            tensors |= _named(name, flat, structure)
            nesting[name] = structure
        else:
            fixed[name] = value
    if refused:
        raise CaptureError(
            "Inputs must be tensors, numbers, strings, None, or tuples, lists, dicts and caches of them; got "
            f"{', '.join(refused)}. Wrap the model in a module whose forward takes the tensors one by one."
        )
    return tensors, fixed, nesting


def flatten(given: Mapping[str, Any], nesting: Nesting) -> dict[str, Any]:
    """A call's arguments with those of `nesting` as tensors by name. Raises `InputError` where one does not fit."""
    if not nesting or nesting.keys().isdisjoint(given):
        return dict(given)
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in nesting or value is None:
            found[name] = value
            continue
        try:
            flat, structure = describe_output(value)
        except CaptureError:
            flat, structure = [], {}
        want, got = _names(name, nesting[name]), _names(name, structure) if structure else []
        # As it comes out of a port where transformers is not: pairs of keys and values.
        pairs = type(value) is tuple and nesting[name]["kind"] == "cache" and len(flat) == len(want)
        if want != got and not pairs:
            raise InputError(
                f"{name} has other parts than what the model was captured with: {', '.join(want)} are expected, "
                f"not {', '.join(got) or type(value).__name__}."
            )
        found |= dict(zip(want, flat, strict=True))
    return found


def nest(flat: Mapping[str, Any], nesting: Nesting) -> dict[str, Any]:
    """Arguments as the original's forward takes them, of tensors by name. The opposite of `flatten`."""
    if not nesting:
        return dict(flat)
    inner = {leaf: name for name, structure in nesting.items() for leaf in _names(name, structure)}
    found: dict[str, Any] = {}
    for name, structure in nesting.items():
        if not leaf_names(structure):
            found[name] = build_output(structure, [], "torch")
    for leaf, value in flat.items():
        if leaf not in inner:
            found[leaf] = value
        elif (name := inner[leaf]) not in found:
            parts = [flat[part] for part in _names(name, nesting[name])]
            found[name] = build_output(nesting[name], parts, "torch")
    return found


def _names(argument: str, structure: Structure) -> list[str]:
    # A bare tuple's leaves are "output_0": as outputs they need a name of their own, here they have the argument's.
    bare = structure["kind"] in ("tuple", "list", "cache")
    return [f"{argument}.{leaf.removeprefix('output_') if bare else leaf}" for leaf in leaf_names(structure)]


def _named(argument: str, flat: list[Any], structure: Structure) -> dict[str, Any]:
    return dict(zip(_names(argument, structure), flat, strict=True))


def by_position(
    signature: inspect.Signature, arguments: Mapping[str, Any], *, hooked: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """`arguments` as a call is written: `*args` spread, and by position where those or hooks want that.

    hooked: the model's hooks get what is given by position, so its tensors are. All else goes by name, since a
    decorator of forward may look for it among `**kwargs`.
    """
    args, kwargs = [], dict(arguments)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    spread = not kinds.isdisjoint({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY})
    for parameter in signature.parameters.values() if hooked or spread else ():
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += kwargs.pop(parameter.name, ())
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        if parameter.name not in kwargs:
            break
        if not spread and isinstance(kwargs[parameter.name], (bool, int, float, str, type(None))):
            break
        args.append(kwargs.pop(parameter.name))
    return args, kwargs


def invoke(model: Any, arguments: Mapping[str, Any]) -> Any:
    """`model(**arguments)`, by position where its hooks or `*args` want that."""
    hooked = bool(getattr(model, "_forward_pre_hooks", None) or getattr(model, "_forward_hooks", None))
    args, kwargs = by_position(inspect.signature(model.forward), arguments, hooked=hooked)
    return model(*args, **kwargs)


def bound(args: Sequence[Any], kwargs: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """A call's arguments by name, those by position as forward takes them. Raises `InputError`."""
    known = manifest.signature or {spec.name: {"by": "position"} for spec in manifest.inputs}
    names = [name for name, about in known.items() if about.get("by") == "position"]
    rest = [name for name, about in known.items() if about.get("by") == "rest"]
    if len(args) > len(names) and not rest:
        raise InputError(f"{len(names)} arguments are taken by position, {len(args)} were given: {', '.join(names)}.")
    found = dict(zip(names, args, strict=False))
    if twice := [name for name in found if name in kwargs]:
        raise InputError(f"{', '.join(twice)} is given twice: by position and by name.")
    if rest and len(args) > len(names):
        found[rest[0]] = tuple(args[len(names) :])
    return {**found, **kwargs}
